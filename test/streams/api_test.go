package streams

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// call is one request as the API sees it.
type call struct {
	began   chan struct{} // the API has it
	ended   chan struct{} // the API's handler has returned
	release chan struct{} // closed to have it answered
	at      time.Time     // of the end
	got     atomic.Int64  // bytes or messages received
}

// callHeader tells the API which call a request is.
const callHeader = "X-Call"

// api is what is behind the doors.
type api struct {
	mux   *http.ServeMux
	calls sync.Map // of *call, by name
}

func newAPI(t *testing.T) *api {
	a := &api{mux: http.NewServeMux()}
	a.handle("/events", a.events)
	a.handle("/download", a.download)
	a.handle("/stubborn", a.stubborn)
	a.handle("/flood", a.flood)
	a.handle("/upload", a.upload)
	a.handle("/wait", a.wait)
	a.handle("/websocket", func(w http.ResponseWriter, r *http.Request, c *call) { a.websocket(t, w, r, c) })
	a.handle("/frames", a.frames)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// expect announces a call.
func (a *api) expect(name string) *call {
	c := &call{began: make(chan struct{}), ended: make(chan struct{}), release: make(chan struct{})}
	a.calls.Store(name, c)
	return c
}

// enter begins a call that was announced; leave ends it.
func (a *api) enter(name string) (c *call, leave func()) {
	value, ok := a.calls.Load(name)
	if !ok {
		panic("a call that nobody expects: " + name)
	}
	c = value.(*call)
	close(c.began)
	return c, func() {
		c.at = time.Now()
		close(c.ended)
	}
}

func (a *api) handle(path string, h func(http.ResponseWriter, *http.Request, *call)) {
	a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		c, leave := a.enter(r.Header.Get(callHeader))
		defer leave()
		h(w, r, c)
	})
}

// every calls f until it fails or the request has ended.
func every(d time.Duration, r *http.Request, f func() error) {
	for f() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(d):
		}
	}
}

func send(w http.ResponseWriter, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

func (a *api) events(w http.ResponseWriter, r *http.Request, _ *call) {
	w.Header().Set("Content-Type", "text/event-stream")
	every(10*time.Millisecond, r, func() error { return send(w, "data: event\n\n") })
}

func (a *api) download(w http.ResponseWriter, r *http.Request, _ *call) {
	w.Header().Set("Content-Length", fmt.Sprint(1<<40))
	every(5*time.Millisecond, r, func() error { return send(w, strings.Repeat("x", 1000)) })
}

// stubborn does not look at its context.
func (a *api) stubborn(w http.ResponseWriter, _ *http.Request, _ *call) {
	for send(w, "x") == nil {
		time.Sleep(5 * time.Millisecond)
	}
}

// flood sends what it can.
func (a *api) flood(w http.ResponseWriter, _ *http.Request, c *call) {
	for text := strings.Repeat("x", 32<<10); send(w, text) == nil; {
		c.got.Add(1)
	}
}

func (a *api) upload(w http.ResponseWriter, r *http.Request, c *call) {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Body.Read(buf)
		c.got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (a *api) wait(w http.ResponseWriter, r *http.Request, c *call) {
	select {
	case <-r.Context().Done():
	case <-c.release:
		_, _ = io.WriteString(w, "done")
	}
}

// websocket answers each message with itself.
func (a *api) websocket(t *testing.T, w http.ResponseWriter, r *http.Request, _ *call) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		t.Error(err)
		return
	}
	conn.SetReadLimit(-1)
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// frames sends the bytes that the path's query names, after a WebSocket's handshake.
func (a *api) frames(w http.ResponseWriter, r *http.Request, c *call) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = rw.Flush()
	text := frameTexts[r.URL.Query().Get("of")]
	for again := true; again; again = text.again {
		if _, err := io.WriteString(conn, text.bytes); err != nil {
			return
		}
		c.got.Add(1)
	}
	_, _ = conn.Read(make([]byte, 1))
}

// pause waits a little; false: ctx has ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}
