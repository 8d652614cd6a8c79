package broadcast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	heartbeatEvery = time.Second
	markEvery      = time.Minute // embedded; on an external cluster each heartbeat is a mark too
	publishTimeout = 3 * time.Second
	streamMargin   = time.Hour // how long messages outlive the longest token

	// DefaultMaxBytes bounds the stream on disk.
	DefaultMaxBytes = 4 << 30
)

// Config says where the log lives. Exactly one of Embedded and External is set.
type Config struct {
	Embedded *Embedded
	External *External
	Signer   wire.Signer
	// MaxLifetime is the longest lifetime of a token of any issuer: the log keeps
	// messages that long, and an hour more.
	MaxLifetime time.Duration
	MaxBytes    int64 // of the stream; DefaultMaxBytes where 0
	// SnapshotFile keeps the newest snapshot over restarts; empty: none is kept.
	SnapshotFile string
	List         *denylist.List // kept in step with the log
	Logger       *slog.Logger
	Now          func() time.Time // time.Now where nil
}

// Log is the durable log. Safe for concurrent use.
type Log struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	pruned  time.Time // by the wall clock; the beat's own
	ring    wire.Keyring
	server  *embedded // nil with an external cluster
	nc      *nats.Conn
	js      jetstream.JetStream
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	queue     chan *request
	own       sync.Map // wire.Hash to []denylist.Entry: batches of this process that the follower has yet to meet
	counters  counters
	failing   atomic.Pointer[error] // the last publish's error, nil after a success
	size      atomic.Pointer[size]  // nil: not known yet
	servers   atomic.Pointer[[]Server]
	snapshots snapshots
	markDue   atomic.Bool // the next heartbeat is to be a mark too
	scratch   string      // a directory to be removed

	closing atomic.Bool
	drained chan struct{} // closed when no batch will follow

	mu         sync.Mutex // guards the rest: what the follower knows
	interrupt  context.CancelCauseFunc
	anew       bool   // the follower is to start over
	generation uint64 // counts the times it has
	lastAcked  uint64 // highest position acknowledged to this process
	adding     uint64 // the position whose entries are being put into the list, or were last
	mistrusted time.Time
	since      uint64 // the chain starts here, since what came before was lost; usually 0
	epoch      string
	track      *wire.Track      // nil until the stream was found, or a snapshot file
	unproven   bool             // track is as a snapshot file has it, and the log has not confirmed it yet
	claim      *wire.Snapshot   // where the log was known to stand, until reading it again has shown the same
	unsaved    []denylist.Entry // told since the last snapshot
	unsavedMax int
	caught     bool // the follower has reached what was the end when it started
	asOf       time.Time
	recent     recent
	changed    chan struct{} // closed and replaced when track moves
	stream     jetstream.Stream
	foreign    error // why the stream can't be used, where it can't
}

type counters struct {
	batches, entries, publishErrors, heartbeats, alarms, rejected, serverRestarts atomic.Uint64
}

// Stats counts what the log has done since it was opened.
type Stats struct {
	Epoch            string
	Position         uint64
	AsOf             time.Time // the last heartbeat's
	Batches, Entries uint64    // acknowledged
	PublishErrors    uint64
	Heartbeats       uint64
	Alarms           uint64   // the stream was lost, rolled back or altered
	RejectedMessages uint64   // in the stream, without our signature
	Bytes, MaxBytes  uint64   // of the stream on disk, by its last answer; asked for every 15 s; 0: not known
	ServerRestarts   uint64   // of the embedded server, to recover from a full disk
	Servers          []Server // of an external cluster, those whose monitoring address is known
	SnapshotErrors   uint64
	SnapshotEntries  int
	SnapshotBytes    int64
	SnapshotAt       time.Time
	SnapshotDuration time.Duration
}

// Open connects, makes the stream where it doesn't exist, and starts following it.
// It returns when the log has been read to its end, or ctx is done.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if (cfg.Embedded == nil) == (cfg.External == nil) {
		return nil, errors.New("broadcast: either an embedded server or an external cluster")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	l := &Log{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, ring: wire.NewKeyring(cfg.Signer.Public()),
		queue: make(chan *request, queueSize), changed: make(chan struct{}), drained: make(chan struct{}),
		started: cfg.Now(), unsavedMax: maxUnsaved,
	}
	l.snapshots.full, l.snapshots.building = make(chan struct{}, 1), make(chan struct{}, 1)
	var err error
	if cfg.Embedded != nil {
		if l.server, err = startEmbedded(*cfg.Embedded, cfg.Signer, cfg.MaxBytes, cfg.Logger); err != nil {
			return nil, err
		}
		l.nc, err = l.server.connect(l.options()...)
	} else {
		l.nc, err = cfg.External.connect(l.log, l.options()...)
	}
	if err != nil {
		l.server.stop()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	l.nc.SetReconnectHandler(func(*nats.Conn) {
		l.log.Info("connected to NATS again")
		l.followAgain(errors.New("connected to NATS again")) // what was on its way was lost
	})
	if l.js, err = jetstream.New(l.nc, jetstream.WithDefaultTimeout(publishTimeout)); err != nil {
		l.nc.Close()
		l.server.stop()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	if err := l.prepare(); err != nil {
		l.nc.Close()
		l.server.stop()
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.wg.Go(func() { l.save(run) })
	l.wg.Go(func() { l.follow(run) })
	l.wg.Go(func() { l.commit(run) })
	err = l.await(ctx, func() bool { return l.caught || l.foreign != nil })
	l.mu.Lock()
	err = cmp.Or(err, l.foreign)
	l.mu.Unlock()
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("read the log: %w", err)
	}
	l.wg.Go(func() { l.beat(run) })
	l.wg.Go(func() { l.measure(run) })
	if l.server != nil {
		l.wg.Go(func() { l.heal(run) })
	}
	return l, nil
}

func (l *Log) options() []nats.Option {
	return []nats.Option{
		nats.Name("revcast-authority"),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectBufSize(-1), // else a publish that timed out would be delivered later
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				l.log.Warn("lost the connection to NATS", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Warn("NATS reported an error", "error", err)
		}),
	}
}

// Close answers what is queued with an error, and ends everything. Again it does
// nothing.
func (l *Log) Close() error {
	if !l.closing.CompareAndSwap(false, true) {
		return nil
	}
	l.cancel()
	l.wg.Wait()
	l.nc.Close()
	l.server.stop()
	if l.scratch != "" {
		_ = os.RemoveAll(l.scratch)
	}
	return nil
}

// await blocks until done, called with l.mu held, says so.
func (l *Log) await(ctx context.Context, done func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := done(), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// notify wakes those in await. The caller holds l.mu.
func (l *Log) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Ready returns why the log can't be relied on now, or nil.
func (l *Log) Ready() error {
	if err := l.failing.Load(); err != nil {
		return fmt.Errorf("the last revocation was not stored: %w", *err)
	}
	if !l.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch age := l.now().Sub(l.asOf); {
	case l.foreign != nil:
		return l.foreign
	case !l.caught:
		return errors.New("reading the log")
	case l.asOf.IsZero():
		return errors.New("no heartbeat yet")
	case age > 5*heartbeatEvery:
		return fmt.Errorf("the log has not been known complete for %s", age.Round(time.Second))
	}
	return nil
}

// Stats returns the current counts.
func (l *Log) Stats() Stats {
	c := &l.counters
	st := Stats{
		Batches: c.batches.Load(), Entries: c.entries.Load(), PublishErrors: c.publishErrors.Load(),
		Heartbeats: c.heartbeats.Load(), Alarms: c.alarms.Load(), RejectedMessages: c.rejected.Load(),
		ServerRestarts: c.serverRestarts.Load(),
	}
	if size := l.size.Load(); size != nil {
		st.Bytes, st.MaxBytes = size.bytes, size.max
	}
	if servers := l.servers.Load(); servers != nil {
		st.Servers = *servers
	}
	last := l.snapshots.current()
	st.SnapshotErrors = l.snapshots.errors.Load()
	st.SnapshotEntries, st.SnapshotBytes, st.SnapshotAt, st.SnapshotDuration = last.entries, last.bytes, last.IssuedAt, last.took
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Epoch, st.AsOf = l.epoch, l.asOf
	if l.track != nil {
		st.Position = l.track.Position()
	}
	return st
}

// Discovery describes the log to verifiers. Live.URL may name an unspecified host.
func (l *Log) Discovery() (wire.Discovery, error) {
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	if epoch == "" {
		return wire.Discovery{}, errors.New("the log is not open yet")
	}
	d := wire.Discovery{
		Version: wire.Version, Epoch: epoch,
		SigningKeys: []wire.SigningKey{wire.SigningKeyOf(l.cfg.Signer.Public())},
		Snapshot:    wire.SnapshotPath, Log: wire.LogPath,
		Live: wire.Live{Subject: wire.LiveSubjects, HeartbeatMillis: heartbeatEvery.Milliseconds()},
	}
	if l.server != nil {
		d.Live.URL, d.Live.User, d.Live.Password = l.server.url(), verifierUser, l.server.verifierPassword
		return d, nil
	}
	d.Live.URL = l.cfg.External.VerifierURL
	if login := l.cfg.External.VerifierLogin; login.User != "" {
		password, err := login.Password()
		if err != nil {
			return wire.Discovery{}, fmt.Errorf("read the verifiers' password: %w", err)
		}
		d.Live.User, d.Live.Password = login.User, password
	}
	return d, nil
}
