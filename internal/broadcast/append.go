package broadcast

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	queueSize = 4096
	// committers is how many batches may be on their way to the disk: one is being
	// written while the next one gathers.
	committers = 2
	// MaxAppend bounds the revocations of one Append.
	MaxAppend = 1000
)

type request struct {
	entries [][]byte
	size    int
	answer  chan answer // of capacity 1: a committer never waits for a caller that left
}

type answer struct {
	position uint64
	err      error
}

var errClosing = errors.New("the log is closing")

// Append stores revocations and returns the position of the batch that holds them,
// once it is durable. Calls that arrive together share a batch. After an error
// they may or may not be stored; saying them again is harmless.
func (l *Log) Append(ctx context.Context, revocations ...denylist.Revocation) (uint64, error) {
	if len(revocations) == 0 || len(revocations) > MaxAppend {
		return 0, fmt.Errorf("1 to %d revocations at a time", MaxAppend)
	}
	r := &request{entries: make([][]byte, len(revocations)), answer: make(chan answer, 1)}
	for i, v := range revocations {
		e, err := wire.EncodeEntry(v)
		if err != nil {
			return 0, fmt.Errorf("encode a revocation: %w", err)
		}
		r.entries[i] = e
		r.size += len(e) + 1
	}
	if r.size > wire.MaxMessage-wire.BatchOverhead {
		return 0, errors.New("the revocations don't fit into one batch")
	}
	select {
	case l.queue <- r:
	case <-ctx.Done():
		return 0, fmt.Errorf("queue a revocation: %w", context.Cause(ctx))
	}
	select {
	case a := <-r.answer:
		return a.position, a.err
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the log: %w", context.Cause(ctx))
	}
}

// commit turns what is queued into batches until ctx ends.
func (l *Log) commit(ctx context.Context) {
	var held *request // taken from the queue, too large for the batch before
	for {
		first := held
		if held = nil; first == nil {
			select {
			case first = <-l.queue:
			case <-ctx.Done():
				l.refuseQueued()
				return
			}
		}
		requests, size, count := []*request{first}, first.size, len(first.entries)
	gather:
		for {
			select {
			case r := <-l.queue:
				if size+r.size > wire.MaxMessage-wire.BatchOverhead || count+len(r.entries) > wire.MaxBatchEntries {
					held = r
					break gather
				}
				requests, size, count = append(requests, r), size+r.size, count+len(r.entries)
			default:
				break gather
			}
		}
		entries := make([][]byte, 0, count)
		for _, r := range requests {
			entries = append(entries, r.entries...)
		}
		var a answer
		a.position, a.err = l.publish(ctx, wire.LogBatch, l.cfg.Signer.SealBatch(l.currentEpoch(), l.now(), entries))
		if a.err == nil {
			l.counters.batches.Add(1)
			l.counters.entries.Add(uint64(count))
		}
		for _, r := range requests {
			r.answer <- a
		}
		if held != nil && ctx.Err() != nil {
			held.answer <- answer{err: errClosing}
			held = nil
		}
	}
}

func (l *Log) refuseQueued() {
	for {
		select {
		case r := <-l.queue:
			r.answer <- answer{err: errClosing}
		default:
			return
		}
	}
}

func (l *Log) currentEpoch() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// publish puts a message into the stream and waits for its acknowledgement. A
// batch under way when ctx ends is still waited for.
func (l *Log) publish(ctx context.Context, subject string, message []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: message}, jetstream.WithExpectStream(wire.Stream))
	if err != nil {
		err = fmt.Errorf("publish to the log: %w", err)
		l.counters.publishErrors.Add(1)
		l.failing.Store(&err)
		l.log.Error("a message was not stored", "subject", subject, "error", err)
		return 0, err
	}
	l.failing.Store(nil)
	for {
		last := l.lastAcked.Load()
		if last >= ack.Sequence || l.lastAcked.CompareAndSwap(last, ack.Sequence) {
			return ack.Sequence, nil
		}
	}
}
