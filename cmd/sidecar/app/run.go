package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/sidecar"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/pkg/verifier"
)

// Addrs are the addresses that a sidecar is at, host:port, with the ports that the
// system chose. Proxy and ExtAuthz are "" where they are switched off.
type Addrs struct{ Proxy, Check, ExtAuthz string }

// Options are what a caller in the same process may want to know or give.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	// Listening is called once the ports are bound. Requests are answered 503 until
	// the list is loaded.
	Listening func(Addrs)
	// Ready is called once good tokens are let through.
	Ready func(Addrs)
}

// watchEvery is how soon a change of readiness is logged.
const watchEvery = 100 * time.Millisecond

// Run runs a sidecar until ctx ends, and returns nil then. A mistake in the
// configuration is a [*config.Error].
func Run(ctx context.Context, cfg Config, o Options) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	doors := []struct {
		key, address string
		on           sidecar.Listener
		http2        bool
		bound        net.Listener
	}{
		{key: "listen", address: cfg.Listen, on: sidecar.ProxyListener, http2: true},
		{key: "check_listen", address: cfg.CheckListen, on: sidecar.CheckListener},
		{key: "extauthz_listen", address: cfg.ExtAuthzListen, on: sidecar.ExtAuthzListener, http2: true},
	}
	bound := map[sidecar.Listener]string{}
	for i := range doors {
		d := &doors[i]
		if d.address == "" {
			continue
		}
		var err error
		if d.bound, err = config.Listen(ctx, d.key, d.address); err != nil {
			return err
		}
		defer func() { _ = d.bound.Close() }()
		bound[d.on] = d.bound.Addr().String()
	}
	for _, own := range [...]struct{ key, path string }{{"state_file", cfg.StateFile}, {"keys_file", cfg.KeysFile}} {
		if own.path == "" {
			continue
		}
		dir, file := filepath.Split(own.path)
		unlock, err := cli.Lock(filepath.Join(dir, "."+file+".lock"))
		if err != nil {
			return config.Errorf(own.key, "%s: %v", own.path, err)
		}
		defer unlock()
	}

	p, err := assemble(cfg, o.Logger)
	if err != nil {
		return err
	}
	defer p.verifier.Close()
	defer p.sidecar.Close()
	addrs := Addrs{bound[sidecar.ProxyListener], bound[sidecar.CheckListener], bound[sidecar.ExtAuthzListener]}
	o.Logger.Info("sidecar is listening", "proxy", addrs.Proxy, "check", addrs.Check, "extauthz", addrs.ExtAuthz, "upstream", cfg.Upstream)
	if o.Listening != nil {
		o.Listening(addrs)
	}

	// The feed outlives ctx: requests under way are still to be checked.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = p.feed.Run(following) }) // returns the reason for its end: stop
	running.Go(func() { p.watch(following, addrs, o) })
	var servers []cli.Server
	for _, d := range doors {
		if d.bound != nil {
			servers = append(servers, cli.Server{Name: d.key, Listener: d.bound, Handler: p.sidecar.Handler(d.on), HTTP2: d.http2})
		}
	}
	err = cli.Serve(ctx, o.Logger, servers...)
	stop()
	running.Wait()
	o.Logger.Info("sidecar has ended")
	return err
}

// parts are what a sidecar is made of.
type parts struct {
	list     *denylist.List
	feed     *feed.Feed
	verifier *verifier.Verifier
	sidecar  *sidecar.Sidecar
}

func assemble(cfg Config, logger *slog.Logger) (*parts, error) {
	p := &parts{list: denylist.New(denylist.MaxStaleness(cfg.Freshness.MaxStaleness))}
	var err error
	if p.feed, err = feed.New(p.list, feed.Config{
		Authority: cfg.Authority, StateFile: cfg.StateFile, Keys: cfg.keys(), Logger: logger,
	}); err != nil {
		return nil, config.Errorf("", "%v", err)
	}
	var upstream *url.URL
	if cfg.Upstream != "" {
		if upstream, err = url.Parse(cfg.Upstream); err != nil {
			return nil, config.Errorf("upstream", "%v", err)
		}
	}
	var issuers []verifier.Issuer
	for n, i := range cfg.Issuers {
		secret, err := i.Secret(fmt.Sprintf("issuers[%d]", n))
		if err != nil {
			return nil, err
		}
		issuers = append(issuers, verifier.Issuer{
			Issuer: i.Issuer, JWKSURI: i.JWKSURI, Secret: secret, Algorithms: i.Algorithms, Audiences: i.Audiences,
			MaxLifetime: i.MaxTokenLifetime, Leeway: i.Leeway,
		})
	}
	if p.verifier, err = verifier.New(verifier.Config{
		Denylist: p.list, Issuers: issuers, OnStale: policy(cfg.Freshness.OnStale), OutliveExpiry: cfg.OutliveExpiry,
		CacheSize: cfg.CacheSize, KeysFile: cfg.KeysFile, Logger: logger,
	}); err != nil {
		return nil, config.Errorf("", "%v", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		cli.ListCollector{List: p.list}, &sidecar.Collector{List: p.list, Verifier: p.verifier}, feedCollector{p.feed.Status},
	)
	if p.sidecar, err = sidecar.New(sidecar.Config{
		Decider: p.verifier, Routes: cfg.routes(p.verifier), Identity: cfg.identity(), Preflights: cfg.CORSPreflight,
		Upstream: upstream, UpstreamTimeout: cfg.UpstreamTimeout, Ready: p.ready, Gatherer: registry, Logger: logger,
	}); err != nil {
		p.verifier.Close()
		return nil, err
	}
	registry.MustRegister(p.sidecar)
	return p, nil
}

// ready adds to the verifier's answer what the feed knows about the cause.
func (p *parts) ready() error {
	err := p.verifier.Ready()
	if err == nil {
		return nil
	}
	if last := p.feed.Status().LastError; last != "" {
		return fmt.Errorf("%w; the authority: %s", err, last)
	}
	return err
}

// watch logs when readiness changes, and reports the first time that it is there.
func (p *parts) watch(ctx context.Context, addrs Addrs, o Options) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	was, ever := false, false
	for {
		err := p.ready()
		switch is := err == nil; {
		case is && !was:
			o.Logger.Info("sidecar is ready", "proxy", addrs.Proxy, "position", p.feed.Status().Position)
			if !ever && o.Ready != nil {
				o.Ready(addrs)
			}
			ever = true
		case !is && was:
			o.Logger.Warn("sidecar is not ready any more", "reason", err)
		}
		was = err == nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
