package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer signs tokens (ES256) and publishes its key.
type Issuer struct {
	Trust
	t   testing.TB
	key *ecdsa.PrivateKey
}

// KeyID is the kid of every Issuer's key.
const KeyID = "k1"

// NewIssuer starts an issuer, which ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, then x, then y
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	jwks := fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":%q,"x":%q,"y":%q}]}`,
		KeyID, text(point[1:33]), text(point[33:]))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(jwks))
	}))
	t.Cleanup(server.Close)
	return &Issuer{Trust{Issuer: server.URL, JWKSURI: server.URL + "/jwks", Algorithms: []string{"ES256"}}, t, key}
}

// Token signs claims, with the issuer's iss where they have none.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	all := jwt.MapClaims{"iss": i.Issuer}
	for name, value := range claims {
		all[name] = value
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = KeyID
	token.Header["typ"] = "at+jwt"
	signed, err := token.SignedString(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return signed
}
