//go:build interop

package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revcast/revcast/test/harness"
)

// The clients of the libraries. The secret is spelled in one way raw and in another
// as a form, and both are sent.
var (
	web    = harness.Client{ID: "web-app", Secret: "a-b+c/d="}
	spa    = harness.Client{ID: "spa"}
	signer = harness.Client{ID: "signer"} // by private_key_jwt
)

// libraries are the client libraries that clients.mjs knows, with its arguments. One
// that asks introspects the token before and after.
var libraries = []struct {
	arguments string
	client    harness.Client
	asks      bool
}{
	{"openid-client client_secret_basic", web, true},
	{"openid-client client_secret_post", web, true},
	{"openid-client private_key_jwt", signer, true},
	{"openid-client none", spa, false},
	{"oauth4webapi client_secret_basic", web, true},
	{"oauth4webapi client_secret_post", web, true},
	{"simple-oauth2 header", web, false},
	{"simple-oauth2 body", web, false},
	{"simple-oauth2 header /t/bifrost/oauth2/revoke", web, false},
	{"simple-oauth2 body /t/bifrost/oauth2/revoke", web, false},
	{"oidc-client-ts", web, false},
	{"oidc-client-ts", spa, false},
	{"authing-node-sdk oidc client_secret_post", web, true},
	{"authing-node-sdk oidc client_secret_basic", web, true},
	{"authing-node-sdk oidc none", spa, false},
	{"authing-node-sdk oauth client_secret_post", web, true},
	{"authing-node-sdk oauth none", spa, false},
	// Credentials in the body and in the header, and somebody's token in the header.
	{`authing-node-sdk oidc client_secret_post {"tokenEndPointAuthMethod":"client_secret_basic"}`, web, true},
	{`authing-node-sdk oidc client_secret_post {"accessToken":"Bearer-of-something"}`, web, true},
}

// TestClientLibrariesRevoke: each library takes the authority's answers as they are
// meant, and what it revokes is refused.
func TestClientLibrariesRevoke(t *testing.T) {
	private, public := newJWK(t)
	s := startSite(t, []harness.Client{web, spa, signer}, func(config map[string]any) {
		part(config, "clients", 2)["auth"] = []string{"private_key_jwt"}
		part(config, "clients", 2)["jwks_uri"] = serveJWKS(t, public)
	})
	for _, l := range libraries {
		t.Run(l.arguments+" as "+l.client.ID, func(t *testing.T) {
			command := append([]string{"clients.mjs"}, strings.Fields(l.arguments)...)
			input := map[string]any{"base": s.authority.URL, "id": l.client.ID, "jwk": private}
			if l.client.Secret != "" {
				input["secret"] = l.client.Secret
			}
			token := s.token(l.client.ID, "alice")
			s.passes(t, "before", token)

			if l.client.Secret != "" {
				input["token"], input["secret"] = token, "wrong"
				if out, err := tryRun(t, toJSON(t, input), command...); err == nil {
					t.Errorf("with a wrong secret, the library takes the answer for a success: %s", out)
				}
				s.passes(t, "after a revocation with a wrong secret", token)
				input["secret"] = l.client.Secret
			}

			input["token"] = token
			want := "{}\n"
			if l.asks {
				want = `{"before":true,"after":false}` + "\n"
			}
			if got := string(run(t, toJSON(t, input), command...)); got != want {
				t.Errorf("it prints %s, not %s", got, want)
			}
			s.ends(t, token)
			s.passes(t, "another token of the same user and client", s.token(l.client.ID, "alice"))
		})
	}
}

// newJWK makes an ES256 key, as its owner keeps it and as others see it.
func newJWK(t *testing.T) (private, public map[string]string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, then x, then y
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	public = map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "own", "x": text(point[1:33]), "y": text(point[33:]),
	}
	private = maps.Clone(public)
	private["d"] = text(scalar)
	return private, public
}

// serveJWKS publishes a key and returns where.
func serveJWKS(t *testing.T, key map[string]string) string {
	t.Helper()
	document := toJSON(t, map[string]any{"keys": []any{key}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, document)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/jwks"
}

func toJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
