package verifier

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// behind serves a handler behind the middleware, and asks it with a good token, on a
// connection of its own.
func (r *rig) behind(t *testing.T, h http.HandlerFunc) (conn net.Conn, answer *bufio.Reader) {
	t.Helper()
	api := httptest.NewServer(r.Middleware(h))
	t.Cleanup(func() { api.CloseClientConnections(); api.Close() })
	conn, err := net.Dial("tcp", strings.TrimPrefix(api.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", es256().Token(claims(nil))); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// TestMiddlewareEndCantBePutOff: deadlines that a handler sets before each write don't
// give it any more time.
func TestMiddlewareEndCantBePutOff(t *testing.T) {
	r := newRig(t, nil).fresh()
	began, ended := make(chan struct{}), make(chan error, 1)
	_, answer := r.behind(t, func(w http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(w)
		for i := 0; ; i++ {
			_ = control.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_ = control.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err := io.Copy(w, strings.NewReader("some more\n"))
			if err == nil {
				err = control.Flush()
			}
			if err != nil {
				ended <- err
				return
			}
			if i == 100 {
				close(began)
			}
		}
	})
	go func() { _, _ = io.Copy(io.Discard, answer) }()
	<-began
	r.list.Add(revocation("jti", "t-1"))
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}

// TestMiddlewareEndsHijackedConnections: whether the handler waits or has returned, and
// none is given out after the end.
func TestMiddlewareEndsHijackedConnections(t *testing.T) {
	for _, returns := range []bool{false, true} {
		t.Run(fmt.Sprint("returns ", returns), func(t *testing.T) {
			r := newRig(t, nil).fresh()
			errs := make(chan error, 2)
			taken := make(chan net.Conn, 1)
			conn, answer := r.behind(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				pump := func() {
					for {
						_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
						if _, err := io.WriteString(conn, "line\n"); err != nil {
							errs <- err
							return
						}
						time.Sleep(time.Millisecond)
					}
				}
				go func() {
					_, err := conn.Read(make([]byte, 1))
					errs <- err
				}()
				taken <- conn
				if returns {
					go pump()
				} else {
					pump()
				}
			})
			if line, err := answer.ReadString('\n'); line != "line\n" {
				t.Fatal(line, err)
			}
			go func() { _, _ = io.Copy(io.Discard, answer) }()
			r.list.Add(revocation("jti", "t-1"))
			for range 2 {
				if err := <-errs; err == nil {
					t.Error("no error")
				}
			}
			_ = (<-taken).Close()
			_ = conn.Close()
			if n := r.Stats().Open; n != 0 {
				t.Errorf("%d are open", n)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		r := newRig(t, nil).fresh()
		taken := make(chan net.Conn, 1)
		r.behind(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
			}
			taken <- conn
		})
		conn := <-taken
		if n := r.Stats().Open; n != 1 {
			t.Errorf("%d are open", n)
		}
		_ = conn.Close()
		if n := r.Stats().Open; n != 0 {
			t.Errorf("%d are open after the close", n)
		}
	})
	t.Run("after the end", func(t *testing.T) {
		r := newRig(t, nil).fresh()
		errs := make(chan error, 1)
		r.behind(t, func(w http.ResponseWriter, req *http.Request) {
			r.list.Add(revocation("jti", "t-1"))
			<-req.Context().Done()
			_, _, err := http.NewResponseController(w).Hijack()
			errs <- err
		})
		var ended *Ended
		if err := <-errs; !errors.As(err, &ended) || ended.Reason != Revoked {
			t.Errorf("hijacked: %v", err)
		}
	})
}

// TestMiddlewareRefusesWhatWasRevokedMeanwhile: a handler never sees a token that was
// revoked between the decision and the hold, and its client gets the usual answer.
func TestMiddlewareRefusesWhatWasRevokedMeanwhile(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(nil)), Clear)
	r.Close() // nobody else looks
	r.list.Add(revocation("jti", "t-1"))
	w := httptest.NewRecorder()
	r.serve(w, httptest.NewRequest("POST", "/", nil), d, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("handled") }))
	if w.Code != 401 || r.Stats().Open != 0 {
		t.Errorf("%d %s, %d open", w.Code, w.Body, r.Stats().Open)
	}
}

// TestMiddlewareCutsWhatEndedForAnotherReasonFirst: a client that had gone, or a timeout,
// doesn't hide the revocation.
func TestMiddlewareCutsWhatEndedForAnotherReasonFirst(t *testing.T) {
	r := newRig(t, nil).fresh()
	parent, cancel := context.WithCancel(t.Context())
	request := httptest.NewRequestWithContext(parent, "GET", "/", nil)
	request.Header.Set("Authorization", "Bearer "+es256().Token(claims(nil)))
	aborted := func() (by any) {
		defer func() { by = recover() }()
		r.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
			cancel()
			<-q.Context().Done()
			r.list.Add(revocation("jti", "t-1"))
			for EndedBy(q.Context()) == nil && t.Context().Err() == nil {
				r.requests.look(r.clock.now())
			}
		})).ServeHTTP(httptest.NewRecorder(), request)
		return nil
	}
	if by := aborted(); by != http.ErrAbortHandler {
		t.Errorf("got %v", by)
	}
}

// blocked is a log that takes one line and then no more until it is freed.
type blocked struct {
	slog.Handler
	entered, free chan struct{}
}

func (b *blocked) Enabled(context.Context, slog.Level) bool { return true }

func (b *blocked) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "open request ended" {
		b.entered <- struct{}{}
		<-b.free
	}
	return nil
}

// TestPromptWhateverTheLog: a log that takes no more lines keeps no request open.
func TestPromptWhateverTheLog(t *testing.T) {
	log := &blocked{silent.Handler(), make(chan struct{}, 10), make(chan struct{})}
	r := newRig(t, func(c *Config) { c.Logger = slog.New(log) }).fresh()
	first, second := r.open(t, es256().Token(claims(nil))), r.open(t, es256().Token(claims(map[string]any{"jti": "t-2"})))
	r.list.Add(revocation("jti", "t-1"))
	ends(t, first)
	<-log.entered
	r.list.Add(revocation("jti", "t-2"))
	ends(t, second)
	close(log.free)
}

// TestFreshOrUnknownHoweverManyChanges: what time ends is ended while the list changes all
// the time.
func TestFreshOrUnknownHoweverManyChanges(t *testing.T) {
	r := newRig(t, nil).fresh()
	ctx := r.open(t, es256().Token(claims(map[string]any{"exp": time.Now().Add(10 * time.Minute).Unix()})))
	r.clock.forward(11 * time.Minute)
	r.fresh()
	for i := 0; ctx.Err() == nil; i++ {
		r.list.Add(revocation("jti", fmt.Sprint("other-", i)))
		if i == 10_000_000 {
			t.Fatal("never ended")
		}
	}
	if why := ends(t, ctx); why != Expired {
		t.Error(why)
	}
}
