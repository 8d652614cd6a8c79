package broadcast

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
)

const (
	authorityUser = "authority"
	verifierUser  = "verifier"
	startTimeout  = 30 * time.Second
	// stuckAfter is how long publishing may fail before the server is restarted, if
	// the disk takes writes again.
	stuckAfter = 3 * time.Second
	probeSize  = 1 << 20
)

// Embedded is a NATS server in this process, for one authority.
type Embedded struct {
	Listen string // host:port for verifiers
	// Advertise is the host:port that discovery names, where it is not Listen.
	Advertise string
	StoreDir  string
}

// embedded keeps a server running; the connection to it survives a restart.
type embedded struct {
	cfg              Embedded
	maxBytes         int64
	log              *slog.Logger
	password         string // this process's own
	verifierPassword string

	mu  sync.Mutex
	srv *server.Server
}

func startEmbedded(cfg Embedded, signer wire.Signer, maxBytes int64, log *slog.Logger) (*embedded, error) {
	// The verifiers' password stays the same over restarts, so that they reconnect
	// without asking. It is no secret: discovery hands it out.
	e := &embedded{cfg: cfg, maxBytes: maxBytes, log: log, password: rand.Text(), verifierPassword: signer.Derive("verifier")}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	return e, e.start()
}

func (e *embedded) start() error {
	host, portText, err := net.SplitHostPort(e.cfg.Listen)
	if err != nil {
		return fmt.Errorf("nats.listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("nats.listen: port %q: %w", portText, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	// The server reports a busy port only to its log, and exits: ask first.
	if probe, err := net.Listen("tcp", e.cfg.Listen); err != nil {
		return fmt.Errorf("nats.listen: %w", err)
	} else if err := probe.Close(); err != nil {
		return fmt.Errorf("nats.listen: %w", err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "revcast", Host: host, Port: port, NoSigs: true,
		JetStream: true, StoreDir: e.cfg.StoreDir, SyncAlways: true,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: e.maxBytes + e.maxBytes/8,
		CustomClientAuthentication: e,
		MaxControlLine:             4096, MaxPayload: 1 << 20, MaxPending: 64 << 20, WriteDeadline: 5 * time.Second,
		PingInterval: 10 * time.Second, MaxPingsOut: 2,
	})
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(natsLogger{e.log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("the embedded NATS server did not start with JetStream in %s", e.cfg.StoreDir)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if port == server.RANDOM_PORT { // keep the one that was chosen over restarts
		e.cfg.Listen = net.JoinHostPort(host, strconv.Itoa(srv.Addr().(*net.TCPAddr).Port))
	}
	e.srv = srv
	return nil
}

// Check tells this process from verifiers, which may subscribe and nothing else.
func (e *embedded) Check(c server.ClientAuthentication) bool {
	given := c.GetOpts()
	is := func(user, password string) bool {
		return subtle.ConstantTimeCompare([]byte(given.Username), []byte(user))&
			subtle.ConstantTimeCompare([]byte(given.Password), []byte(password)) == 1
	}
	switch {
	case is(authorityUser, e.password):
		c.RegisterUser(&server.User{Username: authorityUser})
	case is(verifierUser, e.verifierPassword):
		c.RegisterUser(&server.User{Username: verifierUser, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: []string{">"}},
			Subscribe: &server.SubjectPermission{Allow: []string{wire.LiveSubjects}},
		}})
	default:
		return false
	}
	return true
}

func (e *embedded) stop() {
	if e == nil {
		return
	}
	e.mu.Lock()
	srv := e.srv
	e.srv = nil
	e.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

func (e *embedded) url() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return "nats://" + cmp.Or(e.cfg.Advertise, e.cfg.Listen)
}

// InProcessConn connects to whichever server runs now.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	srv := e.srv
	e.mu.Unlock()
	if srv == nil {
		return nil, errors.New("the embedded NATS server is down")
	}
	return srv.InProcessConn()
}

func (e *embedded) connect(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(options, nats.InProcessServer(e), nats.UserInfo(authorityUser, e.password))...)
}

// heal restarts the embedded server when publishing keeps failing and the disk
// takes writes again: a stream that met a full disk refuses everything until then.
func (l *Log) heal(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := l.failing.Load(); err == nil || full(*err) || errors.Is(*err, errReading) || errors.Is(*err, errForeign) {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = l.now()
		}
		if l.now().Sub(since) < stuckAfter {
			continue
		}
		// Nobody may be asking to revoke: find out by a mark whether it still fails.
		if message, err := l.heartbeat(""); err == nil {
			if _, err := l.publish(ctx, wire.LogMark, message); err == nil {
				continue
			}
		}
		if err := probeDisk(l.server.cfg.StoreDir); err != nil {
			l.log.Error("the log's disk takes no writes", "error", err)
			continue
		}
		l.log.Warn("restarting the embedded NATS server, since the log takes no writes though the disk does")
		l.counters.serverRestarts.Add(1)
		l.server.stop()
		if err := l.server.start(); err != nil {
			l.log.Error("the embedded NATS server did not come back", "error", err)
		}
		since = time.Time{}
	}
}

// full reports whether the log is as large as it may be: no restart makes room, only
// its oldest messages' age does.
func full(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && strings.Contains(api.Description, server.ErrMaxBytes.Error())
}

func probeDisk(dir string) error {
	path := filepath.Join(dir, ".probe")
	defer func() { _ = os.Remove(path) }()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("probe the disk: %w", err)
	}
	_, err = f.Write(make([]byte, probeSize))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("probe the disk: %w", err)
	}
	return nil
}

// natsLogger passes the server's words on. The server calls Fatalf where it gives
// up; exiting is for us to decide.
type natsLogger struct{ log *slog.Logger }

func (n natsLogger) Noticef(format string, v ...any) {
	n.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (n natsLogger) Debugf(format string, v ...any) {
	n.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (n natsLogger) Tracef(format string, v ...any) {
	n.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (n natsLogger) Warnf(format string, v ...any) { n.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (n natsLogger) Errorf(format string, v ...any) {
	n.log.Error("nats: " + fmt.Sprintf(format, v...))
}
func (n natsLogger) Fatalf(format string, v ...any) {
	n.log.Error("nats: " + fmt.Sprintf(format, v...))
}
