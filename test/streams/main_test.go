package streams

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// within is how soon after the revoke call's answer both ends must see the end.
const within = time.Second

var (
	web   = harness.Client{ID: "web", Secret: "secret-of-web"}
	admin = harness.Client{ID: "admin", Secret: "secret-of-admin", Revoke: []string{"any"}}
)

// world is an authority, an API, and all that stands in front of the API.
type world struct {
	*testing.T
	issuer    *harness.Issuer
	authority *harness.Process
	api       *api
	doors     map[string]string // URLs, by what the kinds of requests name
	sidecars  []*harness.Process
	serial    atomic.Int64
}

// Doors that a kind of request goes through.
const (
	overHTTP   = "sidecar"              // the upstream is an http URL
	overSocket = "sidecar, unix socket" // the upstream is at a socket
	overH2C    = "sidecar, h2c"         // the upstream speaks gRPC
	middleware = "middleware"
)

func newWorld(t *testing.T, edit func(config map[string]any)) *world {
	t.Helper()
	w := &world{T: t, issuer: harness.NewIssuer(t), doors: map[string]string{}}
	w.authority = harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{w.issuer.Trust}, Clients: []harness.Client{web, admin},
	})
	w.api = newAPI(t)
	socket := filepath.Join(t.TempDir(), "api.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: ln, Config: &http.Server{Handler: w.api}}
	local.Start()
	t.Cleanup(local.Close)
	remote := httptest.NewServer(w.api)
	t.Cleanup(remote.Close)
	for door, upstream := range map[string]string{
		overHTTP: remote.URL, overSocket: "unix://" + socket, overH2C: "h2c://" + serveGRPC(t, w.api),
	} {
		s := harness.StartSidecar(t, harness.SidecarOptions{
			Authority: w.authority.URL, Upstream: upstream, Issuers: []harness.Trust{w.issuer.Trust}, Edit: func(config map[string]any) {
				for _, i := range config["issuers"].([]any) {
					i.(map[string]any)["leeway"] = "1s"
				}
				if edit != nil {
					edit(config)
				}
			},
		})
		w.doors[door] = s.URL
		w.sidecars = append(w.sidecars, s)
	}
	// Clients are closed before what they are connected to waits for them.
	t.Cleanup(func() {
		for _, s := range w.sidecars {
			s.Kill()
		}
	})
	w.doors[middleware] = w.serveMiddleware()
	return w
}

// serveMiddleware serves the API in this process, behind a verifier that follows the
// authority.
func (w *world) serveMiddleware() string {
	list := denylist.New()
	follow, err := feed.New(list, feed.Config{Authority: w.authority.URL})
	if err != nil {
		w.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{
		Denylist: list, Logger: slog.New(slog.DiscardHandler),
		Issuers: []verifier.Issuer{{Issuer: w.issuer.Issuer, JWKSURI: w.issuer.JWKSURI, Algorithms: w.issuer.Algorithms, Leeway: time.Second}},
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = follow.Run(ctx) })
	server := httptest.NewServer(v.Middleware(w.api))
	w.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		stop()
		running.Wait()
		v.Close()
	})
	w.await("the middleware is ready", 10*time.Second, func() bool { return v.Ready() == nil })
	return server.URL
}

func (w *world) await(what string, limit time.Duration, so func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited %s in vain: %s", limit, what)
		}
	}
}

// token makes one that is good for a while.
func (w *world) token(subject string, good time.Duration) string {
	now := time.Now()
	return w.issuer.Token(map[string]any{
		"client_id": web.ID, "sub": subject, "jti": fmt.Sprint("token-", w.serial.Add(1)), "iat": now.Unix(), "exp": now.Add(good).Unix(),
	})
}

// revoke has a token revoked, and returns when that was answered.
func (w *world) revoke(token string) time.Time {
	w.Helper()
	return w.post("/oauth2/revoke", "application/x-www-form-urlencoded", web, url.Values{"token": {token}}.Encode())
}

// revokeSubject revokes all that a subject was issued so far.
func (w *world) revokeSubject(subject string) time.Time {
	w.Helper()
	body, err := json.Marshal(map[string]any{"issuer": w.issuer.Issuer, "selector": map[string]string{"sub": subject}})
	if err != nil {
		w.Fatal(err)
	}
	return w.post("/v1/revocations", "application/json", admin, string(body))
}

func (w *world) post(path, contentType string, who harness.Client, body string) time.Time {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.authority.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.SetBasicAuth(who.ID, who.Secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	answered := time.Now()
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s %s", path, resp.Status, text)
	}
	return answered
}

// openRequests is how many the sidecars watch.
func (w *world) openRequests() int { return w.sum("revcast_open_requests") }

// goroutines are those of the sidecars.
func (w *world) goroutines() int { return w.sum("go_goroutines") }

func (w *world) sum(metric string) (n int) {
	for _, s := range w.sidecars {
		n += int(s.Metric(w, metric))
	}
	return n
}
