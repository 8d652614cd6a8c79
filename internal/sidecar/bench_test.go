package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

const openIssuer = "https://idp.example"

// openAPI is an upstream that begins an answer of the asked kind, and never ends it. It
// takes little memory, and the same whatever is in front of it.
func openAPI(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				head := make([]byte, 0, 2<<10)
				for !strings.Contains(string(head), "\r\n\r\n") {
					n, err := conn.Read(head[len(head):cap(head)])
					if err != nil {
						return
					}
					head = head[:len(head)+n]
				}
				answer := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n"
				if strings.Contains(string(head), "Upgrade: websocket") {
					answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x01x"
				}
				_, _ = io.WriteString(conn, answer)
				_, _ = conn.Read(make([]byte, 1)) // until the proxy goes
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

// memory is what the heap and the stacks hold.
type memory struct{ heap, stack int64 }

func (m memory) less(o memory) memory { return memory{m.heap - o.heap, m.stack - o.stack} }

func inUse() memory {
	var m runtime.MemStats
	time.Sleep(50 * time.Millisecond) // what has just been asked for has come to rest
	for range 4 {                     // stacks shrink by halves, pools in two steps
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return memory{int64(m.HeapAlloc), int64(m.StackInuse)}
}

// openThrough opens so many requests through a handler, and returns the memory that it
// takes until they are closed.
func openThrough(b *testing.B, h http.Handler, n int, header string, token func(i int) string) memory {
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadTimeout, server.Config.IdleTimeout, server.Config.MaxHeaderBytes = 10*time.Second, 2*time.Minute, 32<<10
	server.Start()
	tokens, conns := make([]string, n), make([]net.Conn, n)
	for i := range tokens {
		tokens[i] = token(i)
	}
	goroutines := runtime.NumGoroutine()
	before := inUse()
	for i := range conns {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = conn
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\n%sAuthorization: Bearer %s\r\n\r\n", header, tokens[i]); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode >= 400 {
			b.Fatal(resp, err)
		}
	}
	took := inUse().less(before)
	runtime.KeepAlive(tokens)
	for _, conn := range conns {
		_ = conn.Close()
	}
	server.Close()
	for end := time.Now().Add(2 * time.Second); runtime.NumGoroutine() >= goroutines && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return took
}

// BenchmarkOpenMemory holds a thousand requests open through the proxy, and through a
// bare ReverseProxy with the same transport and server. "bare-B/request" is what the
// latter takes with the API and the clients. "heap-B/request" and "stack-B/request" are
// what ours takes more where all have one token, those with "own-" where each has
// its own: those are in the cache of signatures, too, and whoever verifies a signature
// leaves a larger stack.
func BenchmarkOpenMemory(b *testing.B) {
	const open = 1000
	for _, kind := range []struct{ name, header string }{
		{"events", ""}, {"websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
	} {
		b.Run(kind.name, func(b *testing.B) {
			var bare, heap, stack, ownHeap, ownStack int64
			for range b.N {
				key := tokentest.NewKey("e1", "EdDSA")
				list := denylist.New()
				list.Advance(time.Now())
				v, err := verifier.New(verifier.Config{
					Denylist: list, HTTPClient: tokentest.NewIdP(key).Client(), Logger: slog.New(slog.DiscardHandler),
					Issuers: []verifier.Issuer{{Issuer: openIssuer, JWKSURI: openIssuer + "/jwks", Algorithms: []string{"EdDSA"}}},
				})
				if err != nil {
					b.Fatal(err)
				}
				upstream, err := url.Parse(openAPI(b))
				if err != nil {
					b.Fatal(err)
				}
				s, err := New(Config{Decider: v, Upstream: upstream, Ready: v.Ready})
				if err != nil {
					b.Fatal(err)
				}
				token := func(i int) string {
					return key.Token(map[string]any{
						"iss": openIssuer, "sub": fmt.Sprint("user-", i), "jti": fmt.Sprint("token-", i), "client_id": "web", "aud": "api",
						"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
					})
				}
				first := token(0)
				same := func(int) string { return first }
				plain := &httputil.ReverseProxy{
					Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
					Transport:  s.transport,
					BufferPool: newBuffers(),
				}
				ours := s.Handler(ProxyListener)
				openThrough(b, ours, 10, kind.header, same) // what is made once
				openThrough(b, plain, open, kind.header, same)
				reference := openThrough(b, plain, open, kind.header, same)
				one := openThrough(b, ours, open, kind.header, same).less(reference)
				own := openThrough(b, ours, open, kind.header, token).less(reference)
				bare += reference.heap + reference.stack
				heap, stack = heap+one.heap, stack+one.stack
				ownHeap, ownStack = ownHeap+own.heap, ownStack+own.stack
				s.Close()
				v.Close()
			}
			for name, total := range map[string]int64{
				"bare-B/request": bare, "heap-B/request": heap, "stack-B/request": stack,
				"own-heap-B/request": ownHeap, "own-stack-B/request": ownStack,
			} {
				b.ReportMetric(float64(total)/float64(b.N)/open, name)
			}
		})
	}
}
