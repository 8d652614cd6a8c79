//go:build unix

package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is an upstream that answers with bytes as they are written here.
type scripted struct {
	url   string
	conns atomic.Int64
	asked chan string   // the first line of each request
	ended chan struct{} // one for each connection that the proxy has closed
	shut  chan struct{} // one for each that this upstream has closed
}

// script returns the answer to the n-th request over the c-th connection, both from 1
// on, and whether the connection ends after it.
type script func(c, n int) (answer string, end bool)

func newScripted(t *testing.T, answers script) *scripted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{url: "http://" + ln.Addr().String(), asked: make(chan string, 100), ended: make(chan struct{}, 100), shut: make(chan struct{}, 100)}
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			c := int(s.conns.Add(1))
			running.Go(func() { s.serve(conn, c, answers) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}

func (s *scripted) serve(conn net.Conn, c int, answers script) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for n := 1; ; n++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			s.ended <- struct{}{}
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		s.asked <- r.Method + " " + r.RequestURI
		answer, end := answers(c, n)
		if _, err := io.WriteString(conn, answer); err != nil || end {
			_ = conn.Close()
			s.shut <- struct{}{}
			return
		}
	}
}

// transportWait is how long the transports of these tests wait for a header.
const transportWait = 2 * time.Second

// bothTransports runs a test through http.Transport and through direct: whatever is
// true of one must be true of the other.
func bothTransports(t *testing.T, test func(t *testing.T, rt http.RoundTripper)) {
	t.Run("http.Transport", func(t *testing.T) {
		tr, _ := newTransport(&url.URL{Scheme: "http"}, transportWait)
		t.Cleanup(tr.CloseIdleConnections)
		test(t, tr)
	})
	directAlone(t, test)
}

// directAlone is bothTransports where what http.Transport does depends on how soon its
// reader sees something.
func directAlone(t *testing.T, test func(t *testing.T, rt http.RoundTripper)) {
	t.Run("direct", func(t *testing.T) { test(t, newTestDirect(t, transportWait)) })
}

// none fails where a request is not sent directly.
type none struct{ t *testing.T }

func (n none) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s was not sent directly", r.Method, r.URL)
	return nil, errors.New("not sent directly")
}

func newTestDirect(t *testing.T, headerTimeout time.Duration) *direct {
	d := &direct{next: none{t}, dial: (&net.Dialer{}).DialContext, headerTimeout: headerTimeout, idleTimeout: time.Minute, maxIdle: 512}
	t.Cleanup(d.CloseIdleConnections)
	return d
}

// ask sends a request and reads the whole answer.
func ask(t *testing.T, rt http.RoundTripper, method, target string) (*http.Response, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(rt, r)
}

func send(rt http.RoundTripper, r *http.Request) (*http.Response, string, error) {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// Each answer is read to its end or refused, and whether its connection is used again
// is decided, as http.Transport does.
func TestTransportsReadAlike(t *testing.T) {
	failed := errors.New("any")
	for name, c := range map[string]struct {
		method, answer string
		end            bool // the upstream closes after the answer
		status         int
		body           string
		err            error
		reused         bool
		more           bool // something follows the answer
	}{
		"a length":                    {"GET", okAnswer, false, 200, "ok", nil, true, false},
		"chunks":                      {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, 200, "ok", nil, true, false},
		"trailers":                    {"GET", "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: t\r\n\r\n", false, 200, "ok", nil, true, false},
		"up to the end":               {"GET", "HTTP/1.1 200 OK\r\n\r\nok", true, 200, "ok", nil, false, false},
		"HTTP/1.0":                    {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", nil, false, false},
		"Connection: close":           {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", nil, false, false},
		"nothing":                     {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "", nil, true, false},
		"HEAD":                        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", false, 200, "", nil, true, false},
		"HEAD of chunks":              {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, 200, "", nil, true, false},
		"204":                         {"GET", "HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", nil, true, false},
		"304 with a length":           {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2000\r\n\r\n", false, 304, "", nil, true, false},
		"DELETE":                      {"DELETE", okAnswer, false, 200, "ok", nil, true, false},
		"POST of nothing":             {"POST", okAnswer, false, 200, "ok", nil, true, false},
		"hints before":                {"GET", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okAnswer, false, 200, "ok", nil, true, false},
		"more than its length":        {"GET", okAnswer + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, 200, "ok", nil, false, true},
		"a body after 204":            {"GET", "HTTP/1.1 204 No Content\r\n\r\nevil", false, 204, "", nil, false, true},
		"a body after HEAD":           {"HEAD", okAnswer, false, 200, "", nil, false, true},
		"less than its length":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", true, 200, "ok", io.ErrUnexpectedEOF, false, false},
		"a chunk cut off":             {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok", true, 200, "ok", io.ErrUnexpectedEOF, false, false},
		"two lengths":                 {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", false, 0, "", failed, false, false},
		"a negative length":           {"GET", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", false, 0, "", failed, false, false},
		"chunks in another encoding":  {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false, 0, "", failed, false, false},
		"chunks and a length":         {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, 200, "ok", nil, true, false},
		"no HTTP":                     {"GET", "SSH-2.0-x\r\n\r\n", true, 0, "", failed, false, false},
		"an end before any answer":    {"GET", "", true, 0, "", failed, false, false},
		"half a header":               {"GET", "HTTP/1.1 200 OK\r\nContent-Le", true, 0, "", failed, false, false},
		"a header of a line too long": {"GET", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswerHeader) + "\r\n\r\n", true, 0, "", failed, false, false},
		"hints without end":           {"GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n", 12) + okAnswer, true, 0, "", failed, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			transports := bothTransports
			if c.more { // http.Transport may send the next request before it has seen what comes after the answer
				transports = directAlone
			}
			transports(t, func(t *testing.T, rt http.RoundTripper) {
				s := newScripted(t, func(conn, n int) (string, bool) {
					if conn == 1 && n == 1 {
						return c.answer, c.end
					}
					return okAnswer, false
				})
				resp, body, err := ask(t, rt, c.method, s.url+"/first?q=1")
				if (err == nil) != (c.err == nil) || c.err != nil && c.err != failed && !errors.Is(err, c.err) {
					t.Fatalf("got %v, want %v", err, c.err)
				}
				if resp != nil && (resp.StatusCode != c.status || body != c.body) {
					t.Errorf("got %d %q", resp.StatusCode, body)
				}
				if resp == nil && c.status != 0 {
					t.Errorf("no answer: %v", err)
				}
				if name == "trailers" && resp.Trailer.Get("X-T") != "t" {
					t.Errorf("trailers %v", resp.Trailer)
				}
				if got, want := <-s.asked, c.method+" /first?q=1"; got != want {
					t.Errorf("the upstream saw %s, want %s", got, want)
				}
				if _, body, err := ask(t, rt, "GET", s.url); err != nil || body != "ok" {
					t.Errorf("the next request: %q, %v", body, err)
				}
				if got := s.conns.Load() == 1; got != c.reused {
					t.Errorf("used again: %v, want %v", got, c.reused)
				}
			})
		})
	}
}

// A connection that ended while it was idle is not used; where that shows only once a
// request is on it, the request is sent again if it may be.
func TestTransportsRepeatAlike(t *testing.T) {
	for name, c := range map[string]struct {
		method, key string
		sees        bool // the transport can see the end before it sends
		again       bool
	}{
		"closed while idle":      {"GET", "", true, true},
		"closed while idle POST": {"POST", "", true, true},
		"GET":                    {"GET", "", false, true},
		"OPTIONS":                {"OPTIONS", "", false, true},
		"POST":                   {"POST", "", false, false},
		"DELETE":                 {"DELETE", "", false, false},
		"POST with a key":        {"POST", "k", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			transports := bothTransports
			if c.sees && c.method == "POST" { // http.Transport's reader may not have seen the end yet
				transports = directAlone
			}
			transports(t, func(t *testing.T, rt http.RoundTripper) {
				s := newScripted(t, func(conn, n int) (string, bool) {
					switch {
					case conn == 1 && n == 1:
						return okAnswer, c.sees
					case conn == 1:
						return "", true
					}
					return okAnswer, false
				})
				if _, _, err := ask(t, rt, "GET", s.url); err != nil {
					t.Fatal(err)
				}
				if c.sees {
					<-s.shut // on loopback, the end has arrived
				}
				r, err := http.NewRequestWithContext(t.Context(), c.method, s.url, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.key != "" {
					r.Header.Set("Idempotency-Key", c.key)
				}
				_, body, err := send(rt, r)
				if c.again != (err == nil && body == "ok") {
					t.Errorf("%q, %v", body, err)
				}
			})
		})
	}
}

// What comes before it was asked for is nobody's answer.
func TestDirectTakesNoAnswerUnasked(t *testing.T) {
	conns := make(chan net.Conn, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns <- c
		}
	}
	server.Start()
	defer server.Close()
	d := newTestDirect(t, time.Second)
	if _, body, err := ask(t, d, "GET", server.URL+"/1"); err != nil || body != "/1" {
		t.Fatal(body, err)
	}
	// On loopback, what is written has arrived.
	write(t, <-conns, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
	if _, body, err := ask(t, d, "GET", server.URL+"/2"); err != nil || body != "/2" {
		t.Error(body, err)
	}
	if len(conns) != 1 {
		t.Error("the second request did not get a connection of its own")
	}
}

var errGone = errors.New("the client is gone")

// The end of a request's context ends what waits for it, with its cause, and closes
// the connection.
func TestTransportsEndWithTheirContext(t *testing.T) {
	for name, answer := range map[string]string{
		"before the answer": "", "in its header": "HTTP/1.1 200 OK\r\nContent-", "in its body": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			bothTransports(t, func(t *testing.T, rt http.RoundTripper) {
				s := newScripted(t, func(int, int) (string, bool) { return answer, false })
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				r, err := http.NewRequestWithContext(ctx, "GET", s.url, nil)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					<-s.asked
					cancel(errGone)
				}()
				if _, body, err := send(rt, r); !errors.Is(err, errGone) {
					t.Errorf("%q, %v", body, err)
				}
				<-s.ended
			})
		})
	}
}

// A body that is closed early ends a read that waits, and its connection.
func TestTransportsEndWithTheirBody(t *testing.T) {
	bothTransports(t, func(t *testing.T, rt http.RoundTripper) {
		s := newScripted(t, func(int, int) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", false })
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error)
		half := make([]byte, 2)
		if _, err := io.ReadFull(resp.Body, half); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := resp.Body.Read(half)
			read <- err
		}()
		_ = resp.Body.Close()
		if err := <-read; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a read of a closed body: %v", err)
		}
		<-s.ended
	})
}

func TestTransportsTimeOutAlike(t *testing.T) {
	s := newScripted(t, func(int, int) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-", false })
	transport, _ := newTransport(&url.URL{Scheme: "http"}, 50*time.Millisecond)
	t.Cleanup(transport.CloseIdleConnections)
	for name, rt := range map[string]http.RoundTripper{"http.Transport": transport, "direct": newTestDirect(t, 50*time.Millisecond)} {
		var timeout net.Error
		if _, _, err := ask(t, rt, "GET", s.url); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v", name, err)
		}
		<-s.ended
	}
}

// Who is told of hints decides how many there may be: together these are longer than an
// answer's header may be.
func TestTransportsTellOfHints(t *testing.T) {
	hint := "HTTP/1.1 103 Early Hints\r\nLink: a\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"
	bothTransports(t, func(t *testing.T, rt http.RoundTripper) {
		s := newScripted(t, func(int, int) (string, bool) { return strings.Repeat(hint, 12) + okAnswer, false })
		saw := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusEarlyHints && h.Get("Link") == "a" {
					saw++
				}
				return nil
			},
		})
		r, err := http.NewRequestWithContext(ctx, "GET", s.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, body, err := send(rt, r); err != nil || body != "ok" || saw != 12 {
			t.Errorf("%q, %v; saw %d", body, err, saw)
		}
	})
}

// counted counts what direct leaves to others.
type counted struct{ n int }

func (c *counted) RoundTrip(*http.Request) (*http.Response, error) { c.n++; return nil, errGone }

func TestDirectLeavesTheRestToOthers(t *testing.T) {
	for name, change := range map[string]func(r *http.Request){
		"a body":            func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 },
		"a body of any end": func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1 },
		"https":             func(r *http.Request) { r.URL.Scheme = "https" },
		"an upgrade":        func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"Expect":            func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"Connection":        func(r *http.Request) { r.Header.Set("Connection", "close") },
		"Close":             func(r *http.Request) { r.Close = true },
		"trailers":          func(r *http.Request) { r.Trailer = http.Header{"X": nil} },
		"CONNECT":           func(r *http.Request) { r.Method = http.MethodConnect },
		"a bad method":      func(r *http.Request) { r.Method = "GET /\r\n" },
		"a bad name":        func(r *http.Request) { r.Header["X Y"] = []string{"z"} },
		"a bad value":       func(r *http.Request) { r.Header.Set("X", "a\r\nY: b") },
	} {
		c := &counted{}
		d := newTestDirect(t, time.Second)
		d.next = c
		d.dial = func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%s: sent directly", name)
			return nil, errGone
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://a", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		if _, err := d.RoundTrip(r); !errors.Is(err, errGone) || c.n != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An idle connection is closed in time, and no more are kept than may be.
func TestDirectClosesIdleConnections(t *testing.T) {
	d := newTestDirect(t, time.Second)
	d.idleTimeout = 20 * time.Millisecond
	s := newScripted(t, func(int, int) (string, bool) { return okAnswer, false })
	if _, _, err := ask(t, d, "GET", s.url); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	d.maxIdle = 0
	if _, _, err := ask(t, d, "GET", s.url); err != nil {
		t.Fatal(err)
	}
	<-s.ended
}

// Whatever ends early, an answer is that of its own request.
func TestDirectMixesNothingUp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" { // some connections end under those that follow
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Path, 2000))
	}))
	defer server.Close()
	d := newTestDirect(t, 5*time.Second)
	var running sync.WaitGroup
	for g := range 8 {
		running.Go(func() {
			for i := range 300 {
				path := fmt.Sprintf("/%d-%d-", g, i)
				method := "GET"
				if i%10 == 9 {
					method = "POST"
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				r, err := http.NewRequestWithContext(ctx, method, server.URL+path, nil)
				if err != nil {
					t.Error(err)
					cancel(nil)
					return
				}
				if i%7 == 3 {
					time.AfterFunc(time.Duration(i)*time.Microsecond, func() { cancel(errGone) })
				}
				_, body, err := send(d, r)
				if err != nil && !(i%7 == 3 && errors.Is(err, errGone)) {
					t.Errorf("%s: %v", path, err)
				}
				if err == nil && body != strings.Repeat(path, 2000) {
					t.Errorf("%s was answered %.40s", path, body)
				}
				cancel(nil)
			}
		})
	}
	running.Wait()
}
