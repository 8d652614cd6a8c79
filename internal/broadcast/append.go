package broadcast

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	queueSize = 4096
	// maxInFlight is how many batches may wait for their acknowledgements.
	maxInFlight = 4
	// maxGather is how long a batch waits for one before it, or for more requests.
	maxGather = 2 * time.Millisecond
	// MaxAppend bounds the revocations of one Append.
	MaxAppend = 1000
)

type request struct {
	entries [][]byte
	listed  []denylist.Entry // the same, as a list holds them
	size    int
	answer  chan answer // of capacity 1: a committer never waits for a caller that left
}

type answer struct {
	position uint64
	err      error
}

var errClosing = errors.New("the log is closing")

// Append stores revocations and returns the position of the batch that holds them,
// once it is durable. Calls that arrive together share a batch. What the log holds
// already is not stored again, so that nobody can fill it by repeating himself.
// After an error they may or may not be stored; saying them again is harmless.
func (l *Log) Append(ctx context.Context, revocations ...denylist.Revocation) (uint64, error) {
	r, err := newRequest(revocations)
	if err != nil {
		return 0, err
	}
	if position, held := l.holds(r); held {
		return position, nil
	}
	select {
	case l.queue <- r:
	case <-l.drained:
		return 0, errClosing
	case <-ctx.Done():
		return 0, fmt.Errorf("queue a revocation: %w", context.Cause(ctx))
	}
	select {
	case a := <-r.answer:
		return a.position, a.err
	case <-l.drained:
		select {
		case a := <-r.answer:
			return a.position, a.err
		default: // queued after the last batch had left
			return 0, errClosing
		}
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the log: %w", context.Cause(ctx))
	}
}

// holds reports whether the log is known to have all of a request already, and up
// to where it was read. The list tells, as long as it has been filled from this log
// alone: what the follower has put there was on disk when it was handed out. The
// position is asked after the list, which is filled first. Where it can't be told at
// once, the answer is no, since storing again is harmless.
func (l *Log) holds(r *request) (position uint64, held bool) {
	for _, e := range r.listed {
		// Cuts are joined in the list: that it denies as much doesn't mean that one entry of
		// the log says so, and others may expire earlier.
		if !e.Windowed || !l.cfg.List.Has(e) {
			return 0, false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation != 1 || l.claim != nil || !l.caught || l.anew || l.foreign != nil || l.adding > l.track.Position() {
		return 0, false
	}
	return l.track.Position(), true
}

func newRequest(revocations []denylist.Revocation) (*request, error) {
	if len(revocations) == 0 || len(revocations) > MaxAppend {
		return nil, fmt.Errorf("1 to %d revocations at a time", MaxAppend)
	}
	r := &request{
		entries: make([][]byte, len(revocations)), listed: make([]denylist.Entry, len(revocations)),
		answer: make(chan answer, 1),
	}
	for i, v := range revocations {
		e, err := wire.EncodeEntry(v)
		if err != nil {
			return nil, fmt.Errorf("encode a revocation: %w", err)
		}
		r.entries[i], r.listed[i] = e, v.Entry()
		r.size += len(e) + 1
	}
	if r.size > wire.MaxMessage-wire.BatchOverhead {
		return nil, errors.New("the revocations don't fit into one batch")
	}
	return r, nil
}

// batch is requests on their way to become one message.
type batch struct {
	requests []*request
	size     int // bytes of entries and commas
	entries  int
}

func (b *batch) fits(r *request) bool {
	return b.size+r.size <= wire.MaxMessage-wire.BatchOverhead && b.entries+len(r.entries) <= wire.MaxBatchEntries
}

func (b *batch) add(r *request) {
	b.requests = append(b.requests, r)
	b.size += r.size
	b.entries += len(r.entries)
}

// commit turns what is queued into batches until ctx ends. While one batch is
// being written the next one gathers, since a message costs an fsync whatever its
// size; only where an acknowledgement takes long is another sent after it.
func (l *Log) commit(ctx context.Context) {
	var (
		held     *request // taken from the queue, too large for the batch before
		inFlight int
		finished = make(chan published)
		last     published
		b        batch // that gathers
		expected int   // requests: those just answered, whose callers may be back soon, and those gathered by then
	)
	finish := func(p published) {
		inFlight--
		last, expected = p, p.requests+len(b.requests)
	}
	defer func() {
		for inFlight > 0 {
			finish(<-finished)
		}
		if held != nil {
			held.answer <- answer{err: errClosing}
		}
		l.refuseQueued()
		close(l.drained)
	}()
	for ctx.Err() == nil {
		b = batch{}
		if held != nil {
			b.add(held)
			held = nil
		}
		var patience <-chan time.Time
		for held == nil {
			if n := len(b.requests); n > 0 && (inFlight == 0 && n >= expected || ctx.Err() != nil) {
				break
			}
			if len(b.requests) > 0 && patience == nil {
				// Waiting a little for callers that are about to be back makes one batch of
				// what would be two.
				wait := maxGather
				if inFlight == 0 {
					wait = min(maxGather, last.took/2)
				}
				patience = time.After(wait)
			}
			select {
			case r := <-l.queue:
				if len(b.requests) == 0 || b.fits(r) {
					b.add(r)
				} else {
					held = r
				}
				continue
			case p := <-finished:
				finish(p)
				patience = nil
				continue
			case <-patience:
			case <-ctx.Done():
			}
			break
		}
		for inFlight == maxInFlight {
			finish(<-finished)
		}
		if len(b.requests) > 0 {
			inFlight++
			go func(b batch) { finished <- l.write(ctx, b) }(b)
		}
	}
}

// published is what is known of a batch after it was answered.
type published struct {
	requests int
	took     time.Duration
}

func (l *Log) write(ctx context.Context, b batch) published {
	start := time.Now()
	entries, listed := make([][]byte, 0, b.entries), make([]denylist.Entry, 0, b.entries)
	for _, r := range b.requests {
		entries, listed = append(entries, r.entries...), append(listed, r.listed...)
	}
	message := l.cfg.Signer.SealBatch(l.currentEpoch(), l.now(), entries)
	hash := wire.HashOf(message)
	l.own.Store(hash, listed)
	var a answer
	a.position, a.err = l.publish(ctx, wire.LogBatch, message)
	if a.err != nil {
		l.own.Delete(hash)
	} else {
		l.counters.batches.Add(1)
		l.counters.entries.Add(uint64(b.entries))
	}
	for _, r := range b.requests {
		r.answer <- a
	}
	return published{len(b.requests), time.Since(start)}
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
// message under way when ctx ends is still waited for. It succeeds only where the
// stream is the one that is being followed: else the follower, and so everyone,
// would pass the message over.
func (l *Log) publish(ctx context.Context, subject string, message []byte) (uint64, error) {
	l.mu.Lock()
	generation, reached, err := l.generation, uint64(0), l.foreign
	if err == nil && (!l.caught || l.anew) {
		err = errReading
	}
	if err == nil {
		reached = l.track.Position()
	}
	l.mu.Unlock()
	if err != nil {
		return 0, l.failed(subject, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: message}, jetstream.WithExpectStream(wire.Stream))
	if err != nil {
		return 0, l.failed(subject, err)
	}
	if ack.Sequence <= reached {
		err := fmt.Errorf("acknowledged at %d, when the log had reached %d: the stream is another", ack.Sequence, reached)
		l.startOver(err)
		return 0, l.failed(subject, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation != generation || l.anew {
		return 0, l.failed(subject, errors.New("the stream was replaced meanwhile"))
	}
	l.lastAcked = max(l.lastAcked, ack.Sequence)
	l.failing.Store(nil)
	return ack.Sequence, nil
}

func (l *Log) failed(subject string, err error) error {
	err = fmt.Errorf("publish to the log: %w", err)
	l.counters.publishErrors.Add(1)
	l.failing.Store(&err)
	l.log.Error("a message was not stored", "subject", subject, "error", err)
	return err
}
