package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
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

// An upgraded connection is cut at the end, since nobody would end it.
func TestServeCutsUpgradedConnections(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	ln, upgraded, cut := listen(t), make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, slog.New(slog.DiscardHandler), Server{Listener: ln, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				close(upgraded)
				<-r.Context().Done()
				close(cut)
			})})
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	<-upgraded
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
	<-cut
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
