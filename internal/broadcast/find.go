package broadcast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	// searchBytes is how much a search is sent at once: little for an acknowledgement to
	// wait behind, and half of it, which is the least that is asked for, has room for a
	// message of any size.
	searchBytes = 2 << 20
	searchStall = 3 * time.Second        // a search that gets no further for so long has failed
	dropTimeout = 200 * time.Millisecond // for a consumer's removal; one that stays ends by itself
)

// searching has who searches a log put something in, the others wait: a search reads
// all of it.
var searching = make(chan struct{}, 1)

// Found is a revocation as the log has it.
type Found struct {
	Position uint64
	denylist.Revocation
}

// Find returns the revocations of exactly this issuer and selector that are stored and
// that a list would still keep at now, oldest first. Where there are more than most of
// them, more is true and the newest are returned. It reads the whole log, and none but
// what an authority signed counts. What was acknowledged to this process before is
// found. An error means that nothing is known, not that there is nothing.
func (l *Log) Find(
	ctx context.Context, issuer string, selector denylist.Selector, now time.Time, most int,
) (found []Found, more bool, err error) {
	prefix, err := wire.EntryPrefix(issuer, selector)
	if err != nil {
		return nil, false, err
	}
	select {
	case searching <- struct{}{}:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("wait for another search of the log: %w", context.Cause(ctx))
	}
	defer func() { <-searching }()
	floor := now.Add(-denylist.Grace).Unix()
	err = l.search(ctx, func(position uint64, message []byte) {
		if !bytes.Contains(message, prefix) {
			return
		}
		opened, err := l.ring.Open(message)
		if err != nil || opened.Batch == nil {
			return // the follower has said so, and verifiers pass it over too
		}
		for _, r := range opened.Batch.Entries {
			if r.Issuer != issuer || !slices.Equal(r.Selector.Pairs(), selector.Pairs()) || denylist.WindowEnd(r.Expires.Unix()) <= floor {
				continue
			}
			if found = append(found, Found{position, r}); len(found) > most {
				found, more = found[1:], true
			}
		}
	})
	if err != nil {
		return nil, false, err
	}
	return found, more, nil
}

// search hands every message of the log to each, in order. It is through when it has
// met the end that the log had when it began.
func (l *Log) search(ctx context.Context, each func(position uint64, message []byte)) error {
	l.Settle(ctx)
	l.mu.Lock()
	stream, err := l.stream, l.foreign
	if err == nil && (!l.caught || l.anew) {
		err = errReading
	}
	var until uint64
	if err == nil {
		until = max(l.track.Position(), l.lastAcked)
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(searchStall, func() { cancel(errors.New("it gets no further")) })
	defer stalled.Stop()
	go func() {
		select {
		case <-l.drained:
			cancel(errClosing)
		case <-ctx.Done():
		}
	}()
	progress := func() { stalled.Reset(searchStall) }
	if err := l.readAll(ctx, stream, until, progress, each); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("search the log: %w", err)
	}
	return nil
}

// readAll reads the stream up to the position until, and its end. It reports progress
// as long as there is more to be had at once.
func (l *Log) readAll(
	ctx context.Context, stream jetstream.Stream, until uint64, progress func(), each func(position uint64, message []byte),
) error {
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look up its end: %w", err)
	}
	first := max(info.State.FirstSeq, 1)
	if until = max(until, info.State.LastSeq); first > until {
		return nil
	}
	js, leave, err := l.join()
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer leave()
	consumer, err := js.OrderedConsumer(ctx, wire.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first, InactiveThreshold: 30 * time.Second,
		MaxResetAttempts: 1,
	})
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	defer func() { drop(ctx, js, consumer.CachedInfo().Name) }()
	name := consumer.CachedInfo().Name
	if l.atEnd(consumer.CachedInfo().NumPending) {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, searchBytes), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("consume it: %w", err)
	}
	defer messages.Stop()
	for ctx.Err() == nil {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read on: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's position: %w", err)
		}
		if meta.Consumer != name {
			// It began again where it was, on whatever stream has the name now.
			return errors.New("the reading was interrupted")
		}
		each(meta.Sequence.Stream, m.Data())
		if meta.Sequence.Stream >= until || l.atEnd(meta.NumPending) {
			return nil
		}
		if meta.NumPending > 0 {
			progress()
		}
	}
	return ctx.Err()
}

// join connects by itself: on the log's own connection acknowledgements would wait
// behind what is read.
func (l *Log) join() (js jetstream.JetStream, leave func(), err error) {
	var nc *nats.Conn
	if l.server != nil {
		nc, err = l.server.connect(l.options()...)
	} else {
		nc, err = l.cfg.External.connect(l.log, l.options()...)
	}
	if err != nil {
		return nil, nil, err
	}
	if js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(publishTimeout)); err != nil {
		nc.Close()
		return nil, nil, err
	}
	return js, nc.Close, nil
}

// atEnd reports whether a reader before whom so many messages lie has met the log's
// end, even where its last positions hold nothing any more. On a cluster the reader may
// lag, so that only the position tells; marks are not long in coming there.
func (l *Log) atEnd(pending uint64) bool { return pending == 0 && l.server != nil }
