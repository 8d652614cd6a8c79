package app

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	authority "github.com/revcast/revcast/cmd/authority/app"
	"github.com/revcast/revcast/internal/config"
)

// issuer signs tokens and publishes its key.
type issuer struct {
	url  string
	key  ed25519.PrivateKey
	away func() // nobody answers there any more
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","use":"sig","alg":"EdDSA","x":%q}]}`,
			base64.RawURLEncoding.EncodeToString(public))
	}))
	t.Cleanup(server.Close)
	return &issuer{server.URL, private, server.Close}
}

func (i *issuer) token(t *testing.T, id string) string {
	t.Helper()
	return i.sign(t, id, "api", 0, time.Hour)
}

// sign makes a token that was issued, and that expires, so far from now.
func (i *issuer) sign(t *testing.T, id, audience string, issued, expires time.Duration) string {
	t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": i.url, "sub": "alice", "client_id": "web", "jti": id, "aud": audience,
		"iat": now.Add(issued).Unix(), "exp": now.Add(expires).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = "k", "at+jwt"
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// background starts something that runs until its context ends. The returned function
// ends it, once, and complains where that takes long or errs.
func background(t *testing.T, name string, run func(context.Context) error) (stop func(), ended <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}()
	stop = func() {
		began := time.Now()
		cancel()
		<-done
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %s to end", name, took)
		}
	}
	t.Cleanup(stop)
	return stop, done
}

func await[T any](t *testing.T, what string, ch <-chan T, ended <-chan struct{}) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-ended:
		t.Fatal("ended before it was ", what)
	}
	return v
}

// bare is a client that leaves no connection behind.
var bare = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func call(t *testing.T, method, target, token string, form url.Values) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := bare.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp, string(body)
}

// untilRefused waits until a revocation has arrived. It asks at /check: at the proxy a
// request that is open in that moment ends without an answer.
func untilRefused(t *testing.T, addrs Addrs, token string) {
	t.Helper()
	for status := 200; status == 200; runtime.Gosched() {
		resp, body := call(t, "GET", "http://"+addrs.Check+"/check", token, nil)
		if status = resp.StatusCode; status != 200 && status != 401 {
			t.Fatal(status, body)
		}
	}
}

func startAuthority(t *testing.T, idp *issuer, logger *slog.Logger) (addrs authority.Addrs, stop func()) {
	t.Helper()
	c := authority.NewConfig()
	c.Listen, c.NATS.Listen, c.DataDir = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	c.Issuers = []authority.Issuer{authority.NewIssuer(idp.url, idp.url)}
	c.Issuers[0].Algorithms = []string{"EdDSA"}
	c.Clients = []authority.Client{{ID: "web", Auth: []string{"none"}}}
	ready := make(chan authority.Addrs, 1)
	stop, ended := background(t, "authority", func(ctx context.Context) error {
		return authority.Run(ctx, c, authority.Options{Logger: logger, Ready: func(a authority.Addrs) { ready <- a }})
	})
	return await(t, "ready", ready, ended), stop
}

// The whole path in one process: a revoked token is refused, and still is after a
// restart of the sidecar with the authority and the issuer away.
func TestRevokedTokenIsRefused(t *testing.T) {
	idp := newIssuer(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the API")
	}))
	t.Cleanup(api.Close)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))

	aAddrs, stopAuthority := startAuthority(t, idp, logger)

	sc := NewConfig()
	sc.Listen, sc.CheckListen, sc.ExtAuthzListen, sc.StateFile = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", filepath.Join(t.TempDir(), "state")
	sc.KeysFile = sc.StateFile + ".keys"
	sc.Authority, sc.Upstream = "http://"+aAddrs.HTTP, api.URL
	sc.Issuers = []config.Issuer{config.NewIssuer(idp.url, idp.url)}
	sc.Issuers[0].Algorithms, sc.Issuers[0].Audiences = []string{"EdDSA"}, []string{"api"}
	sidecar := func() (Addrs, func()) {
		ready := make(chan Addrs, 1)
		stop, ended := background(t, "sidecar", func(ctx context.Context) error {
			return Run(ctx, sc, Options{Logger: logger, Ready: func(a Addrs) { ready <- a }})
		})
		return await(t, "ready", ready, ended), stop
	}
	addrs, stop := sidecar()
	if err := Run(t.Context(), sc, Options{}); err == nil || !strings.Contains(err.Error(), "config: state_file: ") {
		t.Errorf("a second sidecar on the same state file: %v", err)
	}
	other := sc
	other.StateFile += "2"
	if err := Run(t.Context(), other, Options{}); err == nil || err.Error() != "config: keys_file: "+sc.KeysFile+": in use by another process" {
		t.Errorf("a second sidecar on the same keys file: %v", err)
	}

	good, bad := idp.token(t, "good"), idp.token(t, "bad")
	for _, token := range []string{good, bad} {
		if resp, body := call(t, "GET", "http://"+addrs.Proxy, token, nil); resp.StatusCode != 200 || body != "the API" {
			t.Fatal(resp.StatusCode, body)
		}
	}
	form := url.Values{"client_id": {"web"}, "token": {bad}}
	if resp, body := call(t, "POST", "http://"+aAddrs.HTTP+"/oauth2/revoke", "", form); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, body)
	}
	untilRefused(t, addrs, bad)
	if resp, body := call(t, "GET", "http://"+addrs.Proxy, bad, nil); resp.StatusCode != 401 ||
		resp.Header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
		t.Fatal(resp.StatusCode, resp.Header, body)
	}
	if resp, body := call(t, "GET", "http://"+addrs.Check+"/metrics", "", nil); resp.StatusCode != 200 ||
		!strings.Contains(body, "\nrevcast_list_entries 1\n") || !strings.Contains(body, "\nrevcast_feed_connected 1\n") ||
		!strings.Contains(body, "\nrevcast_feed_propagation_seconds_count 1\n") {
		t.Error(body)
	}

	stop()
	stopAuthority()
	idp.away()
	addrs, stop = sidecar() // ready by its state and keys files
	if resp, body := call(t, "GET", "http://"+addrs.Proxy, good, nil); resp.StatusCode != 200 {
		t.Error(resp.StatusCode, body)
	}
	if resp, body := call(t, "GET", "http://"+addrs.Proxy, bad, nil); resp.StatusCode != 401 {
		t.Error(resp.StatusCode, body)
	}
	stop()

	sc.Listen, sc.Upstream = "", "" // other proxies ask, and nothing is proxied
	addrs, stop = sidecar()
	if addrs.Proxy != "" {
		t.Error("a proxy at", addrs.Proxy)
	}
	for token, want := range map[string]int{good: 200, bad: 401} {
		if resp, body := call(t, "GET", "http://"+addrs.Check+"/check", token, nil); resp.StatusCode != want {
			t.Error(resp.StatusCode, body)
		}
	}
	stop()
}

// An issuer with a secret: its tokens are revoked and refused as those of others.
func TestTokenOfASecretIsRefused(t *testing.T) {
	dir := t.TempDir()
	secret := []byte(strings.Repeat("0123456789abcdef", 2))
	one := config.Issuer{SecretFile: filepath.Join(dir, "secret")}
	one.Default()
	one.Issuer, one.Algorithms = "https://legacy.example", []string{"HS256"}
	if err := os.WriteFile(one.SecretFile, append(secret, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(api.Close)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))

	ac := authority.NewConfig()
	ac.Listen, ac.NATS.Listen, ac.DataDir = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "data")
	ac.Issuers = []authority.Issuer{authority.NewIssuer(one.Issuer, "")}
	ac.Issuers[0].Issuer = one
	ac.Clients = []authority.Client{{ID: "web", Auth: []string{"none"}}}
	up := make(chan authority.Addrs, 1)
	_, ended := background(t, "authority", func(ctx context.Context) error {
		return authority.Run(ctx, ac, authority.Options{Logger: logger, Ready: func(a authority.Addrs) { up <- a }})
	})
	at := await(t, "ready", up, ended)

	sc := NewConfig()
	sc.Listen, sc.CheckListen, sc.ExtAuthzListen, sc.StateFile, sc.KeysFile = "127.0.0.1:0", "127.0.0.1:0", "", "", ""
	sc.Authority, sc.Upstream, sc.Issuers = "http://"+at.HTTP, api.URL, []config.Issuer{one}
	ready := make(chan Addrs, 1)
	_, ended = background(t, "sidecar", func(ctx context.Context) error {
		return Run(ctx, sc, Options{Logger: logger, Ready: func(a Addrs) { ready <- a }})
	})
	addrs := await(t, "ready", ready, ended)

	token := func(id string, secret []byte) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": one.Issuer, "client_id": "web", "jti": id, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good, bad := token("good", secret), token("bad", secret)
	for raw, want := range map[string]int{good: 200, bad: 200, token("forged", append(secret, '\n')): 401, token("forged", nil): 401} {
		if resp, body := call(t, "GET", "http://"+addrs.Proxy, raw, nil); resp.StatusCode != want {
			t.Fatal(resp.StatusCode, body)
		}
	}
	if resp, body := call(t, "POST", "http://"+at.HTTP+"/oauth2/revoke", "", url.Values{"client_id": {"web"}, "token": {bad}}); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, body)
	}
	untilRefused(t, addrs, bad)
	if resp, body := call(t, "GET", "http://"+addrs.Proxy, bad, nil); resp.StatusCode != 401 {
		t.Fatal(resp.StatusCode, body)
	}
	if resp, body := call(t, "GET", "http://"+addrs.Proxy, good, nil); resp.StatusCode != 200 {
		t.Error(resp.StatusCode, body)
	}
}

// With the authority away and no state, nothing is let through.
func TestSidecarWithoutAuthorityServesNothing(t *testing.T) {
	idp := newIssuer(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the API was asked") }))
	t.Cleanup(api.Close)
	sc := NewConfig()
	sc.Listen, sc.CheckListen, sc.ExtAuthzListen, sc.StateFile = "127.0.0.1:0", "127.0.0.1:0", "", ""
	sc.KeysFile = ""
	sc.Authority, sc.Upstream, sc.Freshness.OnStale = gone.URL, api.URL, "allow"
	sc.Issuers = []config.Issuer{config.NewIssuer(idp.url, idp.url)}
	sc.Issuers[0].Algorithms = []string{"EdDSA"}
	listening := make(chan Addrs, 1)
	stop, ended := background(t, "sidecar", func(ctx context.Context) error {
		return Run(ctx, sc, Options{Listening: func(a Addrs) { listening <- a }})
	})
	addrs := await(t, "listening", listening, ended)
	resp, body := call(t, "GET", "http://"+addrs.Proxy, idp.token(t, "a"), nil)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Error(resp.StatusCode, body)
	}
	for reason := ""; !strings.Contains(reason, "connection refused"); { // once the authority has been asked
		resp, body := call(t, "GET", "http://"+addrs.Check+"/readyz", "", nil)
		if reason = body; resp.StatusCode != 503 {
			t.Fatal(resp.StatusCode, body)
		}
	}
	if resp, body := call(t, "GET", "http://"+addrs.Check+"/metrics", "", nil); resp.StatusCode != 200 ||
		!strings.Contains(body, "\nrevcast_list_staleness_seconds +Inf\n") {
		t.Error(body)
	}
	stop()
}
