package feed

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	askTimeout      = 2 * time.Second  // without a byte of an answer
	snapshotTimeout = 30 * time.Second // the same: the authority may have to build it first
	maxDiscovery    = 64 << 10
)

// behindError says that the authority knows less of the log than we do. It may lag behind
// another one, even for long, as where its cluster has no leader: then it proves nothing.
type behindError struct {
	proven time.Time // by our clock, and at the earliest: as of when the authority knows its log complete
}

func (e *behindError) Error() string { return "the authority is behind what was confirmed before" }

// ask brings list and position in step with the authority: it is how the feed
// starts, repairs and recovers. Messages that arrive meanwhile are applied as ever.
func (f *Feed) ask(ctx context.Context, wait time.Duration) error {
	f.mu.Lock()
	f.status.Asks++
	base, epoch, based := f.position.confirmed, f.position.epoch, f.position.based()
	lacks := f.lacks(f.cfg.Now())
	silent := f.cfg.Now().Sub(f.live) > heartbeatDue
	f.mu.Unlock()
	f.lastAsk = f.cfg.Now()
	since := f.lastAsk.Sub(f.discoveredAt)
	if f.discovered == nil || f.failures > 0 || since > refreshEvery || silent && since > rediscoverEvery {
		if err := f.discover(ctx); err != nil {
			return err
		}
		f.discoveredAt = f.lastAsk
	}
	if !based || lacks {
		err := f.load(ctx)
		f.mu.Lock()
		defer f.mu.Unlock()
		if now := f.cfg.Now(); err != nil && based && f.lacks(now) {
			f.saveAfter = now.Add(rewriteRetry) // the list can do without
		}
		return err
	}
	err := f.catchUp(ctx, epoch, base, wait, false)
	var broken *brokenError
	var behind *behindError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrGone):
		f.log.Info("the log no longer reaches back to where we are; loading a snapshot", "position", base.position)
	case errors.As(err, &broken):
		f.alarm(broken.kind, "epoch_was", epoch, "position_was", base.position, "found", broken.found)
	case errors.As(err, &behind):
		if f.behind.IsZero() || f.behindOf != base.position { // confirmed since: the log is there
			f.behind, f.behindOf = f.cfg.Now(), base.position
		}
		if behind.proven.Sub(f.behind) < behindFor {
			return err
		}
		f.alarm("rolled_back", "epoch", epoch, "position_was", base.position)
	default:
		return err
	}
	f.mu.Lock()
	f.position.seen = nil // of the log that was; what the new one holds will be asked for
	f.mu.Unlock()
	return f.load(ctx)
}

// brokenError says that the authority's log is not the one that was followed.
type brokenError struct{ kind, found string }

func (e *brokenError) Error() string { return "the authority's log is another: " + e.kind }

// load joins a snapshot to the list and goes on from its position.
func (f *Feed) load(ctx context.Context) error {
	started := f.cfg.Now()
	body, err := f.get(ctx, f.discovered.Snapshot, nil, snapshotTimeout)
	if err != nil {
		return fmt.Errorf("fetch the snapshot: %w", err)
	}
	f.mu.Lock()
	ring := f.ring
	f.mu.Unlock()
	defer func() { _ = body.Close() }()
	in := &counting{r: body}
	snapshot, sections, err := ring.ReadSnapshot(in)
	if err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	staged, entries, complete := denylist.NewLoader(), 0, false // nothing counts until its signature is known to hold
	if err := f.take(snapshot, f.progress("loading the snapshot", func(yield func(denylist.Section, error) bool) {
		for s, err := range sections {
			entries += len(s.Digests)
			if staged.Add(s); !yield(s, err) {
				return
			}
		}
		complete = true
	})); err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	if !complete {
		return errors.New("the snapshot was not read to its end")
	}
	f.list.Join(staged.List())
	took := f.cfg.Now().Sub(started)
	f.mu.Lock()
	f.status.Snapshots++
	f.status.Snapshot = SnapshotStatus{snapshot.IssuedAt, in.n, entries, took}
	f.mu.Unlock()
	f.log.Info("loaded a snapshot", "entries", entries, "bytes", in.n, "epoch", snapshot.Epoch, "position", snapshot.Position,
		"took", took.Round(time.Millisecond))
	return f.catchUp(ctx, snapshot.Epoch, point{snapshot.Position, snapshot.Chain}, 0, true)
}

// take reads a snapshot's sections to their end, into the state file where there is
// to be one.
func (f *Feed) take(snapshot wire.Snapshot, sections iter.Seq2[denylist.Section, error]) error {
	if f.cfg.StateFile != "" {
		return f.rewrite(sections, func() stateHeader {
			f.mu.Lock()
			defer f.mu.Unlock()
			h := f.header()
			switch {
			case f.nextState.partial:
				h.Epoch, h.Last = snapshot.Epoch, confirmation{Position: snapshot.Position, Chain: snapshot.Chain}
			case h.Epoch != snapshot.Epoch || h.Last.Position < snapshot.Position:
				// The file has what the old one had, and is as complete as that was.
				h.Epoch, h.Last.Position, h.Last.Chain = snapshot.Epoch, snapshot.Position, snapshot.Chain
			}
			return h
		})
	}
	for _, err := range sections {
		if err != nil {
			return err
		}
	}
	return nil
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// catchUp reads the log after base to its end, and lets the last page's heartbeat
// confirm it.
func (f *Feed) catchUp(ctx context.Context, epoch string, base point, wait time.Duration, anew bool) error {
	track := wire.NewTrack(base.position, base.chain)
	for {
		f.mu.Lock()
		question := f.position.ask()
		f.mu.Unlock()
		left := f.cfg.Now()
		asked := f.reading(left)
		page, err := f.page(ctx, track.Position(), wait)
		if err != nil {
			return err
		}
		now := f.cfg.Now()
		f.mu.Lock()
		f.clock.answer(asked, f.reading(now), page.Heartbeat.IssuedAt)
		f.mu.Unlock()
		if page.Heartbeat.Epoch != epoch {
			return &brokenError{"epoch_changed", page.Heartbeat.Epoch}
		}
		if page.Heartbeat.Position < base.position {
			return &behindError{left.Add(page.Heartbeat.AsOf.Sub(page.Heartbeat.IssuedAt))}
		}
		for _, r := range page.Records {
			f.record(epoch, r, now)
			track.Append(wire.HashOf(r.Message))
		}
		chain, reached := track.At(page.Heartbeat.Position)
		switch {
		case reached && chain != page.Heartbeat.Chain:
			return &brokenError{"forked", "chain " + page.Heartbeat.Chain.String()}
		case reached:
			f.settle(epoch, point{page.Heartbeat.Position, chain}, page.Heartbeat, question, anew)
			return nil
		case len(page.Records) == 0:
			return fmt.Errorf("%w: an empty page before the log's end", wire.ErrFormat)
		}
		if wait = 0; !anew {
			f.save() // a long way takes many entries
		}
	}
}

// record applies one message of a log page. Whoever has rights on the stream can
// have put anything into it; only what the authority signed counts, but all of it
// is in the chain.
func (f *Feed) record(epoch string, r wire.Record, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	opened, err := f.ring.Open(r.Message)
	if err != nil {
		f.reject(reason(err))
		return
	}
	if b := opened.Batch; b != nil && b.Epoch != epoch {
		// An authority that had not noticed yet that the log was made anew: it has been
		// acknowledged all the same, and the list only grows.
		f.status.Decisions[foreign.String()]++
	}
	f.journal(r.Position, r.Message)
	f.apply(opened, true, now)
}

// settle makes a point that an answer has confirmed the new base. Where a live
// heartbeat was quicker, it stays, unless the log was found to be another.
func (f *Feed) settle(epoch string, at point, h wire.Heartbeat, question uint64, anew bool) {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if anew || !f.position.based() || at.position >= f.position.confirmed.position {
		f.position.rebase(epoch, at, question)
	}
	if anew || h.AsOf.After(f.position.asOf) {
		f.position.asOf = h.AsOf
	}
	if f.urgent <= question {
		f.urgent = 0
	}
	if anew && f.state != nil {
		f.state.partial = false
	}
	f.gapSince, f.behind = time.Time{}, time.Time{}
	f.failures, f.status.LastError = 0, ""
	f.authTime = h.IssuedAt
	f.advance(now, h.AsOf)
	f.watchGap(now)
}

// page asks for the log after a position, with a nonce that makes the answer this
// question's.
func (f *Feed) page(ctx context.Context, after uint64, wait time.Duration) (*wire.Page, error) {
	nonce := rand.Text()
	query := url.Values{"after": {strconv.FormatUint(after, 10)}, "nonce": {nonce}}
	if wait > 0 {
		query.Set("wait", wait.String())
	}
	body, err := f.get(ctx, f.discovered.Log, query, askTimeout+wait)
	if err != nil {
		return nil, fmt.Errorf("ask for the log: %w", err)
	}
	defer func() { _ = body.Close() }()
	f.mu.Lock()
	ring := f.ring
	f.mu.Unlock()
	p, err := ring.ReadPage(body, after, nonce)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return p, nil
}

// discover finds out where things are and who signs, and connects to the live
// feed where that has changed.
func (f *Feed) discover(ctx context.Context) error {
	body, err := f.get(ctx, wire.DiscoveryPath, nil, askTimeout)
	if err != nil {
		return fmt.Errorf("ask for discovery: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(body, maxDiscovery))
	_ = body.Close()
	if err != nil {
		return fmt.Errorf("read discovery: %w", err)
	}
	d, ring, err := wire.ParseDiscovery(text)
	if err != nil {
		return err
	}
	if len(f.cfg.Keys) == 0 {
		f.trust(ring)
	}
	if f.conn == nil || f.discovered == nil || f.discovered.Live != d.Live {
		if f.conn != nil {
			f.conn.Close()
			f.conn = nil
		}
		if err := f.connect(d.Live); err != nil {
			f.log.Error("the live feed can't be used; asking over HTTP instead", "error", err)
		}
	}
	f.discovered = d
	return nil
}

// trust takes the keys that the authority names. Keys that are none of those known
// so far mean another authority, or one that lost its data.
func (f *Feed) trust(ring wire.Keyring) {
	f.mu.Lock()
	old := f.ring
	f.ring = ring
	f.rekeyed = f.rekeyed || !maps.EqualFunc(old, ring, func(a, b ed25519.PublicKey) bool { return a.Equal(b) })
	f.mu.Unlock()
	for id := range old {
		if _, ok := ring[id]; ok {
			return
		}
	}
	if len(old) > 0 {
		f.alarm("key_changed", "keys", slices.Collect(maps.Keys(ring)))
	}
}

// get fetches a path of the authority. The answer's body fails where no byte
// arrives for longer than patience.
func (f *Feed) get(ctx context.Context, path string, query url.Values, patience time.Duration) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(patience, func() { cancel(fmt.Errorf("no answer for %s", patience)) })
	giveUp := func(err error) (io.ReadCloser, error) {
		watch.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		f.client.CloseIdleConnections()
		return nil, err
	}
	u := strings.TrimSuffix(f.cfg.Authority, "/") + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return giveUp(err)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return giveUp(err)
	}
	body := &watched{ctx: ctx, body: response.Body, watch: watch, patience: patience, cancel: cancel}
	switch response.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusGone:
		_ = body.Close()
		return nil, wire.ErrGone
	}
	_ = body.Close()
	return nil, fmt.Errorf("the authority answered %s", response.Status)
}

// watched is a body whose reading fails where nothing arrives.
type watched struct {
	ctx      context.Context
	body     io.ReadCloser
	watch    *time.Timer
	patience time.Duration
	cancel   context.CancelCauseFunc
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	w.watch.Reset(w.patience)
	if err != nil && err != io.EOF {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.watch.Stop()
	err := w.body.Close()
	w.cancel(nil)
	return err
}
