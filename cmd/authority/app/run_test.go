package app

import (
	"context"
	"errors"
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

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// testConfig is an authority on ports that the system chooses, whose issuer has no
// keys to give.
func testConfig(t *testing.T) Config {
	t.Helper()
	jwks := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(jwks.Close)
	cfg := NewConfig()
	cfg.Listen, cfg.NATS.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Issuers = []Issuer{NewIssuer("https://idp.example", jwks.URL)}
	return cfg
}

// start runs an authority until stop, which returns what Run did.
func start(t *testing.T, cfg Config) (addrs Addrs, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Addrs, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, Options{
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Ready: func(a Addrs) { ready <- a },
		})
	}()
	select {
	case addrs = <-ready:
	case err := <-ended:
		cancel()
		t.Fatal("ended before it was ready:", err)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		began := time.Now()
		cancel()
		err := <-ended
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the end took %s", took)
		}
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return addrs, stop
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAuthorityKeepsItsKeyAndEpoch(t *testing.T) {
	cfg := testConfig(t)
	addrs, stop := start(t, cfg)
	if !strings.HasPrefix(addrs.NATS, "nats://127.0.0.1:") || strings.HasSuffix(addrs.NATS, ":0") {
		t.Errorf("addresses: %+v", addrs)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, "http://"+addrs.HTTP+path); code != http.StatusOK {
			t.Error(path, code, body)
		}
	}
	_, metrics := get(t, "http://"+addrs.HTTP+"/metrics")
	for _, line := range []string{"revcast_log_ready 1", "revcast_log_position ", "revcast_list_entries 0", "revcast_build_info{"} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("no %s in\n%s", line, metrics)
		}
	}
	_, before := get(t, "http://"+addrs.HTTP+"/.well-known/revcast")

	// The directory is one process's own while it runs.
	err := Run(t.Context(), cfg, Options{})
	if want := "config: data_dir: " + cfg.DataDir + ": in use by another process"; err == nil || err.Error() != want {
		t.Errorf("a second one on the same directory: %v", err)
	}
	for path, mode := range map[string]os.FileMode{cfg.DataDir: 0o700, filepath.Join(cfg.DataDir, "feed.key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Error(path, info.Mode(), err)
		}
	}

	if err := stop(); err != nil {
		t.Error(err)
	}
	addrs, stop = start(t, cfg)
	_, after := get(t, "http://"+addrs.HTTP+"/.well-known/revcast")
	for _, member := range []string{`"epoch":"`, `"x":"`} {
		if a, b := value(before, member), value(after, member); a == "" || a != b {
			t.Errorf("%s changed with a restart: %s, %s", member, a, b)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	// A log without its key is not to be taken up with another.
	key := filepath.Join(cfg.DataDir, "feed.key")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), cfg, Options{})
	if _, ok := errors.AsType[*config.Error](err); !ok || !strings.Contains(err.Error(), "signing_key_file: "+key+" is gone") {
		t.Error(err)
	}
	if err := os.WriteFile(key, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), cfg, Options{})
	if want := "config: signing_key_file: " + key + ": not one PEM block of type PRIVATE KEY"; err == nil || err.Error() != want {
		t.Error(err)
	}
}

// value is the text in a document from a prefix to the next quote.
func value(document, prefix string) string {
	_, rest, _ := strings.Cut(document, prefix)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

func TestAuthorityEndsLongPolls(t *testing.T) {
	addrs, stop := start(t, testConfig(t))
	stacks := make([]byte, 1<<20)
	polling := make(chan int, 1)
	poll := func() {
		_, metrics := get(t, "http://"+addrs.HTTP+"/metrics")
		_, rest, _ := strings.Cut(metrics, "\nrevcast_log_position ")
		position, _, _ := strings.Cut(rest, "\n")
		code, _ := get(t, "http://"+addrs.HTTP+"/v1/log?wait=20s&after="+position)
		polling <- code
	}
	go poll()
	for !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*pendingLog).Page") {
		select {
		case <-polling: // a mark came just then
			go poll()
		default:
			runtime.Gosched()
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if code := <-polling; code != http.StatusOK && code != http.StatusServiceUnavailable {
		t.Error("the long-poll ended with", code)
	}
}

// Until the log is open, HTTP answers, and says that it isn't ready.
func TestAuthorityBeforeItsLogIsOpen(t *testing.T) {
	cfg := testConfig(t).complete()
	parts, err := assemble(cfg, &pendingLog{}, denylist.New(), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/metrics": 200, "/readyz": 503, "/.well-known/revcast": 503, "/v1/snapshot": 503, "/v1/log?after=0": 503,
	} {
		w := httptest.NewRecorder()
		parts.face.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if want == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	if (&pendingLog{}).Ready() == nil {
		t.Error("ready without a log")
	}
	if _, err := (&pendingLog{}).Append(t.Context()); err == nil {
		t.Error("stored without a log")
	}
}

// The data directory is one process's own from before its key is read until its log
// is closed, and nobody's after that, be it after a failure.
func TestDurableDirectoryIsLocked(t *testing.T) {
	cfg := testConfig(t)
	lock := filepath.Join(cfg.DataDir, "lock")
	free := func() {
		t.Helper()
		unlock, err := cli.Lock(lock)
		if err != nil {
			t.Fatal("the directory is not given back:", err)
		}
		unlock()
	}
	_, stop := start(t, cfg)
	if _, err := cli.Lock(lock); !errors.Is(err, cli.ErrLocked) {
		t.Error("the directory of an authority can be taken:", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	free()
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "feed.key"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if Run(t.Context(), cfg, Options{}) == nil {
		t.Error("ran with a rubbish key")
	}
	free()

	// Where another process has it, nothing in it is touched.
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := cli.Lock(filepath.Join(cfg.DataDir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	err = Run(t.Context(), cfg, Options{})
	if ce, ok := errors.AsType[*config.Error](err); !ok || ce.Key != "data_dir" {
		t.Error(err)
	}
	if entries, err := os.ReadDir(cfg.DataDir); err != nil || len(entries) != 1 {
		t.Error("another's directory was touched:", entries, err)
	}
}

func TestAuthorityCannotMakeItsDirectory(t *testing.T) {
	cfg := testConfig(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.DataDir = filepath.Join(file, "data")
	err := Run(t.Context(), cfg, Options{})
	if ce, ok := errors.AsType[*config.Error](err); !ok || ce.Key != "data_dir" {
		t.Error(err)
	}
}

// The authority reads tokens as [token.ForRevoking] has it: it does not call a token
// forged before it has looked whether the issuer's key is a new one.
func TestDurableReadsTokensForRevoking(t *testing.T) {
	idp := tokentest.NewIdP(tokentest.NewKey("k", "ES256"))
	jwks := httptest.NewServer(idp)
	t.Cleanup(jwks.Close)
	cfg := testConfig(t).complete()
	cfg.Issuers = []Issuer{NewIssuer("https://idp.example", jwks.URL)}
	cfg.Clients = []Client{{ID: "web", Auth: []string{"none"}}}
	parts := assembleWith(t, cfg, io.Discard)
	forged := tokentest.NewKey("k", "ES256").Token(map[string]any{
		"iss": "https://idp.example", "client_id": "web", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	r := httptest.NewRequest("POST", "/oauth2/revoke", strings.NewReader("client_id=web&token="+forged))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	parts.face.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable { // the keys were fetched too short ago to ask again
		t.Error(w.Code, w.Body)
	}
}

// An authority that restarts while the issuer is away goes on revoking its tokens, and
// calls none forged by the keys of before.
func TestDurableRevokesWhileTheIssuerIsAway(t *testing.T) {
	key := tokentest.NewKey("k", "ES256")
	jwks := httptest.NewServer(tokentest.NewIdP(key))
	t.Cleanup(jwks.Close)
	cfg := testConfig(t)
	cfg.Issuers = []Issuer{NewIssuer("https://idp.example", jwks.URL)}
	cfg.Clients = []Client{{ID: "web", Auth: []string{"none"}}}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	revoke := func(addrs Addrs, k *tokentest.Key, id string) int {
		t.Helper()
		raw := k.Token(map[string]any{
			"iss": "https://idp.example", "jti": id, "client_id": "web", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
		resp, err := client.PostForm("http://"+addrs.HTTP+"/oauth2/revoke", url.Values{"client_id": {"web"}, "token": {raw}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	entries := func(addrs Addrs, want string) {
		t.Helper()
		if _, metrics := get(t, "http://"+addrs.HTTP+"/metrics"); !strings.Contains(metrics, "\nrevcast_log_revocations_total "+want+"\n") {
			t.Errorf("not %s revocations in\n%s", want, metrics)
		}
	}
	addrs, stop := start(t, cfg)
	if code := revoke(addrs, key, "one"); code != http.StatusOK {
		t.Error("with the issuer there:", code)
	}
	entries(addrs, "1")
	if err := stop(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(cfg.DataDir, "keys.json")); err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != 0o600 {
		t.Error("others can read it, or write:", info.Mode())
	}
	jwks.Close()
	addrs, _ = start(t, cfg)
	if code := revoke(addrs, key, "two"); code != http.StatusOK {
		t.Error("with the issuer away:", code)
	}
	entries(addrs, "1")
	if code := revoke(addrs, tokentest.NewKey("k", "ES256"), "three"); code != http.StatusServiceUnavailable {
		t.Error("forged, or signed by a new key that nobody can know:", code)
	}
}
