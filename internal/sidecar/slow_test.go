package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
)

// pipes is a listener without sockets, for bubbles of fake time.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.conns <- far
	return near, nil
}

// servePipes serves h as the process does, until the returned function is called.
func servePipes(h http.Handler) (p *pipes, stop func()) {
	p = &pipes{conns: make(chan net.Conn)}
	p.closed, p.close = context.WithCancel(context.Background())
	s := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(p)
	}()
	return p, func() {
		_ = s.Close()
		<-ended
	}
}

// inFakeTime puts a proxy, on a server with a ReadTimeout, before an upstream.
func inFakeTime(t *testing.T, api http.HandlerFunc, f func(*testing.T, net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		upstream, stop := servePipes(api)
		defer stop()
		s, err := New(Config{
			Decider: fake{verifier.Decision{Reason: verifier.Revoked}}, Upstream: &url.URL{Scheme: "http", Host: "api"},
			Ready: func() error { return nil }, UpstreamTimeout: time.Hour, Routes: []Route{{Path: "/public/*", Public: true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.transport.DialContext = upstream.dial
		defer s.Close()
		front, end := servePipes(s.Handler(ProxyListener))
		defer end()
		conn, _ := front.dial(t.Context(), "", "")
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(time.Hour))
		f(t, conn)
	})
}

// A client with a good token may take longer than a request has to arrive, and so
// may the upstream.
func TestProxySlowUpload(t *testing.T) {
	const pieces = 6
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		body, err := io.ReadAll(r.Body)
		time.Sleep(time.Minute)
		_, _ = fmt.Fprint(w, len(body), err)
	}, func(t *testing.T, conn net.Conn) {
		write(t, conn, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", goodToken, pieces))
		for range pieces {
			time.Sleep(9 * time.Second)
			write(t, conn, "x")
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(body) != fmt.Sprint(pieces, " <nil>") {
			t.Errorf("%s %q %v", resp.Status, body, err)
		}
	})
}

func TestProxySlowWebsocket(t *testing.T) {
	inFakeTime(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Minute)
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
	}, func(t *testing.T, conn net.Conn) {
		write(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+goodToken+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		reader := bufio.NewReader(conn)
		resp, err := http.ReadResponse(reader, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp, err)
		}
		time.Sleep(time.Minute)
		write(t, conn, "hello\n")
		if line, err := reader.ReadString('\n'); line != "echo hello\n" {
			t.Error(line, err)
		}
	})
}

// Without a good token there is no such patience: a body that never comes holds
// nothing for longer than a request has to arrive.
func TestProxyLetsGoOfBodiesThatNeverCome(t *testing.T) {
	inFakeTime(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was asked") }, func(t *testing.T, conn net.Conn) {
		began := time.Now()
		write(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad\r\nContent-Length: 1000\r\n\r\n")
		answer, err := io.ReadAll(conn)
		if err != nil && !errors.Is(err, io.EOF) || !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") {
			t.Errorf("%q %v", answer, err)
		}
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("held for %s", took)
		}
	})
}

// Nobody vouches for what comes to a public route: its body has to arrive in time, and
// then the answer may take as long as it likes.
func TestProxySlowAnswerOfAPublicRoute(t *testing.T) {
	for name, body := range map[string]string{"no body": "", "a body": "Content-Length: 1\r\n"} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
				_, _ = io.Copy(io.Discard, r.Body)
				for range 3 {
					time.Sleep(20 * time.Second)
					_, _ = io.WriteString(w, "line\n")
					_ = http.NewResponseController(w).Flush()
				}
			}, func(t *testing.T, conn net.Conn) {
				write(t, conn, "GET /public/x HTTP/1.1\r\nHost: a\r\n"+body+"\r\n")
				if body != "" {
					write(t, conn, "x")
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if all, err := io.ReadAll(resp.Body); err != nil || strings.Count(string(all), "line") != 3 {
					t.Errorf("%q %v", all, err)
				}
			})
		})
	}
}

// A connection whose request was ended serves no other: it has a deadline. Whether the
// answer was on its way already doesn't matter.
func TestProxyEndedRequestsEndTheirConnections(t *testing.T) {
	for name, pause := range map[string]time.Duration{"before the answer": time.Second, "with the answer": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := guard(t, nil)
				upstream, stop := servePipes(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					g.revoke(t, "jti", r.URL.Path[1:])
					time.Sleep(pause)
				}))
				defer stop()
				g.transport.DialContext = upstream.dial
				front, end := servePipes(g.Handler(ProxyListener))
				defer end()
				for i := range 50 {
					conn, _ := front.dial(t.Context(), "", "")
					jti := fmt.Sprint("t-", i)
					write(t, conn, "GET /"+jti+" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+tokenWith(map[string]any{"jti": jti})+"\r\n\r\n")
					reader := bufio.NewReader(conn)
					resp, err := http.ReadResponse(reader, nil)
					if err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
					}
					if err == nil && pause > 0 && (resp.StatusCode != 401 || !resp.Close) {
						t.Errorf("%s, and the connection stays: %v", resp.Status, !resp.Close)
					}
					if err == nil && !resp.Close { // it was not ended
						time.Sleep(2 * endWithin)
						write(t, conn, "GET /other HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+tokenWith(map[string]any{"jti": "x-" + jti})+"\r\n\r\n")
						if _, err := http.ReadResponse(reader, nil); err != nil {
							t.Error("the next request got no answer:", err)
						}
					} else if _, err := reader.ReadByte(); err == nil {
						t.Error("the connection goes on")
					}
					_ = conn.Close()
				}
				time.Sleep(time.Minute) // for upstream's handlers to return
			})
		})
	}
}

// A body that does not arrive on a public route is the client's fault, and it is told so.
func TestProxyTellsWhoIsLate(t *testing.T) {
	inFakeTime(t, reads, func(t *testing.T, conn net.Conn) {
		began := time.Now()
		write(t, conn, "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha")
		reader := bufio.NewReader(conn)
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close || !strings.Contains(string(body), `"error":"request_timeout"`) {
			t.Errorf("%s %v %q %v", resp.Status, resp.Close, body, err)
		}
		if _, err := reader.ReadByte(); err == nil || time.Since(began) > 10*time.Second+drainWithin+endWithin {
			t.Errorf("the connection stays, %s later: %v", time.Since(began), err)
		}
	})
}
