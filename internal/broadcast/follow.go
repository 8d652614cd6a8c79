package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	retryEvery = 200 * time.Millisecond
	askTimeout = 2 * time.Second // a cluster without a leader doesn't answer
	pullBytes  = 8 << 20
	// pullMessages bounds the room that the client makes for them, a pointer each.
	pullMessages   = 10_000
	pullHeartbeat  = time.Second
	progressEvery  = time.Second
	mistrustEvery  = 5 * time.Second
	maxRecentBytes = 8 << 20
)

// follow keeps track, list and recent messages in step with the stream. Start,
// reconnection and a stream that changed under it go the same way.
func (l *Log) follow(ctx context.Context) {
	for ctx.Err() == nil {
		once, cancel := context.WithCancelCause(ctx)
		l.mu.Lock()
		l.interrupt = cancel
		l.mu.Unlock()
		err := l.followOnce(once)
		if cause := context.Cause(once); cause != nil {
			err = cause
		}
		cancel(nil)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("following the log was interrupted", "error", err)
			if errors.Is(err, errForeign) {
				l.mu.Lock()
				l.foreign = err
				l.notify()
				l.mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-time.After(retryEvery):
			}
		}
	}
}

// followAgain has the follower begin again where it is.
func (l *Log) followAgain(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.interrupt != nil {
		l.interrupt(why)
	}
}

// errForeign says that the stream is not ours to write.
var errForeign = errors.New("this log is not ours")

// startOver has the follower read the stream from its first message again, since
// it is not, or may not be, the one that was read before. Until it has, nothing is
// acknowledged and no heartbeat sent.
func (l *Log) startOver(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.startOverLocked(why)
}

func (l *Log) startOverLocked(why error) {
	l.anew, l.caught = true, false
	l.interrupt(why)
	l.notify()
}

func (l *Log) followOnce(ctx context.Context) error {
	stream, err := l.ensureStream(ctx)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	next := l.takeUp(stream, info)
	consumer, err := l.consumer(ctx, next)
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	defer drop(ctx, l.js, consumer.CachedInfo().Name)
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, pullBytes), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("consume the log: %w", err)
	}
	defer messages.Stop()
	r := replay{log: l, until: info.State.LastSeq, started: l.now()}
	if next > r.until || consumer.CachedInfo().NumPending == 0 {
		if err := r.finish(); err != nil {
			return err
		}
	}
	for delivered := uint64(1); ; delivered++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's position: %w", err)
		}
		if meta.Sequence.Consumer != delivered {
			return errors.New("messages were lost on their way")
		}
		if err := r.take(ctx, stream, meta, m.Data()); err != nil {
			return err
		}
	}
}

// consumer has the stream's messages from a position on delivered. It is not the client
// library's ordered consumer: where that is lost it makes itself anew, on whatever stream
// has the name now, and waits ten seconds for an answer that never comes where the cluster
// has just lost its leader. Here, whatever is amiss has the follower begin again.
func (l *Log) consumer(ctx context.Context, next uint64) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return l.js.CreateConsumer(ctx, wire.Stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: next, AckPolicy: jetstream.AckNonePolicy,
		InactiveThreshold: 30 * time.Second, Replicas: 1, MemoryStorage: true,
	})
}

// drop removes a consumer that is not needed any more: the stream allows so many.
func drop(ctx context.Context, js jetstream.JetStream, consumer string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	_ = js.DeleteConsumer(ctx, wire.Stream, consumer)
}

// ensureStream finds the stream, or makes it with a new epoch.
func (l *Log) ensureStream(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*publishTimeout)
	defer cancel()
	asking, answered := context.WithTimeout(ctx, askTimeout)
	stream, err := l.js.Stream(asking, wire.Stream)
	answered()
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = l.js.CreateStream(ctx, l.streamConfig(ulid.Make().String()))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another authority was quicker
			stream, err = l.js.Stream(ctx, wire.Stream)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the stream: %w", err)
	}
	have := stream.CachedInfo().Config
	epoch := have.Metadata[wire.EpochMetadata]
	if epoch == "" {
		return nil, fmt.Errorf("%w: stream %s was not made by Revcast: it has no epoch", errForeign, wire.Stream)
	}
	if signer, ours := have.Metadata[wire.SignerMetadata], wire.KeyIDOf(l.cfg.Signer.Public()).String(); signer != ours {
		// Each would pass over what the other signed, and so would every verifier.
		return nil, fmt.Errorf("%w: stream %s is signed with key %s, and ours is %s: all authorities of a log share one signing key",
			errForeign, wire.Stream, signer, ours)
	}
	want := l.streamConfig(epoch)
	// Never shorter than it was: the log may hold entries made under a longer lifetime.
	want.MaxAge = max(want.MaxAge, have.MaxAge)
	if difference := differs(have, want); difference != "" {
		return nil, fmt.Errorf("%w: stream %s is not as Revcast makes it, so that messages could be lost: %s",
			errForeign, wire.Stream, difference)
	}
	if have.MaxAge != want.MaxAge || have.MaxBytes != want.MaxBytes || have.Replicas != want.Replicas {
		l.log.Info("changing the stream", "max_age", want.MaxAge, "max_bytes", want.MaxBytes, "replicas", want.Replicas)
		if stream, err = l.js.UpdateStream(ctx, want); err != nil {
			return nil, fmt.Errorf("change the stream: %w", err)
		}
	}
	return stream, nil
}

// differs names what of a stream's configuration would let it lose or withhold
// messages; empty: nothing. Size, age and replicas are ours to change.
func differs(have, want jetstream.StreamConfig) string {
	for what, wrong := range map[string]bool{
		"messages may be deleted":               !have.DenyDelete || !have.DenyPurge || have.AllowRollup,
		"its retention is another":              have.Retention != want.Retention,
		"it is not on disk":                     have.Storage != want.Storage,
		"it discards old messages":              have.Discard != want.Discard,
		"the number of messages is limited":     have.MaxMsgs > 0 || have.MaxMsgsPerSubject > 0,
		"messages may have lifetimes":           have.AllowMsgTTL,
		"it acknowledges before it is written":  have.PersistMode != want.PersistMode,
		"it takes other subjects":               !slices.Equal(have.Subjects, want.Subjects) || have.SubjectTransform != nil,
		"it is a copy":                          have.Mirror != nil || len(have.Sources) > 0,
		"it is sealed, or acknowledges nothing": have.Sealed || have.NoAck,
		"it is not republished as it should be": have.RePublish == nil || *have.RePublish != *want.RePublish,
	} {
		if wrong {
			return what
		}
	}
	return ""
}

func (l *Log) streamConfig(epoch string) jetstream.StreamConfig {
	replicas := 1
	if l.cfg.External != nil {
		replicas = l.cfg.External.Replicas
	}
	return jetstream.StreamConfig{
		Name: wire.Stream, Subjects: []string{wire.LogSubjects}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, MaxAge: l.cfg.MaxLifetime + denylist.Grace + streamMargin,
		Discard: jetstream.DiscardNew, MaxBytes: l.cfg.MaxBytes, MaxMsgSize: wire.MaxMessage,
		DenyDelete: true, DenyPurge: true, AllowDirect: true, Replicas: replicas,
		MaxConsumers: 256, // one for each authority, and for others who follow the log
		RePublish:    &jetstream.RePublish{Source: wire.LogSubjects, Destination: wire.LiveSubjects},
		Metadata: map[string]string{
			wire.EpochMetadata: epoch, wire.SignerMetadata: wire.KeyIDOf(l.cfg.Signer.Public()).String(),
		},
		Duplicates: time.Minute,
	}
}

// takeUp decides where to read on: after what is known, or from the start of a
// stream that is not the one known.
func (l *Log) takeUp(stream jetstream.Stream, info *jetstream.StreamInfo) (next uint64) {
	epoch := info.Config.Metadata[wire.EpochMetadata]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream, l.foreign = stream, nil
	if l.track != nil && !l.anew && epoch == l.epoch &&
		info.State.LastSeq >= l.track.Position() && info.State.FirstSeq <= l.track.Position()+1 {
		return l.track.Position() + 1
	}
	first := max(info.State.FirstSeq, 1)
	same := l.claim != nil && epoch == l.epoch && info.State.LastSeq >= l.claim.Position
	switch {
	case l.track == nil:
	case same:
		l.log.Warn("reading the whole log")
	default:
		l.counters.alarms.Add(1)
		l.log.Error("ALARM: the stream may not be what it was; starting over from what it has now",
			"epoch_was", l.epoch, "epoch", epoch, "position_was", l.track.Position(), "position", info.State.LastSeq)
	}
	if !same || first > max(l.claim.Position, 1) { // or it can't be told any more
		l.generation++
		l.claim = nil
	}
	l.epoch, l.track, l.asOf, l.caught, l.anew = epoch, nil, time.Time{}, false, false
	l.recent, l.since, l.lastAcked, l.adding, l.unproven = recent{}, 0, 0, 0, false
	l.own.Clear()
	if first == 1 || info.State.Msgs == 0 {
		// Nothing came before, or nothing that is still there: every authority and
		// verifier that starts from here gets the same chain.
		l.track = wire.NewTrack(first-1, wire.ChainStart(epoch))
	}
	l.notify()
	return first
}

// replay applies messages in order. Until the chain is known, because the stream's
// first messages have aged out, it gathers their hashes for the first mark.
type replay struct {
	log      *Log
	until    uint64 // the stream's end when reading began
	started  time.Time
	reported time.Time
	first    uint64
	hashes   []wire.Hash
}

func (r *replay) take(ctx context.Context, stream jetstream.Stream, meta *jetstream.MsgMetadata, message []byte) error {
	l, hash, position := r.log, wire.HashOf(message), meta.Sequence.Stream
	l.mu.Lock()
	l.adding = position
	l.mu.Unlock()
	var opened wire.Opened
	var err error
	var entries []denylist.Entry
	if listed, ours := l.own.LoadAndDelete(hash); ours { // signed and encoded here, a moment ago
		entries = listed.([]denylist.Entry)
	} else if opened, err = l.ring.Open(message); err != nil {
		// It is part of the chain all the same: the chain is over what the stream holds.
		l.counters.rejected.Add(1)
		l.log.Error("the log holds a message that is not an authority's", "position", position, "error", err)
	}
	if b := opened.Batch; b != nil {
		entries = make([]denylist.Entry, len(b.Entries))
		for i, e := range b.Entries {
			entries[i] = e.Entry()
		}
	}
	l.cfg.List.Add(entries...)
	if epoch, ours := opened.Epoch(), l.currentEpoch(); epoch != "" && epoch != ours {
		// Kept by somebody, or by an authority that was late to notice; or the stream was
		// made anew under us.
		if info, err := stream.Info(ctx); err != nil || info.Config.Metadata[wire.EpochMetadata] != ours {
			return errors.Join(errors.New("the stream may be another"), err) // takeUp finds out
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.anew { // since a moment ago: this will be read again, and it proves nothing now
		return errReading
	}
	l.tell(entries)
	if l.track == nil {
		if r.first == 0 {
			r.first = position
		}
		if position != r.first+uint64(len(r.hashes)) {
			l.alarmHole(r.first+uint64(len(r.hashes)), position)
			r.first, r.hashes, l.since = position, nil, position-1
			l.recent = recent{}
		}
		r.hashes = append(r.hashes, hash)
		h := opened.Heartbeat
		switch {
		case h != nil && h.Epoch == l.epoch && h.Position+1 >= r.first && h.Position < position:
			l.track = wire.NewTrack(h.Position, h.Chain)
			for _, hash := range r.hashes[h.Position+1-r.first:] {
				l.track.Append(hash)
			}
		case position >= r.until || meta.NumPending == 0:
			l.counters.alarms.Add(1)
			l.log.Error("ALARM: the log holds no mark, so its chain starts anew", "position", position)
			l.since = r.first - 1
			l.track = wire.NewTrack(l.since, wire.ChainStart(l.epoch))
			for _, hash := range r.hashes {
				l.track.Append(hash)
			}
		}
	} else {
		switch next := l.track.Position() + 1; {
		case position < next:
			return nil // known already
		case position > next:
			// Take up what is there. The chain starts anew, so verifiers see that it is not
			// the log they knew, and load a snapshot.
			l.alarmHole(next, position)
			l.since = position - 1
			l.track = wire.NewTrack(l.since, wire.ChainStart(l.epoch))
			l.recent = recent{}
		}
		l.track.Append(hash)
		if h := opened.Heartbeat; h != nil && h.Epoch == l.epoch {
			switch chain, ok := l.track.At(h.Position); {
			case ok && chain == h.Chain:
				if l.unproven {
					l.unproven, l.claim = false, nil
				}
			case ok && l.unproven:
				l.claim = nil
				return l.disproved("a mark in the log does not fit the snapshot of the last run")
			case ok:
				l.counters.alarms.Add(1)
				l.log.Error("ALARM: a mark in the log does not fit what came before it", "position", position)
				if now := l.now(); position > r.until && now.Sub(l.mistrusted) > mistrustEvery {
					// Just written, by one who knows another log: ours may have been rolled back and
					// grown again while we were not looking.
					l.mistrusted, l.anew, l.caught = now, true, false
					l.notify()
					return errors.New("a mark does not fit: the stream may be another")
				}
			}
		}
	}
	if l.claim != nil && !l.unproven && l.track != nil && position >= l.claim.Position {
		l.compare()
	}
	l.recent.add(wire.Record{Position: position, Message: message})
	if l.track != nil && (position >= r.until || meta.NumPending == 0) {
		if err := r.finishLocked(); err != nil {
			return err
		}
	} else if now := l.now(); now.Sub(r.started) > progressEvery && now.Sub(r.reported) > progressEvery {
		r.reported = now
		l.log.Info("reading the log", "position", position, "of", r.until)
	}
	l.notify()
	return nil
}

func (l *Log) alarmHole(from, to uint64) {
	l.counters.alarms.Add(1)
	l.log.Error("ALARM: the log has lost messages", "from", from, "to", to-1)
}

func (r *replay) finish() error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	defer r.log.notify()
	return r.finishLocked()
}

func (r *replay) finishLocked() error {
	if r.log.unproven {
		return r.log.disproved("no mark in the log has confirmed the snapshot of the last run")
	}
	if r.log.track != nil && r.log.claim != nil {
		r.log.compare()
	}
	r.log.caught = r.log.track != nil && !r.log.anew
	return nil
}

// compare holds the log, which was read from its start, against where it was known
// to stand. The caller holds l.mu.
func (l *Log) compare() {
	chain, ok := l.track.At(l.claim.Position)
	switch {
	case ok && chain == l.claim.Chain:
		l.claim = nil
		return
	case ok:
		l.counters.alarms.Add(1)
		l.log.Error("ALARM: the log is not what it was; keeping what is known of the other one", "position", l.claim.Position)
	default:
		l.log.Warn("the log no longer reaches back to where it was known", "position", l.claim.Position)
	}
	l.generation++
	l.claim = nil
}

// disproved has the whole log read. The caller holds l.mu.
func (l *Log) disproved(why string) error {
	l.anew = true
	return errors.New(why)
}

// recent keeps the newest messages in memory, so that verifiers that ask for them
// don't each cost reads of the stream, and repairs go on without NATS.
type recent struct {
	records []wire.Record
	bytes   int
}

func (r *recent) add(record wire.Record) {
	r.records = append(r.records, record)
	r.bytes += len(record.Message)
	drop := 0
	for r.bytes > maxRecentBytes {
		r.bytes -= len(r.records[drop].Message)
		drop++
	}
	clear(r.records[:drop]) // the backing array lives on until append moves it
	r.records = r.records[drop:]
}

// after returns the records after a position, and whether it has all of them. What
// it returns is a copy: the ring moves on.
func (r *recent) after(position uint64) ([]wire.Record, bool) {
	if len(r.records) == 0 || r.records[0].Position > position+1 {
		return nil, false
	}
	skip := position + 1 - r.records[0].Position
	records := r.records[min(skip, uint64(len(r.records))):]
	return slices.Clone(records[:min(len(records), maxPageRecords)]), true
}
