//go:build doors

package doors

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stage is one proxy between a client and an API, with a /check that answers as the
// test says. Nothing here knows tokens: what is tested is the configuration.
type stage struct {
	*testing.T
	proxy string // its address

	mu          sync.Mutex
	answer      http.HandlerFunc // of /check
	asked, seen []*http.Request  // by /check and by the API; bodies are in bodies
	bodies      map[*http.Request]string
	connections atomic.Int64 // to /check
	check       *httptest.Server
	api         *httptest.Server
}

func inFrontsOf(t *testing.T, do func(*stage, front)) { inEdited(t, nil, do) }

// inEdited does so where users have edited the configurations.
func inEdited(t *testing.T, edit func(string) string, do func(*stage, front)) {
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			s := newStage(t)
			s.answers(allow)
			s.check = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.note(&s.asked, r)
				s.mu.Lock()
				answer := s.answer
				s.mu.Unlock()
				answer(w, r)
			}))
			s.check.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					s.connections.Add(1)
				}
			}
			s.check.Start()
			t.Cleanup(s.check.Close)
			f.edit = edit
			s.proxy = f.start(t, s.api.URL, s.check.URL)
			do(s, f)
		})
	}
}

// newStage returns one that has an API only.
func newStage(t *testing.T) *stage {
	s := &stage{T: t, bodies: map[*http.Request]string{}}
	s.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(&s.seen, r)
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		_, _ = io.WriteString(w, "the API's own words")
	}))
	t.Cleanup(s.api.Close)
	return s
}

func (s *stage) note(list *[]*http.Request, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, r)
	s.bodies[r] = string(body)
}

func (s *stage) answers(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

func allow(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Auth-Sub", "alice") }

func answering(code int, challenge string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"error":"said by the check"}`)
	}
}

// exchange is what one request led to.
type exchange struct {
	*http.Response
	asked, seen []*http.Request
}

// send sends a request as it stands, in lines, and tells what came of it.
func (s *stage) send(body string, lines ...string) exchange {
	s.Helper()
	s.mu.Lock()
	s.asked, s.seen = nil, nil
	s.mu.Unlock()
	c, err := net.Dial("tcp", s.proxy)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"+body); err != nil {
		s.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.Logf("%q: %v", lines[0], err)
		resp = &http.Response{} // status 0: the connection ended, or time did
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return exchange{resp, s.asked, s.seen}
}

const token = "Authorization: Bearer token"

// TestProxyAsksForWhatTheAPIGets: what /check is told of is, byte for byte, what the API
// is sent, however odd, and nothing that the client says about it counts.
func TestProxyAsksForWhatTheAPIGets(t *testing.T) {
	targets := []string{
		"/", "/plain?a=1&b=%20", "/a/../b/./c", "/a//b", "//a", "/a%2fb%2F", "/%61", "/%252e", "/a;b=c/..;/d", `/a\b`, "/a%5cb",
		"/a%00", "/é", "/{}|^\"<>[]`", "/?", "/a?", "/a?b=%zz;c", "/a#b", "/a?b#c", "/x?\xff", "/%", "/a%zz", "*", "",
		"http://api.example/a/../b?c", "http://api.example", "http://api.example?a=b", "a/b", "/a b", "/check", "/_revcast", "/_revcast/",
	}
	plain := []string{"/", "/plain?a=1&b=%20", "/a/../b/./c", "/a//b", "//a", "/a%2fb%2F", "/%61", "/%252e", "/?", "/a?", "/check"}
	inFrontsOf(t, func(s *stage, _ front) {
		for _, method := range []string{"GET", "DELETE", "OPTIONS"} {
			for _, target := range targets {
				got := s.send("", method+" "+target+" HTTP/1.1", "Host: api.example", token, "Connection: close",
					"X-Forwarded-Uri: /public", "x-forwarded-uri: /public", "X_Forwarded_Uri: /public", "X-Forwarded-Method: HEAD",
					"X-Original-URI: /public", "X-Original_URI: /public", "X-Original-Method: HEAD", "X-Original-URL: /public", "X.Original.URL: /public",
					"X-Rewrite-URL: /public", "X_Rewrite_URL: /public", "x-rewrite~url: /public", "X-Revcast-Public: 1", "X_Revcast_Public: 1",
					"Forwarded: for=evil", "X-Real-IP: evil", "X_Real_IP: evil", "X-Forwarded-For: evil", "X-Forwarded-Host: evil",
					"X-Forwarded_Host: evil", "X-Forwarded-Proto: evil", "X-Forwarded-Port: evil", "X-Forwarded-Prefix: evil", "X-Forwarded-Server: evil")
				if len(got.seen) == 0 {
					if slices.Contains(plain, target) || got.StatusCode < 400 && target != "*" { // Go answers OPTIONS * itself
						s.Errorf("%s %q: %d, and the API was not asked", method, target, got.StatusCode)
					}
					continue
				}
				if len(got.seen) != 1 || len(got.asked) != 1 {
					s.Fatalf("%s %q: the API was asked %d times, /check %d times", method, target, len(got.seen), len(got.asked))
				}
				asked, seen := got.asked[0], got.seen[0]
				uri := slices.Concat(asked.Header["X-Forwarded-Uri"], asked.Header["X-Original-Uri"])
				verb := slices.Concat(asked.Header["X-Forwarded-Method"], asked.Header["X-Original-Method"])
				// HAProxy passes an absolute URI on, whose path is the same.
				if len(uri) != 1 || uri[0] != strings.TrimPrefix(seen.RequestURI, "http://api.example") {
					s.Errorf("%s %q: /check was asked about %q, and the API got %q", method, target, uri, seen.RequestURI)
				}
				if len(verb) != 1 || verb[0] != seen.Method || seen.Method != method {
					s.Errorf("%s %q: /check was asked about %q, and the API got %s", method, target, verb, seen.Method)
				}
				if strings.TrimSuffix(asked.RequestURI, "?") != "/check" {
					s.Errorf("%s %q: /check was asked at %q", method, target, asked.RequestURI)
				}
				for name, values := range seen.Header {
					said := strings.Join(values, " ")
					if strings.Contains(said, "evil") || strings.Contains(said, "/public") || slices.Contains(notTold, name) {
						s.Errorf("%s %q: the API got the client's %s: %s", method, target, name, said)
					}
				}
			}
		}
	})
}

// notTold are headers that the API gets from nobody.
var notTold = []string{
	"X-Original-Uri", "X-Original-Url", "X-Original-Method", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Revcast-Public", "X-Real-Ip", "Forwarded",
}

// TestProxyPassesIdentityFromCheckOnly: the API gets the identity headers of /check's
// answer, and none from the client, in no spelling. That goes for a header more, too.
func TestProxyPassesIdentityFromCheckOnly(t *testing.T) {
	spoofed := []string{"x-AUTH-sub: mallory", "x_auth-sub: mallory"}
	for _, name := range []string{"X-Auth-Sub", "X-Auth-Scope", "X-User-Email"} {
		spoofed = append(spoofed, name+": mallory", strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+": mallory", strings.Replace(name, "-", "_", 1)+": mallory")
		for _, c := range "_.!#$%&'*+^`|~" { // all that a name may hold besides letters, digits and hyphens
			spoofed = append(spoofed, strings.Replace(name, "-", string(c), 1)+": mallory", strings.ReplaceAll(name, "-", string(c))+": mallory")
		}
	}
	answers := map[string]http.HandlerFunc{
		"one": allow,
		"three": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Auth-Sub", "alice")
			w.Header().Set("X-Auth-Scope", "read write")
			w.Header().Set("X-User-Email", "alice@example.com")
		},
		"none": func(http.ResponseWriter, *http.Request) {}, // a public route
	}
	want := map[string]map[string]string{
		"one": {"X-Auth-Sub": "alice"}, "three": {"X-Auth-Sub": "alice", "X-Auth-Scope": "read write", "X-User-Email": "alice@example.com"}, "none": {},
	}
	inEdited(t, anotherClaim, func(s *stage, _ front) {
		for name, answer := range answers {
			s.answers(answer)
			for _, extra := range []string{"X-Other: 1", "Connection: X-Auth-Sub, X-Auth-Scope, Authorization", "Connection: keep-alive, authorization",
				"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"} {
				got := s.send("", append([]string{"GET /a HTTP/1.1", "Host: api.example", token, extra}, spoofed...)...)
				if len(got.seen) != 1 {
					s.Errorf("%s, %s: %d, and the API was asked %d times", name, extra, got.StatusCode, len(got.seen))
					continue
				}
				found := map[string]string{}
				for name, values := range got.seen[0].Header {
					// All that the client says of it begins so, however it goes on.
					if strings.HasPrefix(strings.ToLower(name), "x") && !strings.HasPrefix(name, "X-Forwarded-") && name != "X-Other" {
						found[name] = strings.Join(values, "+")
					}
				}
				if fmt.Sprint(found) != fmt.Sprint(want[name]) {
					s.Errorf("%s, %s: the API got %v, want %v", name, extra, found, want[name])
				}
				h := got.seen[0].Header
				if h.Get("Authorization") != "Bearer token" || h.Get("Upgrade") != "" || strings.Contains(strings.ToLower(h.Get("Connection")), "auth") {
					s.Errorf("%s, %s: the API got %v", name, extra, h)
				}
			}
		}
	})
}

// TestProxyRefusesAsCheckDoes: a refusal reaches the client with its status and challenge.
func TestProxyRefusesAsCheckDoes(t *testing.T) {
	inFrontsOf(t, func(s *stage, _ front) {
		for _, one := range []struct {
			status    int
			challenge string
		}{
			{400, `Bearer error="invalid_request"`}, {401, "Bearer"}, {401, `Bearer error="invalid_token"`}, {403, `Bearer error="insufficient_scope"`}, {403, ""},
		} {
			s.answers(answering(one.status, one.challenge))
			got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token)
			if challenge := strings.Join(got.Header.Values("WWW-Authenticate"), "+"); got.StatusCode != one.status || challenge != one.challenge {
				s.Errorf("%v: got %d, %q", one, got.StatusCode, challenge)
			}
			if len(got.seen) != 0 {
				s.Errorf("%v: the API was asked", one)
			}
		}
	})
}

// TestProxyFailsClosed: where /check doesn't answer as it should, nothing reaches the API.
func TestProxyFailsClosed(t *testing.T) {
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, text)
				_ = c.Close()
			}
		}
	}
	failures := map[string]http.HandlerFunc{
		"500": answering(500, ""), "502": answering(502, ""), "503": answering(503, ""), "404": answering(404, ""), "429": answering(429, ""),
		"closed":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"not HTTP":     raw("what?\r\n\r\n"),
		"half":         raw("HTTP/1.1 20"),
		"half a head":  raw("HTTP/1.1 200 OK\r\nContent-Le"),
		"status 000":   raw("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
		"status 20":    raw("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
		"early answer": raw("HTTP/1.1 100 Continue\r\n\r\n"),
		"no answer":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	inFrontsOf(t, func(s *stage, _ front) {
		refused := func(name string) {
			began := time.Now()
			got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token)
			if took := time.Since(began); len(got.seen) != 0 || got.StatusCode/100 == 2 || took > 12*time.Second {
				s.Errorf("%s: %d after %v, the API was asked %d times", name, got.StatusCode, took, len(got.seen))
			}
		}
		for name, failure := range failures {
			s.answers(failure)
			refused(name)
		}
		s.answers(allow)
		if got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token); got.StatusCode != http.StatusOK {
			s.Errorf("after failures: %d", got.StatusCode)
		}
		s.answers(answering(302, ""))
		if got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token); len(got.seen) != 0 {
			s.Error("302: the API was asked")
		}
		_ = s.check.Listener.Close()
		s.check.CloseClientConnections()
		refused("down")
	})
}

// TestProxySendsCheckNoBodies: /check decides without a body, and the API gets all of it.
func TestProxySendsCheckNoBodies(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 4<<10)
	inFrontsOf(t, func(s *stage, _ front) {
		for _, body := range []string{"a=1", long} {
			for _, one := range []struct{ header, sent string }{
				{fmt.Sprintf("Content-Length: %d", len(body)), body},
				{"Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)},
			} {
				got := s.send(one.sent, "POST /a HTTP/1.1", "Host: api.example", token, one.header)
				if len(got.seen) != 1 || len(got.asked) != 1 {
					s.Fatalf("%s: %d, the API was asked %d times, /check %d times", one.header, got.StatusCode, len(got.seen), len(got.asked))
				}
				if s.bodies[got.seen[0]] != body {
					s.Errorf("%s: the API got %d bytes of %d", one.header, len(s.bodies[got.seen[0]]), len(body))
				}
				if asked := got.asked[0]; s.bodies[asked] != "" || asked.ContentLength != 0 || len(asked.TransferEncoding) != 0 {
					s.Errorf("%s: /check got %d bytes, Content-Length %d, %v", one.header, len(s.bodies[asked]), asked.ContentLength, asked.TransferEncoding)
				}
			}
		}
	})
}

// TestProxyKeepsConnectionsToCheck: a request costs no connection, refused or not.
func TestProxyKeepsConnectionsToCheck(t *testing.T) {
	inFrontsOf(t, func(s *stage, _ front) {
		const requests = 60
		for i := range requests {
			s.answers([]http.HandlerFunc{allow, answering(401, "Bearer"), answering(403, "")}[i%3])
			s.send("", "GET /a HTTP/1.1", "Host: api.example", token)
		}
		if n := s.connections.Load(); n > 5 {
			s.Errorf("%d connections for %d requests", n, requests)
		}
	})
}

// TestProxyLetsWebSocketsThrough, where it is said to.
func TestProxyLetsWebSocketsThrough(t *testing.T) {
	inFrontsOf(t, func(s *stage, f front) {
		got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token, "Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
		if switched := got.StatusCode == http.StatusSwitchingProtocols; switched != f.websocket {
			s.Errorf("got %d", got.StatusCode)
		}
	})
}
