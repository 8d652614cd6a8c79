package client

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"time"

	"github.com/revcast/revcast/internal/token"
)

// Login is one reading of an id and a secret.
type Login struct{ ID, Secret string }

// Credentials are what a request says about its client, not yet believed.
type Credentials struct {
	// Method is one of the methods above; "" where there are none to be used.
	Method string
	// Logins are the readings of what was sent: the id alone, where the method has no
	// secret. With PrivateKeyJWT, the client_id where there is one beside the assertion.
	Logins []Login
	// Assertion is the client_assertion, for PrivateKeyJWT.
	Assertion string
	// Certificates are a verified chain, the client's own first, for TLSClientAuth.
	Certificates []*x509.Certificate
	// Challenge says that the answer to a failure tells how to authenticate: the
	// request used the Authorization header, or nothing (RFC 6749 section 5.2, RFC
	// 9110 section 15.5.2).
	Challenge bool
}

// What Authenticate can't do.
var (
	ErrFailed      = errors.New("client authentication failed")
	ErrUnavailable = errors.New("the client can't be authenticated now")
)

// Authenticate returns the client that the credentials belong to, by a method that
// it may use. It errs with [ErrFailed], the same for every reason, or with
// [ErrUnavailable] where a client's keys can't be had. For keys it may wait two
// seconds.
func (r *Registry) Authenticate(ctx context.Context, c Credentials, now time.Time) (*Client, error) {
	all := r.current.Load()
	switch c.Method {
	case PrivateKeyJWT:
		return r.byAssertion(ctx, all, c, now)
	case TLSClientAuth:
		return r.find(all, c, func(candidate *Client, _ Login) bool {
			// It was verified when the connection was made, which may be long ago.
			return len(c.Certificates) > 0 && candidate.certificate.in(c.Certificates[0]) && !now.After(c.Certificates[0].NotAfter)
		})
	case None:
		found, err := r.find(all, c, func(_ *Client, l Login) bool { return l.Secret == "" })
		if err != nil {
			return nil, err
		}
		// Its id is no secret, so its grants must not be worth having.
		return &Client{id: found.id, grants: []string{GrantOwn}, public: true, account: found.account}, nil
	}
	return r.find(all, c, func(candidate *Client, l Login) bool {
		sum := sha256.Sum256([]byte(l.Secret))
		return subtle.ConstantTimeCompare(sum[:], candidate.secret[:]) == 1
	})
}

// find returns the last client of the logins that matches and may use the method. It
// goes through all of them, with nobody in place of a client that doesn't exist.
func (r *Registry) find(all *list, c Credentials, matches func(*Client, Login) bool) (*Client, error) {
	var found *Client
	for _, l := range c.Logins {
		known := all.byID[l.ID]
		candidate := known
		if known == nil {
			candidate = &r.nobody
		}
		if same := matches(candidate, l); same && known != nil && known.uses(c.Method) {
			found = known
		}
	}
	if found == nil {
		return nil, ErrFailed
	}
	return found, nil
}

// Claimed returns the id that the credentials name, where it is known: what else
// stands there may be a secret in the wrong place, and is not to be logged.
func (r *Registry) Claimed(c Credentials) string {
	all := r.current.Load()
	for _, l := range c.Logins {
		if all.byID[l.ID] != nil {
			return l.ID
		}
	}
	if c.Assertion != "" {
		if iss, _ := token.PeekIssuer(c.Assertion); all.byID[iss] != nil {
			return iss
		}
	}
	return ""
}
