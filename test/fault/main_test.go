//go:build fault

package fault

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/test/harness"
)

var (
	rounds      = flag.Int("rounds", 20, "how often TestDurableKillNine kills the authority")
	revocations = flag.Int("revocations", 10_000, "how many TestNoneMissedThroughRandomCuts sends")
	seed        = flag.Uint64("seed", 0, "of TestNoneMissedThroughRandomCuts; 0: another each time")
)

func TestMain(m *testing.M) { harness.Main(m) }

var (
	web   = harness.Client{ID: "web", Secret: "secret-of-web"}
	admin = harness.Client{ID: "admin", Secret: "secret-of-admin", Revoke: []string{"any"}}
)

const apiSays = "the API's own words"

// world is an issuer, an API and an authority, and what a test does with them.
type world struct {
	*testing.T
	*parts
}

type parts struct {
	issuer    *harness.Issuer
	authority *harness.Process
	api       *httptest.Server
	served    atomic.Int64 // requests that reached the API
	client    *http.Client
	serial    atomic.Int64
}

// newWorld starts an authority. Nothing it starts is left over when the test ends.
func newWorld(t *testing.T, edit func(config map[string]any)) *world {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) }) // comes last
	w := &world{t, &parts{issuer: harness.NewIssuer(t), client: &http.Client{
		Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}}
	t.Cleanup(w.client.CloseIdleConnections)
	w.api = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.served.Add(1)
		if pause, err := time.ParseDuration(r.URL.Query().Get("pause")); err == nil {
			time.Sleep(pause)
		}
		_, _ = io.WriteString(rw, apiSays)
	}))
	t.Cleanup(w.api.Close)
	w.authority = harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{w.issuer.Trust}, Clients: []harness.Client{web, admin},
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "warn"} // else a line for each revocation
			if edit != nil {
				edit(config)
			}
		},
	})
	return w
}

// in returns the same world for a subtest.
func (w *world) in(t *testing.T) *world { return &world{t, w.parts} }

// freshness is what a sidecar is told about old lists.
type freshness struct{ maxStaleness, onStale string }

// sidecar starts one that follows the authority at a URL, and doesn't wait for it.
func (w *world) sidecar(authority string, f freshness) *harness.Process {
	w.Helper()
	return harness.StartSidecar(w, harness.SidecarOptions{
		Authority: authority, Upstream: w.api.URL, Issuers: []harness.Trust{w.issuer.Trust}, NoWait: true,
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "error"} // else a line for each refusal
			if f != (freshness{}) {
				config["freshness"] = map[string]any{"max_staleness": f.maxStaleness, "on_stale": f.onStale}
			}
		},
	})
}

// token is one that the issuer signed, and how a list sees it.
type token struct {
	raw     string
	checked *denylist.Token
}

func (t token) revokedBy(l *denylist.List) bool {
	return l.CheckToken(t.checked, time.Now()).Status == denylist.Revoked
}

// token issues one to the client web, good for hours. The claims may add to it.
func (w *world) token(more map[string]any) token {
	now := time.Now().Truncate(time.Second)
	claims := map[string]any{
		"client_id": web.ID, "sub": "nobody", "jti": fmt.Sprintf("token-%d", w.serial.Add(1)),
		"iat": now.Unix(), "exp": now.Add(6 * time.Hour).Unix(),
	}
	for name, v := range more {
		claims[name] = v
	}
	checked, err := denylist.NewToken(denylist.Claims{
		Issuer: w.issuer.Issuer, IssuedAt: now, Expires: now.Add(6 * time.Hour), KeyID: harness.KeyID, Values: claims,
	})
	if err != nil {
		panic(err)
	}
	return token{w.issuer.Token(claims), checked}
}

func (w *world) tokens(n int) []token {
	all := make([]token, n)
	for i := range all {
		all[i] = w.token(nil)
	}
	return all
}

// answer is what came back. Status is 0 where nothing did.
type answer struct {
	status     int
	retryAfter string
	body       string
	err        error
}

func (w *world) do(r *http.Request, err error) answer {
	if err != nil {
		return answer{err: err}
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{err: err}
	}
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), string(body), nil}
}

// revoke presents a token to the RFC 7009 endpoint.
func (w *world) revoke(t token) answer {
	form := url.Values{"token": {t.raw}}
	r, err := http.NewRequest(http.MethodPost, w.authority.URL+"/oauth2/revoke", strings.NewReader(form.Encode()))
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(web.ID, web.Secret)
	}
	return w.do(r, err)
}

// mustRevoke revokes tokens at an authority that nothing keeps from it.
func (w *world) mustRevoke(tokens ...token) {
	w.Helper()
	for _, t := range tokens {
		if a := w.revoke(t); a.status != http.StatusOK {
			w.Fatalf("revoke: %+v", a)
		}
	}
}

// stream sends lines to POST /v1/revocations and returns how many were stored, and
// the answer to the first that was not.
func (w *world) stream(lines []string) (stored int, refusal string, err error) {
	body := strings.NewReader(strings.Join(lines, "\n") + "\n")
	r, err := http.NewRequest(http.MethodPost, w.authority.URL+"/v1/revocations", body)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.SetBasicAuth(admin.ID, admin.Secret)
	resp, err := w.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	answers := bufio.NewScanner(resp.Body)
	for answers.Scan() {
		var one struct{ Position uint64 }
		if err := json.Unmarshal(answers.Bytes(), &one); err == nil && one.Position > 0 {
			stored++
		} else if refusal == "" {
			refusal = answers.Text()
		}
	}
	return stored, refusal, answers.Err()
}

// call asks for the API through a sidecar.
func (w *world) call(p *harness.Process, t token) answer {
	r, err := http.NewRequest(http.MethodGet, p.URL, nil)
	if err == nil {
		r.Header.Set("Authorization", "Bearer "+t.raw)
	}
	return w.do(r, err)
}

func (w *world) mustServe(p *harness.Process, t token) {
	w.Helper()
	if a := w.call(p, t); a.status != http.StatusOK || a.body != apiSays {
		w.Errorf("a good token: %+v", a)
	}
}

func (w *world) mustRefuse(p *harness.Process, t token) {
	w.Helper()
	if a := w.call(p, t); a.status != http.StatusUnauthorized {
		w.Errorf("a revoked token: %+v", a)
	}
}

// mustNotKnow is for a good token on a list that is too old.
func (w *world) mustNotKnow(p *harness.Process, t token) {
	w.Helper()
	before := w.served.Load()
	a := w.call(p, t)
	if a.status != http.StatusServiceUnavailable || a.retryAfter == "" || w.served.Load() != before {
		w.Errorf("a good token, and nobody knows: %+v", a)
	}
}

// accepted returns how many of the tokens a sidecar does not refuse.
func (w *world) accepted(p *harness.Process, tokens []token) int {
	var wrong atomic.Int64
	next := make(chan token)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for t := range next {
				if w.call(p, t).status != http.StatusUnauthorized {
					wrong.Add(1)
				}
			}
		})
	}
	for _, t := range tokens {
		next <- t
	}
	close(next)
	callers.Wait()
	return int(wrong.Load())
}

// refusedSince waits until a sidecar refuses all of the tokens, and returns how
// long after began that was.
func (w *world) refusedSince(began time.Time, p *harness.Process, tokens ...token) time.Duration {
	w.Helper()
	var after time.Duration
	for _, t := range tokens {
		after = w.waitSince(began, "a revoked token is refused", func() bool {
			return w.call(p, t).status == http.StatusUnauthorized
		})
	}
	return after
}

const patience = 30 * time.Second

// waitSince waits until something is so, and returns how long after began it was.
func (w *world) waitSince(began time.Time, what string, so func() bool) time.Duration {
	w.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		// Before the question: the answer may be no younger than this.
		at := time.Now()
		if so() {
			return at.Sub(began)
		}
		if time.Now().After(limit) {
			w.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// readyz returns why a process is not ready, or "".
func (w *world) readyz(p *harness.Process) string {
	r, err := http.NewRequest(http.MethodGet, p.OpsURL+"/readyz", nil)
	a := w.do(r, err)
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status == http.StatusOK:
		return ""
	}
	var why struct{ Reason string }
	if err := json.Unmarshal([]byte(a.body), &why); err != nil || a.status != http.StatusServiceUnavailable || why.Reason == "" {
		w.Errorf("/readyz of %s: %+v", p.Name, a)
	}
	return why.Reason
}

func (w *world) staleness(p *harness.Process) time.Duration {
	w.Helper()
	return time.Duration(p.Metric(w, "revcast_list_staleness_seconds") * float64(time.Second))
}

// parallel runs f n times at once and waits.
func parallel(n int, f func(i int)) {
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { f(i) })
	}
	running.Wait()
}
