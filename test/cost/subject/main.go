package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/pprof"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/pkg/verifier"
)

// The roles: subject ROLE -flag value...
var roles = map[string]func() error{
	"api":        func() error { return serve(api()) },
	"proxy":      func() error { return serve(bareProxy()) },
	"middleware": func() error { return middleware() },
	"load":       func() error { return say(load()) },
	"good":       func() error { return say(good()) },
	"garbage":    func() error { return say(garbage()) },
	"slow":       func() error { return say(slow()) },
}

var (
	address   = flag.String("address", "", "where to listen, or where to send to")
	upstream  = flag.String("upstream", "", "proxy: the API's URL")
	authority = flag.String("authority", "", "middleware: the authority's URL")
	issuer    = flag.String("issuer", "", "middleware: the issuer, whose keys are at /jwks")
	profile   = flag.String("profile", "", "servers: a file for a CPU profile")

	path     = flag.String("path", "/", "senders: what to ask for")
	tokens   = flag.String("tokens", "", "senders: a file with a token a line")
	conns    = flag.Int("conns", 32, "senders: how many connections")
	requests = flag.Int("requests", 10_000, "load: how many requests")
	rate     = flag.Int("rate", 200, "good, garbage: how many requests a second")
	length   = flag.Int("length", 8<<10, "garbage: bytes of a token")
	during   = flag.Duration("for", 5*time.Second, "good, garbage, slow: how long; garbage and slow end with standard input, too")
)

func main() {
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: subject ROLE [flags]")
		os.Exit(2)
	}
	_ = flag.CommandLine.Parse(os.Args[2:]) // exits where it fails
	if err := roles[os.Args[1]](); err != nil {
		fmt.Fprintf(os.Stderr, "subject %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// say prints a result for the test.
func say(result any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// serve serves until it is killed, with the settings of the sidecar's servers.
func serve(h http.Handler) error {
	if *profile != "" {
		go profiled(*profile)
	}
	server := &http.Server{
		Addr: *address, Handler: h, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
	return server.ListenAndServe()
}

// profiled writes a profile of five seconds, after two.
func profiled(file string) {
	time.Sleep(2 * time.Second)
	f, err := os.Create(file)
	if err != nil || pprof.StartCPUProfile(f) != nil {
		return
	}
	time.Sleep(5 * time.Second)
	pprof.StopCPUProfile()
	_ = f.Close()
}

// api only answers 200.
func api() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })
}

// bareProxy is what the documentation of httputil shows, with the sidecar's transport.
func bareProxy() http.Handler {
	to, err := url.Parse(*upstream)
	if err != nil {
		panic(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			ExpectContinueTimeout: time.Second,
			MaxIdleConns:          512,
			MaxIdleConnsPerHost:   512,
			IdleConnTimeout:       60 * time.Second,
			DisableCompression:    true,
			ForceAttemptHTTP2:     true,
		},
	}
}

// middleware serves the API behind a verifier that follows an authority. It listens
// once its list is loaded.
func middleware() error {
	list, quiet := denylist.New(), slog.New(slog.DiscardHandler)
	f, err := feed.New(list, feed.Config{Authority: *authority})
	if err != nil {
		return fmt.Errorf("follow the authority: %w", err)
	}
	v, err := verifier.New(verifier.Config{
		Denylist: list, Logger: quiet,
		Issuers: []verifier.Issuer{{Issuer: *issuer, JWKSURI: *issuer + "/jwks", Algorithms: []string{"RS256"}}},
	})
	if err != nil {
		return fmt.Errorf("make a verifier: %w", err)
	}
	defer v.Close()
	go func() { _ = f.Run(context.Background()) }() // ends with the process
	for began := time.Now(); v.Ready() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			return errors.Join(errors.New("the verifier does not become ready"), v.Ready())
		}
	}
	return serve(v.Middleware(api()))
}
