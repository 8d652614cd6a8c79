package app

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/authority"
	"github.com/revcast/revcast/internal/broadcast"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// pendingLog is an authority.Log that errs until the real one is open, so that the
// HTTP face can answer from the first moment.
type pendingLog struct{ open atomic.Pointer[broadcast.Log] }

func (p *pendingLog) Append(ctx context.Context, revocations ...denylist.Revocation) (uint64, error) {
	if log := p.open.Load(); log != nil {
		return log.Append(ctx, revocations...)
	}
	return 0, authority.ErrOpening
}

func (p *pendingLog) Settle(ctx context.Context) {
	if log := p.open.Load(); log != nil {
		log.Settle(ctx)
	}
}

func (p *pendingLog) Find(
	ctx context.Context, issuer string, s denylist.Selector, now time.Time, most int,
) (stored []authority.Stored, more bool, err error) {
	log := p.open.Load()
	if log == nil {
		return nil, false, authority.ErrOpening
	}
	found, more, err := log.Find(ctx, issuer, s, now, most)
	for _, f := range found {
		stored = append(stored, authority.Stored(f))
	}
	return stored, more, err
}

func (p *pendingLog) Page(ctx context.Context, after uint64, wait time.Duration, nonce string) ([]byte, error) {
	if log := p.open.Load(); log != nil {
		return log.Page(ctx, after, wait, nonce)
	}
	return nil, authority.ErrOpening
}

func (p *pendingLog) Snapshot(ctx context.Context) (io.ReadSeekCloser, error) {
	if log := p.open.Load(); log != nil {
		return log.Snapshot(ctx)
	}
	return nil, authority.ErrOpening
}

func (p *pendingLog) Discovery() (wire.Discovery, error) {
	if log := p.open.Load(); log != nil {
		return log.Discovery()
	}
	return wire.Discovery{}, authority.ErrOpening
}

func (p *pendingLog) Ready() error {
	if log := p.open.Load(); log != nil {
		return log.Ready()
	}
	return authority.ErrOpening
}
