package broadcast

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	// A snapshot is made anew for a reader where this part of it has been told since
	// and it is a second old, and ten times as old as its making took; or else after
	// this time.
	tailPart    = 1024
	snapshotAge = time.Second
	snapshotOld = 10 * time.Minute
	// Without a reader, it is where so many entries wait in memory, or that part of it.
	maxUnsaved  = 1 << 16
	unsavedPart = 32

	// After a failure nothing is tried for so long: on a full disk each try takes the
	// log's last room.
	saveRetry = time.Minute
	// Behind the name of the snapshot's file: while it is being written, and where it
	// has entries of a log that is no more, so that another process can't go on from it.
	newSnapshot    = ".new-*"
	joinedSnapshot = ".joined"
)

// snapshots keeps the newest snapshot in a file, which is where the digests of the
// list are. The next one is made in one pass over the last one and the entries told
// since, holding neither in memory. The file serves every verifier that asks, and
// this process when it starts again.
type snapshots struct {
	path     string
	full     chan struct{} // of capacity 1: entries wait
	building chan struct{} // of capacity 1: who has put something in builds, the others wait
	errors   atomic.Uint64

	mu     sync.Mutex // guards the rest, which only the one who builds changes
	last   made
	failed time.Time // when making one last did
}

// made is a snapshot on disk.
type made struct {
	wire.Snapshot
	file       string // "": none yet
	generation uint64 // of the log
	joined     bool   // it may have entries of a log that is no more
	entries    int
	bytes      int64
	took       time.Duration
}

func (s *snapshots) current() made {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Snapshot opens an encoded, signed snapshot. It may be older than the log's end,
// but not by so much that reading on from its position would be worse than making
// a new one, unless that fails.
func (l *Log) Snapshot(ctx context.Context) (*os.File, error) {
	l.Settle(ctx)
	s := &l.snapshots
	if err := l.renew(ctx); err != nil {
		if !l.usable() {
			return nil, err
		}
		l.log.Warn("serving the last snapshot", "issued_at", s.current().IssuedAt, "error", err)
	}
	s.mu.Lock() // against its removal
	defer s.mu.Unlock()
	file, err := os.Open(s.last.file)
	if err != nil {
		return nil, fmt.Errorf("open the snapshot: %w", err)
	}
	return file, nil
}

// renew makes a snapshot where the last one will not do.
func (l *Log) renew(ctx context.Context) error {
	if !l.outdated() {
		return nil
	}
	select {
	case l.snapshots.building <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a snapshot: %w", context.Cause(ctx))
	}
	defer func() { <-l.snapshots.building }()
	l.mu.Lock()
	caught := l.caught
	l.mu.Unlock()
	switch {
	case !caught:
		return errReading
	case l.outdated(): // nobody was quicker
		return l.build()
	}
	return nil
}

// usable reports whether the last snapshot is one of the log as it is.
func (l *Log) usable() bool {
	last := l.snapshots.current()
	_, missing := os.Stat(last.file) // also where there is none yet
	l.mu.Lock()
	defer l.mu.Unlock()
	return missing == nil && last.generation == l.generation && !l.anew && !l.now().Before(last.IssuedAt)
}

func (l *Log) outdated() bool {
	if !l.usable() {
		return true
	}
	s := &l.snapshots
	s.mu.Lock()
	last, failed := s.last, s.failed
	s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	age := now.Sub(last.IssuedAt)
	return now.Sub(failed) > saveRetry &&
		(age > snapshotOld || len(l.unsaved)*tailPart > last.entries && age > max(snapshotAge, 10*last.took))
}

// tell keeps entries for the next snapshot. The caller holds l.mu.
func (l *Log) tell(entries []denylist.Entry) {
	if l.unsaved = append(l.unsaved, entries...); len(l.unsaved) >= l.unsavedMax {
		select {
		case l.snapshots.full <- struct{}{}:
		default:
		}
	}
}

// save makes snapshots so that few entries wait in memory, until ctx ends.
func (l *Log) save(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.snapshots.full:
		}
		l.snapshots.building <- struct{}{}
		err := l.build()
		<-l.snapshots.building
		if err == nil || errors.Is(err, errClosing) || isDamage(err) { // then there will soon be more that waits
			continue
		}
		if errors.Is(err, errReading) { // soon there will be more that waits than ever
			_ = l.await(ctx, func() bool { return l.track != nil && !l.anew })
			continue
		}
		l.log.Error("no snapshot was made", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(saveRetry):
		}
	}
}

// build makes a snapshot of the last one and of what was told since. The caller
// holds building.
func (l *Log) build() error {
	s := &l.snapshots
	last, began := s.current(), l.now()
	l.mu.Lock()
	floor := l.cfg.List.Floor()
	if l.track == nil || l.anew || floor > began.Add(clockStep-denylist.Grace).Unix() {
		l.mu.Unlock()
		return errReading // or about to: the clock was set back, and more has been dropped than has expired
	}
	next := made{generation: l.generation, joined: l.generation != 1 || l.claim != nil, Snapshot: wire.Snapshot{
		Epoch: l.epoch, Position: l.track.Position(), Chain: l.track.Chain(), IssuedAt: began,
	}}
	told := l.unsaved
	l.unsaved = nil
	l.mu.Unlock()
	l.markDue.Store(true) // after this position, it proves to the next process that the snapshot is of this log

	var lastErr error
	sections := denylist.Sections(told)
	if last.file != "" {
		sections = denylist.Merge(l.kept(last, &lastErr), sections, floor)
	}
	err := l.encode(&next, wire.Progress(l.log, l.now, "making a snapshot", sections))
	next.took = l.now().Sub(began)

	s.mu.Lock()
	if err == nil {
		if last.file != "" && last.file != next.file {
			_ = os.Remove(last.file)
		}
		s.last, s.failed = next, time.Time{}
	} else if !errors.Is(err, errClosing) {
		s.errors.Add(1)
		s.failed = began
	}
	damaged := err != nil && isDamage(lastErr)
	if damaged {
		s.last = made{}
	}
	s.mu.Unlock()

	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.unsavedMax = max(maxUnsaved, next.entries/unsavedPart)
		return nil
	}
	told = slices.DeleteFunc(told, func(e denylist.Entry) bool { return denylist.WindowEnd(e.Expires) <= floor })
	l.unsaved = append(told, l.unsaved...)
	if !damaged {
		return fmt.Errorf("make a snapshot: %w", err)
	}
	if l.claim == nil && l.track != nil {
		at := next.Snapshot
		at.Position, at.Chain = l.track.Position(), l.track.Chain()
		l.claim = &at
	}
	l.startOverLocked(fmt.Errorf("the last snapshot can't be read: %w", lastErr))
	return fmt.Errorf("%w: the last snapshot can't be read: %w", errReading, lastErr)
}

var errAnother = errors.New("another one has taken its place")

// isDamage reports whether a file is not what it was, so that trying again is of no
// use.
func isDamage(err error) bool {
	for _, e := range []error{fs.ErrNotExist, wire.ErrFormat, wire.ErrSigner, wire.ErrSignature, errAnother} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// kept yields the entries of a snapshot. Where its file can't be read, or holds
// another one, it ends with an error and leaves it in failed too.
func (l *Log) kept(last made, failed *error) iter.Seq2[denylist.Section, error] {
	return func(yield func(denylist.Section, error) bool) {
		wanted := true
		m, err := l.readFile(last.file, func(s denylist.Section, err error) bool {
			wanted = yield(s, err)
			return wanted
		})
		if err == nil && m.Chain != last.Chain {
			err = errAnother
		}
		if *failed = err; err != nil && wanted {
			yield(denylist.Section{}, err)
		}
	}
}

// readFile hands a snapshot file's sections to yield until it has enough.
func (l *Log) readFile(path string, yield func(denylist.Section, error) bool) (m made, err error) {
	file, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer func() { _ = file.Close() }()
	is, sections, err := l.ring.ReadSnapshot(file)
	if err != nil {
		return m, err
	}
	m.Snapshot, m.file = is, path
	for s, err := range sections {
		if err != nil {
			return m, err
		}
		if m.entries += len(s.Digests); !yield(s, nil) {
			return m, nil
		}
	}
	info, err := file.Stat()
	if err == nil {
		m.bytes = info.Size()
	}
	return m, err
}

// encode makes the file of a snapshot. It is not synced: a torn one shows, and all
// that is in it is in the log.
func (l *Log) encode(m *made, sections iter.Seq2[denylist.Section, error]) error {
	path := l.snapshots.path
	if m.joined {
		path += joinedSnapshot
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(l.snapshots.path)+newSnapshot)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(file, 256<<10)
	err = l.cfg.Signer.WriteSnapshot(out, m.Snapshot, func(yield func(denylist.Section, error) bool) {
		for s, err := range sections {
			if l.closing.Load() {
				err = errClosing
			}
			if m.entries += len(s.Digests); !yield(s, err) {
				return
			}
		}
	})
	if err == nil {
		err = out.Flush()
	}
	var info fs.FileInfo
	if err == nil {
		info, err = file.Stat()
	}
	err = errors.Join(err, file.Close())
	if err == nil && info.Size() > wire.MaxSnapshot {
		err = fmt.Errorf("it has %d bytes, and verifiers read no more than %d", info.Size(), int64(wire.MaxSnapshot))
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return err
	}
	m.file, m.bytes = path, info.Size()
	return nil
}

// prepare decides where snapshots go, and takes up the one that the last process
// left: what the log holds up to its position need not be read again. Until a mark
// in the log has shown that the log is still the same, it proves nothing.
func (l *Log) prepare() error {
	s := &l.snapshots
	s.path = l.cfg.SnapshotFile
	if s.path == "" {
		dir, err := os.MkdirTemp("", "revcast-snapshot-")
		if err != nil {
			return fmt.Errorf("make a place for snapshots: %w", err)
		}
		l.scratch, s.path = dir, filepath.Join(dir, "snapshot")
	}
	left, _ := filepath.Glob(s.path + newSnapshot) // of a process that was killed; the pattern is well-formed
	for _, path := range append(left, s.path+joinedSnapshot) {
		_ = os.Remove(path)
	}
	began := l.now()
	staged := denylist.NewLoader() // until its signature is known to hold
	m, err := l.readFile(s.path, func(section denylist.Section, _ error) bool {
		staged.Add(section)
		return true
	})
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		l.log.Warn("the snapshot of the last run is of no use; reading the whole log", "path", s.path, "error", err)
		return nil
	}
	l.cfg.List.Join(staged.List())
	m.generation = 1
	s.last = m
	l.epoch, l.track, l.generation, l.unproven, l.claim = m.Epoch, wire.NewTrack(m.Position, m.Chain), 1, true, &m.Snapshot
	l.pruned = m.IssuedAt
	if m.IssuedAt.After(began.Add(clockStep)) {
		l.pruned, l.anew = time.Time{}, true
		l.log.Warn("the snapshot of the last run is from the future, and may lack what had expired by that clock", "issued_at", m.IssuedAt)
	}
	l.unsavedMax = max(maxUnsaved, m.entries/unsavedPart)
	l.log.Info("took up the snapshot of the last run", "entries", m.entries, "epoch", m.Epoch, "position", m.Position,
		"took", l.now().Sub(began).Round(time.Millisecond))
	return nil
}
