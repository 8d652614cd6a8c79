// Package recipe refuses revoked tokens in an API that verifies them with golang-jwt
// alone. Mind that the denylist is asked after the library, on every request and behind
// any cache, and that requests which are open go on: package verifier would end those.
package recipe

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

const (
	issuer   = "https://idp.example"
	audience = "api"
	// maxLifetime is the issuer's max_token_lifetime at the authority. Revocations are
	// kept that long, so a token that lives longer would outlive its own.
	maxLifetime = 24 * time.Hour
)

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{"ES256", "RS256"}), // the issuer's: never none, nor HS256 with a public key
	jwt.WithIssuer(issuer),
	jwt.WithAudience(audience),
	jwt.WithExpirationRequired(),
	jwt.WithIssuedAt(),
	jwt.WithStrictDecoding(),
	jwt.WithLeeway(30*time.Second), // at most denylist.MaxLeeway
)

// Protect lets requests through to next whose token is good and not revoked. keys finds
// the issuer's public keys.
func Protect(list *denylist.List, keys jwt.Keyfunc, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, values := bearer(r), jwt.MapClaims{}
		if raw == "" {
			refuse(w, http.StatusUnauthorized, `Bearer`)
			return
		}
		if _, err := parser.ParseWithClaims(raw, values, keys); err != nil {
			refuse(w, http.StatusUnauthorized, `Bearer error="invalid_token"`)
			return
		}
		now := time.Now()
		claims, err := verifier.ClaimsOf(raw) // read once more, as strictly as the authority does
		if err != nil || claims.Lifetime(now) > maxLifetime {
			refuse(w, http.StatusUnauthorized, `Bearer error="invalid_token"`)
			return
		}
		switch verdict := list.Check(claims, now); verdict.Status {
		case denylist.Clear:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), claimsKey{}, values)))
		case denylist.Revoked: // in the same words as any bad token
			refuse(w, http.StatusUnauthorized, `Bearer error="invalid_token"`)
		default:
			// Nobody knows. To rather accept what was revoked meanwhile than be down, treat
			// verdict.Why == denylist.Stale as Clear above. No other Why: a list that is
			// loading knows of no revocation at all.
			w.Header().Set("Retry-After", "5")
			refuse(w, http.StatusServiceUnavailable, "")
		}
	})
}

type claimsKey struct{}

// Claims returns the claims of the token that Protect has let through.
func Claims(ctx context.Context) jwt.MapClaims {
	claims, _ := ctx.Value(claimsKey{}).(jwt.MapClaims)
	return claims
}

// bearer returns the token of the Authorization header; "" where there is none, or a
// second header, of which whoever reads the request next might take the other one.
func bearer(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func refuse(w http.ResponseWriter, status int, challenge string) {
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}
