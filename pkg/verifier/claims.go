package verifier

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Claims are the claims of an accepted token. They are shared by every request
// that carries the token: treat them, and Raw above all, as read-only.
type Claims struct {
	Issuer   string
	Subject  string // sub; "" where the token has none
	ClientID string // client_id, or azp where there is none; "" where neither is
	ID       string // jti; "" where the token has none
	KeyID    string // the kid of the key that signed it
	Audience []string
	Expires  time.Time
	IssuedAt time.Time      // zero where the token has no iat
	Raw      map[string]any // every claim, as JSON decodes it: numbers are float64

	scopes []string
}

// Scopes returns the token's scopes: scope as a space-separated string (RFC 8693
// section 4.2), or scope or scp as an array. Treat them as read-only.
func (c *Claims) Scopes() []string {
	if c.scopes == nil {
		return scopesOf(c.Raw)
	}
	return c.scopes
}

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

func claimsOf(v *token.Verified) *Claims {
	c := &Claims{
		Issuer: v.Issuer, Subject: v.Text("sub"), ClientID: v.Text("client_id"), ID: v.Text("jti"),
		KeyID: v.KeyID, Audience: v.Audience, Expires: v.Expires, IssuedAt: v.IssuedAt, Raw: v.Values,
		scopes: scopesOf(v.Values),
	}
	if c.ClientID == "" {
		c.ClientID = v.Text("azp")
	}
	return c
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
