package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// algorithm is a signature algorithm of RFC 7518 or RFC 8037 and the keys that it
// can be used with.
type algorithm struct {
	method jwt.SigningMethod
	fits   func(public crypto.PublicKey) bool
}

var algorithms = map[string]algorithm{
	"RS256": {jwt.SigningMethodRS256, isRSA},
	"RS384": {jwt.SigningMethodRS384, isRSA},
	"RS512": {jwt.SigningMethodRS512, isRSA},
	"PS256": {pss(jwt.SigningMethodPS256), isRSA},
	"PS384": {pss(jwt.SigningMethodPS384), isRSA},
	"PS512": {pss(jwt.SigningMethodPS512), isRSA},
	"ES256": {jwt.SigningMethodES256, isEC(elliptic.P256())},
	"ES384": {jwt.SigningMethodES384, isEC(elliptic.P384())},
	"ES512": {jwt.SigningMethodES512, isEC(elliptic.P521())},
	"EdDSA": {jwt.SigningMethodEdDSA, isEd25519},
}

// Algorithms lists the signature algorithms that go with public keys: all but the
// [SecretAlgorithms].
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

func algorithmNames() string { return strings.Join(Algorithms(), ", ") }

// pss verifies with the salt length that RFC 7518 section 3.5 demands; the
// library's own methods accept any.
func pss(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: m.SigningMethodRSA,
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}

func isRSA(public crypto.PublicKey) bool {
	_, ok := public.(*rsa.PublicKey)
	return ok
}

func isEC(curve elliptic.Curve) func(crypto.PublicKey) bool {
	return func(public crypto.PublicKey) bool {
		k, ok := public.(*ecdsa.PublicKey)
		return ok && k.Curve == curve
	}
}

func isEd25519(public crypto.PublicKey) bool {
	_, ok := public.(ed25519.PublicKey)
	return ok
}
