//go:build fault

package streams

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestConnectionThatTakesNothing of HTTP/2 is closed in bounded time, with what it
// carries: an end of one of its streams could not be told.
func TestConnectionThatTakesNothing(t *testing.T) {
	w := newWorld(t, nil)
	token, before := w.token("alice", time.Hour), w.goroutines()
	var calls []*call
	for i := range deaf {
		name := fmt.Sprint("blocked-", i)
		calls = append(calls, w.api.expect(name))
		flood(t, dialRaw(w, w.doors[overHTTP]), name, token)
	}
	fullOf(calls)
	answered := w.revoke(token)
	for _, c := range calls {
		select {
		case <-c.ended:
		case <-time.After(time.Until(answered.Add(within))):
			t.Error("the API sees no end")
		}
	}
	w.await("nothing is left of the requests", 60*time.Second, func() bool { return w.goroutines() < before+deaf })
	t.Logf("nothing was left of them %s after the answer", time.Since(answered).Round(time.Millisecond))
}

// flood asks for more than anybody could take, and lets it come.
func flood(t *testing.T, conn net.Conn, name, token string) {
	t.Helper()
	var fields strings.Builder
	encode := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/flood"},
		{"authorization", "Bearer " + token}, {strings.ToLower(callHeader), name},
	} {
		if err := encode.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	const much = 1 << 30
	if _, err := fmt.Fprint(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	for _, err := range []error{
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: much}),
		framer.WriteWindowUpdate(0, much),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(fields.String()), EndHeaders: true, EndStream: true}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
