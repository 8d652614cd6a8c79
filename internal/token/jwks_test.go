package token

import (
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/token/tokentest"
)

func TestParseJWK(t *testing.T) {
	rs, es, ed := rsaKey(), es256(), tokentest.NewKey("ed", "EdDSA")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type m = map[string]any
	for _, c := range []struct {
		name string
		key  *tokentest.Key
		want string // part of the error; "" for a good key
	}{
		{"RSA", rs, ""},
		{"EC", es, ""},
		{"Ed25519", ed, ""},
		{"no use, no alg", rs.With(m{"use": nil, "alg": nil}), ""},
		{"key_ops verify", rs.With(m{"use": nil, "key_ops": []string{"sign", "verify"}}), ""},
		{"members we don't know", rs.With(m{"x5c": []string{"junk"}, "x5u": "http://evil.example", "foo": 1, "x5t#S256": 1}), ""},
		{"alg PS256", rs.With(m{"alg": "PS256"}), ""},

		{"RSA of 1024 bits", &tokentest.Key{KID: "s", Alg: "RS256", Private: small}, "1024 bits"},
		{"RSA of 16384 bits", rs.With(m{"n": b64("\x81" + strings.Repeat("\x81", 2047))}), "16384 bits"},
		{"RSA, even modulus", rs.With(m{"n": b64("\x81" + strings.Repeat("\x80", 255))}), "not a valid RSA"},
		{"RSA, exponent 1", rs.With(m{"e": "AQ"}), "couldn't read"},
		{"RSA, even exponent", rs.With(m{"e": "BA"}), "not a valid RSA"},
		{"RSA, exponent of 72 bits", rs.With(m{"e": b64("\x01\x00\x00\x00\x00\x00\x01\x00\x01")}), "couldn't read"},
		{"RSA, no modulus", rs.With(m{"n": nil}), "couldn't read"},
		{"RSA, modulus not base64url", rs.With(m{"n": "+/+/"}), "couldn't read"},
		{"RSA, modulus a number", rs.With(m{"n": 7}), "wrong type"},
		{"EC, off the curve", es.With(m{"x": b64(strings.Repeat("\x01", 32))}), "couldn't read"},
		{"EC, another curve's name", es.With(m{"crv": "P-384"}), "couldn't read"},
		{"EC, unknown curve", es.With(m{"crv": "secp256k1"}), "couldn't read"},
		{"Ed25519, short", ed.With(m{"x": "AAAA"}), "couldn't read"},
		{"X25519", ed.With(m{"alg": nil, "crv": "X25519", "x": b64(string(x25519.PublicKey().Bytes()))}), "not a signature key"},
		{"oct", rs.With(m{"kty": "oct", "k": "AAAA", "alg": "HS256"}), "shared secret"},
		{"oct beside RSA members", rs.With(m{"kty": "oct", "k": "AAAA"}), "shared secret"},
		{"unknown kty", rs.With(m{"kty": "rsa"}), "couldn't read"},
		{"no kty", rs.With(m{"kty": nil}), "couldn't read"},
		{"use enc", rs.With(m{"use": "enc"}), "not a signature key"},
		{"use empty", rs.With(m{"use": ""}), "not a signature key"},
		{"key_ops without verify", rs.With(m{"key_ops": []string{"encrypt"}}), "not a signature key"},
		{"key_ops empty", rs.With(m{"key_ops": []string{}}), "not a signature key"},
		{"alg for encryption", rs.With(m{"alg": "RSA-OAEP"}), "not a signature key"},
		{"alg none", rs.With(m{"alg": "none"}), "not a signature key"},
		{"alg HS256", rs.With(m{"alg": "HS256"}), "not a signature key"},
		{"alg of another type", rs.With(m{"alg": "ES256"}), "does not fit"},
		{"alg of another curve", es.With(m{"alg": "ES384"}), "does not fit"},
		{"kid a number", rs.With(m{"kid": 7}), "kid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := parseJWK([]byte(toJSON(c.key.JWK())))
			if c.want == "" && (err != nil || k.public == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %+v, %v; want error %q", k, err, c.want)
			}
		})
	}
}

// TestPrivateKeyInTheDocument: only its public part is used.
func TestPrivateKeyInTheDocument(t *testing.T) {
	d := es256().Private
	k, err := parseJWK([]byte(toJSON(es256().With(map[string]any{"d": "AAAA", "p": 7}).JWK())))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.public) {
		t.Errorf("got a %T", k.public)
	}
}

// TestDuplicateKid: of keys that share a kid none is used, whatever else they are.
func TestDuplicateKid(t *testing.T) {
	twin := *es256New()
	twin.KID = "r1"
	for name, second := range map[string]*tokentest.Key{
		"same key":    rsaKey(),
		"another":     &twin,
		"unusable":    twin.With(map[string]any{"kty": "oct"}),
		"another use": twin.With(map[string]any{"use": "enc"}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, keys := range [][]*tokentest.Key{{rsaKey(), second, es256()}, {second, es256(), rsaKey()}} {
				s, err := parseJWKS(tokentest.Document(keys...), nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(s.keys) != 1 || s.byID["r1"] != nil || s.byID["e1"] == nil || s.unusable["r1"] == nil {
					t.Errorf("got %+v", s)
				}
			}
		})
	}
}

// TestKeyAlg: a key's alg must be the token's.
func TestKeyAlg(t *testing.T) {
	r := newReader(t, tokentest.NewIdP(rsaKey().With(map[string]any{"alg": "RS512"})), "RS256", "RS512")
	start(t, r)
	if _, err := r.Read(t.Context(), rsaKey().Token(goodClaims(nil))); Reason(err) != "bad_algorithm" {
		t.Errorf("got %v", err)
	}
}
