//go:build fault

package streams

import (
	"fmt"
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
	token := w.token("alice", time.Hour)
	c, before := w.api.expect("blocked"), w.goroutines()
	conn := dialRaw(w, w.doors[overHTTP])
	var fields strings.Builder
	encode := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/flood"},
		{"authorization", "Bearer " + token}, {strings.ToLower(callHeader), "blocked"},
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
	<-c.began
	for got := int64(-1); got != c.got.Load() || got == 0; time.Sleep(300 * time.Millisecond) {
		got = c.got.Load()
	}
	answered := w.revoke(token)
	select {
	case <-c.ended:
	case <-time.After(within):
		t.Error("the API sees no end")
	}
	w.await("nothing is left of the request", 60*time.Second, func() bool { return w.goroutines() <= before })
	t.Logf("nothing was left of it %s after the answer", time.Since(answered).Round(time.Millisecond))
}
