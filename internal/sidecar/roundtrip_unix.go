//go:build unix

package sidecar

import (
	"errors"
	"syscall"
)

// canAsk: whether an idle connection has ended can be asked of the system.
const canAsk = true

// quiet reports whether a connection is open and nothing has come on it, without
// waiting.
func quiet(raw syscall.RawConn) bool {
	open := false
	err := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		open = errors.Is(err, syscall.EAGAIN) // a byte is one that nobody asked for
		return true
	})
	return err == nil && open
}
