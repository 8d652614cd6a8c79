package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// counter returns the value of a counter with two labels.
func counter(t *testing.T, a *Authority, name, first, second string) float64 {
	t.Helper()
	vec := map[string]*prometheus.CounterVec{
		"revcast_revoke_requests_total": a.metrics.requests, "revcast_http_requests_total": a.metrics.http,
	}[name]
	return testutil.ToFloat64(vec.WithLabelValues(first, second))
}

func get(a *Authority, path string) *httptest.ResponseRecorder {
	return do(a, httptest.NewRequest(http.MethodGet, path, nil))
}

func TestLogPages(t *testing.T) {
	type asked struct {
		after uint64
		wait  time.Duration
		nonce string
	}
	for query, want := range map[string]asked{
		"after=0":                                  {},
		"after=12":                                 {after: 12},
		"after=18446744073709551615":               {after: 1<<64 - 1},
		"after=1&wait=0":                           {after: 1},
		"after=1&wait=2":                           {after: 1, wait: 2 * time.Second},
		"after=1&wait=1500ms":                      {after: 1, wait: 1500 * time.Millisecond},
		"after=1&wait=30s":                         {after: 1, wait: 30 * time.Second},
		"after=1&nonce=a%2Fb&unknown=1":            {after: 1, nonce: "a/b"},
		"after=1&nonce=" + strings.Repeat("n", 64): {after: 1, nonce: strings.Repeat("n", 64)},
	} {
		var got asked
		page := bytes.Repeat([]byte("page"), 100_000)
		a := newAuthority(t, &fakeLog{page: func(_ context.Context, after uint64, wait time.Duration, nonce string) ([]byte, error) {
			got = asked{after, wait, nonce}
			return page, nil
		}})
		w := get(a, "/v1/log?"+query)
		if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), page) || w.Header().Get("Content-Type") != "application/octet-stream" ||
			w.Header().Get("Cache-Control") != "no-store" || got != want {
			t.Errorf("%s: %d %v, asked %+v, want %+v", query, w.Code, w.Header(), got, want)
		}
	}
}

func TestLogBadInput(t *testing.T) {
	a := newAuthority(t, &fakeLog{page: func(context.Context, uint64, time.Duration, string) ([]byte, error) {
		t.Error("the log was asked")
		return nil, nil
	}})
	for _, query := range []string{
		"", "after=", "after=-1", "after=+1", "after=1.0", "after=x", "after=18446744073709551616", "after=1&after=1", "after=0x1", "after=1%zz",
		"after=1&wait=", "after=1&wait=-1", "after=1&wait=-1s", "after=1&wait=31", "after=1&wait=30.1s", "after=1&wait=99999999999999999999",
		"after=1&wait=x", "after=1&wait=1&wait=1", "after=1&wait=1e3", "after=1&nonce=a&nonce=b", "after=1&nonce=%ff", "after=1&nonce=" + strings.Repeat("n", 65),
	} {
		if w := get(a, "/v1/log?"+query); w.Code != 400 {
			t.Errorf("%s: %d", query, w.Code)
		} else {
			checkJSON(t, w, 400, "invalid_request")
		}
	}
}

func TestLogErrors(t *testing.T) {
	answer := func(err error) *httptest.ResponseRecorder {
		return get(newAuthority(t, &fakeLog{page: func(context.Context, uint64, time.Duration, string) ([]byte, error) {
			return nil, err
		}}), "/v1/log?after=1")
	}
	checkJSON(t, answer(fmt.Errorf("position 1: %w", wire.ErrGone)), 410, "gone")
	w := answer(errors.New("nats at 10.0.0.7 is away"))
	checkJSON(t, w, 503, "temporarily_unavailable")
	checkSilent(t, "the answer", w.Body.String(), "10.0.0.7")
}

// A long-poll ends with the shutdown, however long it had left.
func TestStopEndsLongPolls(t *testing.T) {
	polling := make(chan struct{})
	a := newAuthority(t, &fakeLog{page: func(ctx context.Context, _ uint64, _ time.Duration, _ string) ([]byte, error) {
		close(polling)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	s := serve(t, a)
	answered := make(chan int, 1)
	go func() {
		resp, err := s.Client().Get(s.URL + "/v1/log?after=0&wait=30s")
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-polling
	if err := s.Config.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if status := <-answered; status != 503 {
		t.Errorf("status %d", status)
	}
	checkJSON(t, get(a, "/readyz"), 503, "")
	checkJSON(t, get(a, "/healthz"), 200, "")
}

func TestSnapshot(t *testing.T) {
	a := newAuthority(t, &fakeLog{snapshot: bytes.Repeat([]byte("snapshot"), 100_000)})
	r := httptest.NewRequest(http.MethodGet, wire.SnapshotPath, nil)
	r.Header.Set("Range", "bytes=10-20") // not of a snapshot
	w := do(a, r)
	if w.Code != 200 || w.Body.Len() != 800_000 || w.Header().Get("Content-Length") != "800000" ||
		w.Header().Get("Content-Type") != "application/octet-stream" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
	w = do(a, httptest.NewRequest(http.MethodHead, wire.SnapshotPath, nil))
	if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "800000" {
		t.Errorf("HEAD: %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
	checkJSON(t, get(newAuthority(t, &fakeLog{}), wire.SnapshotPath), 503, "temporarily_unavailable")
}

func TestDiscovery(t *testing.T) {
	for _, c := range []struct{ live, host, want string }{
		{"nats://0.0.0.0:4222", "revcast.internal:8700", "nats://revcast.internal:4222"},
		{"nats://[::]:4222", "10.0.0.7", "nats://10.0.0.7:4222"},
		{"nats://:4222", "revcast.internal", "nats://revcast.internal:4222"},
		{"tls://0.0.0.0:4222", "[2001:db8::1]:8700", "tls://[2001:db8::1]:4222"},
		{"nats://127.0.0.1:4222", "revcast.internal", "nats://127.0.0.1:4222"},
		{"nats://nats.internal:4222", "revcast.internal", "nats://nats.internal:4222"},
		{"nats://a:4222,nats://b:4222", "revcast.internal", "nats://a:4222,nats://b:4222"},
		{"nats://0.0.0.0:4222", "a b", "nats://0.0.0.0:4222"},
		{"nats://0.0.0.0:4222", "", "nats://0.0.0.0:4222"},
	} {
		if got := reachable(c.live, c.host); got != c.want {
			t.Errorf("%s asked at %q: %s, want %s", c.live, c.host, got, c.want)
		}
	}

	signer := wire.Discovery{
		Version: wire.Version, Epoch: "e1", Live: wire.Live{URL: "nats://0.0.0.0:4222", Subject: wire.LiveSubjects},
		SigningKeys: []wire.SigningKey{wire.SigningKeyOf(bytes.Repeat([]byte{7}, 32))}, Snapshot: wire.SnapshotPath, Log: wire.LogPath,
	}
	w := get(newAuthority(t, &fakeLog{discovery: signer}), "http://revcast.internal:8700"+wire.DiscoveryPath)
	checkJSON(t, w, 200, "")
	d, ring, err := wire.ParseDiscovery(w.Body.Bytes())
	if err != nil || len(ring) != 1 || d.Live.URL != "nats://revcast.internal:4222" {
		t.Errorf("%+v, %v", d, err)
	}
	checkJSON(t, get(newAuthority(t, &fakeLog{err: errors.New("starting")}), wire.DiscoveryPath), 503, "temporarily_unavailable")
}

func TestHealthAndReadiness(t *testing.T) {
	log := &fakeLog{}
	a := newAuthority(t, log)
	checkJSON(t, get(a, "/healthz"), 200, "")
	checkJSON(t, get(a, "/readyz"), 200, "")
	log.ready = errors.New("the stream takes no writes")
	checkJSON(t, get(a, "/healthz"), 200, "")
	if body := checkJSON(t, get(a, "/readyz"), 503, ""); body["reason"] != "the stream takes no writes" {
		t.Errorf("%v", body)
	}
}

func TestEveryErrorIsJSON(t *testing.T) {
	a := newAuthority(t, &fakeLog{})
	for path, allow := range map[string]string{
		"/oauth2/revoke": "POST", "/v1/revocations": "GET, HEAD, POST", "/v1/events": "POST", "/backchannel-logout": "POST", wire.DiscoveryPath: "GET, HEAD", wire.SnapshotPath: "GET, HEAD",
		wire.LogPath: "GET, HEAD", "/healthz": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			if strings.Contains(allow, method) {
				continue
			}
			w := do(a, httptest.NewRequest(method, path, nil))
			checkJSON(t, w, 405, "invalid_request")
			if got := w.Header().Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q", method, path, got)
			}
		}
	}
	for _, path := range []string{"/", "/oauth2", "/oauth2/revoke/", "/oauth2/token", "/v1/", "/favicon.ico"} {
		checkJSON(t, get(a, path), 404, "not_found")
	}
	if n := counter(t, a, "revcast_http_requests_total", "other", "404"); n != 6 {
		t.Errorf("counted %v", n)
	}
}

// What an operator need not look into is not an error in the log.
func TestHarmlessFailuresAreNoErrors(t *testing.T) {
	var lines bytes.Buffer
	log := &fakeLog{err: ErrOpening}
	a := newAuthority(t, log, logged(&lines))
	checkJSON(t, get(a, wire.DiscoveryPath), 503, "temporarily_unavailable")
	if got := lines.String(); !strings.Contains(got, `"level":"INFO","msg":"verifier turned away"`) {
		t.Errorf("while the log is being opened: %s", got)
	}
	lines.Reset()
	log.err = errors.New("disk full")
	get(a, wire.DiscoveryPath)
	if got := lines.String(); !strings.Contains(got, `"level":"ERROR","msg":"verifier turned away"`) {
		t.Errorf("the log fails: %s", got)
	}

	lines.Reset()
	ctx, hangUp := context.WithCancel(t.Context())
	log.append = func(ctx context.Context, _ []denylist.Revocation) (uint64, error) {
		hangUp()
		<-ctx.Done()
		return 0, ctx.Err()
	}
	do(a, speakers["rfc7009"].request("web", webSecret, "own").WithContext(ctx))
	if got := lines.String(); !strings.Contains(got, `"level":"INFO"`) || !strings.Contains(got, "hung up") {
		t.Errorf("a caller hangs up: %s", got)
	}
}

// Who has to choose clock_skew is told how far ahead of ours an issuer's clock was, by
// tokens that are revoked as by those that are introspected.
func TestMetricsTellOfAClockThatIsAhead(t *testing.T) {
	key := tokentest.NewKey("k1", "ES256")
	at := now.Truncate(time.Second)
	a := newAuthority(t, &fakeLog{}, func(c *Config) {
		c.Tokens, c.List, c.Now = realReader(t, key), fresh(), func() time.Time { return at }
	})
	metric := func() (value string) {
		_, after, _ := strings.Cut(get(a, "/metrics").Body.String(), `revcast_issuer_clock_ahead_seconds{issuer="`+issuer+`"} `)
		value, _, _ = strings.Cut(after, "\n")
		return value
	}
	for n, c := range []struct {
		ahead time.Duration
		path  string
		want  string
	}{
		{0, "/oauth2/revoke", ""}, {5 * time.Second, introspectPath, "5"}, {-5 * time.Second, introspectPath, "5"},
		{-5 * time.Second, "/oauth2/revoke", "5"}, {7 * time.Second, "/oauth2/revoke", "7"}, {6 * time.Second, introspectPath, "6"},
	} {
		raw := key.Token(ordinary(at, values{"jti": fmt.Sprint(n), "iat": at.Add(c.ahead).Unix()}))
		if w := do(a, introspection(c.path, "web", webSecret, raw)); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if got := metric(); got != c.want {
			t.Errorf("%s of a token from %s ahead: %q, want %q", c.path, c.ahead, got, c.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Registry = registry })
	do(a, speakers["rfc7009"].request("web", webSecret, "own"))
	do(a, speakers["rfc7009"].request("web", "wrong", "own"))
	do(a, speakers["rfc7009"].request("/made/up", "wrong", "own"))
	body := get(a, "/metrics").Body.String()
	for _, want := range []string{
		`revcast_revoke_requests_total{dialect="rfc7009",outcome="revoked"} 1`,
		`revcast_revoke_requests_total{dialect="rfc7009",outcome="bad_client"} 2`,
		`revcast_revoke_duration_seconds_count{dialect="rfc7009"} 3`,
		`revcast_client_auth_failures_total{method="client_secret_basic"} 2`,
		`revcast_http_requests_total{route="/oauth2/revoke",status="401"} 2`,
		`revcast_build_info{version="test"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	checkSilent(t, "/metrics", body, "/made/up")
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if _, err := New(Config{Log: &fakeLog{}, Tokens: testTokens, Issuers: []Issuer{{Issuer: issuer}}, Registry: registry}); err == nil {
		t.Error("two authorities share a registry")
	}
}

// deadlines is a peer that remembers the deadlines it was given.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = append(d.read, t); return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = append(d.write, t); return nil }

// slow is a body that never ends before its deadline.
type slow struct{}

func (slow) Read([]byte) (int, error) { return 0, fmt.Errorf("read: %w", os.ErrDeadlineExceeded) }

func TestSlowPeersAreCutOff(t *testing.T) {
	a := newAuthority(t, &fakeLog{snapshot: make([]byte, 3*copyPiece)})
	within := func(deadline time.Time, d time.Duration) bool {
		left := time.Until(deadline)
		return 0 < left && left <= d
	}

	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, "/oauth2/revoke", slow{})
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a.ServeHTTP(d, r)
	checkJSON(t, d.ResponseRecorder, 400, "invalid_request")
	if len(d.read) != 1 || !within(d.read[0], shortBody) {
		t.Errorf("a slow form: %v", d.read)
	}

	d = &deadlines{ResponseRecorder: httptest.NewRecorder()}
	a.ServeHTTP(d, speakers["rfc7009"].request("web", webSecret, "own"))
	if len(d.read) != 2 || !d.read[1].IsZero() { // or a long commit would end with it
		t.Errorf("a prompt form: %v", d.read)
	}

	d = &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r = httptest.NewRequest(http.MethodPost, "/v1/revocations", io.MultiReader(strings.NewReader(lineFor("1")+"\n"), slow{}))
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Authorization", basic(client.GrantSubject, adminSecret))
	a.ServeHTTP(d, r)
	if got := strings.Count(d.Body.String(), "\n"); got != 2 || len(d.read) < 2 || len(d.write) < 2 {
		t.Errorf("a slow stream: %s %v %v", d.Body, d.read, d.write)
	}
	for i, deadline := range append(d.read, d.write...) {
		if last := i == len(d.read)+len(d.write)-1; !last && !within(deadline, patience) || last && !deadline.IsZero() {
			t.Errorf("a slow stream: %v %v", d.read, d.write)
		}
	}

	d = &deadlines{ResponseRecorder: httptest.NewRecorder()}
	a.ServeHTTP(d, httptest.NewRequest(http.MethodGet, wire.SnapshotPath, nil))
	if len(d.write) < 4 || !within(d.write[2], copyPatience) || !d.write[len(d.write)-1].IsZero() {
		t.Errorf("a snapshot: %v", d.write)
	}
}
