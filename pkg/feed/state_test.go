package feed

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
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
		if list.Check(token, time.Now()).Status == denylist.Revoked {
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
