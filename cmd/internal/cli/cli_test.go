package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMainEndsOnSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		code := Main("x", []string{"a"}, func(ctx context.Context, p Process) int {
			if p.Name != "x" || len(p.Args) != 1 || len(p.Env) == 0 {
				t.Errorf("%+v", p)
			}
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return 7
		})
		if code != 7 {
			t.Error(code)
		}
	}
}

func TestExit(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		line string
	}{
		{nil, 0, ""},
		{&UsageError{"what"}, 2, "x: what (see x --help)\n"},
		{config.Errorf("key", "is wrong"), 1, "config: key: is wrong\n"},
		{errors.New("two\nlines"), 1, "x: two lines\n"},
	} {
		var b bytes.Buffer
		if code := (Process{Name: "x", Stderr: &b}).Exit(c.err); code != c.code || b.String() != c.line {
			t.Errorf("%v: %d %q", c.err, code, b.String())
		}
	}
}

func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	unlock()
	unlock, err = Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := Lock(filepath.Join(path, "x")); err == nil || errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// A request under way is answered after the end has begun; one that waits for Stop
// is ended by it; and nothing is accepted any more.
func TestServeFinishesWhatIsUnderWay(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	begun, stopping := make(chan struct{}, 2), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-stopping
		if r.Context().Err() != nil {
			t.Error("the request was cut")
		}
		w.WriteHeader(http.StatusAccepted)
	})
	a, b := listen(t), listen(t)
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, slog.New(slog.DiscardHandler),
			Server{Name: "a", Listener: a, Handler: handler, Stop: func() { close(stopping) }},
			Server{Name: "b", Listener: b, Handler: handler})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := make(chan int, 2)
	for _, ln := range []net.Listener{a, b} {
		go func() {
			resp, err := client.Get("http://" + ln.Addr().String())
			if err != nil {
				t.Error(err)
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	<-begun
	<-begun
	began := time.Now()
	end()
	for range 2 {
		if code := <-answers; code != http.StatusAccepted {
			t.Error(code)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > Drain {
		t.Errorf("the end took %s", took)
	}
	if _, err := net.Dial("tcp", a.Addr().String()); err == nil {
		t.Error("accepts connections after the end")
	}
}

// pipes is a listener without sockets, for bubbles of fake time.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn)}
	p.closed, p.close = context.WithCancel(context.Background())
	return p
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

// dial connects, and sends a request as it is.
func (p *pipes) dial(t *testing.T, request string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	p.conns <- far
	if _, err := near.Write([]byte(request)); err != nil {
		t.Error(err)
	}
	return near
}

// bubble serves a handler in fake time. The returned function ends it.
func bubble(t *testing.T, handler http.HandlerFunc, f func(t *testing.T, p *pipes, end func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, served := newPipes(), make(chan error, 1)
		go func() { served <- Serve(ctx, slog.New(slog.DiscardHandler), Server{Listener: p, Handler: handler}) }()
		f(t, p, func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	})
}

// An upgraded connection is cut at the end, since nobody would end it.
func TestServeCutsUpgradedConnections(t *testing.T) {
	var upgraded, cut atomic.Bool
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		upgraded.Store(true)
		select {
		case <-r.Context().Done():
			cut.Store(true)
		case <-time.After(time.Hour):
		}
	}, func(t *testing.T, p *pipes, end func()) {
		conn := p.dial(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Minute)
		if !upgraded.Load() || cut.Load() {
			t.Error("an upgraded connection does not last")
		}
		end()
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || !cut.Load() {
			t.Error("it outlives its server", err)
		}
	})
}

// A request that does not end is cut when the time to drain is over.
func TestServeCutsWhatDoesNotEnd(t *testing.T) {
	bubble(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, p *pipes, end func()) {
		conn := p.dial(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Second) // until the request is with its handler
		began := time.Now()
		end()
		if took := time.Since(began); took != Drain {
			t.Errorf("the end took %s", took)
		}
		_ = conn.Close()
	})
}

// A client that announces a body and never sends it is answered and let go of,
// whether the handler reads or not, and holds nothing up at the end.
func TestServeBodiesThatNeverCome(t *testing.T) {
	for name, read := range map[string]bool{"read": true, "not read": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w http.ResponseWriter, r *http.Request) {
				if read {
					if _, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
				}
				w.WriteHeader(http.StatusUnauthorized)
			}, func(t *testing.T, p *pipes, end func()) {
				began := time.Now()
				var all sync.WaitGroup
				for range 100 {
					all.Go(func() {
						conn := p.dial(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nxx")
						_ = conn.SetReadDeadline(began.Add(time.Minute))
						answer, err := io.ReadAll(conn) // to the end of the connection
						if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 401 ")) {
							t.Errorf("%q, %v", answer, err)
						}
						_ = conn.Close()
					})
				}
				all.Wait()
				if took := time.Since(began); took < readTimeout || took > readTimeout+time.Second {
					t.Errorf("answered after %s", took)
				}
				began = time.Now()
				end()
				if took := time.Since(began); took > time.Second {
					t.Errorf("the end took %s", took)
				}
			})
		})
	}
}

func TestServeReportsALostListener(t *testing.T) {
	a, b := listen(t), listen(t)
	_ = a.Close()
	err := Serve(t.Context(), slog.New(slog.DiscardHandler),
		Server{Name: "a", Listener: a, Handler: http.NotFoundHandler()},
		Server{Name: "b", Listener: b, Handler: http.NotFoundHandler()})
	if err == nil {
		t.Error("a listener was lost in silence")
	}
}

func TestServeLimitsHeaders(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, slog.New(slog.DiscardHandler), Server{Listener: ln, Handler: http.NotFoundHandler()})
	}()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", string(bytes.Repeat([]byte("x"), 64<<10)))
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(resp.Status)
	}
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
