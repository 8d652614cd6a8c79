package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/authority"
	"github.com/revcast/revcast/internal/broadcast"
	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Addrs are the addresses that an authority is at, with the ports that the system
// chose.
type Addrs struct {
	HTTP string // host:port
	NATS string // URL for verifiers
}

// Options are what a caller in the same process may want to know or give.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	// Listening is called once HTTP is bound, before the log is open; NATS is empty.
	Listening func(Addrs)
	// Reload reads the configuration again, and Files are where it is: clients are taken
	// over when a file has changed, and on SIGHUP. nil: they stay as they are.
	Reload func() (Config, error)
	Files  []string
	// Ready is called once revocations can be stored.
	Ready func(Addrs)
}

// Run runs an authority until ctx ends, and returns nil then. A mistake in the
// configuration is a [*config.Error], found before the disk is touched.
func Run(ctx context.Context, cfg Config, o Options) error {
	cfg = cfg.complete()
	if err := cfg.check(); err != nil {
		return err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	log := &pendingLog{}
	list := denylist.New()
	parts, err := assemble(cfg, log, list, o)
	if err != nil {
		return err
	}
	ln, err := bind(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }()
	open, unlock, err := prepare(cfg, list, o.Logger)
	if err != nil {
		return err
	}
	defer unlock()

	used := &quotas{file: filepath.Join(cfg.DataDir, "quotas.json"), clients: parts.clients, logger: o.Logger}
	used.load()
	addrs := Addrs{HTTP: ln.Addr().String()}
	o.Logger.Info("authority is listening", "http", addrs.HTTP)
	if o.Listening != nil {
		o.Listening(addrs)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { parts.reader.Run(ctx) })
	if parts.events != nil {
		running.Go(func() { parts.events.Run(ctx) })
	}
	for _, p := range parts.pollers {
		running.Go(func() {
			if untilReady(ctx, log) { // what is fetched before can't be stored
				p.Run(ctx)
			}
		})
	}
	running.Go(func() { parts.clients.Run(ctx) })
	running.Go(func() { parts.reloader.run(ctx) })
	running.Go(func() { used.keep(ctx) })
	var openErr error
	running.Go(func() {
		opened, err := broadcast.Open(ctx, open)
		if err != nil {
			if ctx.Err() == nil {
				openErr = fmt.Errorf("open the log: %w", err)
			}
			stop()
			return
		}
		log.open.Store(opened)
		if d, err := opened.Discovery(); err == nil {
			addrs.NATS = d.Live.URL
		}
		if !untilReady(ctx, log) {
			return
		}
		o.Logger.Info("authority is ready", "http", addrs.HTTP, "nats", addrs.NATS, "epoch", opened.Stats().Epoch)
		if o.Ready != nil {
			o.Ready(addrs)
		}
	})
	err = cli.Serve(ctx, o.Logger, cli.Server{Name: "listen", Listener: parts.tls.wrap(ln), Handler: parts.face, Stop: parts.face.Stop})
	stop()
	running.Wait()
	used.save() // with what was under way
	err = errors.Join(openErr, err)
	if opened := log.open.Load(); opened != nil {
		if closeErr := opened.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close the log: %w", closeErr))
		}
	}
	o.Logger.Info("authority has ended")
	return err
}

// untilReady waits for the log's first heartbeat, and reports whether it came
// before ctx ended.
func untilReady(ctx context.Context, log *pendingLog) bool {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for log.Ready() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
	return true
}

// parts are what needs neither network nor the data directory's lock to be made.
type parts struct {
	reader   *token.Reader
	events   *token.Reader // of transmitters; nil where there are none
	pollers  []*event.Poller
	clients  *client.Registry
	tls      *certificates
	reloader *reloader
	face     *authority.Authority
}

func assemble(cfg Config, log *pendingLog, list *denylist.List, o Options) (p parts, err error) {
	var readers []token.Issuer
	var issuers []authority.Issuer
	for n, i := range cfg.Issuers {
		secret, err := i.Secret(fmt.Sprintf("issuers[%d]", n))
		if err != nil {
			return p, err
		}
		readers = append(readers, token.Issuer{
			Issuer: i.Issuer.Issuer, JWKSURI: i.JWKSURI, Secret: secret, Algorithms: i.Algorithms, Audiences: i.Audiences,
			MaxLifetime: i.MaxTokenLifetime, Leeway: i.Leeway,
		})
		issuers = append(issuers, authority.Issuer{
			Issuer: i.Issuer.Issuer, MaxTokenLifetime: i.MaxTokenLifetime, ClientClaims: i.ClientClaims, GrantClaims: i.GrantClaims,
			ClockSkew: i.ClockSkew, TokensCarrySID: i.TokensCarrySID, LogoutAudiences: i.LogoutAudiences,
			Relay: authority.Relay{
				Endpoint: i.Relay.RevocationEndpoint, LocalFirst: i.Relay.LocalFirst, OverruleUnsupported: i.Relay.OverruleUnsupported,
			},
		})
	}
	if p.reader, err = token.NewReader(readers, nil, o.Logger, token.ForRevoking(), token.Persist(filepath.Join(cfg.DataDir, "keys.json"))); err != nil {
		return p, config.Errorf("", "%v", err)
	}
	var events authority.Tokens
	var transmitters []authority.Transmitter
	if len(cfg.Transmitters) > 0 {
		if p.events, transmitters, err = transmittersOf(cfg.Transmitters, o.Logger); err != nil {
			return p, err
		}
		events = p.events
	}
	clients, err := clientConfigs(cfg.Clients)
	if err != nil {
		return p, err
	}
	if p.clients, err = client.New(clients, client.Options{Audiences: cfg.audiences(), Logger: o.Logger}); err != nil {
		return p, config.Errorf("", "%v", err)
	}
	p.tls = &certificates{}
	if err := p.tls.load(cfg.TLS); err != nil {
		return p, err
	}
	registry := prometheus.NewRegistry()
	reported := &collector{log: log, reader: p.reader, events: p.events, clients: p.clients, polled: map[string]*event.Poller{}}
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		cli.ListCollector{List: list}, reported,
	)
	p.reloader = newReloader(cfg, o, p.clients, p.tls, registry)
	mounts := make([]authority.Mount, len(cfg.Mounts))
	for i, m := range cfg.Mounts {
		mounts[i] = authority.Mount(m)
	}
	p.face, err = authority.New(authority.Config{
		Log: log, List: list, Tokens: p.reader, Issuers: issuers, Clients: p.clients, Opaque: authority.Opaque(cfg.OpaqueTokens),
		Transmitters: transmitters, Events: events,
		PublicURL: cfg.PublicURL, Dialects: cfg.Dialects, Mounts: mounts,
		Logger: o.Logger, Registry: registry, Version: cli.Version(),
	})
	if err != nil {
		return p, config.Errorf("", "%v", err)
	}
	for i, t := range cfg.Transmitters {
		if t.PollURL == "" {
			continue
		}
		poller, err := t.poller(fmt.Sprintf("transmitters[%d]", i), p.face, o.Logger)
		if err != nil {
			return p, err
		}
		p.pollers = append(p.pollers, poller)
		reported.polled[t.Issuer] = poller
	}
	warnOfPlain(cfg, o.Logger)
	return p, nil
}

// bind takes the HTTP port, and makes sure that the embedded server's is free.
func bind(ctx context.Context, cfg Config) (net.Listener, error) {
	ln, err := config.Listen(ctx, "listen", cfg.Listen)
	if err != nil || cfg.NATS.URL != "" {
		return ln, err
	}
	probe, err := config.Listen(ctx, "nats.listen", cfg.NATS.Listen)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, probe.Close()
}

// prepare makes the data directory this process's own and reads the signing key.
func prepare(cfg Config, list *denylist.List, logger *slog.Logger) (open broadcast.Config, unlock func(), err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return open, nil, config.Errorf("data_dir", "%v", err)
	}
	// Two servers on one store would each overwrite what the other acknowledged.
	unlock, err = cli.Lock(filepath.Join(cfg.DataDir, "lock"))
	if err != nil {
		return open, nil, config.Errorf("data_dir", "%s: %v", cfg.DataDir, err)
	}
	open = broadcast.Config{
		MaxLifetime: cfg.maxLifetime(), MaxBytes: cfg.NATS.MaxBytes, List: list, Logger: logger,
		SnapshotFile: filepath.Join(cfg.DataDir, "snapshot"),
	}
	store := ""
	if n := cfg.NATS; n.URL == "" {
		store = cfg.storeDir()
		open.Embedded = &broadcast.Embedded{Listen: n.Listen, Advertise: n.Advertise, StoreDir: store}
	} else {
		open.External = &broadcast.External{
			URL: n.URL, Login: broadcast.Login{User: n.User, Password: password("nats.password_file", n.PasswordFile)},
			CredentialsFile: n.CredentialsFile, Replicas: n.Replicas, MonitorURLs: n.MonitorURLs,
			VerifierURL:   n.VerifierURL,
			VerifierLogin: broadcast.Login{User: n.VerifierUser, Password: password("nats.verifier_password_file", n.VerifierPasswordFile)},
		}
		if n.VerifierURL == "" {
			open.External.VerifierURL = n.URL
		}
		for _, login := range [...]broadcast.Login{open.External.Login, open.External.VerifierLogin} {
			if login.User == "" {
				continue
			}
			if _, err := login.Password(); err != nil {
				unlock()
				return open, nil, err
			}
		}
	}
	if open.Signer, err = signingKey(cfg.SigningKeyFile, store, logger); err != nil {
		unlock()
		return open, nil, err
	}
	return open, unlock, nil
}
