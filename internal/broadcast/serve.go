package broadcast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
)

const (
	maxPageRecords = 4096
	pageTimeout    = 5 * time.Second
	pageBudget     = 500 * time.Millisecond
	snapshotAge    = time.Second // how long a snapshot is served before a newer one is made
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
			info, err := stream.Info(ctx)
			if err != nil {
				return nil, fmt.Errorf("look up the log's start: %w", err)
			}
			if position < info.State.FirstSeq {
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

// snapshotCache holds the newest snapshot, built once for everyone who asks.
type snapshotCache struct {
	mu       sync.Mutex
	epoch    string
	position uint64
	chain    wire.Chain
	read     uint64 // the generation of the log
	at       time.Time
	took     time.Duration
	content  []byte
}

func (c *snapshotCache) stats(st *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st.SnapshotBytes, st.SnapshotAt, st.SnapshotDuration = len(c.content), c.at, c.took
}

// Snapshot returns an encoded, signed snapshot at most a second old, or older
// where nothing has changed since.
func (l *Log) Snapshot(context.Context) (io.ReadSeeker, error) {
	c := &l.snapshots
	c.mu.Lock()
	defer c.mu.Unlock()
	// The state first, then the list: a list that is further than the position says
	// is harmless, one that is behind would lose revocations.
	h, err := l.state()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	generation := l.generation
	l.mu.Unlock()
	age := h.IssuedAt.Sub(c.at)
	fresh := c.read == generation && (c.chain == h.Chain || c.epoch == h.Epoch && c.position < h.Position && 0 <= age && age < snapshotAge)
	if c.content == nil || !fresh {
		var b bytes.Buffer
		snapshot := wire.Snapshot{Epoch: h.Epoch, Position: h.Position, Chain: h.Chain, IssuedAt: h.IssuedAt}
		if err := l.cfg.Signer.WriteSnapshot(&b, snapshot, l.cfg.List.Sections()); err != nil {
			return nil, err
		}
		c.content, c.epoch, c.position, c.chain, c.at, c.read = b.Bytes(), h.Epoch, h.Position, h.Chain, h.IssuedAt, generation
		c.took = l.now().Sub(h.IssuedAt)
	}
	return bytes.NewReader(c.content), nil
}
