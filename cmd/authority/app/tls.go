package app

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"sync/atomic"

	"github.com/revcast/revcast/internal/config"
)

// certificates hold what TLS is ended with, and can be loaded again. Where TLS is not
// configured they do nothing.
type certificates struct{ current atomic.Pointer[tls.Config] }

// load reads the files. Where it errs, naming the key, what was loaded before stays.
func (c *certificates) load(from TLS) error {
	if from.CertFile == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(from.CertFile, from.KeyFile)
	if err != nil {
		return config.Errorf("tls.cert_file", "with tls.key_file: %v", err)
	}
	next := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if from.ClientCAFile != "" {
		b, err := os.ReadFile(from.ClientCAFile)
		if err != nil {
			return config.Errorf("tls.client_ca_file", "%v", err)
		}
		next.ClientCAs, next.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !next.ClientCAs.AppendCertsFromPEM(b) {
			return config.Errorf("tls.client_ca_file", "%s holds no certificate", from.ClientCAFile)
		}
	}
	c.current.Store(next)
	return nil
}

// wrap ends TLS on what a listener accepts, where that is configured.
func (c *certificates) wrap(ln net.Listener) net.Listener {
	if c.current.Load() == nil {
		return ln
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	})
}
