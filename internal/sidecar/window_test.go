package sidecar

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client of HTTP/2 that lets nothing be sent to it, and has no good token, holds
// no request for long.
func TestProxyLetsGoOfClosedWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guard(t, nil)
		front, end := servePipes(g.Handler(ProxyListener))
		defer end()
		conn, _ := front.dial(t.Context(), "", "")
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(time.Hour))
		framer := http2.NewFramer(conn, conn)
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/x"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		began := time.Now()
		go func() {
			_, _ = io.WriteString(conn, http2.ClientPreface)
			_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		}()
		answered := false
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.HeadersFrame:
				answered = true
			case *http2.DataFrame:
				t.Fatalf("%d bytes past the window", f.Length)
			case *http2.RSTStreamFrame:
				if took := time.Since(began); !answered || took > takeWithin+time.Second {
					t.Errorf("answered %v, held for %s", answered, took)
				}
				return
			}
		}
	})
}
