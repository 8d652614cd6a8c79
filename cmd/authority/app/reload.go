package app

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/config"
)

// watchEvery is how often the files are looked at. What two looks in a row show is taken
// over: the first may have come upon a file that is just being written.
const watchEvery = time.Second

// reloader takes over what may change while the authority runs: its clients, and the
// certificate. It tells what changed besides.
type reloader struct {
	running Config
	load    func() (Config, error) // nil: clients stay as they are
	clients *client.Registry
	tls     *certificates
	logger  *slog.Logger
	reloads *prometheus.CounterVec
	good    prometheus.Gauge
	// files hold the configuration, and named are those that it names, as it was read
	// last, be it to no effect: what is missing may appear. Each with how they looked
	// before they were read.
	files, named         []string
	seenFiles, seenNamed string
}

func newReloader(cfg Config, o Options, clients *client.Registry, tls *certificates, registry prometheus.Registerer) *reloader {
	r := &reloader{
		running: cfg, load: o.Reload, files: o.Files, named: cfg.named(), clients: clients, tls: tls, logger: o.Logger,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revcast_reloads_total",
			Help: "Times that clients and certificate were read again, by result.",
		}, []string{"result"}),
		good: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revcast_last_reload_successful",
			Help: "0 where clients and certificate stayed as they were, since the last change has a mistake.",
		}),
	}
	r.good.Set(1)
	for _, result := range []string{"ok", "failed"} {
		r.reloads.WithLabelValues(result)
	}
	registry.MustRegister(r.reloads, r.good)
	r.seenFiles, r.seenNamed = look(r.files), look(r.named)
	return r
}

// run reloads on SIGHUP and when a file has changed, until ctx ends.
func (r *reloader) run(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	defer func() {
		signal.Stop(asked)
		signal.Ignore(syscall.SIGHUP) // it would kill a process that is shutting down
	}()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	before := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			r.reload()
		case <-ticker.C:
			now, changed := r.changed()
			if changed && now == before {
				r.reload()
			}
			before = now
		}
	}
}

// named returns the files that a configuration names and that are read again.
func (c Config) named() []string {
	names := []string{c.TLS.CertFile, c.TLS.KeyFile, c.TLS.ClientCAFile}
	for _, client := range c.Clients {
		names = append(names, client.JWKSFile)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// changed returns how the files look, and whether one was written since it was read.
func (r *reloader) changed() (now string, changed bool) {
	now = look(r.files) + look(r.named)
	return now, now != r.seenFiles+r.seenNamed
}

// look returns something that differs once one of some files holds something else, or
// can't be read any more.
func look(files []string) string {
	h := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		fmt.Fprintf(h, "%q %d %v\n", name, len(b), err)
		h.Write(b)
	}
	return string(h.Sum(nil))
}

func (r *reloader) reload() {
	clients, next, err := r.read()
	if err == nil {
		err = r.take(clients)
	}
	if err != nil {
		r.reloads.WithLabelValues("failed").Inc()
		r.good.Set(0)
		r.logger.Error("the configuration could not be read again: all stays as it was", "why", err)
		return
	}
	r.reloads.WithLabelValues("ok").Inc()
	r.good.Set(1)
	r.logger.Info("clients and certificate were read again", "clients", len(clients))
	r.running.Clients = next.Clients
	if next.Clients = nil; !reflect.DeepEqual(next, withoutClients(r.running)) {
		r.logger.Warn("the configuration has changed in more than its clients: that takes a restart")
	}
}

// read reads the configuration again. What the files looked like is taken before, so
// that what is written meanwhile is seen as a change.
func (r *reloader) read() ([]client.Config, Config, error) {
	next := r.running
	r.seenFiles, r.seenNamed = look(r.files), look(r.named)
	if r.load != nil {
		var err error
		if next, err = r.load(); err != nil {
			return nil, next, err
		}
	}
	watched := next
	watched.TLS = r.running.TLS // others take a restart
	r.named = watched.named()
	r.seenNamed = look(r.named)
	next = next.complete()
	if err := next.check(); err != nil {
		return nil, next, err
	}
	if len(next.Clients) == 0 && len(r.running.Clients) > 0 {
		// More often a file that was emptied by mistake than an authority that is to be
		// for no one.
		return nil, next, config.Errorf("clients", "there are none any more: that takes a restart")
	}
	clients, err := clientConfigs(next.Clients)
	return clients, next, err
}

// take has clients and certificate take effect: both or none.
func (r *reloader) take(clients []client.Config) error {
	made, err := readTLS(r.running.TLS)
	if err != nil {
		return err
	}
	if err := r.clients.Replace(clients); err != nil {
		return config.Errorf("", "%v", err)
	}
	r.tls.current.Store(made)
	return nil
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
