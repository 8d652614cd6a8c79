package config

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Listen binds the address that a key holds. Its error is an [*Error] that names
// the key.
func Listen(ctx context.Context, key, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	var dns *net.DNSError
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, Errorf(key, "%s is already in use", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns):
		return nil, Errorf(key, "%s is not an address of this machine", address)
	case errors.Is(err, syscall.EACCES):
		return nil, Errorf(key, "%s needs more permissions than this process has", address)
	}
	return nil, Errorf(key, "%s", oneLine(err.Error()))
}
