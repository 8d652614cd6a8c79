package token

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// withSecret returns a reader of issuer A with a secret, and of B with keys.
func withSecret(t *testing.T, k *tokentest.Key, idp *tokentest.IdP, options ...Option) *Reader {
	t.Helper()
	r, err := NewReader([]Issuer{
		{Issuer: issuerA, Secret: k.Secret, Algorithms: []string{k.Alg}},
		{Issuer: issuerB, JWKSURI: "https://b.example/jwks", Algorithms: []string{"ES256", "RS256"}},
	}, idp.Client(), silent, options...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSecret: tokens of an issuer with a secret are read by it alone, at once, whatever
// kid they name, and nothing is ever fetched for them.
func TestSecret(t *testing.T) {
	for _, alg := range SecretAlgorithms() {
		for name, options := range map[string][]Option{"verifier": nil, "authority": {ForRevoking()}} {
			t.Run(alg+", "+name, func(t *testing.T) {
				k := tokentest.NewKey("", alg)
				r, err := NewReader([]Issuer{{Issuer: issuerA, Secret: k.Secret, Algorithms: []string{alg}}}, noClient(t), silent, options...)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
				good := toJSON(goodClaims(nil))
				for _, head := range []string{`{"alg":"` + alg + `"}`, `{"alg":"` + alg + `","kid":"any"}`, `{"kid":"r1","alg":"` + alg + `","typ":"at+jwt"}`} {
					v, err := r.Read(t.Context(), k.Sign(head, good))
					if err != nil || v.KeyID != "" || v.Alg != alg || v.KeyRetired() {
						t.Errorf("%s: %+v, %v", head, v, err)
						continue
					}
					if _, err := v.DenylistToken(); err != nil {
						t.Error(err)
					}
				}
				start(t, r)
				if st := r.KeyStatuses()[0]; st.Keys != 1 || st.Err != nil || time.Since(st.Loaded) > time.Minute {
					t.Errorf("status %+v", st)
				}
				raw := k.Token(goodClaims(nil))
				for what, bad := range map[string]string{
					"another secret":      tokentest.NewKey("", alg).Token(goodClaims(nil)),
					"an empty secret":     (&tokentest.Key{Alg: alg, Secret: []byte{}}).Token(goodClaims(nil)),
					"a shorter signature": raw[:len(raw)-4],
					"another payload":     strings.Replace(raw, b64(good)[:8], b64(`{"x":1`), 1),
				} {
					if _, err := r.Read(t.Context(), bad); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) || errors.Is(err, ErrKeysUnavailable) {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		}
	}
}

// noClient fails the test that fetches anything.
func noClient(t *testing.T) *http.Client {
	idp := tokentest.NewIdP()
	idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
		t.Errorf("fetched %s", r.URL)
		return nil, errors.New("nobody was to ask")
	})
	return idp.Client()
}

// TestSecretIsNoKey: neither a public key nor another issuer's secret ever stands in
// for a secret, and no secret for a key.
func TestSecretIsNoKey(t *testing.T) {
	hs, es := tokentest.NewKey("", "HS256"), es256()
	r := withSecret(t, hs, tokentest.NewIdP(es, rsaKey(), named(hs, "shared")))
	start(t, r)
	der, err := x509.MarshalPKIXPublicKey(es.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	with := func(secret []byte, alg string) *tokentest.Key {
		return &tokentest.Key{KID: "e1", Alg: alg, Secret: secret}
	}
	b := map[string]any{"iss": issuerB}
	longer := append(bytes.Clone(hs.Secret), hs.Secret...) // HMAC takes zeros behind a short one for nothing
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"the secret of A, for B":                     {hs.Token(goodClaims(b)), ErrAlgorithm},
		"the secret in B's document":                 {named(hs, "shared").Token(goodClaims(b)), ErrAlgorithm},
		"B's public key in PEM as its secret":        {with(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "HS256").Token(goodClaims(b)), ErrAlgorithm},
		"B's public key in DER as its secret":        {with(der, "HS256").Token(goodClaims(b)), ErrAlgorithm},
		"B's key for A":                              {es.Token(goodClaims(nil)), ErrAlgorithm},
		"an algorithm that is not pinned":            {with(longer, "HS512").Token(goodClaims(nil)), ErrAlgorithm},
		"the header says HS512, signed by HS256":     {hs.Sign(`{"alg":"HS512"}`, toJSON(goodClaims(nil))), ErrAlgorithm},
		"the header says none":                       {hs.Sign(`{"alg":"none"}`, toJSON(goodClaims(nil))), ErrAlgorithm},
		"own key in the header":                      {with(longer, "HS256").Sign(`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, toJSON(goodClaims(nil))), ErrSignature},
		"B's public key in PEM as the secret of A":   {with(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "HS256").Token(goodClaims(nil)), ErrSignature},
		"an ES256 signature under the name of HS256": {es.Sign(`{"alg":"HS256"}`, toJSON(goodClaims(nil))), ErrSignature},
	} {
		if _, err := r.Read(t.Context(), c.raw); !errors.Is(err, c.want) || errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// TestSecretIsCopied: what the caller does with the bytes afterwards changes nothing.
func TestSecretIsCopied(t *testing.T) {
	k := tokentest.NewKey("", "HS256")
	given := bytes.Clone(k.Secret)
	r, err := NewReader([]Issuer{{Issuer: issuerA, Secret: given, Algorithms: []string{"HS256"}}}, noClient(t), silent)
	if err != nil {
		t.Fatal(err)
	}
	clear(given)
	if _, err := r.Read(t.Context(), k.Token(goodClaims(nil))); err != nil {
		t.Error(err)
	}
}

func TestSecretIsChecked(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(es256().Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	inside := bytes.Join(slices.Collect(slices.Chunk([]byte(base64.StdEncoding.EncodeToString(der)), 64)), []byte("\n"))
	long := func(n int) []byte { return bytes.Repeat([]byte("k"), n) }
	given := func(secret []byte, algs ...string) Issuer {
		return Issuer{Issuer: issuerA, Secret: secret, Algorithms: algs}
	}
	beside := given(long(64), "HS256")
	beside.JWKSURI = jwksURI
	besideJWKS := given(long(64), "HS256")
	besideJWKS.JWKS = tokentest.Document(es256())
	for name, c := range map[string]struct {
		issuer Issuer
		want   string // "" for a good one
	}{
		"HS256":                         {given(long(32), "HS256"), ""},
		"HS384":                         {given(long(48), "HS384"), ""},
		"HS512":                         {given(long(64), "HS512"), ""},
		"all":                           {given(long(64), "HS256", "HS384", "HS512"), ""},
		"text in JSON that is no key":   {given([]byte(`{"secret":"`+string(long(64))+`"}`), "HS256"), ""},
		"empty":                         {given([]byte{}, "HS256"), "Secret has 0 bytes, and HS256 needs 32 or more"},
		"HS256, a byte too few":         {given(long(31), "HS256"), "Secret has 31 bytes, and HS256 needs 32 or more"},
		"HS384, a byte too few":         {given(long(47), "HS384"), "Secret has 47 bytes, and HS384 needs 48 or more"},
		"HS512, a byte too few":         {given(long(63), "HS256", "HS512"), "Secret has 63 bytes, and HS512 needs 64 or more"},
		"PEM":                           {given(text, "HS256"), "public key is no secret"},
		"PEM behind something else":     {given(append([]byte("key: "), text...), "HS256"), "public key is no secret"},
		"the inside of PEM":             {given(inside, "HS256"), "public key is no secret"},
		"DER":                           {given(der, "HS256"), "public key is no secret"},
		"PKCS #1":                       {given(pkcs1(), "HS256"), "public key is no secret"},
		"JWK":                           {given([]byte(toJSON(es256().JWK())), "HS256"), "public key is no secret"},
		"JWK of a secret":               {given([]byte("\n"+toJSON(tokentest.NewKey("", "HS512").JWK())), "HS256"), "public key is no secret"},
		"JWK Set":                       {given(tokentest.Document(rsaKey()), "HS256"), "public key is no secret"},
		"OpenSSH":                       {given([]byte("ssh-rsa "+string(inside)), "HS256"), "public key is no secret"},
		"beside a URI":                  {beside, "Secret can't be given beside JWKSURI or JWKS"},
		"beside keys":                   {besideJWKS, "Secret can't be given beside JWKSURI or JWKS"},
		"beside an algorithm of keys":   {given(long(64), "HS256", "RS256"), "Secret is for HS256, HS384, HS512 alone, not for RS256"},
		"for none":                      {given(long(64), "none"), "Secret is for HS256, HS384, HS512 alone, not for none"},
		"for no algorithm":              {given(long(64)), "Algorithms must name at least one"},
		"HS256 without a secret":        {Issuer{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"HS256"}}, "Algorithms can't hold HS256: whoever verifies"},
		"HS256 with neither":            {Issuer{Issuer: issuerA, Algorithms: []string{"HS256"}}, "JWKSURI is missing"},
		"HS256 with keys at hand":       {Issuer{Issuer: issuerA, JWKS: tokentest.Document(es256()), Algorithms: []string{"HS384"}}, "Algorithms can't hold HS384: whoever verifies"},
		"HS256 beside an algorithm, so": {Issuer{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"RS256", "HS512"}}, "Algorithms can't hold HS512: whoever verifies"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewReader([]Issuer{c.issuer}, noClient(t), silent)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if s := string(c.issuer.Secret); len(s) > 8 && strings.Contains(err.Error(), s[:8]) {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

func pkcs1() []byte { return x509.MarshalPKCS1PublicKey(rsaKey().Private.Public().(*rsa.PublicKey)) }

// TestAlgorithmsArePublic: whoever lists algorithms for keys never lists HS256.
func TestAlgorithmsArePublic(t *testing.T) {
	for _, name := range SecretAlgorithms() {
		if slices.Contains(Algorithms(), name) || algorithms[name].method != nil || secretAlgorithms[name] == nil {
			t.Errorf("%s goes with keys", name)
		}
	}
	if len(SecretAlgorithms()) != len(secretAlgorithms) {
		t.Error("some are not listed")
	}
}
