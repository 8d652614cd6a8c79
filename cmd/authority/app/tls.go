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

// load reads the files. Where it errs, what was loaded before stays.
func (c *certificates) load(from TLS) error {
	made, err := readTLS(from)
	if err != nil {
		return err
	}
	c.current.Store(made)
	return nil
}

// readTLS returns what the files say, nil where TLS is not configured. It errs with the
// key of the file.
func readTLS(from TLS) (*tls.Config, error) {
	if from.CertFile == "" {
		return nil, nil
	}
	cert, err := os.ReadFile(from.CertFile)
	if err != nil {
		return nil, config.Errorf("tls.cert_file", "%v", err)
	}
	key, err := os.ReadFile(from.KeyFile)
	if err != nil {
		return nil, config.Errorf("tls.key_file", "%v", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, config.Errorf("tls.cert_file", "with tls.key_file: %v", err)
	}
	made := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if from.ClientCAFile != "" {
		b, err := os.ReadFile(from.ClientCAFile)
		if err != nil {
			return nil, config.Errorf("tls.client_ca_file", "%v", err)
		}
		made.ClientCAs, made.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !made.ClientCAs.AppendCertsFromPEM(b) {
			return nil, config.Errorf("tls.client_ca_file", "%s holds no certificate", from.ClientCAFile)
		}
	}
	return made, nil
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
