package feed

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// journaled makes a feed that is based at position 0 with two entries in its base,
// and has journaled three batches and a confirmation after it.
func journaled(t testing.TB, path string) (f *Feed, inBase, inFrames []*denylist.Token) {
	t.Helper()
	list := denylist.New()
	f, err := New(list, Config{Authority: "http://127.0.0.1:1", StateFile: path})
	if err != nil {
		t.Fatal(err)
	}
	f.ring = wire.NewKeyring(testSigner().Public())
	now := time.Now()
	exp := now.Add(time.Hour)
	entry := func(jti string) denylist.Revocation {
		return denylist.Revocation{
			Issuer: issuer, Selector: denylist.One(denylist.JTI, jti), Expires: exp, ExactExpiry: true, At: now, By: "web",
		}
	}
	var base []denylist.Entry
	for i := range 2 {
		jti := fmt.Sprint("base", i)
		base = append(base, entry(jti).Entry())
		inBase = append(inBase, tokenOf(t, jti, exp))
	}
	list.Advance(now.Add(-time.Minute))
	f.last = confirmation{AsOf: now.UnixMicro(), Through: now.Add(-time.Minute).UnixMicro()}
	f.position.rebase("e", point{0, wire.ChainStart("e")}, 0)
	f.clock.answer(f.reading(now), f.reading(now), now)
	list.Add(base...)
	if err := f.rewrite(denylist.Sections(base), f.header); err != nil || f.state == nil {
		t.Fatal(err)
	}
	f.state.partial = false // there is no log after it
	for i := range uint64(3) {
		jti := fmt.Sprint("frame", i)
		e, err := wire.EncodeEntry(entry(jti))
		if err != nil {
			t.Fatal(err)
		}
		message := testSigner().SealBatch("e", now, [][]byte{e})
		opened, err := f.ring.Open(message)
		if err != nil {
			t.Fatal(err)
		}
		f.message(i+1, message, opened, now)
		inFrames = append(inFrames, tokenOf(t, jti, exp))
	}
	f.heartbeat(wire.Heartbeat{Epoch: "e", Position: 3, Chain: f.position.track.Chain(), AsOf: now.Add(time.Millisecond), IssuedAt: now.Add(time.Millisecond)}, now)
	return f, inBase, inFrames
}

// restored reads a state file as a starting process does.
func restored(t testing.TB, content []byte, now time.Time) (*Feed, *denylist.List) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	list := denylist.New()
	f, err := New(list, Config{Authority: "http://127.0.0.1:1", StateFile: path, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	f.restore()
	return f, list
}

func revoked(list *denylist.List, tokens []*denylist.Token) (n int) {
	for _, token := range tokens {
		if list.CheckToken(token, time.Now()).Status == denylist.Revoked {
			n++
		}
	}
	return n
}

func TestDurableStateSurvivesAKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	_, inBase, inFrames := journaled(t, path) // and no orderly end
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, list := restored(t, content, time.Now())
	if revoked(list, inBase) != 2 || revoked(list, inFrames) != 3 {
		t.Errorf("%d of 2 in the base, %d of 3 after it", revoked(list, inBase), revoked(list, inFrames))
	}
	if f.position.epoch != "e" || f.position.confirmed.position != 3 {
		t.Errorf("at %+v", f.position.confirmed)
	}
	if age, ok := list.Age(time.Now()); !ok || age > 30*time.Second {
		t.Errorf("age %s %v", age, ok)
	}
}

func TestFreshAStateFileCutOffOrAlteredAnywhereMakesNothingFresher(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	base := int(f.state.base)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, content []byte, touched int) {
		_, list := restored(t, content, time.Now())
		age, loaded := list.Age(time.Now())
		b, fr := revoked(list, inBase), revoked(list, inFrames)
		switch {
		case touched < base:
			if loaded || b+fr > 0 {
				t.Fatalf("%s: loaded %v, %d and %d entries", what, loaded, b, fr)
			}
		case b != 2:
			t.Fatalf("%s: %d entries of the base", what, b)
		case loaded && age < 30*time.Second && fr < 3:
			t.Fatalf("%s: %s old, with %d of 3 entries", what, age, fr)
		}
	}
	for n := range whole {
		check(fmt.Sprint("cut off at ", n), whole[:n], n)
		altered := bytes.Clone(whole)
		altered[n] ^= 0x40
		check(fmt.Sprint("altered at ", n), altered, n)
	}
}

func TestFreshAStateFileFromTheFutureIsNotFresh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	_, inBase, _ := journaled(t, path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, list := restored(t, content, time.Now().Add(-time.Hour)) // the clock was set back
	if _, loaded := list.Age(time.Now()); loaded || revoked(list, inBase) != 2 {
		t.Errorf("loaded %v, %d entries", loaded, revoked(list, inBase))
	}
	_, list = restored(t, content, time.Now().Add(time.Hour))
	if age, loaded := list.Age(time.Now().Add(time.Hour)); !loaded || age < 59*time.Minute {
		t.Errorf("loaded %v, age %s after an hour", loaded, age)
	}
}

func TestDurableABatchOfAnOlderEpochInTheLogSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, _, _ := journaled(t, path)
	now := time.Now()
	exp := now.Add(time.Hour)
	e, err := wire.EncodeEntry(denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.JTI, "late"), Expires: exp, ExactExpiry: true, At: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	message := testSigner().SealBatch("older", now, [][]byte{e})
	f.record("e", wire.Record{Position: 4, Message: message}, now) // as a log page holds it
	at := point{4, f.position.confirmed.chain.Next(4, wire.HashOf(message))}
	asOf := now.Add(2 * time.Millisecond)
	f.settle("e", at, wire.Heartbeat{Epoch: "e", Position: 4, Chain: at.chain, AsOf: asOf, IssuedAt: asOf}, f.position.ask(), false)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, list := restored(t, content, time.Now()); revoked(list, []*denylist.Token{tokenOf(t, "late", exp)}) != 1 {
		t.Error("un-revoked by a restart")
	}
}

func TestFinalOtherPinnedKeysUnrevokeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	_, inBase, inFrames := journaled(t, path)
	list := denylist.New()
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	f, err := New(list, Config{Authority: "http://127.0.0.1:1", StateFile: path, Keys: []ed25519.PublicKey{other}})
	if err != nil {
		t.Fatal(err)
	}
	f.restore()
	if revoked(list, inBase) != 2 || revoked(list, inFrames) != 3 {
		t.Errorf("%d of 2 in the base, %d of 3 after it", revoked(list, inBase), revoked(list, inFrames))
	}
	if len(f.ring) != 1 {
		t.Error("the file's keys are trusted beyond the file")
	}
}

func TestDurableStateIsRewrittenWhileMessagesArrive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	f.state.frames = 1 << 40 // due
	f.save()
	if f.state.frames > 1<<20 || f.state.held != 5 || f.nextState != nil || len(f.recent) > 0 {
		t.Fatal("it was not rewritten")
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, list := restored(t, content, time.Now())
	if revoked(list, inBase) != 2 || revoked(list, inFrames) != 3 {
		t.Error("the rewritten file lacks entries")
	}
	if left, _ := filepath.Glob(path + newState); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDurableAStateFileThatCanNotBeWrittenIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, _, _ := journaled(t, filepath.Join(dir, "state"))
	f.state.fail(os.ErrInvalid)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	f.save()
	if f.stateErrors != 2 || f.state.broken == nil {
		t.Fatalf("%d errors", f.stateErrors)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.saveAfter = time.Time{}
	f.save()
	if _, err := os.Stat(f.cfg.StateFile); err != nil || f.state.broken != nil {
		t.Errorf("not written again: %v", err)
	}
}

// goesOn makes a feed that has taken up the state file at path.
func goesOn(t *testing.T, path string) *Feed {
	t.Helper()
	f, err := New(denylist.New(), Config{Authority: "http://127.0.0.1:1", StateFile: path})
	if err != nil {
		t.Fatal(err)
	}
	f.restore()
	t.Cleanup(func() { kill(f) })
	return f
}

// batch makes a message of the log with a revocation of each token.
func batch(t testing.TB, jtis ...string) (message []byte, tokens []*denylist.Token) {
	t.Helper()
	now := time.Now()
	exp := now.Add(time.Hour)
	var entries [][]byte
	for _, jti := range jtis {
		e, err := wire.EncodeEntry(denylist.Revocation{
			Issuer: issuer, Selector: denylist.One(denylist.JTI, jti), Expires: exp, ExactExpiry: true, At: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		entries, tokens = append(entries, e), append(tokens, tokenOf(t, jti, exp))
	}
	return testSigner().SealBatch("e", now, entries), tokens
}

// hear hands a message to a feed, as the live subject does.
func hear(t testing.TB, f *Feed, position uint64, message []byte) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	opened, err := f.ring.Open(message)
	if err != nil {
		t.Fatal(err)
	}
	f.message(position, message, opened, time.Now())
}

// heartbeat confirms what a feed has heard.
func heartbeat(t testing.TB, f *Feed) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if _, ok := f.clock.at(f.reading(now)); !ok {
		f.clock.answer(f.reading(now), f.reading(now), now)
	}
	f.heartbeat(wire.Heartbeat{
		Epoch: "e", Position: f.position.track.Position(), Chain: f.position.track.Chain(), AsOf: now, IssuedAt: now,
	}, now)
	if f.last.Position != f.position.track.Position() || f.last.AsOf != now.UnixMicro() {
		t.Fatal("not confirmed")
	}
}

func TestDurableARestartAppendsToTheSameStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	kill(f)
	tokens := append(inBase, inFrames...)
	for n := range uint64(3) {
		before := content(t, path)
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f := goesOn(t, path)
		f.save()
		if is, err := os.Stat(path); err != nil || !os.SameFile(was, is) || !bytes.Equal(content(t, path), before) {
			t.Fatalf("restart %d: the file was rewritten: %v", n, err)
		}
		if got := revoked(f.list, tokens); got != len(tokens) || f.position.confirmed.position != 3+n || !fresh(f.list) {
			t.Fatalf("restart %d: %d of %d revocations, at %d, fresh %v", n, got, len(tokens), f.position.confirmed.position, fresh(f.list))
		}
		message, more := batch(t, fmt.Sprint("restart", n))
		hear(t, f, 4+n, message)
		heartbeat(t, f)
		tokens = append(tokens, more...)
		if after := content(t, path); !bytes.HasPrefix(after, before) || len(after) == len(before) {
			t.Fatalf("restart %d: %d bytes, then %d", n, len(before), len(after))
		}
		if n%2 == 0 {
			kill(f)
		} else {
			f.stop()
		}
	}
}

func TestDurableATornTailIsCutOffAndWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	confirmed := len(content(t, path))
	message, last := batch(t, "last")
	hear(t, f, 4, message)
	whole := content(t, path)
	kill(f)
	longHead := append([]byte{frameMessage}, 0, 0, 0xff, 0xff)
	rubbish := [][]byte{nil, make([]byte, 700), bytes.Repeat([]byte{0xff}, 700), whole[confirmed:], longHead}
	for n := confirmed; n <= len(whole); n++ { // every byte of the last frame
		tail := rubbish[n%len(rubbish)]
		if n == len(whole) {
			tail = longHead
		}
		torn := append(bytes.Clone(whole[:n]), tail...)
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		want := append(append([]*denylist.Token{}, inBase...), inFrames...)
		f := goesOn(t, path)
		position := f.position.track.Position()
		switch {
		case n == len(whole): // only the rubbish goes
			want = append(want, last...)
			if position != 4 {
				t.Fatalf("with rubbish after it: at %d", position)
			}
		case position != 3:
			if n != confirmed || !bytes.Equal(tail, whole[confirmed:]) {
				t.Fatalf("cut off at %d: at %d", n, position)
			}
		}
		if got := revoked(f.list, want); got != len(want) {
			t.Fatalf("cut off at %d: %d of %d revocations", n, got, len(want))
		}
		if position == 3 {
			if got := content(t, path); !bytes.Equal(got, whole[:confirmed]) {
				t.Fatalf("cut off at %d: the torn tail is still there, %d bytes", n, len(got)-confirmed)
			}
			hear(t, f, 4, message) // again
			want = append(want, last...)
		}
		message, more := batch(t, "more")
		hear(t, f, 5, message)
		heartbeat(t, f)
		kill(f)
		g := goesOn(t, path)
		if got := revoked(g.list, append(want, more...)); got != len(want)+1 || g.position.confirmed.position != 5 || !fresh(g.list) {
			t.Fatalf("cut off at %d, then written over: %d of %d revocations, at %d", n, got, len(want)+1, g.position.confirmed.position)
		}
		kill(g)
	}
}

func TestDurableAStateFileWhoseTornTailStaysIsRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	kill(f)
	if err := os.WriteFile(path, append(content(t, path), "torn"...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := New(denylist.New(), Config{Authority: "http://127.0.0.1:1", StateFile: path})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path) // which can't be cut off
	if err != nil {
		t.Fatal(err)
	}
	if err := f.read(file); err != nil {
		t.Fatal(err)
	}
	f.save()
	message, more := batch(t, "more")
	hear(t, f, 4, message)
	heartbeat(t, f)
	kill(f)
	tokens := append(append(inBase, inFrames...), more...)
	if g := goesOn(t, path); revoked(g.list, tokens) != len(tokens) || g.position.confirmed.position != 4 {
		t.Errorf("%d of %d revocations, at %d", revoked(g.list, tokens), len(tokens), g.position.confirmed.position)
	}
}

func TestBoundedManyFramesAreMergedIntoTheBase(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(t *testing.T, f *Feed) []*denylist.Token
	}{
		{"bytes", func(t *testing.T, f *Feed) (tokens []*denylist.Token) {
			for position := uint64(4); !f.state.full(0); position++ {
				var names []string
				for i := range 100 {
					names = append(names, fmt.Sprint(position, ".", i, strings.Repeat("x", 8000)))
				}
				message, more := batch(t, names...)
				hear(t, f, position, message)
				tokens = append(tokens, more[0], more[99])
			}
			return tokens
		}},
		{"entries", func(t *testing.T, f *Feed) []*denylist.Token {
			message, tokens := batch(t, "one", "two")
			hear(t, f, 4, message)
			for i := range maxRecent { // as if they had been heard, which would take long
				e := denylist.Entry{Shape: denylist.JTI, Expires: denylist.WindowEnd(time.Now().Unix()), Windowed: true, Cutoff: denylist.NoCutoff}
				e.Digest[0], e.Digest[1], e.Digest[2] = byte(i>>16), byte(i>>8), byte(i)
				f.recent = append(f.recent, e)
			}
			return tokens
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			f, inBase, inFrames := journaled(t, path)
			f.save()
			if f.state.held != 2 {
				t.Fatal("merged without need")
			}
			tokens := append(append(inBase, inFrames...), c.fill(t, f)...)
			heartbeat(t, f)
			position := f.position.track.Position()
			entries, waiting := f.list.Stats().Entries, len(f.recent)

			// One arrives while the file is being written.
			message, more := batch(t, "meanwhile")
			heard := false
			f.cfg.Now = func() time.Time {
				f.mu.Lock()
				during := f.nextState != nil && f.nextState.held > 0
				f.mu.Unlock()
				if during && !heard {
					heard = true
					hear(t, f, position+1, message)
					f.cfg.Now = time.Now
					heartbeat(t, f)
				}
				return time.Now()
			}
			f.save()
			if !heard {
				t.Fatal("nothing arrived during the merge: the test is void")
			}
			if f.state.held != 2+waiting || f.nextState != nil || f.state.buffer != nil {
				t.Errorf("%d entries in the base, %d of them from frames", f.state.held, waiting)
			}
			if len(f.recent) != 1 { // the one that came meanwhile
				t.Errorf("%d entries are in memory twice", len(f.recent))
			}
			if f.state.full(len(f.recent)) || f.state.frames == 0 || f.state.base+f.state.frames != int64(len(content(t, path))) {
				t.Errorf("%d bytes in the base and %d after it, of %d", f.state.base, f.state.frames, len(content(t, path)))
			}
			noneLeft(t, path)
			kill(f)
			g := goesOn(t, path)
			tokens = append(tokens, more...)
			if got := revoked(g.list, tokens); got != len(tokens) || g.position.confirmed.position != position+1 || !fresh(g.list) {
				t.Errorf("after a restart: %d of %d revocations, at %d", got, len(tokens), g.position.confirmed.position)
			}
			if got := g.list.Stats().Entries; got < entries {
				t.Errorf("%d entries, then %d", entries, got)
			}
		})
	}
}

func TestDurableACrashDuringARewriteLosesNothing(t *testing.T) {
	dir, copies := filepath.Join(t.TempDir(), "state"), t.TempDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, inBase, inFrames := journaled(t, filepath.Join(dir, "file"))
	tokens := append(inBase, inFrames...)
	n := 0
	crash := func() { // the directory as a crash would leave it
		t.Helper()
		if err := os.CopyFS(filepath.Join(copies, fmt.Sprint(n)), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		n++
	}
	var added []denylist.Entry
	for i := range 3 * denylist.SectionSize {
		e := denylist.Entry{Shape: denylist.JTI, Expires: denylist.WindowEnd(time.Now().Unix()), Windowed: true, Cutoff: denylist.NoCutoff}
		e.Digest[0], e.Digest[1] = byte(i>>8), byte(i)
		added = append(added, e)
	}
	message, more := batch(t, "meanwhile")
	crash()
	sections := func(yield func(denylist.Section, error) bool) {
		first := true
		for s, err := range denylist.Sections(added) {
			crash()
			if first {
				hear(t, f, 4, message)
				heartbeat(t, f)
				crash()
			}
			if first = false; !yield(s, err) {
				return
			}
		}
		crash()
	}
	if err := f.rewrite(sections, func() stateHeader {
		crash()
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.header()
	}); err != nil {
		t.Fatal(err)
	}
	crash()
	kill(f)
	if n < 8 {
		t.Fatalf("%d crashes", n)
	}
	torn := 0
	for i := range n {
		path := filepath.Join(copies, fmt.Sprint(i), "file")
		if left, _ := filepath.Glob(path + newState); len(left) > 0 {
			torn++
		}
		g := goesOn(t, path)
		want, position := tokens, uint64(3)
		if i >= 2 { // the first after "meanwhile" was heard
			want, position = append(tokens[:5:5], more...), 4
		}
		if got := revoked(g.list, want); got != len(want) || g.position.confirmed.position < position || !fresh(g.list) {
			t.Errorf("crash %d: %d of %d revocations, at %d, fresh %v", i, got, len(want), g.position.confirmed.position, fresh(g.list))
		}
		noneLeft(t, path)
		next, _ := batch(t, "next")
		hear(t, g, g.position.track.Position()+1, next)
		heartbeat(t, g)
		kill(g)
	}
	if torn < 5 {
		t.Errorf("%d of %d crashes left a half-written file", torn, n)
	}
}

func FuzzState(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	_, inBase, _ := journaled(f, path)
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if _, list := restored(f, seed, time.Now()); revoked(list, inBase) != 2 {
		f.Fatal("the seed does not load")
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Fuzz(func(t *testing.T, content []byte) {
		g, list := restored(t, content, time.Now())
		if _, loaded := list.Age(time.Now()); loaded && !g.position.based() {
			t.Error("fresh without a position")
		}
	})
}
