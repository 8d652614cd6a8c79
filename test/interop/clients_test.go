//go:build interop

package interop

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/token/tokentest"
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
	key := tokentest.NewKey("own", "ES256")
	keys := httptest.NewServer(tokentest.NewIdP(key))
	t.Cleanup(keys.Close)
	private := privateJWK(t, key)
	s := startSite(t, []harness.Client{web, spa, signer}, func(config map[string]any) {
		part(config, "clients", 2)["auth"] = []string{"private_key_jwt"}
		part(config, "clients", 2)["jwks_uri"] = keys.URL + "/jwks"
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

// privateJWK is an ES256 key as its owner keeps it.
func privateJWK(t *testing.T, key *tokentest.Key) map[string]any {
	t.Helper()
	scalar, err := key.Private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return key.With(map[string]any{"d": base64.RawURLEncoding.EncodeToString(scalar)}).JWK()
}

func toJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
