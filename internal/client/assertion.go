package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/revcast/revcast/internal/token"
)

const (
	assertionLeeway   = 30 * time.Second
	assertionLifetime = 10 * time.Minute
)

// byAssertion authenticates by a signed assertion: RFC 7523 section 3 and OpenID
// Connect Core section 9.
func (r *Registry) byAssertion(ctx context.Context, all *list, c Credentials, now time.Time) (*Client, error) {
	// Neither is believed: the reader that they lead to reads again. The algorithm is for a
	// decoy, and read of every assertion, so that those without one take as long.
	iss, _ := token.PeekIssuer(c.Assertion)
	alg := algorithmOf(c.Assertion)
	known := all.byID[iss]
	if known != nil && known.keys == nil {
		known = nil
	}
	reader := r.nobodysReader
	if known != nil {
		reader = known.keys.reader
	}
	v, err := reader.ReadAs(ctx, token.Assertion, c.Assertion)
	if err != nil {
		if known != nil && known.keys.unavailable(err) {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if errors.Is(err, token.ErrUnknownIssuer) || errors.Is(err, token.ErrAlgorithm) || errors.Is(err, token.ErrUnknownKey) {
			decoy(c.Assertion, alg)
		}
		return nil, ErrFailed
	}
	if known == nil || !slices.Contains(known.algorithms, v.Alg) || !r.accepts(v, c, now) {
		return nil, ErrFailed
	}
	// Last, so that a bad assertion uses up none.
	switch err := known.account.replays.Reserve(v.Issuer, v.Text("jti"), v.Expires.Add(assertionLeeway), now); {
	case errors.Is(err, token.ErrReplayed):
		return nil, ErrFailed
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return known, nil
}

// accepts decides about the claims of an assertion whose signature is right.
func (r *Registry) accepts(v *token.Verified, c Credentials, now time.Time) bool {
	latest := now.Add(assertionLeeway)
	return v.Text("sub") == v.Issuer &&
		!slices.ContainsFunc(c.Logins, func(l Login) bool { return l.ID != v.Issuer }) &&
		// For us, and for no one else, who could show it here.
		len(v.Audience) > 0 && !slices.ContainsFunc(v.Audience, func(a string) bool { return !slices.Contains(r.audiences, a) }) &&
		now.Before(v.Expires.Add(assertionLeeway)) && !v.Expires.After(latest.Add(assertionLifetime)) &&
		!v.IssuedAt.After(latest) && !v.NotBefore.After(latest) &&
		v.Text("jti") != ""
}

// decoys are public keys that nobody has the other half of, by algorithm.
var decoys = sync.OnceValue(func() map[string]crypto.PublicKey {
	all := map[string]crypto.PublicKey{}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err) // never happens
		}
		all[alg] = &k.PublicKey
	}
	all["EdDSA"], _, _ = ed25519.GenerateKey(rand.Reader)
	// A random modulus costs as much as one with known factors. It is larger than any
	// signature of its size, or some would be refused before they are looked at.
	var n [256]byte
	_, _ = rand.Read(n[:])
	copy(n[:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	n[len(n)-1] |= 1
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		all[alg] = &rsa.PublicKey{N: new(big.Int).SetBytes(n[:]), E: 65537}
	}
	return all
})

// algorithmOf returns what an assertion's header says it is signed with.
func algorithmOf(assertion string) string {
	parts, err := token.Split(assertion)
	if err != nil {
		return ""
	}
	var header struct {
		Alg string `json:"alg"`
	}
	if b, err := base64.RawURLEncoding.DecodeString(parts.Header); err != nil || json.Unmarshal(b, &header) != nil {
		return ""
	}
	return header.Alg
}

// decoy spends the time in which a signature is found wrong.
func decoy(assertion, alg string) {
	key := decoys()[alg]
	parts, err := token.Split(assertion)
	if key == nil || err != nil {
		return
	}
	if signature, err := base64.RawURLEncoding.DecodeString(parts.Signature); err == nil {
		_ = jwt.GetSigningMethod(alg).Verify(parts.SigningInput, signature, key)
	}
}

// newNobodysReader makes the reader for clients that don't exist: it knows an issuer
// that no one can name.
func newNobodysReader() (*token.Reader, error) {
	document := fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":%q}]}`,
		base64.RawURLEncoding.EncodeToString(decoys()["EdDSA"].(ed25519.PublicKey)))
	return token.NewReader([]token.Issuer{{Issuer: rand.Text(), JWKS: document, Algorithms: token.Algorithms()}}, nil, nil)
}
