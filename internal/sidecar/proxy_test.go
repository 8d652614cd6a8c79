package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/pkg/verifier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const goodToken = "good.token.here"

// fake allows goodToken and answers with refusal to anything else.
type fake struct{ refusal verifier.Decision }

func (f fake) Decide(_ context.Context, raw string) verifier.Decision {
	if raw == goodToken {
		return verifier.Decision{Outcome: verifier.Allowed, Reason: verifier.Clear, Claims: verifier.NewClaims(map[string]any{"sub": "alice"})}
	}
	return f.refusal
}

func (f fake) HoldResponse(ctx context.Context, d verifier.Decision, _ http.ResponseWriter, _ time.Duration) (context.Context, func()) {
	ctx, release := context.WithCancel(verifier.NewContext(ctx, d.Claims))
	return ctx, release
}

func (f fake) DecideRequest(ctx context.Context, h http.Header, rawQuery string) verifier.Decision {
	raw, why := verifier.BearerToken(h, rawQuery)
	if why != "" {
		return verifier.Decision{Reason: why}
	}
	return f.Decide(ctx, raw)
}

// logBuffer collects what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// proxied starts a proxy in front of an upstream and returns its URL, a client
// that follows nothing and changes nothing, and what is logged.
func proxied(t *testing.T, upstream string, change func(*Config)) (string, *http.Client, *logBuffer) {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	logs := &logBuffer{}
	c := Config{
		Decider: fake{verifier.Decision{Reason: verifier.Revoked}}, Upstream: u, Ready: func() error { return nil },
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler(ProxyListener))
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		s.Close()
	})
	return server.URL, &http.Client{Transport: transport}, logs
}

func api(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+goodToken)
	return r
}

func do(t *testing.T, client *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := client.Do(r)
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

func TestProxyPassesRequestsAsTheyCame(t *testing.T) {
	upstream := api(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Saw", r.Method+" "+r.Host+" "+r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	})
	proxy, client, logs := proxied(t, upstream, nil)
	r := request(t, "PATCH", proxy+"/a%2fb/..%2f//c?q=1;x&y=%zz", strings.NewReader("body"))
	r.Host = "api.example"
	resp, body := do(t, client, r)
	if resp.StatusCode != http.StatusTeapot || body != "body" {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
	if got, want := resp.Header.Get("X-Saw"), "PATCH api.example /a%2fb/..%2f//c?q=1;x&y=%zz"; got != want {
		t.Errorf("the upstream saw %s, want %s", got, want)
	}
	if strings.Contains(logs.String(), "good") {
		t.Errorf("a token is logged: %s", logs)
	}
}

// An upstream's own path is not left by dots, in whatever spelling.
func TestProxyStaysBelowTheUpstreamsPath(t *testing.T) {
	saw := ""
	upstream := api(t, func(_ http.ResponseWriter, r *http.Request) { saw = r.RequestURI })
	proxy, client, _ := proxied(t, upstream+"/base", nil)
	for path, want := range map[string]string{
		"/a?b": "/base/a?b", "/%61": "/base/a", "/": "/base/", "/../a": "", "/..%2fa": "", "/%2e%2e/a": "", "/a/../../b": "", `/..\a`: "", "/..;/a": "", "/%252e%252e/a": "",
	} {
		saw = ""
		conn := dial(t, proxy)
		write(t, conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		if saw != want || want == "" && !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
			t.Errorf("%s: the upstream saw %q, want %q: %.60s", path, saw, want, answer)
		}
	}
	client.CloseIdleConnections()
}

func TestProxyDropsSmuggledHeaders(t *testing.T) {
	var saw http.Header
	upstream := api(t, func(_ http.ResponseWriter, r *http.Request) { saw = r.Header })
	proxy, client, _ := proxied(t, upstream, nil)
	r := request(t, "GET", proxy+"/", nil)
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-User", "X-Forwarded-Port",
		"X-Real-Ip", "X_Real_Ip", "x_forwarded_for", "X-Forwarded_For", "X_FORWARDED-proto",
	} {
		r.Header[name] = []string{"evil"}
	}
	r.Header["Connection"] = []string{"Authorization, X-Forwarded-For, X-Real-Ip, X-Hop, Upgrade"}
	r.Header["X-Hop"] = []string{"hop"}
	r.Header["Upgrade"] = []string{"h2c"}
	r.Header["HTTP2-Settings"] = []string{"AAMAAABkAAQAAP__"}
	r.Header["X-Kept"] = []string{"a", "b"}
	r.Host = "api.example"
	if resp, body := do(t, client, r); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.StatusCode, body)
	}
	for name, values := range saw {
		if strings.Contains(strings.Join(values, " "), "evil") {
			t.Errorf("%s arrived: %q", name, values)
		}
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + goodToken, "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1",
		"X-Forwarded-Host": "api.example", "X-Forwarded-Proto": "http", "X-Kept": "a,b",
		"Upgrade": "", "Http2-Settings": "", "Connection": "", "X-Hop": "",
	} {
		if got := strings.Join(saw.Values(name), ","); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestProxyRefuses(t *testing.T) {
	upstream := api(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was asked") })
	for _, c := range []struct {
		decision  verifier.Decision
		authorize []string
		status    int
		challenge string
		code      string
	}{
		{verifier.Decision{Reason: verifier.Revoked}, []string{"Bearer x.y.z"}, 401, `Bearer error="invalid_token"`, "invalid_token"},
		{verifier.Decision{Reason: verifier.Expired}, []string{"Bearer x.y.z"}, 401, `Bearer error="invalid_token"`, "invalid_token"},
		{verifier.Decision{}, []string{"Bearer x.y.z"}, 401, `Bearer error="invalid_token"`, "invalid_token"},
		{verifier.Decision{Outcome: verifier.Unavailable, Reason: verifier.Stale}, []string{"Bearer x.y.z"}, 503, "", "temporarily_unavailable"},
		{verifier.Decision{}, nil, 401, "Bearer", "missing_token"},
		{verifier.Decision{}, []string{"Bearer " + goodToken, "Bearer x.y.z"}, 400, `Bearer error="invalid_request"`, "invalid_request"},
	} {
		proxy, client, logs := proxied(t, upstream, func(s *Config) { s.Decider = fake{c.decision} })
		r := request(t, "GET", proxy+"/", nil)
		r.Header["Authorization"] = c.authorize
		resp, body := do(t, client, r)
		if resp.StatusCode != c.status || resp.Header.Get("WWW-Authenticate") != c.challenge ||
			!strings.Contains(body, `"error":"`+c.code+`"`) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %d %v %s", c.decision, resp.StatusCode, resp.Header, body)
		}
		if (resp.Header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%v: Retry-After %q", c.decision, resp.Header.Get("Retry-After"))
		}
		if strings.Contains(logs.String(), "x.y.z") || strings.Contains(logs.String(), goodToken) {
			t.Errorf("a token is logged: %s", logs)
		}
	}
}

func TestProxyOpensNoTunnels(t *testing.T) {
	upstream := api(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was asked") })
	proxy, _, _ := proxied(t, upstream, nil)
	conn := dial(t, proxy)
	write(t, conn, "CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error(resp.Status)
	}
}

// Each line reaches the client before the upstream writes the next one.
func TestProxyStreams(t *testing.T) {
	next := make(chan struct{})
	upstream := api(t, func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "line\n")
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	proxy, client, _ := proxied(t, upstream, nil)
	resp, err := client.Do(request(t, "GET", proxy, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != "line\n" {
			t.Fatal(line, err)
		}
		next <- struct{}{}
	}
}

// What the upstream has sent of an answer arrives while it pauses, though the rest of its
// length is missing.
func TestProxyHoldsNothingBack(t *testing.T) {
	for name, first := range map[string]string{"the header": "", "half the body": "hal"} {
		goOn := make(chan struct{})
		upstream := api(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, first)
			w.(http.Flusher).Flush()
			select {
			case <-goOn:
				_, _ = io.WriteString(w, "half"[len(first):])
			case <-r.Context().Done():
			}
		})
		proxy, client, _ := proxied(t, upstream, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		resp, err := client.Do(request(t, "GET", proxy, nil).WithContext(ctx))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(first))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != first {
			t.Errorf("%s: %q %v", name, got, err)
		}
		close(goOn)
		if rest, err := io.ReadAll(resp.Body); err != nil || first+string(rest) != "half" {
			t.Errorf("%s: %q %v", name, rest, err)
		}
		_ = resp.Body.Close()
	}
}

func TestProxyPassesWebsocketsOnly(t *testing.T) {
	upstream := api(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		if line, err := rw.ReadString('\n'); err == nil {
			_, _ = rw.WriteString("echo " + line)
			_ = rw.Flush()
		}
	})
	proxy, _, _ := proxied(t, upstream, nil)
	for upgrade, status := range map[string]int{"websocket": 101, "h2c": 204, "h2c, websocket": 204} {
		conn := dial(t, proxy)
		write(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+goodToken+
			"\r\nConnection: Upgrade\r\nUpgrade: "+upgrade+"\r\n\r\n")
		reader := bufio.NewReader(conn)
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: %s", upgrade, resp.Status)
		}
		if status == 101 {
			write(t, conn, "hello\n")
			if line, err := reader.ReadString('\n'); line != "echo hello\n" {
				t.Error(line, err)
			}
		}
		_ = conn.Close()
	}
}

func TestProxyUpstreamFailures(t *testing.T) {
	release := make(chan struct{})
	slow := api(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	broken := api(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + ln.Addr().String()
	_ = ln.Close()
	for _, c := range []struct {
		upstream string
		status   int
		code     string
	}{
		{slow, 504, "gateway_timeout"}, {broken, 502, "bad_gateway"}, {gone, 502, "bad_gateway"},
	} {
		proxy, client, logs := proxied(t, c.upstream, func(s *Config) { s.UpstreamTimeout = 50 * time.Millisecond })
		resp, body := do(t, client, request(t, "GET", proxy+"/secret-path", nil))
		if resp.StatusCode != c.status || !strings.Contains(body, `"error":"`+c.code+`"`) ||
			resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		host := strings.TrimPrefix(c.upstream, "http://")
		if strings.Contains(body, host) {
			t.Errorf("the answer names the upstream: %s", body)
		}
		if !strings.Contains(logs.String(), "did not answer") || strings.Contains(logs.String(), goodToken) {
			t.Errorf("logged: %s", logs)
		}
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a sidecar without a decider")
	}
	if _, err := New(Config{Decider: fake{}, Upstream: &url.URL{}}); err == nil {
		t.Error("a sidecar that can't say whether it is ready")
	}
	if _, err := New(Config{Decider: fake{}, Upstream: &url.URL{}, Ready: func() error { return errors.New("no") }}); err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T, rawURL string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(rawURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}
