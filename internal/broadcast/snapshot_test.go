package broadcast

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// keeping opens a log that keeps its snapshot over restarts.
func keeping(t *testing.T, dir string, change ...func(*Config)) testLog {
	t.Helper()
	l, err := openWith(t, func(c *Config) {
		c.Embedded.StoreDir, c.SnapshotFile = filepath.Join(dir, "log"), filepath.Join(dir, "snapshot")
		for _, change := range change {
			change(c)
		}
	})
	return must(t, l, err)
}

// shift is a clock that goes as the real one does, ahead of it; or that stands still.
type shift struct {
	ahead atomic.Int64
	still time.Time
}

func (s *shift) use(c *Config) {
	c.Now = func() time.Time {
		now := s.still
		if now.IsZero() {
			now = time.Now()
		}
		return now.Add(time.Duration(s.ahead.Load()))
	}
}

func (s *shift) pass(d time.Duration) { s.ahead.Add(int64(d)) }

// lines is what a log says.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *lines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *lines) have(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.b.String(), text)
}

func (w *lines) use(t *testing.T) func(*Config) {
	return func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(w, t.Output()), nil)) }
}

// add appends revocations in one call, and waits until the follower has met them.
func (l testLog) add(t *testing.T, names ...string) (rs []denylist.Revocation) {
	t.Helper()
	for _, name := range names {
		rs = append(rs, revocation(name))
	}
	position, err := l.Append(t.Context(), rs...)
	if err == nil {
		err = l.await(t.Context(), func() bool { return l.track.Position() >= position })
	}
	if err != nil {
		t.Fatal(err)
	}
	l.knows(t, rs...)
	return rs
}

func numbered(name string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint(name, i))
	}
	return names
}

// mark puts a mark into the log, as the beat does a moment after each snapshot.
func (l testLog) mark(t *testing.T) {
	t.Helper()
	message, err := l.heartbeat("")
	var position uint64
	if err == nil {
		position, err = l.publish(t.Context(), wire.LogMark, message)
	}
	if err == nil {
		err = l.await(t.Context(), func() bool { return l.track.Position() >= position })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// beaten waits for the first heartbeat: the mark that comes with it is in the log then, and
// the next is a minute away.
func (l testLog) beaten(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); l.Stats().Heartbeats == 0 || l.markDue.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no heartbeat was sent")
		}
	}
}

// began returns the first position that the follower has read.
func (l testLog) began(t *testing.T) uint64 {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent.records) == 0 {
		t.Fatal("nothing was read")
	}
	return l.recent.records[0].Position
}

func (l testLog) gen() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation
}

// lacking counts the revocations that a list doesn't hold.
func lacking(list *denylist.List, rs []denylist.Revocation) (n int) {
	for _, r := range rs {
		if !list.Has(r.Entry()) {
			n++
		}
	}
	return n
}

// complete checks that list, snapshot and log hold all of rs, and that they fit.
func (l testLog) complete(t *testing.T, rs []denylist.Revocation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.await(ctx, func() bool { return l.caught && lacking(l.list, rs) == 0 }); err != nil {
		t.Errorf("the list lacks %d of %d revocations: %v", lacking(l.list, rs), len(rs), err)
	}
	snapshot, list := l.snapshot(t)
	tail, _ := l.page(t, snapshot.Position, snapshot.Chain)
	for _, r := range tail {
		list.Add(r.Entry())
	}
	if n := lacking(list, rs); n > 0 {
		t.Errorf("the snapshot and the log after it lack %d of %d revocations", n, len(rs))
	}
}

// canonical returns the sections that revocations make.
func canonical(rs []denylist.Revocation) iter.Seq2[denylist.Section, error] {
	entries := make([]denylist.Entry, len(rs))
	for i, r := range rs {
		entries[i] = r.Entry()
	}
	return denylist.Sections(entries)
}

func gathered(t *testing.T, sections iter.Seq2[denylist.Section, error]) (all []denylist.Section) {
	t.Helper()
	for s, err := range sections {
		if err != nil {
			t.Fatal(err)
		}
		s.Digests, s.Cuts = slices.Clone(s.Digests), append([]denylist.Cut(nil), s.Cuts...)
		all = append(all, s)
	}
	return all
}

// head returns the header of the snapshot that a verifier gets now, and its
// sections.
func (l testLog) head(t *testing.T) (wire.Snapshot, []denylist.Section) {
	t.Helper()
	file, err := l.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	snapshot, sections, err := l.ring.ReadSnapshot(file)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot, gathered(t, sections)
}

// write makes a snapshot file.
func write(t *testing.T, path string, signer wire.Signer, snapshot wire.Snapshot, rs []denylist.Revocation) {
	t.Helper()
	var b bytes.Buffer
	if err := signer.WriteSnapshot(&b, snapshot, canonical(rs)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func noneLeft(t *testing.T, path string) {
	t.Helper()
	if left, err := filepath.Glob(path + newSnapshot); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestDurableARestartGoesOnFromTheSnapshotFile(t *testing.T) {
	dir := t.TempDir()
	var clock shift
	first := keeping(t, dir, clock.use)
	first.beaten(t) // so that the mark that follows the snapshot is that of the snapshot
	rs := first.add(t, numbered("before", 50)...)
	rs = append(rs, denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.Sub, "alice"), IssuedBefore: time.Now(), Expires: time.Now().Add(time.Hour), At: time.Now(),
	})
	if _, err := first.Append(t.Context(), rs[50]); err != nil {
		t.Fatal(err)
	}
	first.complete(t, rs)
	kept, _ := first.head(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := first.await(ctx, func() bool { return first.track.Position() > kept.Position }); err != nil {
		t.Fatalf("no mark after the snapshot: %v", err)
	}
	rs = append(rs, first.add(t, "after", "the", "snapshot")...)
	_ = first.Close()
	position, chain, epoch := first.track.Position(), first.track.Chain(), first.epoch

	second := keeping(t, dir, clock.use)
	if at := second.began(t); at != kept.Position+1 {
		t.Errorf("the snapshot stands at %d, and the log was read from %d", kept.Position, at)
	}
	if second.gen() != 1 || second.Stats().Alarms > 0 || second.Stats().Epoch != epoch {
		t.Errorf("generation %d, %+v", second.gen(), second.Stats())
	}
	if was, is := first.list.Stats().Entries, second.list.Stats().Entries; was != is {
		t.Errorf("%d entries in the list, then %d", was, is)
	}
	second.mu.Lock()
	got, ok := second.track.At(position)
	second.mu.Unlock()
	if !ok || got != chain {
		t.Errorf("another chain at %d", position)
	}
	second.complete(t, rs)
	for _, r := range rs { // from the file, and from the log after it
		if !r.ExactExpiry {
			continue // cuts are stored as often as they are said
		}
		if at, err := second.Append(t.Context(), r); err != nil || at < position {
			t.Fatal(at, err)
		}
	}
	again := int(second.Stats().Entries)
	if again > 1 { // one may have come while a mark did
		t.Errorf("%d of %d entries were stored again", again, len(rs))
	}
	if got, _ := second.page(t, 0, wire.ChainStart(epoch)); len(got) != len(rs)+again {
		t.Errorf("%d of %d revocations in the log from its start", len(got), len(rs))
	}

	clock.pass(snapshotOld + time.Second)
	anew, sections := second.head(t)
	if anew.Position < position || !reflect.DeepEqual(sections, gathered(t, canonical(rs))) {
		t.Errorf("the next snapshot, at %d, has other entries", anew.Position)
	}
	rs = append(rs, second.add(t, "later")...)
	second.mark(t)
	_ = second.Close()
	third := keeping(t, dir, clock.use)
	if at := third.began(t); at != anew.Position+1 {
		t.Errorf("the second snapshot stands at %d, and the log was read from %d", anew.Position, at)
	}
	third.complete(t, rs)
}

func TestDurableASnapshotFileThatNoMarkConfirmsHasTheWholeLogRead(t *testing.T) {
	for _, c := range []struct {
		name string
		more int // messages after it
	}{{"at the end of the log", 0}, {"with messages after it", 2}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			first := keeping(t, dir)
			rs := first.add(t, numbered("a", 5)...)
			first.beaten(t)
			first.mark(t)
			rs = append(rs, first.add(t, numbered("b", 5)...)...)
			first.mu.Lock()
			at := wire.Snapshot{Epoch: first.epoch, Position: first.track.Position(), Chain: first.track.Chain(), IssuedAt: time.Now()}
			first.mu.Unlock()
			held := slices.Clone(rs)
			position := at.Position
			for i := range c.more {
				rs = append(rs, first.add(t, fmt.Sprint("c", i))...)
			}
			_ = first.Close()
			if beats := first.track.Position() - at.Position; beats != uint64(c.more) {
				t.Fatalf("%d messages after the snapshot: the test is void", beats)
			}
			write(t, first.cfg.SnapshotFile, testSigner(), at, held) // just before it was killed

			second := keeping(t, dir)
			if second.began(t) != 1 || second.gen() != 1 || second.Stats().Alarms > 0 {
				t.Errorf("read from %d, generation %d, %d alarms", second.began(t), second.gen(), second.Stats().Alarms)
			}
			for _, r := range rs[:2] { // the log has confirmed the file, once it was read up to there
				was := second.Stats().Entries
				for range 3 { // a mark may come at the same time
					if _, err := second.Append(t.Context(), r); err != nil {
						t.Error(err)
					}
				}
				if second.Stats().Entries == was+3 {
					t.Error("stored again")
				}
			}
			second.complete(t, rs)
			second.mark(t)
			_ = second.Close()
			third := keeping(t, dir)
			if third.gen() != 1 || third.Stats().Alarms > 0 || third.began(t) < position {
				t.Errorf("read from %d, generation %d, %+v", third.began(t), third.gen(), third.Stats())
			}
			third.complete(t, rs)
		})
	}
}

func TestDurableASnapshotFileThatDoesNotFitTheLogIsDisproved(t *testing.T) {
	dir := t.TempDir()
	l := keeping(t, dir)
	rs := l.add(t, numbered("a", 5)...)
	l.mark(t)
	l.mu.Lock()
	position, chain, epoch := l.track.Position(), l.track.Chain(), l.epoch
	l.mu.Unlock()
	rs = append(rs, l.add(t, numbered("b", 5)...)...)
	l.mark(t)
	path := l.cfg.SnapshotFile
	other := chain
	other[7] ^= 1
	for i, at := range []wire.Snapshot{
		{Epoch: epoch, Position: position, Chain: other, IssuedAt: time.Now()},
		{Epoch: epoch, Position: position - 1, Chain: chain, IssuedAt: time.Now()},
		{Epoch: epoch, Position: 0, Chain: chain, IssuedAt: time.Now()},
		{Epoch: epoch, Position: 1 << 40, Chain: chain, IssuedAt: time.Now()},
		{Epoch: "01JOLDOLDOLDOLDOLDOLDOLDOL", Position: position, Chain: chain, IssuedAt: time.Now()},
	} {
		_ = l.Close()
		ghost := revocation(fmt.Sprint("ghost", i))
		write(t, path, testSigner(), at, []denylist.Revocation{ghost})
		l = keeping(t, dir)
		if l.began(t) != 1 || l.gen() == 1 {
			t.Errorf("%+v: read from %d, generation %d", at, l.began(t), l.gen())
		}
		l.complete(t, append(rs, ghost))
		for _, r := range append(rs[:2:2], ghost) {
			was := l.Stats().Entries
			if _, err := l.Append(t.Context(), r); err != nil || l.Stats().Entries != was+1 {
				t.Errorf("%+v: answered from a file of another log: %v", at, err)
			}
		}
		if l.Stats().Alarms == 0 {
			t.Errorf("%+v: no alarm", at)
		}
		rs = append(rs, ghost) // it is in the log now
	}
}

func TestDurableASnapshotFileThatCanNotBeReadIsAsNone(t *testing.T) {
	dir := t.TempDir()
	l := keeping(t, dir)
	rs := l.add(t, numbered("a", 5)...)
	l.complete(t, rs)
	l.mark(t)
	epoch, chain := l.Stats().Epoch, wire.ChainStart(l.Stats().Epoch)
	_ = l.Close()
	path := l.cfg.SnapshotFile
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(content []byte) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(n int) func() { return func() { put(whole[:n]) } }
	flip := func(n int) func() {
		return func() {
			altered := bytes.Clone(whole)
			altered[n] ^= 4
			put(altered)
		}
	}

	// Every byte counts where the file is read,
	unused := func(what string) {
		t.Helper()
		list := denylist.New()
		p := &Log{
			cfg: Config{SnapshotFile: path, List: list}, log: slog.New(slog.DiscardHandler), now: time.Now,
			ring: wire.NewKeyring(testSigner().Public()),
		}
		if err := p.prepare(); err != nil || p.track != nil || p.generation != 0 || p.snapshots.last.file != "" || list.Stats().Entries > 0 {
			t.Fatalf("%s: taken up: %+v, %d entries, %v", what, p.snapshots.last, list.Stats().Entries, err)
		}
	}
	for n := range whole {
		cut(n)()
		unused(fmt.Sprint("cut off at ", n))
		flip(n)()
		unused(fmt.Sprint("altered at ", n))
	}
	put(append(bytes.Clone(whole), 0))
	unused("with a byte too many")

	// and whatever it is, the authority starts.
	stranger := wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)))
	for name, damage := range map[string]func(){
		"empty":               cut(0),
		"cut off in the head": cut(20),
		"without a signature": cut(len(whole) - 72),
		"with half of one":    cut(len(whole) - 30),
		"altered in the head": flip(30),
		"altered in a digest": flip(len(whole) - 80),
		"of another key": func() {
			put(nil)
			write(t, path, stranger, wire.Snapshot{Epoch: epoch, Chain: chain, IssuedAt: time.Now()}, rs)
		},
		"a directory": func() { put(nil); _ = os.Remove(path); _ = os.Mkdir(path, 0o700) },
		"not there, but a torn one": func() {
			_ = os.RemoveAll(path)
			_ = os.WriteFile(path+".new-1234", whole[:50], 0o600)
			_ = os.WriteFile(path+joinedSnapshot, whole, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			damage()
			var said lines
			l := keeping(t, dir, said.use(t))
			if l.began(t) != 1 || l.gen() != 1 {
				t.Errorf("read from %d, generation %d", l.began(t), l.gen())
			}
			if n := lacking(l.list, rs); n > 0 {
				t.Errorf("the list lacks %d", n)
			}
			if !strings.HasPrefix(name, "not there") && !said.have("level=WARN msg=\"the snapshot of the last run is") {
				t.Error("no warning")
			}
			noneLeft(t, path)
			rs = append(rs, l.add(t, name)...)
			if name != "a directory" {
				l.complete(t, rs)
			} else if _, err := l.Snapshot(t.Context()); err == nil {
				t.Error("a snapshot took the place of a directory")
			}
			noneLeft(t, path)
			_ = l.Close()
		})
	}
}

func TestDurableASnapshotByAClockThatWasAheadIsNotTakenUp(t *testing.T) {
	dir := t.TempDir()
	var clock shift
	clock.pass(48 * time.Hour) // when it started
	first := keeping(t, dir, clock.use)
	var rs []denylist.Revocation
	for i := range 2 { // the second merges with the first, and drops what has expired
		r := revocation(fmt.Sprint("a", i))
		if _, err := first.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
		clock.pass(2 * snapshotAge)
		for first.list.Floor() < time.Now().Unix() {
			time.Sleep(10 * time.Millisecond) // until the clock has done its harm
		}
		first.snapshot(t)
	}
	if _, list := first.snapshot(t); lacking(list, rs) == 0 {
		t.Fatal("nothing was dropped: the test is void")
	}
	first.mark(t)
	_ = first.Close()
	clock.ahead.Store(0)
	second := keeping(t, dir, clock.use)
	if second.began(t) != 1 {
		t.Errorf("read from %d", second.began(t))
	}
	second.proves(t) // and drops what has expired
	second.complete(t, rs)
	if second.gen() != 1 || second.Stats().Alarms > 0 {
		t.Errorf("generation %d, %d alarms: it is the same log", second.gen(), second.Stats().Alarms)
	}

	// Set back under a running process: until the log has been read again, no
	// snapshot passes for one that has everything.
	_ = second.Close()
	clock.ahead.Store(int64(48 * time.Hour))
	third := keeping(t, dir, clock.use)
	for third.list.Floor() < time.Now().Unix() {
		time.Sleep(10 * time.Millisecond)
	}
	clock.ahead.Store(0)
	third.snapshots.building <- struct{}{}
	err := third.build()
	<-third.snapshots.building
	if err == nil && third.snapshots.current().generation == 1 {
		t.Error("a snapshot was made of what the wrong clock has left")
	}
	third.knows(t, rs...)
	third.store(t, "later")
	third.complete(t, rs)
}

func TestDurableASnapshotDamagedInUseIsMadeAnewFromTheLog(t *testing.T) {
	var clock shift
	l := keeping(t, t.TempDir(), clock.use)
	rs := l.add(t, numbered("a", 20)...)
	_, older := l.snapshot(t)
	content, err := os.ReadFile(l.snapshots.current().file)
	if err != nil {
		t.Fatal(err)
	}
	if lacking(older, rs) > 0 {
		t.Fatal("not whole")
	}
	flip := func(from int) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			at := int64(from)
			if from < 0 {
				at += info.Size()
			}
			b := make([]byte, 1)
			_, readErr := f.ReadAt(b, at)
			b[0] ^= 4
			_, writeErr := f.WriteAt(b, at)
			if err := errors.Join(err, readErr, writeErr, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, string)
	}{
		{"a byte of the magic", flip(0)},
		{"a byte of the header", flip(40)},
		{"a byte of a digest", flip(-80)},
		{"a byte of the signature", flip(-10)},
		{"cut off", func(t *testing.T, path string) {
			if err := os.Truncate(path, 200); err != nil {
				t.Fatal(err)
			}
		}},
		{"removed", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"an older one in its place", func(t *testing.T, path string) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs = append(rs, l.add(t, c.name+", before")...)
			clock.pass(2 * snapshotAge)
			l.complete(t, rs)
			was, last := l.gen(), l.snapshots.current()
			c.damage(t, last.file)
			rs = append(rs, l.add(t, c.name+", after")...)
			clock.pass(2 * snapshotAge)
			if _, err := l.Snapshot(t.Context()); err == nil {
				t.Error("nothing was noticed")
			}
			began := time.Now()
			rs = append(rs, l.store(t, c.name+", again"))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("revocations were refused for %s", took)
			}
			l.complete(t, rs)
			if l.gen() != was || l.began(t) != 1 || l.Stats().Alarms > 0 {
				t.Errorf("generation %d, then %d; read from %d; %d alarms", was, l.gen(), l.began(t), l.Stats().Alarms)
			}
			noneLeft(t, l.cfg.SnapshotFile)
		})
	}
}

func TestDurableADamagedSnapshotIsNoAlarmForTheLogThatGoesOn(t *testing.T) {
	pace := &pacer{Handler: slog.NewTextHandler(t.Output(), nil)}
	l := keeping(t, t.TempDir(), func(c *Config) { c.Logger = slog.New(pace) })
	reached, goOn := make(chan struct{}), make(chan struct{})
	pace.stop = sync.OnceFunc(func() { close(reached); <-goOn })
	rs := l.add(t, "a")
	l.snapshot(t)
	if _, err := l.publish(t.Context(), wire.LogBatch, []byte("stop")); err != nil {
		t.Fatal(err)
	}
	<-reached // the follower has it in hand, when the damage is noticed
	if err := os.Remove(l.snapshots.current().file); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Snapshot(t.Context()); err == nil {
		t.Error("the damage was not noticed")
	}
	close(goOn)
	rs = append(rs, l.store(t, "b"))
	l.knows(t, rs...)
	if _, list := l.snapshot(t); lacking(list, rs[:1]) > 0 {
		t.Error("the snapshot lacks what was there before")
	}
	if l.gen() != 1 || l.Stats().Alarms > 0 {
		t.Errorf("generation %d, %d alarms: the log is as it was", l.gen(), l.Stats().Alarms)
	}
}

func TestFinalTheNextSnapshotHoldsWhatOnlyTheOldLogHeld(t *testing.T) {
	on, js := lone(t)
	path := filepath.Join(t.TempDir(), "snapshot")
	var clock shift
	keep := func(c *Config) { on(c); c.SnapshotFile = path; clock.use(c) }
	first, err := openWith(t, keep)
	first = must(t, first, err)
	old := first.add(t, "in the file")
	first.complete(t, old)
	old = append(old, first.add(t, "in memory")...)
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	late := []denylist.Revocation{first.store(t, "late")}
	first.knows(t, late...)
	first.complete(t, append(old, late...))
	if file := first.snapshots.current().file; file != path+joinedSnapshot {
		t.Errorf("it lies at %s", file)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old log's snapshot is still there: %v", err)
	}
	late = append(late, first.add(t, "later")...)
	clock.pass(2 * snapshotAge)
	first.complete(t, append(old, late...)) // and the one after it
	_ = first.Close()

	second, err := openWith(t, keep)
	second = must(t, second, err)
	if second.began(t) != 1 || second.gen() != 1 {
		t.Errorf("read from %d, generation %d", second.began(t), second.gen())
	}
	second.complete(t, late)
	for _, r := range old { // the log lacks them
		was := second.Stats().Entries
		if _, err := second.Append(t.Context(), r); err != nil || second.Stats().Entries != was+1 {
			t.Errorf("answered as stored, and is not in the log: %v", err)
		}
	}
	if _, err := os.Stat(path + joinedSnapshot); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the joined snapshot outlived its process: %v", err)
	}
}

// pacer is a logger whose user stops where it says that a message is not an
// authority's.
type pacer struct {
	slog.Handler
	stop func()
}

func (p *pacer) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "the log holds a message that is not") && p.stop != nil {
		p.stop()
	}
	return p.Handler.Handle(ctx, r)
}

func TestBoundedEntriesDoNotWaitForAReader(t *testing.T) {
	const (
		may     = 500 // in place of maxUnsaved
		batches = 20
	)
	pace := &pacer{Handler: slog.NewTextHandler(t.Output(), nil)}
	l := keeping(t, t.TempDir(), func(c *Config) { c.Logger = slog.New(pace) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// Where the follower stops, a snapshot is made of what waits, though nobody asks.
	most, stops := 0, 0 // guarded by l.mu
	pace.stop = func() {
		for first := true; ; time.Sleep(time.Millisecond) {
			l.snapshots.building <- struct{}{}
			l.mu.Lock()
			l.unsavedMax = may // a snapshot sets it to what suits a larger list
			waits := len(l.unsaved)
			if most = max(most, waits); first {
				stops, first = stops+1, false
			}
			l.mu.Unlock()
			<-l.snapshots.building
			if waits < may || ctx.Err() != nil {
				return
			}
		}
	}
	var rs []denylist.Revocation
	for i := range batches {
		if _, err := l.publish(ctx, wire.LogBatch, fmt.Append(nil, "stop", i)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			more := make([]denylist.Revocation, may/2)
			for j := range more {
				more[j] = revocation(fmt.Sprint(len(rs), ".", j))
			}
			if _, err := l.Append(ctx, more...); err != nil {
				t.Fatal(err)
			}
			rs = append(rs, more...)
		}
	}
	if _, err := l.publish(ctx, wire.LogBatch, []byte("last stop")); err != nil {
		t.Fatal(err)
	}
	whole := func(wantStops int, how string) {
		t.Helper()
		if err := l.await(ctx, func() bool { return l.caught && stops == wantStops && l.track.Position() >= l.lastAcked }); err != nil {
			t.Fatalf("no snapshot was made while %s: %v", how, err)
		}
		l.mu.Lock()
		if most > may {
			t.Errorf("%d entries waited while %s", most, how)
		}
		l.mu.Unlock()
		l.snapshots.building <- struct{}{}
		err := l.build()
		<-l.snapshots.building
		if _, list := l.snapshot(t); err != nil || lacking(list, rs) > 0 {
			t.Errorf("the snapshot lacks %d of %d revocations: %v", lacking(list, rs), len(rs), err)
		}
	}
	whole(batches+1, "they came")
	l.startOver(errors.New("to read the whole log, as a start does"))
	whole(2*(batches+1), "the whole log was read")
	if err := os.Truncate(l.snapshots.current().file, 100); err != nil {
		t.Fatal(err)
	}
	l.snapshots.full <- struct{}{} // nobody asks, and the damage is noticed all the same
	whole(3*(batches+1), "the whole log was read, since the snapshot was damaged")
}

func TestSnapshotsAreMadeOnceAndWhenDue(t *testing.T) {
	clock := shift{still: time.Now()}
	l := keeping(t, t.TempDir(), clock.use)
	rs := l.add(t, numbered("a", 500)...)
	rs = append(rs, l.add(t, numbered("b", 600)...)...)
	// forty asks from forty goroutines at once, and returns when the newest snapshot
	// that they get was made. Who asks while it is being made may get the last one.
	var newest os.FileInfo
	forty := func() (at time.Time) {
		t.Helper()
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := map[string]bool{}
		for range 40 {
			wg.Go(func() {
				file, err := l.Snapshot(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = file.Close() }()
				info, err := file.Stat()
				snapshot, _, headErr := l.ring.ReadSnapshot(file)
				if err := errors.Join(err, headErr); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if newest == nil || !os.SameFile(info, newest) {
					made[info.ModTime().String()] = true
				}
				if snapshot.IssuedAt.After(at) {
					at = snapshot.IssuedAt
				}
			})
		}
		wg.Wait()
		if len(made) > 1 {
			t.Errorf("%d snapshots for forty readers", len(made))
		}
		file, err := os.Open(l.snapshots.current().file)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		if newest, err = file.Stat(); err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := forty()
	same := func(what string) {
		t.Helper()
		if at := forty(); !at.Equal(first) {
			t.Errorf("made anew %s", what)
		}
	}
	anew := func(what string) {
		t.Helper()
		at := forty()
		if !at.After(first) {
			t.Errorf("not made anew %s", what)
		}
		first = at
	}
	same("at once")
	clock.pass(snapshotOld / 2)
	same("though nothing has changed")
	rs = append(rs, l.add(t, "one more")...)
	same("for one entry in a thousand")
	l.complete(t, rs)
	rs = append(rs, l.add(t, "and another")...)
	anew("for two in a thousand")
	rs = append(rs, l.add(t, numbered("c", 50)...)...)
	same("at once, though much has changed")
	clock.pass(snapshotAge)
	same("after a second")
	clock.pass(1)
	l.snapshots.mu.Lock()
	l.snapshots.last.took = snapshotAge
	l.snapshots.mu.Unlock()
	same("though its making takes long")
	clock.pass(9 * snapshotAge)
	anew("after ten times as long")
	clock.pass(snapshotOld + 1)
	anew("though it is old")
	l.complete(t, rs)
}

func TestDurableASnapshotAndTheLogAfterItHoldAllThatWasAcknowledged(t *testing.T) {
	var clock shift
	l := keeping(t, t.TempDir(), clock.use)
	var mu sync.Mutex
	var acked []denylist.Revocation
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r := revocation(fmt.Sprint(g, ".", i))
				if _, err := l.Append(t.Context(), r); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked = append(acked, r)
				mu.Unlock()
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	last := uint64(0)
	for made := 0; made < 20; {
		mu.Lock()
		want := slices.Clone(acked)
		mu.Unlock()
		clock.pass(snapshotAge / 2) // every other one is made anew
		snapshot, list := l.snapshot(t)
		if snapshot.Position > last {
			made, last = made+1, snapshot.Position
		}
		entries, _ := l.page(t, snapshot.Position, snapshot.Chain)
		for _, r := range entries {
			list.Add(r.Entry())
		}
		if n := lacking(list, want); n > 0 {
			t.Fatalf("%d of %d acknowledged before are neither in the snapshot at %d nor after it", n, len(want), snapshot.Position)
		}
	}
}

func TestDurableSnapshotsAreMadeAgainWhenTheirDirectoryIsBack(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, more bool // a snapshot was made before; something is revoked meanwhile
		instead     bool // a file lies in the directory's place
	}{
		{"gone from the start", false, true, false},
		{"gone later", true, true, false},
		{"gone later, and nothing is revoked", true, false, false},
		{"a file in its place from the start", false, true, true},
		{"a file in its place later", true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := filepath.Join(t.TempDir(), "place")
			var clock shift
			there := func() {
				t.Helper()
				if err := errors.Join(os.RemoveAll(place), os.Mkdir(place, 0o700)); err != nil {
					t.Fatal(err)
				}
			}
			gone := func() {
				t.Helper()
				err := os.RemoveAll(place)
				if c.instead {
					err = errors.Join(err, os.WriteFile(place, nil, 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if gone(); c.first {
				there()
			}
			l := keeping(t, t.TempDir(), clock.use, func(c *Config) { c.SnapshotFile = filepath.Join(place, "snapshot") })
			rs := l.add(t, numbered("a", 10)...)
			if c.first {
				l.complete(t, rs)
				gone()
			}
			if c.more {
				rs = append(rs, l.add(t, "meanwhile")...)
			}
			clock.pass(2 * snapshotAge)
			for range 2 {
				if _, err := l.Snapshot(t.Context()); err == nil {
					t.Fatal("a snapshot without a place to be")
				}
			}
			rs = append(rs, l.add(t, "and more")...) // revocations go on
			if !c.more {
				rs = rs[:len(rs)-1]
			}
			there()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for {
				file, err := l.Snapshot(ctx)
				if err == nil {
					_ = file.Close()
					break
				}
				if ctx.Err() != nil {
					t.Fatalf("the directory is back, and no snapshot: %v", err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			l.complete(t, rs)
			noneLeft(t, l.cfg.SnapshotFile)
		})
	}
}

func TestCloseEndsTheMakingOfASnapshot(t *testing.T) {
	l := keeping(t, t.TempDir())
	l.add(t, "a")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var given atomic.Int64
	endless := func(yield func(denylist.Section, error) bool) {
		s := denylist.Section{Shape: denylist.JTI, Window: denylist.WindowEnd(time.Now().Unix())}
		for i := range denylist.SectionSize {
			s.Digests = append(s.Digests, denylist.Digest{byte(i >> 8), byte(i)})
		}
		for given.Add(1); yield(s, nil); given.Add(1) {
			s.Window += int64(denylist.Window / time.Second)
		}
	}
	written := make(chan error)
	go func() {
		written <- testSigner().WriteSnapshot(w, wire.Snapshot{Epoch: "e", IssuedAt: time.Now()}, endless)
	}()
	l.snapshots.mu.Lock()
	l.snapshots.last = made{file: fmt.Sprint("/dev/fd/", r.Fd()), generation: 1}
	l.snapshots.mu.Unlock()
	l.snapshots.full <- struct{}{}
	for given.Load() < 20 { // more than a pipe holds: it is being read
		time.Sleep(time.Millisecond)
	}
	if left, _ := filepath.Glob(l.cfg.SnapshotFile + newSnapshot); len(left) != 1 {
		t.Errorf("no snapshot is in the making: %v", left)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); _ = l.Close() }()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("still making it")
	}
	if err := <-written; err == nil {
		t.Error("it was read to its end")
	}
	_ = w.Close()
	<-closed
	noneLeft(t, l.cfg.SnapshotFile)
	if _, err := l.Snapshot(t.Context()); err == nil {
		t.Error("a snapshot after the end")
	}
}

func TestDurableAHoleInTheLogShowsAfterARestartFromTheSnapshot(t *testing.T) {
	on, js := lone(t)
	path := filepath.Join(t.TempDir(), "snapshot")
	keep := func(c *Config) { on(c); c.SnapshotFile = path }
	l, err := openWith(t, keep)
	l = must(t, l, err)
	for i := range 6 {
		l.add(t, fmt.Sprint("a", i))
	}
	_ = l.Close()
	stream, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	good := stream.CachedInfo().Config
	for _, most := range []int64{3, -1} { // the server drops what is more
		good.MaxMsgsPerSubject = most
		if _, err := js.UpdateStream(t.Context(), good); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	second, err := openWith(t, keep)
	second = must(t, second, err)
	rs := second.add(t, "after")
	second.complete(t, rs)
	second.mark(t)
	_ = second.Close()
	third, err := openWith(t, keep)
	third = must(t, third, err)
	if third.began(t) == 1 || third.gen() != 1 {
		t.Fatalf("the snapshot was not taken up: read from %d", third.began(t))
	}
	for after := uint64(0); after <= third.Stats().Position; {
		page, err := third.Page(t.Context(), after, 0, "n")
		if errors.Is(err, wire.ErrGone) {
			t.Logf("gone after %d", after)
			third.complete(t, rs) // and whoever loads the snapshot goes on from there
			return
		}
		if err != nil {
			t.Fatalf("after %d: %v", after, err)
		}
		p, err := third.ring.ReadPage(bytes.NewReader(page), after, "n")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Records) == 0 {
			break
		}
		after += uint64(len(p.Records))
	}
	t.Error("nobody was told of the hole")
}

func TestDurableADamagedSnapshotHidesNoOtherLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		grown int // messages that another authority adds before anyone looks
	}{{"rolled back", 0}, {"rolled back, and grown again", 30}} {
		t.Run(c.name, func(t *testing.T) {
			dir, backup := t.TempDir(), t.TempDir()
			store := filepath.Join(dir, "log")
			var clock shift
			l := keeping(t, dir, clock.use)
			rs := l.add(t, "kept")
			restart := func(between func() error) {
				t.Helper()
				l.server.stop()
				if err := errors.Join(between(), l.server.start()); err != nil {
					t.Fatal(err)
				}
			}
			restart(func() error { return os.CopyFS(backup, os.DirFS(store)) })
			lost := l.store(t, "lost")
			l.complete(t, append(rs, lost))
			l.server.stop()
			if err := errors.Join(os.RemoveAll(filepath.Join(store, "jetstream")), os.CopyFS(store, os.DirFS(backup))); err != nil {
				t.Fatal(err)
			}
			if c.grown > 0 { // by another that has the log to itself for a while
				other, err := openWith(t, func(c *Config) { c.Embedded.StoreDir = store })
				other = must(t, other, err)
				for i := range c.grown {
					other.add(t, fmt.Sprint("other", i))
				}
				_ = other.Close()
			}
			if err := os.Truncate(l.snapshots.current().file, 100); err != nil {
				t.Fatal(err)
			}
			clock.pass(2 * snapshotOld)
			if _, err := l.Snapshot(t.Context()); err == nil {
				t.Fatal("the damage was not noticed")
			}
			if err := l.server.start(); err != nil {
				t.Fatal(err)
			}
			rs = append(rs, l.store(t, "after"))
			l.knows(t, rs...)
			was := l.Stats().Entries
			if _, err := l.Append(t.Context(), lost); err != nil || l.Stats().Entries != was+1 {
				t.Errorf("answered as stored, and the log lacks it: %v", err)
			}
			if l.Stats().Alarms == 0 {
				t.Error("no alarm")
			}
			l.complete(t, append(rs, lost))
		})
	}
}

func TestFinalASnapshotFileOutlivesTheLogThatAgedOut(t *testing.T) {
	for _, more := range []bool{false, true} {
		t.Run(fmt.Sprint("something came after it ", more), func(t *testing.T) {
			on, js := lone(t)
			path := filepath.Join(t.TempDir(), "snapshot")
			keep := func(c *Config) { on(c); c.SnapshotFile = path }
			l, err := openWith(t, keep)
			l = must(t, l, err)
			rs := l.add(t, numbered("a", 5)...)
			l.complete(t, rs)
			if more {
				l.mark(t)
				l.add(t, "b")
			}
			_ = l.Close()
			stream, err := js.Stream(t.Context(), wire.Stream)
			if err != nil {
				t.Fatal(err)
			}
			cfg := stream.CachedInfo().Config
			cfg.MaxAge, cfg.Duplicates = 100*time.Millisecond, 100*time.Millisecond
			if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				if info, err := stream.Info(t.Context()); err == nil && info.State.Msgs == 0 {
					break
				}
				if time.Since(start) > 20*time.Second {
					t.Fatal("nothing ages out")
				}
			}
			second, err := openWith(t, keep)
			second = must(t, second, err)
			if n := lacking(second.list, rs); n > 0 {
				t.Errorf("%d of %d revocations were dropped", n, len(rs))
			}
			late := second.add(t, "late")
			second.proves(t)
			second.complete(t, append(rs, late...))
			if n := second.Stats().Alarms; n > 0 {
				t.Errorf("%d alarms", n)
			}
			for _, r := range rs { // the log lacks them
				was := second.Stats().Entries
				if _, err := second.Append(t.Context(), r); err != nil || second.Stats().Entries != was+1 {
					t.Errorf("answered as stored, and the log lacks it: %v", err)
				}
			}
		})
	}
}
