package streams

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// kind is a kind of open request.
type kind struct {
	name string
	door string
	// open sends the request. sees is how the client saw its end. works sends something
	// and waits until it has come through; where it is nil, there is nothing to see.
	open func(w *world, url, name, token string, c *call) (sees func() string, works func() error)
	want string // that sees begins with
}

const (
	refused = "401"
	cut     = "cut: "
	closing = "closed with 1008 the access token is not accepted any more"
)

var kinds = []kind{
	{"events", overHTTP, get("/events", 1), cut + "unexpected EOF"},
	{"download", overHTTP, get("/download", 1), cut + "unexpected EOF"},
	{"upload", overHTTP, upload(1, true), refused},
	{"upload that pauses", overHTTP, upload(1, false), refused},
	{"no answer yet", overHTTP, get("/wait", 1), refused},
	{"websocket", overHTTP, openWebsocket, closing},
	{"websocket, frame of 100 KiB", overHTTP, openFrames("large"), closing},
	{"websocket, message in fragments", overHTTP, openFrames("fragments"), closing},
	{"websocket, frame half written", overHTTP, openFrames("half"), cut},

	{"events, HTTP/2", overHTTP, get("/events", 2), cut + "stream error"},
	{"download, HTTP/2", overHTTP, get("/download", 2), cut + "stream error"},
	{"upload, HTTP/2", overHTTP, upload(2, true), refused},
	{"upload that pauses, HTTP/2", overHTTP, upload(2, false), refused},
	{"no answer yet, HTTP/2", overHTTP, get("/wait", 2), refused},

	{"events", overSocket, get("/events", 1), cut + "unexpected EOF"},
	{"websocket", overSocket, openWebsocket, closing},

	{"server stream", overH2C, serverStream, "Unauthenticated"},
	{"client stream", overH2C, clientStream, "Unauthenticated"},
	{"both streams", overH2C, bothStreams, "Unauthenticated"},
	{"no answer yet", overH2C, unary, "Unauthenticated"},

	{"handler that watches its context", middleware, get("/events", 1), cut + "unexpected EOF"},
	{"handler that ignores its context", middleware, get("/stubborn", 1), cut + "unexpected EOF"},
	{"handler that reads", middleware, upload(1, true), cut},
}

// client has one connection for each request, so that none ends for another's end.
func client(version int) *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(version == 1)
	t.Protocols.SetUnencryptedHTTP2(version == 2)
	return &http.Client{Transport: t}
}

func newRequest(w *world, method, url, name, token string, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(w.Context(), method, url, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set(callHeader, name)
	return r
}

// answer reads a whole answer and says how it ended.
func answer(resp *http.Response, err error, received *atomic.Int64) string {
	if err != nil {
		return cut + err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(text), err)
	}
	for buf := make([]byte, 4<<10); ; {
		n, err := resp.Body.Read(buf)
		received.Add(int64(n))
		if errors.Is(err, io.EOF) {
			return "whole"
		}
		if err != nil {
			return cut + err.Error()
		}
	}
}

// grows waits until a count has grown.
func grows(n *atomic.Int64) error {
	for before, end := n.Load(), time.Now().Add(2*time.Second); n.Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("nothing comes through any more")
		}
	}
	return nil
}

// get opens a request that asks, and listens.
func get(path string, version int) func(w *world, url, name, token string, c *call) (func() string, func() error) {
	return func(w *world, url, name, token string, c *call) (func() string, func() error) {
		client, received := client(version), new(atomic.Int64)
		saw := make(chan string, 1)
		go func() {
			resp, err := client.Do(newRequest(w, "GET", url+path, name, token, nil))
			saw <- answer(resp, err, received)
			client.CloseIdleConnections()
		}()
		sees := sync.OnceValue(func() string { return <-saw })
		works := func() error { return grows(received) }
		if path == "/wait" {
			works = func() error {
				close(c.release)
				if text := sees(); text != "whole" {
					return errors.New(text)
				}
				return nil
			}
		}
		return sees, works
	}
}

// upload opens a request that sends, all the time or once.
func upload(version int, goesOn bool) func(w *world, url, name, token string, c *call) (func() string, func() error) {
	return func(w *world, url, name, token string, c *call) (func() string, func() error) {
		client := client(version)
		body, sender := io.Pipe()
		go func() {
			_, err := sender.Write([]byte("first"))
			for goesOn && err == nil {
				_, err = sender.Write(make([]byte, 1000))
				time.Sleep(5 * time.Millisecond)
			}
		}()
		saw := make(chan string, 1)
		go func() {
			resp, err := client.Do(newRequest(w, "POST", url+"/upload", name, token, body))
			saw <- answer(resp, err, new(atomic.Int64))
			_ = body.Close()
			client.CloseIdleConnections()
		}()
		return func() string { return <-saw }, func() error {
			if !goesOn {
				go func() { _, _ = sender.Write([]byte("more")) }()
			}
			return grows(&c.got)
		}
	}
}

func openWebsocket(w *world, url, name, token string, _ *call) (func() string, func() error) {
	header := http.Header{"Authorization": {"Bearer " + token}, callHeader: {name}}
	conn, _, err := websocket.Dial(w.Context(), url+"/websocket", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		w.Fatal(err)
	}
	conn.SetReadLimit(-1)
	echoed := make(chan int, 1)
	saw := make(chan string, 1)
	go func() {
		for {
			_, message, err := conn.Read(context.Background())
			if err == nil {
				echoed <- len(message)
				continue
			}
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				saw <- fmt.Sprint("closed with ", int(closed.Code), " ", closed.Reason)
			} else {
				saw <- cut + err.Error()
			}
			return
		}
	}()
	works := func() error {
		for _, size := range []int{5, 100 << 10} {
			if err := conn.Write(w.Context(), websocket.MessageBinary, make([]byte, size)); err != nil {
				return err
			}
			select {
			case n := <-echoed:
				if n != size {
					return fmt.Errorf("%d of %d bytes came back", n, size)
				}
			case <-time.After(2 * time.Second):
				return errors.New("no echo")
			}
		}
		return nil
	}
	w.Cleanup(func() { _ = conn.CloseNow() })
	return func() string { return <-saw }, works
}

// frameTexts are what servers may be in the middle of.
var frameTexts = map[string]struct {
	bytes string
	again bool // and again
}{
	"large":     {bytes: "\x82\x7f\x00\x00\x00\x00\x00\x01\x90\x00" + strings.Repeat("x", 100<<10)},
	"fragments": {bytes: "\x01\x7e\x01\x00" + strings.Repeat("x", 256) + "\x00\x03abc\x89\x00"},
	"half":      {bytes: "\x82\x7e\x10\x00" + "not all of it"},
	"flood":     {bytes: "\x82\x7e\x10\x00" + strings.Repeat("x", 4<<10), again: true},
}

// dialFrames opens a WebSocket whose frames nobody interprets.
func dialFrames(w *world, url, name, token, of string) (net.Conn, *bufio.Reader) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /frames?of=%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n%s: %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", of, token, callHeader, name)
	if err != nil {
		w.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		w.Fatal(fmt.Sprint(resp, err))
	}
	return conn, reader
}

func openFrames(of string) func(w *world, url, name, token string, c *call) (func() string, func() error) {
	return func(w *world, url, name, token string, _ *call) (func() string, func() error) {
		_, reader := dialFrames(w, url, name, token, of)
		begin := frameTexts[of].bytes
		if text, err := io.ReadAll(io.LimitReader(reader, int64(len(begin)))); string(text) != begin {
			w.Fatal(fmt.Sprint(len(text), err))
		}
		return func() string {
			rest, err := io.ReadAll(reader)
			if len(rest) < 4 || rest[0] != 0x88 || int(rest[1]) != len(rest)-2 {
				return fmt.Sprintf("%s%q %v", cut, rest, err)
			}
			return fmt.Sprint("closed with ", int(rest[2])<<8|int(rest[3]), " ", string(rest[4:]))
		}, nil
	}
}

// stream is an open request.
type stream struct {
	kind
	*call
	name  string
	token string
	works func() error

	saw  string
	at   time.Time // when the client saw the end
	done chan struct{}
}

// opened opens one request of each kind, each with its own token.
func (w *world) opened(of []kind, token func() string) (all []*stream) {
	w.Helper()
	for _, k := range of {
		s := &stream{kind: k, name: k.door + ": " + k.name, token: token(), done: make(chan struct{})}
		id := fmt.Sprint("call-", w.serial.Add(1))
		s.call = w.api.expect(id)
		var sees func() string
		sees, s.works = k.open(w, w.doors[k.door], id, s.token, s.call)
		go func() {
			s.saw = sees()
			s.at = time.Now()
			close(s.done)
		}()
		all = append(all, s)
	}
	for _, s := range all {
		select {
		case <-s.began:
		case <-time.After(5 * time.Second):
			w.Fatalf("%s: the API was not asked", s.name)
		}
	}
	// All have begun to flow.
	time.Sleep(100 * time.Millisecond)
	for _, s := range all {
		if s.over() {
			w.Fatalf("%s: ended with nobody's doing: %s", s.name, s.saw)
		}
	}
	return all
}

func (s *stream) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ends waits until client and API have seen the end, and tells when they did, counted
// from some time.
func (s *stream) ends(t *testing.T, since time.Time, limit time.Duration) (client, upstream time.Duration) {
	t.Helper()
	late := time.After(time.Until(since.Add(limit)))
	for what, seen := range map[string]chan struct{}{"client": s.done, "API": s.ended} {
		select {
		case <-seen:
		case <-late:
			t.Errorf("%s: the %s sees no end within %s", s.name, what, limit)
			return limit, limit
		}
	}
	client, upstream = s.at.Sub(since), s.call.at.Sub(since)
	if !strings.HasPrefix(s.saw, s.want) {
		t.Errorf("%s: the client saw %q, want %q", s.name, s.saw, s.want)
	}
	return client, upstream
}

// allWork has something pass through each of them that is still open.
func allWork(t *testing.T, all []*stream) {
	t.Helper()
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() {
			if s.over() {
				t.Errorf("%s: ended: %s", s.name, s.saw)
			} else if s.works != nil {
				if err := s.works(); err != nil {
					t.Errorf("%s: %v", s.name, err)
				}
			}
		})
	}
	running.Wait()
}
