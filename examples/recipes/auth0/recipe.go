// Package recipe refuses revoked tokens behind auth0/go-jwt-middleware. Mind that its
// validator takes tokens without exp, which can't be checked and are refused here, and
// that requests which are open go on: package verifier would end those.
package recipe

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"

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

// Protect lets requests through to next whose token is good and not revoked. Handlers
// find its claims as ever, with jwtmiddleware.GetClaims. keys is the issuer's JWKS.
func Protect(list *denylist.List, keys *url.URL, next http.Handler) (http.Handler, error) {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		return nil, fmt.Errorf("parse the issuer: %w", err)
	}
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuerURL), jwks.WithCustomJWKSURI(keys))
	if err != nil {
		return nil, fmt.Errorf("make the provider of keys: %w", err)
	}
	v, err := validator.New(
		validator.WithKeyFunc(provider.KeyFunc),
		validator.WithAlgorithm(validator.ES256),
		validator.WithIssuer(issuer),
		validator.WithAudience(audience),
		validator.WithAllowedClockSkew(30*time.Second), // at most denylist.MaxLeeway
	)
	if err != nil {
		return nil, fmt.Errorf("make the validator: %w", err)
	}
	middleware, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v), jwtmiddleware.WithErrorHandler(refuse))
	if err != nil {
		return nil, fmt.Errorf("make the middleware: %w", err)
	}
	return middleware.CheckJWT(notRevoked(list, next)), nil
}

// notRevoked stands right behind CheckJWT, and reads the token that it has verified with
// the extractor that it used. Where the middleware lets requests through without a token
// (WithCredentialsOptional, WithExclusionUrls), ask jwtmiddleware.HasClaims first.
func notRevoked(list *denylist.List, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		token, err := jwtmiddleware.AuthHeaderTokenExtractor(r)
		if err != nil || !jwtmiddleware.HasClaims(r.Context()) {
			refuse(w, r, jwtmiddleware.ErrJWTInvalid)
			return
		}
		claims, err := verifier.ClaimsOf(token.Token)
		if err != nil || claims.Lifetime(now) > maxLifetime {
			refuse(w, r, jwtmiddleware.ErrJWTInvalid)
			return
		}
		switch verdict := list.Check(claims, now); verdict.Status {
		case denylist.Clear:
			next.ServeHTTP(w, r)
		case denylist.Revoked: // in the same words as any bad token
			refuse(w, r, jwtmiddleware.ErrJWTInvalid)
		default:
			// Nobody knows. To rather accept what was revoked meanwhile than be down, treat
			// verdict.Why == denylist.Stale as Clear above. No other Why: a list that is
			// loading knows of no revocation at all.
			w.Header().Set("Retry-After", "5")
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		}
	})
}

// refuse answers in the same words whatever is wrong with a token: the library's own
// handler tells which. (With DPoP, leave what it says of proofs.)
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, jwtmiddleware.ErrJWTInvalid) && !errors.Is(err, jwtmiddleware.ErrJWTMissing) {
		err = jwtmiddleware.ErrJWTInvalid
	}
	jwtmiddleware.DefaultErrorHandler(w, r, err)
}
