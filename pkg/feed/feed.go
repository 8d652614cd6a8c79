package feed

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	heartbeatDue    = 2500 * time.Millisecond // silence longer than this is answered by asking
	gapPatience     = 100 * time.Millisecond  // how long a missing message may still be under way
	behindFor       = 3 * time.Second         // a log that an authority knows complete so long after we confirmed more of it was rolled back
	reanchorAfter   = 5 * time.Second         // how often an old heartbeat may make us ask for the time
	rediscoverEvery = 5 * time.Second         // while the live feed is silent: it may have moved
	refreshEvery    = time.Minute             // ask for time and discovery, all being well
	retryEvery      = 200 * time.Millisecond
	askPause        = 20 * time.Millisecond // between two questions, so that rubbish on the live subject can't make us flood
	foreignEvery    = time.Second
	pollWait        = time.Second
	pruneEvery      = 10 * time.Second
	tick            = 250 * time.Millisecond // how late silence is noticed
)

// Config says whom to follow.
type Config struct {
	// Authority is the authority's URL. Its https certificate is what makes the
	// signing keys that discovery names trustworthy, unless Keys are given.
	Authority string
	// Keys, where given, are the only signing keys trusted.
	Keys []ed25519.PublicKey
	// StateFile keeps list and position over restarts; empty: none is kept.
	StateFile  string
	HTTPClient *http.Client     // for TLS settings and the like; a sane one where nil
	Logger     *slog.Logger     // discards where nil
	Now        func() time.Time // time.Now where nil
}

// Feed follows an authority. Make one with [New] and start it with [Feed.Run].
type Feed struct {
	cfg     Config
	list    *denylist.List
	log     *slog.Logger
	client  *http.Client
	started time.Time
	wake    chan struct{} // of capacity 1: the loop has reason to look

	// Owned by the goroutine of Run.
	discovered   *wire.Discovery
	discoveredAt time.Time
	conn         *nats.Conn
	lastAsk      time.Time
	lastPrune    time.Time
	behind       time.Time // since when the authority has been behind behindOf
	behindOf     uint64    // what we had confirmed
	failures     int

	mu         sync.Mutex // guards the rest, which live messages touch too
	ring       wire.Keyring
	position   position
	clock      clock
	urgent     uint64 // the least question that will do; 0: nothing is urgent
	gapSince   time.Time
	live       time.Time // local time of the last live heartbeat that confirmed
	inStep     time.Time // local time of the first confirmation by this process
	foreignAt  time.Time
	authTime   time.Time // the newest IssuedAt of a heartbeat that confirmed
	status     Status
	connection int // counts connections to NATS

	state        *stateFile       // nil where there is none yet, or none that is of use
	nextState    *stateFile       // one that is being written
	recent       []denylist.Entry // what was told since the state file's base
	stateErrors  uint64
	rekeyed      bool // the state file names other keys than those trusted now
	saveAfter    time.Time
	saveFailures int // in a row
	last         confirmation
}

// Status is what a feed is doing, and counts since its start.
type Status struct {
	Connected bool   // to NATS
	Epoch     string // of the log followed; empty before the first contact
	Position  uint64 // the log is here up to it, without a gap
	Confirmed uint64 // the same, as confirmed by a heartbeat
	LastError string // of the last exchange with the authority; empty after a success

	Batches, Entries, Heartbeats uint64
	Decisions                    map[string]uint64 // live messages and heartbeats, by what they meant
	Rejected                     map[string]uint64 // live messages not even decided on, by reason
	Alarms                       map[string]uint64 // epoch_changed, rolled_back, forked, key_changed
	Asks, AskErrors, Snapshots   uint64
	StateErrors                  uint64

	Snapshot    SnapshotStatus // the last one loaded
	Propagation Propagation
}

// SnapshotStatus describes a snapshot that was loaded.
type SnapshotStatus struct {
	IssuedAt time.Time // by the authority's clock; zero where none was loaded
	Bytes    int64
	Entries  int
	Duration time.Duration // of fetching and loading it
}

// New makes a feed. It errs where the configuration can't work.
func New(list *denylist.List, cfg Config) (*Feed, error) {
	u, err := url.Parse(cfg.Authority)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("feed: Authority: not an http(s) URL: %q", cfg.Authority)
	}
	if list == nil {
		return nil, errors.New("feed: no list")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Keys) == 0 && u.Scheme == "http" && !local(u.Hostname()) {
		cfg.Logger.Warn("which keys sign is taken from an answer over plain http: whoever is on the way can pose as the authority; pin its keys",
			"authority", cfg.Authority)
	}
	f := &Feed{
		cfg: cfg, list: list, log: cfg.Logger, client: cfg.HTTPClient, started: cfg.Now(), wake: make(chan struct{}, 1),
		status: Status{Decisions: map[string]uint64{}, Rejected: map[string]uint64{}, Alarms: map[string]uint64{}},
	}
	if len(cfg.Keys) > 0 {
		f.ring = wire.NewKeyring(cfg.Keys...)
	}
	if f.client == nil {
		f.client = &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: askTimeout}).DialContext,
				TLSHandshakeTimeout: askTimeout, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2,
				IdleConnTimeout: 2 * refreshEvery,
			},
		}
	}
	client := *f.client
	// A redirect could lead to someone else's keys.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f.client = &client
	return f, nil
}

// local says whether a host is this machine by its name.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Follow makes a feed and runs it until ctx ends.
func Follow(ctx context.Context, list *denylist.List, cfg Config) error {
	f, err := New(list, cfg)
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// Run keeps the list in step until ctx ends, and returns ctx's cause. It may be
// called once. Nothing that goes wrong on the way ends it: the list's age tells.
func (f *Feed) Run(ctx context.Context) error {
	f.restore()
	defer f.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next time.Time // no question before it
	for {
		f.upkeep()
		now, sleep := f.cfg.Now(), tick
		if wait, due := f.due(now); due && ctx.Err() == nil {
			if sleep = min(tick, next.Sub(now)); sleep <= 0 {
				pause := askPause
				if err := f.ask(ctx, wait); err != nil && ctx.Err() == nil {
					f.failed(err)
					pause = retryEvery
				}
				next = f.cfg.Now().Add(pause)
				sleep = 0
			}
		}
		timer.Reset(sleep)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.wake:
		case <-timer.C:
		}
	}
}

// due decides whether to ask the authority now, and how long it may take to answer
// if there is nothing new.
func (f *Feed) due(now time.Time) (wait time.Duration, due bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, timed := f.clock.at(f.reading(now))
	gap := !f.gapSince.IsZero() && now.Sub(f.gapSince) > gapPatience
	switch {
	case !f.position.based(), f.urgent > 0, gap, !timed, now.Sub(f.lastAsk) > refreshEvery, f.lacks(now):
		return 0, true
	case now.Sub(f.live) > heartbeatDue, !f.status.Connected:
		if f.failures > 0 {
			return 0, true // a short question is the sooner answered when the way is free again
		}
		return pollWait, true
	}
	return 0, false
}

func (f *Feed) reading(now time.Time) reading {
	return reading{now.Sub(f.started), now.Round(0)}
}

// advance moves the list's freshness to authority time asOf, where the clocks
// allow. The caller holds f.mu.
func (f *Feed) advance(now, asOf time.Time) {
	age, ok := f.clock.age(f.reading(now), asOf)
	if !ok {
		f.clock = clock{} // the loop asks for the time before anything counts as fresh
		f.poke()
		return
	}
	through := now.Add(-age)
	f.list.Advance(through)
	if f.inStep.IsZero() {
		f.inStep = now
	}
	f.last = confirmation{
		Position: f.position.confirmed.position, Chain: f.position.confirmed.chain,
		AsOf: asOf.UnixMicro(), Through: through.UnixMicro(),
	}
	f.state.confirm(f.last)
	f.nextState.confirm(f.last)
	if anchored := now.Sub(f.started) - f.clock.anchor.mono; age > heartbeatDue && anchored > reanchorAfter {
		f.clock = clock{} // late messages, or the authority's clock was set back: find out
		f.poke()
	}
}

// journal keeps a message for a restart. The caller holds f.mu.
func (f *Feed) journal(at uint64, message []byte) {
	f.state.message(at, message)
	f.nextState.message(at, message)
}

// hurry has the authority asked at once, whatever question is under way. The caller
// holds f.mu.
func (f *Feed) hurry() {
	f.urgent = f.position.questions + 1
	f.poke()
}

// poke makes the loop look at once. It never blocks.
func (f *Feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Feed) alarm(kind string, attributes ...any) {
	f.mu.Lock()
	f.status.Alarms[kind]++
	f.mu.Unlock()
	f.log.Error("ALARM: the authority's log is not what it was; every revocation known stays in force",
		append([]any{"kind", kind}, attributes...)...)
}

func (f *Feed) failed(err error) {
	f.failures++
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.AskErrors++
	if text := err.Error(); f.status.LastError != text {
		f.status.LastError = text
		f.log.Warn("the authority could not be asked; trying again", "error", err)
	}
}

// Status returns what the feed is doing.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Decisions, s.Rejected, s.Alarms = clone(s.Decisions), clone(s.Rejected), clone(s.Alarms)
	s.Epoch, s.Confirmed = f.position.epoch, f.position.confirmed.position
	if f.position.based() {
		s.Position = f.position.track.Position()
	}
	s.StateErrors = f.stateErrors
	return s
}

func clone(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// upkeep drops what has expired and keeps the state file short.
func (f *Feed) upkeep() {
	f.save()
	now := f.cfg.Now()
	if now.Sub(f.lastPrune) < pruneEvery {
		return
	}
	f.lastPrune = now
	f.mu.Lock()
	authTime := f.authTime
	f.mu.Unlock()
	// The earlier of the two clocks decides: entries dropped too early would be gone.
	// Without the authority nothing is added, and nothing needs to be dropped.
	if authTime.Before(now) {
		now = authTime
	}
	f.list.Prune(now)
}

func (f *Feed) stop() {
	if f.conn != nil {
		f.conn.Close()
	}
	f.client.CloseIdleConnections()
	f.save()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.close()
	f.state = nil
}
