package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
)

const (
	maxPageRecords = 4096
	pageTimeout    = 5 * time.Second
	pageBudget     = 500 * time.Millisecond
	settleTimeout  = 200 * time.Millisecond
)

var errReading = errors.New("reading the log")

// Page returns the log after a position, as far as it fits into a page, and ends
// it with a heartbeat that repeats the nonce. Where nothing comes after the
// position, it waits at most the given time for something. It returns
// [wire.ErrGone] where the log has dropped what comes after the position.
func (l *Log) Page(ctx context.Context, after uint64, wait time.Duration, nonce string) ([]byte, error) {
	if wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, wait)
		err := l.await(waiting, func() bool { return l.caught && l.track.Position() != after })
		cancel()
		if ctx.Err() != nil {
			return nil, err
		}
	}
	l.Settle(ctx)
	l.mu.Lock()
	if !l.caught {
		l.mu.Unlock()
		return nil, errReading
	}
	end, stream := l.track.Position(), l.stream
	records, ok := l.recent.after(after)
	gone := after < l.since
	l.mu.Unlock()
	if gone {
		return nil, wire.ErrGone
	}
	if !ok && after < end {
		var err error
		if records, err = fromStream(ctx, stream, after, end); err != nil {
			return nil, err
		}
	}
	var page []byte
	for _, r := range records {
		if len(page)+len(r.Message) > wire.MaxPage {
			break
		}
		page = wire.AppendRecord(page, r)
	}
	heartbeat, err := l.heartbeat(nonce)
	if err != nil {
		return nil, err
	}
	return wire.AppendPage(page, heartbeat), nil
}

// Settle waits a moment for the list to hold what was acknowledged before, so that who
// asks after a revoke call was answered is told of it. Where it can't, the heartbeat's
// AsOf says so.
func (l *Log) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	l.mu.Lock()
	acked := l.lastAcked
	l.mu.Unlock()
	_ = l.await(ctx, func() bool { return l.caught && l.track.Position() >= acked })
}

func fromStream(ctx context.Context, stream jetstream.Stream, after, end uint64) (records []wire.Record, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	size, begun := 0, time.Now()
	for position := after + 1; position <= end && len(records) < maxPageRecords && size < wire.MaxPage; position++ {
		if len(records) > 0 && time.Since(begun) > pageBudget {
			break // a verifier waits: part of the way is better than none
		}
		m, err := stream.GetMsg(ctx, position)
		if err != nil && len(records) > 0 {
			break
		}
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			info, err := stream.Info(ctx, jetstream.WithDeletedDetails(true))
			if err != nil {
				return nil, fmt.Errorf("look up what the log has: %w", err)
			}
			if position < info.State.FirstSeq || slices.Contains(info.State.Deleted, position) {
				return nil, wire.ErrGone
			}
			return nil, fmt.Errorf("position %d is not to be had yet", position) // a replica that lags
		}
		if err != nil {
			return nil, fmt.Errorf("read position %d: %w", position, err)
		}
		records = append(records, wire.Record{Position: position, Message: m.Data})
		size += len(m.Data)
	}
	return records, nil
}
