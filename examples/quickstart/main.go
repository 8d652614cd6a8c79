package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	authority "github.com/revcast/revcast/cmd/authority/app"
	sidecar "github.com/revcast/revcast/cmd/sidecar/app"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/pkg/verifier"
)

const (
	authorityAddr  = "127.0.0.1:8700"
	natsAddr       = "127.0.0.1:4222"
	issuerAddr     = "127.0.0.1:8790"
	apiAddr        = "127.0.0.1:8791"
	middlewareAddr = "127.0.0.1:8730"

	clientID = "demo"
	secret   = "demo-secret"
	// Of a secret that people know. `authority client-secret` makes real ones.
	secretSHA256 = "cd577fe2561ebff23505db0bb006300c7cdecbd46bc0e03c449afafaca2c25bf"

	startTimeout = 30 * time.Second
)

// sidecarAddrs are proxy and check addresses of the two sidecars.
var sidecarAddrs = [][2]string{{"127.0.0.1:8710", "127.0.0.1:8711"}, {"127.0.0.1:8720", "127.0.0.1:8721"}}

func main() {
	once := flag.Bool("once", false, "end after the story")
	verbose := flag.Bool("v", false, "show the logs of all parts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *once, *verbose); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// stage is everything that runs. The first part that fails ends all.
type stage struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	log    *slog.Logger
}

func (s *stage) start(name string, part func() error) {
	s.wg.Go(func() {
		if err := part(); err != nil && s.ctx.Err() == nil {
			s.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func (s *stage) serve(name, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %s is already in use: end what listens there and try again", name, addr)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	s.start(name, func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	context.AfterFunc(s.ctx, func() { _ = server.Close() })
	return nil
}

func run(ctx context.Context, out io.Writer, once, verbose bool) (err error) {
	dir, err := os.MkdirTemp("", "revcast-quickstart-")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stage{log: slog.New(slog.DiscardHandler)}
	if verbose {
		s.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.wg.Wait()
	defer s.cancel(nil)

	began := time.Now()
	fmt.Fprintln(out, "Starting an authority, a token issuer, two sidecars and an API with the middleware, all in this process.")
	idp, err := newIssuer("http://"+issuerAddr, clientID, secret)
	if err != nil {
		return err
	}
	if err := s.serve("token issuer", issuerAddr, idp); err != nil {
		return err
	}
	if err := s.serve("sample API", apiAddr, http.HandlerFunc(hello)); err != nil {
		return err
	}
	ready := make(chan struct{}, 4)
	s.authority(dir, ready)
	for i, addrs := range sidecarAddrs {
		s.sidecar(filepath.Join(dir, fmt.Sprintf("sidecar%d.state", i)), addrs, ready)
	}
	if err := s.middleware(ready); err != nil {
		return err
	}
	timeout := time.After(startTimeout)
	for range cap(ready) {
		select {
		case <-ready:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-timeout:
			return fmt.Errorf("not everything was ready within %s; -v shows the logs", startTimeout)
		}
	}
	fmt.Fprintf(out, "All are ready after %s.\n\n", time.Since(began).Round(time.Millisecond))

	if err := story(s.ctx, out); err != nil {
		return err
	}
	if once {
		return nil
	}
	fmt.Fprint(out, paste)
	<-s.ctx.Done()
	if ctx.Err() != nil {
		return nil // asked to end
	}
	return context.Cause(s.ctx)
}

func (s *stage) authority(dir string, ready chan<- struct{}) {
	cfg := authority.NewConfig()
	cfg.Listen, cfg.NATS.Listen, cfg.DataDir = authorityAddr, natsAddr, filepath.Join(dir, "authority")
	i := authority.NewIssuer("http://"+issuerAddr, "http://"+issuerAddr+"/jwks")
	i.Algorithms = []string{"ES256"}
	cfg.Issuers = []authority.Issuer{i}
	cfg.Clients = []authority.Client{{ID: clientID, SecretSHA256: secretSHA256, Revoke: []string{"own", "subject"}}}
	s.start("authority", func() error {
		return authority.Run(s.ctx, cfg, authority.Options{
			Logger: s.log.With("part", "authority"), Ready: func(authority.Addrs) { ready <- struct{}{} },
		})
	})
}

func (s *stage) sidecar(state string, addrs [2]string, ready chan<- struct{}) {
	cfg := sidecar.NewConfig()
	cfg.Listen, cfg.CheckListen, cfg.ExtAuthzListen, cfg.StateFile = addrs[0], addrs[1], "", state
	cfg.KeysFile = state + ".keys"
	cfg.Authority, cfg.Upstream = "http://"+authorityAddr, "http://"+apiAddr
	i := config.NewIssuer("http://"+issuerAddr, "http://"+issuerAddr+"/jwks")
	i.Algorithms, i.Audiences = []string{"ES256"}, []string{"api"}
	cfg.Issuers = []config.Issuer{i}
	s.start("sidecar", func() error {
		return sidecar.Run(s.ctx, cfg, sidecar.Options{
			Logger: s.log.With("part", "sidecar "+addrs[0]), Ready: func(sidecar.Addrs) { ready <- struct{}{} },
		})
	})
}

// middleware is an API that checks tokens in its own process.
func (s *stage) middleware(ready chan<- struct{}) error {
	list := denylist.New()
	log := s.log.With("part", "middleware")
	s.start("feed", func() error {
		return feed.Follow(s.ctx, list, feed.Config{Authority: "http://" + authorityAddr, Logger: log})
	})
	v, err := verifier.New(verifier.Config{Denylist: list, Logger: log, Issuers: []verifier.Issuer{{
		Issuer: "http://" + issuerAddr, JWKSURI: "http://" + issuerAddr + "/jwks", Algorithms: []string{"ES256"}, Audiences: []string{"api"},
	}}})
	if err != nil {
		return err
	}
	context.AfterFunc(s.ctx, v.Close)
	if err := s.serve("API with the middleware", middlewareAddr, v.Middleware(http.HandlerFunc(hello))); err != nil {
		return err
	}
	s.start("readiness", func() error {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for v.Ready() != nil {
			select {
			case <-ticker.C:
			case <-s.ctx.Done():
				return nil
			}
		}
		ready <- struct{}{}
		return nil
	})
	return nil
}

// hello is the sample API. Behind the middleware it knows who asks; behind a
// sidecar it need not know that tokens exist.
func hello(w http.ResponseWriter, r *http.Request) {
	name := "whoever the sidecar let through"
	if claims := verifier.FromContext(r.Context()); claims != nil {
		name = claims.Subject
	}
	fmt.Fprintf(w, "hello, %s\n", name)
}
