package client

import (
	"crypto/x509"
	"time"
)

const (
	PrivateKeyJWT = "private_key_jwt"
	TLS           = "tls_client_auth"
)

var _ *x509.Certificate

func (c *Client) Admit(now time.Time) (time.Duration, bool) { return 0, true }
func (c *Client) Reserve(expires []time.Time, now time.Time) (func(), time.Duration, bool) {
	return func() {}, 0, true
}
func (r *Registry) AllowsOrigin(origin string) bool { return false }
func (r *Registry) Methods() []string               { return nil }
func (c *Client) Public() bool                      { return len(c.auth) == 0 }
