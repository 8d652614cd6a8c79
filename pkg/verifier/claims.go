package verifier

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Claims are the claims of an accepted token. They are shared by every request that
// carries the token: treat them as read-only. Safe for concurrent use.
type Claims struct {
	Issuer   string
	Subject  string // sub; "" where the token has none
	ClientID string // client_id, or azp where there is none; "" where neither is
	ID       string // jti; "" where the token has none
	KeyID    string // the kid of the key that signed it
	Audience []string
	Expires  time.Time
	IssuedAt time.Time // zero where the token has no iat

	scopes []string
	of     *text // behind a pointer, so that nobody who prints claims prints a token
}

// text is a token as it was sent, and all its claims once somebody has asked for them.
type text struct {
	raw    string
	values atomic.Pointer[map[string]any]
}

// NewClaims makes claims of their values, as JSON decodes them, for tests: see
// [NewContext]. KeyID, Audience, Expires and IssuedAt are the caller's to set.
func NewClaims(values map[string]any) *Claims {
	c := claimsOf(new(text), values)
	c.of.values.Store(&values)
	return c
}

func claimsOf(of *text, values map[string]any) *Claims {
	word := func(claim string) string {
		s, _ := values[claim].(string)
		return s
	}
	return &Claims{
		Issuer: word("iss"), Subject: word("sub"), ClientID: cmp.Or(word("client_id"), word("azp")), ID: word("jti"),
		scopes: scopesOf(values), of: of,
	}
}

// Raw returns every claim, as JSON decodes it: numbers are float64. Treat the map as
// read-only, too. It is decoded when it is asked for first, and kept then: most handlers
// never ask, and with many tokens it is the most that the garbage collector has to go
// through.
func (c *Claims) Raw() map[string]any {
	if c.of == nil {
		return nil
	}
	if values := c.of.values.Load(); values != nil {
		return *values
	}
	read, _ := token.ClaimsOf(c.of.raw) // it was read before, and so can be
	c.of.values.CompareAndSwap(nil, &read.Values)
	return *c.of.values.Load()
}

// Scopes returns the token's scopes: scope as a space-separated string (RFC 8693
// section 4.2), or scope or scp as an array. Treat them as read-only.
func (c *Claims) Scopes() []string { return c.scopes }

func scopesOf(values map[string]any) []string {
	for _, name := range [...]string{"scope", "scp"} {
		switch v := values[name].(type) {
		case string:
			return strings.FieldsFunc(v, func(r rune) bool { return r == ' ' })
		case []any:
			var scopes []string
			for _, e := range v {
				if s, ok := e.(string); ok {
					scopes = append(scopes, s)
				}
			}
			return scopes
		}
	}
	return nil
}

// ClaimsOf reads the claims for [denylist.List.Check] from an access token that another
// JWT library has verified. It reads them as the authority does, in place of taking them
// from that library: a token that is read in two ways is a way around its revocation. It
// verifies nothing, and errs where raw is not in the one strict format.
//
// KeyID is what the token's header says. Where the library may have verified with another
// key, set it to that key's kid, or revocations by kid can be dodged.
func ClaimsOf(raw string) (denylist.Claims, error) {
	c, err := token.ClaimsOf(raw)
	if err != nil {
		return c, fmt.Errorf("couldn't read the token for the denylist: %w", err)
	}
	return c, nil
}

type contextKey struct{}

// NewContext returns a context that carries claims, for tests of what stands behind a
// [Verifier]. Doors use [Verifier.Hold].
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the claims of the accepted token. Behind
// [Verifier.Middleware] there always are some; elsewhere it returns nil.
func FromContext(ctx context.Context) *Claims {
	c, _ := ctx.Value(contextKey{}).(*Claims)
	return c
}
