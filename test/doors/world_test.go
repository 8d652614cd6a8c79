//go:build doors

package doors

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/test/harness"
)

// audience is whom the tokens are for that the doors let through.
const audience = "api"

var (
	web   = harness.Client{ID: "web", Secret: "secret-of-web"}
	admin = harness.Client{ID: "admin", Secret: "secret-of-admin", Revoke: []string{"any"}}
)

// issuer signs with a key of each kind.
type issuer struct {
	harness.Trust
	keys map[string]*tokentest.Key // by algorithm
}

// algorithms are those of the asymmetric keys that an issuer has.
var algorithms = []string{"ES256", "RS256", "PS256", "ES384", "ES512", "EdDSA", "RS384"}

// world is issuers and an authority.
type world struct {
	*testing.T
	authority       *harness.Process
	issuer          *issuer
	byKey, byIssuer *issuer // those that a revocation ends a key of, and all of
	bySecret        *issuer // signs with a secret
	serial          *atomic.Int64
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{keys: map[string]*tokentest.Key{}}
	var all []*tokentest.Key
	for _, alg := range algorithms {
		i.keys[alg] = tokentest.NewKey("kid-"+alg, alg)
		all = append(all, i.keys[alg])
	}
	idp := httptest.NewServer(tokentest.NewIdP(all...))
	t.Cleanup(idp.Close)
	i.Trust = harness.Trust{Issuer: idp.URL, JWKSURI: idp.URL + "/jwks", Algorithms: algorithms}
	return i
}

// newSecretIssuer returns one that publishes no keys.
func newSecretIssuer(t *testing.T) *issuer {
	key := tokentest.NewKey("", "HS256")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, key.Secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return &issuer{
		harness.Trust{Issuer: "https://secret.example", SecretFile: file, Algorithms: []string{"HS256"}}, map[string]*tokentest.Key{"HS256": key},
	}
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, issuer: newIssuer(t), byKey: newIssuer(t), byIssuer: newIssuer(t), bySecret: newSecretIssuer(t), serial: new(atomic.Int64)}
	w.authority = harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: w.trusted(), Clients: []harness.Client{web, admin},
		Edit: func(config map[string]any) { config["log"] = map[string]any{"level": "warn"} },
	})
	return w
}

func (w *world) trusted() []harness.Trust {
	return []harness.Trust{w.issuer.Trust, w.byKey.Trust, w.byIssuer.Trust, w.bySecret.Trust}
}

// of is who signs with an algorithm.
func (w *world) of(alg string) *issuer {
	if w.bySecret.keys[alg] != nil {
		return w.bySecret
	}
	return w.issuer
}

// claims are those of a good token of the client web, a minute old, and more; nil
// takes one away.
func (w *world) claims(of *issuer, more map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": of.Issuer, "aud": audience, "client_id": web.ID, "sub": "alice", "scope": "read write",
		"jti": fmt.Sprintf("token-%d", w.serial.Add(1)), "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(claims, more)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// token signs a good token with an ES256 key.
func (w *world) token(more map[string]any) string {
	return w.issuer.keys["ES256"].Token(w.claims(w.issuer, more))
}

// signed signs a good token's claims under a header with members added or replaced.
func (w *world) signed(by *tokentest.Key, header map[string]any) string {
	all := map[string]any{"alg": by.Alg, "kid": by.KID, "typ": "at+jwt"}
	maps.Copy(all, header)
	return by.Sign(text(w.T, all), text(w.T, w.claims(w.issuer, nil)))
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// post sends a body to the authority as a client, and expects 200.
func (w *world) post(client harness.Client, path, contentType, body string) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.authority.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.SetBasicAuth(client.ID, client.Secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer bytes.Buffer
	_, _ = answer.ReadFrom(resp.Body)
	if resp.StatusCode != http.StatusOK {
		w.Fatalf("%s %s: %d %s", path, body, resp.StatusCode, answer.String())
	}
}

// revoke presents a token to the RFC 7009 endpoint.
func (w *world) revoke(raw string) {
	w.Helper()
	w.post(web, "/oauth2/revoke", "application/x-www-form-urlencoded", url.Values{"token": {raw}}.Encode())
}

// revokeBy revokes by a selector.
func (w *world) revokeBy(of *issuer, selector map[string]any, more map[string]any) {
	w.Helper()
	command := map[string]any{"issuer": of.Issuer, "selector": selector, "confirm": true}
	maps.Copy(command, more)
	w.post(admin, "/v1/revocations", "application/json", text(w.T, command))
}

// forged is a good token but for its signature.
func (w *world) forged() string {
	return tokentest.NewKey("kid-ES256", "ES256").Token(w.claims(w.issuer, nil))
}
