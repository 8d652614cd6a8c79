package broadcast

import (
	"context"
	"errors"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// clockStep is how far back the wall clock may be set without consequences: entries
// outlive their tokens by more.
const clockStep = denylist.Grace / 3

// beat sends a heartbeat every second, and drops what has expired.
func (l *Log) beat(ctx context.Context) {
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	var marked time.Time
	for {
		now := l.now()
		mark := l.markDue.Swap(false) || l.cfg.External != nil || now.Sub(marked) >= markEvery
		if mark {
			marked = now
		}
		l.prove(ctx, now, mark)
		l.sendHeartbeat()
		l.prune(now)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// prove moves AsOf to now, once the follower has reached a position that was fixed
// after now. Where it can't in time, AsOf stays, and verifiers see it grow old.
func (l *Log) prove(ctx context.Context, now time.Time, mark bool) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatEvery*9/10)
	defer cancel()
	if mark {
		message, err := l.heartbeat("")
		if err == nil {
			_, err = l.publish(ctx, wire.LogMark, message)
		}
		if err != nil {
			l.markDue.Store(true)
		}
		if err != nil && l.cfg.External != nil {
			return
		}
	}
	if err := l.await(ctx, func() bool { return l.caught && l.track.Position() >= l.lastAcked }); err != nil {
		return
	}
	l.mu.Lock()
	if now.After(l.asOf) {
		l.asOf = now
	}
	l.mu.Unlock()
	l.cfg.List.Advance(now)
}

// prune drops what has expired, by the wall clock, but never further than this
// process has lived: a clock that jumps ahead drops nothing. One that was ahead from
// the start and is then set right has dropped too much, so the log is read again.
func (l *Log) prune(now time.Time) {
	if lived := l.started.Add(now.Sub(l.started)); lived.Before(now.Round(0)) {
		now = lived
	}
	now = now.Round(0)
	if now.Before(l.pruned.Add(-clockStep)) {
		l.pruned = now
		l.mu.Lock()
		defer l.mu.Unlock() // against a snapshot of what was dropped too early
		l.cfg.List.Prune(now)
		l.startOverLocked(errors.New("the clock was set back, and what had expired by it has not"))
		return
	}
	l.cfg.List.Prune(now)
	if now.After(l.pruned) {
		l.pruned = now
	}
}

// heartbeat signs where the log stands.
func (l *Log) heartbeat(nonce string) ([]byte, error) {
	h, err := l.state()
	if err != nil {
		return nil, err
	}
	h.Nonce = nonce
	return l.cfg.Signer.SealHeartbeat(h)
}

func (l *Log) state() (wire.Heartbeat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.caught {
		return wire.Heartbeat{}, errReading
	}
	now := l.now()
	// This process is the embedded server's only writer: what it has been told is
	// acknowledged is all that is.
	if l.server != nil && l.track.Position() >= l.lastAcked && now.After(l.asOf) {
		l.asOf = now
	}
	asOf := time.UnixMicro(1)
	if !l.asOf.IsZero() {
		// As long ago as it is by the monotonic clock: the wall clock may have been set.
		asOf = now.Add(-max(0, now.Sub(l.asOf)))
	}
	return wire.Heartbeat{
		Epoch: l.epoch, Position: l.track.Position(), Chain: l.track.Chain(), AsOf: asOf, IssuedAt: now,
	}, nil
}

func (l *Log) sendHeartbeat() {
	message, err := l.heartbeat("")
	if err == nil {
		err = l.nc.Publish(wire.LiveHeartbeat, message)
	}
	if err != nil {
		l.log.Warn("no heartbeat was sent", "error", err)
		return
	}
	l.counters.heartbeats.Add(1)
}
