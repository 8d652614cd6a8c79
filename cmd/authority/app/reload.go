package app

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/config"
)

// watchEvery is how often the files are looked at. A look costs a stat each, and sees
// what a platform swaps under a link.
const watchEvery = 2 * time.Second

// reloader takes over what may change while the authority runs: its clients, and the
// certificate. It tells what changed besides.
type reloader struct {
	running  Config
	load     func() (Config, error) // nil: clients stay as they are
	files    []string
	clients  *client.Registry
	tls      *certificates
	logger   *slog.Logger
	reloads  *prometheus.CounterVec
	lastSeen string
}

func newReloader(cfg Config, o Options, clients *client.Registry, tls *certificates, registry prometheus.Registerer) *reloader {
	r := &reloader{
		running: cfg, load: o.Reload, files: o.Files, clients: clients, tls: tls, logger: o.Logger,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revcast_reloads_total",
			Help: "Times that clients and certificate were read again, by result.",
		}, []string{"result"}),
	}
	for _, result := range []string{"ok", "failed"} {
		r.reloads.WithLabelValues(result)
	}
	registry.MustRegister(r.reloads)
	r.lastSeen = r.look()
	return r
}

// run reloads on SIGHUP and when a file has changed, until ctx ends.
func (r *reloader) run(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	defer signal.Stop(asked)
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			r.lastSeen = r.look()
		case <-ticker.C:
			seen := r.look()
			if seen == r.lastSeen {
				continue
			}
			r.lastSeen = seen
		}
		r.reload()
	}
}

// look returns something that differs once a file was written.
func (r *reloader) look() (seen string) {
	files := append(r.files, r.running.TLS.CertFile, r.running.TLS.KeyFile, r.running.TLS.ClientCAFile)
	for _, c := range r.running.Clients {
		files = append(files, c.JWKSFile)
	}
	for _, name := range files {
		if name == "" {
			continue
		}
		var info fs.FileInfo
		info, err := os.Stat(name)
		if err != nil {
			seen += "-;"
			continue
		}
		seen += fmt.Sprint(info.ModTime().UnixNano(), info.Size(), ";")
	}
	return seen
}

func (r *reloader) reload() {
	next := r.running
	var err error
	if r.load != nil {
		if next, err = r.load(); err == nil {
			next = next.complete()
			err = next.check()
		}
	}
	var clients []client.Config
	if err == nil {
		clients, err = clientConfigs(next.Clients)
	}
	if err == nil {
		err = r.tls.load(r.running.TLS)
	}
	if err == nil {
		if err = r.clients.Replace(clients); err != nil {
			err = config.Errorf("", "%v", err)
		}
	}
	if err != nil {
		r.reloads.WithLabelValues("failed").Inc()
		r.logger.Error("the configuration could not be read again: all stays as it was", "why", err)
		return
	}
	r.reloads.WithLabelValues("ok").Inc()
	r.logger.Info("clients and certificate were read again", "clients", len(clients))
	r.running.Clients = next.Clients
	if next.Clients = nil; !reflect.DeepEqual(next, withoutClients(r.running)) {
		r.logger.Warn("the configuration has changed in more than its clients: that takes a restart")
	}
}

func withoutClients(c Config) Config {
	c.Clients = nil
	return c
}

// clientConfigs reads the files that clients name.
func clientConfigs(list []Client) ([]client.Config, error) {
	all := make([]client.Config, len(list))
	for i, c := range list {
		all[i] = client.Config{
			ID: c.ID, SecretSHA256: c.SecretSHA256, Auth: c.Auth, Revoke: c.Revoke,
			JWKSURI: c.JWKSURI, Algorithms: c.Algorithms,
			TLSSubjectDN: c.TLSSubjectDN, TLSSANDNS: c.TLSSANDNS, TLSSANURI: c.TLSSANURI, TLSSANIP: c.TLSSANIP, TLSSANEmail: c.TLSSANEmail,
			AllowedOrigins: c.AllowedOrigins, Rate: float64(c.Rate), MaxEntries: c.MaxEntries,
		}
		if c.JWKSFile == "" {
			continue
		}
		b, err := os.ReadFile(c.JWKSFile)
		if err != nil {
			return nil, config.Errorf(fmt.Sprintf("clients[%d].jwks_file", i), "%v", err)
		}
		all[i].JWKS = b
	}
	return all, nil
}
