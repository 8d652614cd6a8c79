package app

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/pkg/verifier"
)

// unlike is a configuration whose every key has another value than by default.
func unlike(idp *issuer, authority, stateFile string) Config {
	c := NewConfig()
	c.Listen, c.CheckListen, c.ExtAuthzListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.StateFile, c.KeysFile = stateFile, ""
	c.Authority, c.Upstream, c.UpstreamTimeout, c.CacheSize = authority, "http://127.0.0.1:1/base", 7*time.Second, 7
	c.Issuers = []config.Issuer{{
		Issuer: idp.url, JWKSURI: idp.url, Algorithms: []string{"EdDSA"}, Audiences: []string{"api"},
		MaxTokenLifetime: time.Hour, Leeway: 90 * time.Second,
	}}
	c.Freshness = Freshness{MaxStaleness: time.Hour, OnStale: "allow"}
	return c
}

// Every key of the configuration that decides on tokens reaches what it is for.
func TestConfigurationDecides(t *testing.T) {
	idp := newIssuer(t)
	for _, c := range []struct {
		name            string
		audience        string
		issued, expires time.Duration
		listAge         time.Duration
		onStale         string
		want            verifier.Reason
	}{
		{"good", "api", 0, time.Hour, 0, "deny", verifier.Clear},
		{"audiences", "other", 0, time.Hour, 0, "deny", verifier.WrongAudience},
		{"max_token_lifetime", "api", 0, 2 * time.Hour, 0, "deny", verifier.TooLongLived},
		{"leeway, more than by default", "api", -time.Hour, -time.Minute, 0, "deny", verifier.Clear},
		{"leeway, its end", "api", -time.Hour, -2 * time.Minute, 0, "deny", verifier.Expired},
		{"max_staleness, more than by default", "api", 0, time.Hour, 30 * time.Minute, "deny", verifier.Clear},
		{"max_staleness, its end", "api", 0, time.Hour, 2 * time.Hour, "deny", verifier.Stale},
		{"on_stale", "api", 0, time.Hour, 2 * time.Hour, "allow", verifier.StaleAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := unlike(idp, "http://127.0.0.1:1", "")
			cfg.Freshness.OnStale = c.onStale
			if err := cfg.check(); err != nil {
				t.Fatal(err)
			}
			p, err := assemble(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer p.sidecar.Close()
			defer p.verifier.Close()
			p.list.Advance(time.Now().Add(-c.listAge))
			raw := idp.sign(t, "t", c.audience, c.issued, c.expires)
			var d verifier.Decision
			for d = p.verifier.Decide(t.Context(), raw); d.Reason == verifier.KeysUnavailable; d = p.verifier.Decide(t.Context(), raw) {
				runtime.Gosched() // the first fetch
			}
			if d.Reason != c.want {
				t.Errorf("%s, want %s: %v", d.Reason, c.want, d.Err)
			}
			if p.sidecar.UpstreamTimeout != cfg.UpstreamTimeout || p.sidecar.Upstream.String() != cfg.Upstream {
				t.Errorf("%+v", p.sidecar.Config)
			}
		})
	}
}

// A sidecar whose pinned key is not the authority's never becomes ready.
func TestSignedPinnedKeys(t *testing.T) {
	idp, logger := newIssuer(t), slog.New(slog.NewTextHandler(t.Output(), nil))
	addrs, _ := startAuthority(t, idp, logger)
	_, discovery := call(t, "GET", "http://"+addrs.HTTP+"/.well-known/revcast", "", nil)
	_, rest, _ := strings.Cut(discovery, `"x":"`)
	right, _, _ := strings.Cut(rest, `"`)
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := base64.RawURLEncoding.EncodeToString(public)
	for name, c := range map[string]struct {
		keys  []string
		ready bool
	}{"right": {[]string{right}, true}, "one of two": {[]string{wrong, right}, true}, "wrong": {[]string{wrong}, false}} {
		t.Run(name, func(t *testing.T) {
			cfg := unlike(idp, "http://"+addrs.HTTP, "")
			cfg.AuthorityKeys = c.keys
			if err := cfg.check(); err != nil {
				t.Fatal(err)
			}
			p, err := assemble(cfg, logger)
			if err != nil {
				t.Fatal(err)
			}
			defer p.sidecar.Close()
			defer p.verifier.Close()
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = p.feed.Run(ctx) })
			defer running.Wait()
			defer cancel()
			for {
				if _, loaded := p.list.Age(time.Now()); loaded {
					if !c.ready {
						t.Error("it follows an authority whose key is another")
					}
					return
				}
				if !c.ready && p.feed.Status().LastError != "" {
					return
				}
				runtime.Gosched()
			}
		})
	}
}

// The feed goes on while requests under way are waited for: they are still to be
// decided on.
func TestFeedOutlivesTheEnd(t *testing.T) {
	idp := newIssuer(t)
	asked := make(chan struct{})
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(authority.Close)
	listening := make(chan Addrs, 1)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := Run(ctx, unlike(idp, authority.URL, ""), Options{Listening: func(a Addrs) { listening <- a }}); err != nil {
			t.Error(err)
		}
	}()
	defer func() { end(); <-ended }()
	addrs := await(t, "listening", listening, ended)

	// A body that doesn't come keeps its request under way.
	conn, err := net.Dial("tcp", addrs.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	for body := ""; !strings.Contains(body, `outcome="refused",reason="missing"} 1`); {
		_, body = call(t, "GET", "http://"+addrs.Check+"/metrics", "", nil)
	}
	end()
	for {
		late, err := net.Dial("tcp", addrs.Proxy)
		if err != nil {
			break
		}
		_ = late.Close()
	}
	for range 2 { // the first may have been asked before the end
		select {
		case <-asked:
		case <-ended:
			t.Fatal("the feed ended before the last request did")
		}
	}
}
