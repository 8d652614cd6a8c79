package app

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
)

// BenchmarkRevokeCall compares revoke calls over HTTP, durable before they are
// answered, with a handler that verifies the same RS256 tokens and answers. Both are
// behind the same server and asked over as many connections. The ratio is what counts.
func BenchmarkRevokeCall(b *testing.B) {
	const each = 8000
	key := tokentest.NewKey("k", "RS256")
	idp := httptest.NewServer(tokentest.NewIdP(key))
	b.Cleanup(idp.Close)
	const issuer = "https://idp.example"

	cfg := NewConfig()
	cfg.Listen, cfg.NATS.Listen, cfg.DataDir = "127.0.0.1:0", "127.0.0.1:0", b.TempDir()
	i := NewIssuer(issuer, idp.URL)
	cfg.Issuers = []Issuer{i}
	sum := sha256.Sum256([]byte("secret"))
	cfg.Clients = []Client{{ID: "web", SecretSHA256: hex.EncodeToString(sum[:]), Rate: 1_000_000}}
	ctx, stop := context.WithCancel(b.Context())
	logger := slog.New(slog.NewTextHandler(io.Discard, nil)) // a line is made for each revocation
	ready, ended := make(chan Addrs, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, Options{Logger: logger, Ready: func(a Addrs) { ready <- a }})
	}()
	var authority string
	select {
	case a := <-ready:
		authority = a.HTTP
	case err := <-ended:
		b.Fatal(err)
	}

	reader, err := token.NewReader([]token.Issuer{{Issuer: issuer, JWKSURI: idp.URL, Algorithms: []string{"RS256"}}}, nil, logger)
	if err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { reader.Run(ctx) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	running.Go(func() {
		_ = cli.Serve(ctx, logger, cli.Server{Name: "reference", Listener: ln, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := reader.Read(r.Context(), r.PostFormValue("token")); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}\n")
		})})
	})
	b.Cleanup(func() {
		stop()
		running.Wait()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})

	var issued atomic.Int64
	requests := func() [][]byte { // signing is what takes longest
		all := make([][]byte, each)
		var signing sync.WaitGroup
		for part := range 2 {
			signing.Go(func() {
				for n := part; n < each; n += 2 {
					now := time.Now()
					form := url.Values{"token": {key.Token(map[string]any{
						"iss": issuer, "sub": "alice", "client_id": "web", "jti": fmt.Sprint("j", issued.Add(1)), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
					})}, "token_type_hint": {"access_token"}}.Encode()
					all[n] = fmt.Appendf(nil, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n"+
						"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
						base64.StdEncoding.EncodeToString([]byte("web:secret")), len(form), form)
				}
			})
		}
		signing.Wait()
		return all
	}
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			var revoking, verifying time.Duration
			n := 0
			for b.Loop() {
				b.StopTimer()
				all := requests()
				b.StartTimer()
				verifying += ask(b, ln.Addr().String(), connections, all)
				revoking += ask(b, authority, connections, all)
				n += each
			}
			b.ReportMetric(float64(n)/revoking.Seconds(), "revoked/s")
			b.ReportMetric(float64(n)/verifying.Seconds(), "verified/s")
			b.ReportMetric(verifying.Seconds()/revoking.Seconds(), "ratio")
		})
	}
}

// ask sends requests over so many connections, and returns how long it took until
// all were answered.
func ask(b *testing.B, address string, connections int, requests [][]byte) time.Duration {
	var next atomic.Int64
	var asking sync.WaitGroup
	start := time.Now()
	for range connections {
		asking.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for n := next.Add(1) - 1; n < int64(len(requests)); n = next.Add(1) - 1 {
				if _, err := conn.Write(requests[n]); err != nil {
					b.Error(err)
					return
				}
				response, err := http.ReadResponse(answers, nil)
				if err != nil || response.StatusCode != http.StatusOK {
					b.Error(err, response)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
			}
		})
	}
	asking.Wait()
	return time.Since(start)
}
