package broadcast

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// find expects a search to find these, in order, and all fields of them.
func (l testLog) find(t *testing.T, issuer string, s denylist.Selector, want ...denylist.Revocation) []Found {
	t.Helper()
	found, more, err := l.Find(t.Context(), issuer, s, time.Now(), 100)
	if err != nil || more || len(found) != len(want) {
		t.Fatalf("%s: found %+v, %v, %v; want %+v", s, found, more, err, want)
	}
	for i, f := range found {
		w := want[i]
		same := f.Issuer == w.Issuer && slices.Equal(f.Selector.Pairs(), w.Selector.Pairs()) && f.Entry() == w.Entry() &&
			f.Expires.Unix() == w.Expires.Unix() && f.IssuedBefore.Unix() == w.IssuedBefore.Unix() &&
			f.At.UnixMicro() == w.At.UnixMicro() && f.By == w.By && f.Reason == w.Reason
		if !same || f.Position == 0 || i > 0 && f.Position < found[i-1].Position {
			t.Errorf("%s: found %+v, not %+v", s, f, w)
		}
	}
	return found
}

// finds expects a search to find what may have been stored several times.
func (l testLog) finds(t *testing.T, r denylist.Revocation) {
	t.Helper()
	if found, _, err := l.Find(t.Context(), r.Issuer, r.Selector, time.Now(), 1); err != nil || len(found) != 1 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// by is a revocation by other claims than one token's.
func by(issuer string, pairs map[string]string) denylist.Revocation {
	s, err := denylist.NewSelector(pairs)
	if err != nil {
		panic(err)
	}
	r := revocation("any")
	r.Issuer, r.Selector, r.IssuedBefore, r.ExactExpiry = issuer, s, r.At, false
	return r
}

func TestDurableWhatWasAcknowledgedIsFound(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var all []denylist.Revocation
	for i := range 30 {
		r := revocation(fmt.Sprint("a", i))
		position, err := l.Append(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if found := l.find(t, issuer, r.Selector, r); found[0].Position != position {
			t.Errorf("found at %d, and acknowledged at %d", found[0].Position, position)
		}
		all = append(all, r)
	}
	l.find(t, issuer, denylist.One(denylist.JTI, "another"))
	_ = l.Close()
	l = open(t, dir)
	for _, r := range all {
		l.find(t, issuer, r.Selector, r)
	}
}

func TestFindExactlyTheSelectorThatIsAskedFor(t *testing.T) {
	l := open(t, t.TempDir())
	const odd = "<a>&\"\\\x01\u2028}é"
	all := []denylist.Revocation{
		by(issuer, nil),
		by(issuer, map[string]string{"sub": "alice"}),
		by(issuer, map[string]string{"sub": "alice", "tenant": "t"}),
		by(issuer, map[string]string{"sub": "alice", "client_id": "web"}),
		by(issuer, map[string]string{"sub": "alicea"}),
		by(issuer, map[string]string{"client_id": "alice"}),
		by(issuer, map[string]string{odd: odd}),
		by(issuer+"/", map[string]string{"sub": "alice"}),
		by(odd, map[string]string{"sub": odd}),
	}
	for i := range all { // what looks like another entry, and is said about this one
		prefix, err := wire.EntryPrefix(all[(i+1)%len(all)].Issuer, all[(i+1)%len(all)].Selector)
		if err != nil {
			t.Fatal(err)
		}
		all[i].Reason = string(prefix)
	}
	for _, together := range []bool{true, false} {
		if together {
			if _, err := l.Append(t.Context(), all...); err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				l.find(t, r.Issuer, r.Selector, r)
			}
			continue
		}
		for _, r := range all {
			again := r
			again.Reason, again.At = "again", r.At.Add(time.Second)
			if _, err := l.Append(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			l.find(t, r.Issuer, r.Selector, r, again)
		}
	}
	for _, absent := range []denylist.Revocation{
		by("https://nobody.example", map[string]string{"sub": "alice"}), by(issuer, map[string]string{"sub": "alic"}), by("", nil),
	} {
		l.find(t, absent.Issuer, absent.Selector)
	}
	if _, _, err := l.Find(t.Context(), "\xff", denylist.Selector{}, time.Now(), 1); err == nil {
		t.Error("an issuer that is not UTF-8 is looked for")
	}
}

func TestBoundedFindReturnsTheNewest(t *testing.T) {
	l := open(t, t.TempDir())
	for i := range 5 {
		r := by(issuer, map[string]string{"sub": "alice"})
		first, second := r, r
		first.By, second.By = fmt.Sprint(2*i), fmt.Sprint(2*i+1)
		if _, err := l.Append(t.Context(), first, second); err != nil {
			t.Fatal(err)
		}
	}
	for most, want := range map[int]string{0: "", 1: "9", 3: "789", 9: "123456789", 10: "0123456789", 11: "0123456789"} {
		found, more, err := l.Find(t.Context(), issuer, denylist.One("sub", "alice"), time.Now(), most)
		var got string
		for _, f := range found {
			got += f.By
		}
		if err != nil || got != want || more != (most < 10) {
			t.Errorf("at most %d: %q, %v, %v", most, got, more, err)
		}
	}
}

// Whoever is told that a selector is not live must not meet a list that denies it.
func TestFindAndTheListAgreeOnWhatHasExpired(t *testing.T) {
	l := open(t, t.TempDir())
	windowed := revocation("x")
	plain := windowed
	plain.Selector, plain.ExactExpiry = denylist.One(denylist.JTI, "y"), false
	if _, err := l.Append(t.Context(), windowed, plain); err != nil {
		t.Fatal(err)
	}
	for _, r := range []denylist.Revocation{windowed, plain} {
		kept, gone := 0, 0
		end := time.Unix(denylist.WindowEnd(r.Expires.Unix()), 0).Add(denylist.Grace)
		for _, after := range []time.Duration{-2 * time.Hour, -denylist.Window, -time.Second, -1, 0, 1, time.Second, denylist.Window, time.Hour} {
			now := end.Add(after)
			list := denylist.New()
			list.Add(r.Entry())
			list.Prune(now)
			found, _, err := l.Find(t.Context(), issuer, r.Selector, now, 1)
			if err != nil || (len(found) > 0) != list.Has(r.Entry()) {
				t.Fatalf("%s after its window ended: found %+v, %v, and that the list has it is %v", after, found, err, list.Has(r.Entry()))
			}
			kept += len(found)
			gone += 1 - len(found)
		}
		if kept == 0 || gone == 0 {
			t.Errorf("kept %d times, gone %d times", kept, gone)
		}
	}
}

func TestSignedFindPassesOverWhatIsNotAnAuthoritys(t *testing.T) {
	l := open(t, t.TempDir())
	r := by(issuer, map[string]string{"sub": "alice"})
	forged := r
	forged.Reason = "forged"
	entry, err := wire.EncodeEntry(forged)
	if err != nil {
		t.Fatal(err)
	}
	stranger := wire.NewSigner(ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize))))
	sealed := stranger.SealBatch(l.Stats().Epoch, time.Now(), [][]byte{entry})
	altered := testSigner().SealBatch(l.Stats().Epoch, time.Now(), [][]byte{entry})
	altered[len(altered)-3] ^= 1
	for _, message := range [][]byte{sealed, altered, entry} {
		if _, err := l.js.Publish(t.Context(), wire.LogBatch, message); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	l.find(t, issuer, r.Selector, r)
}

func TestDurableWhatAnotherAuthorityStoredIsFound(t *testing.T) {
	on, js := lone(t)
	a, err := openWith(t, on)
	a = must(t, a, err)
	b, err := openWith(t, on)
	b = must(t, b, err)
	old := a.store(t, "early")
	b.find(t, issuer, old.Selector, old)

	// A stream that is made anew has what it has.
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	late := a.store(t, "late")
	b.knows(t, late)
	for _, l := range []testLog{a, b} {
		l.finds(t, late)
		l.find(t, issuer, old.Selector)
	}
}

func TestFindReadsAcrossHoles(t *testing.T) {
	on, js := lone(t)
	l, err := openWith(t, on)
	l = must(t, l, err)
	var all []denylist.Revocation
	for i := range 6 {
		all = append(all, l.store(t, fmt.Sprint("a", i)))
	}
	stream, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	bad := stream.CachedInfo().Config
	bad.MaxMsgsPerSubject = 3
	if _, err := js.UpdateStream(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		l.find(t, issuer, r.Selector, all[i:i+min(1, i/3)]...)
	}
}

// large fills a log with more than a reader is sent at once, in messages as large as
// they can be.
func (l testLog) large(t *testing.T, messages int) {
	t.Helper()
	filler := strings.Repeat("f", denylist.MaxValueSize)
	for range messages {
		rs := make([]denylist.Revocation, 0, 200)
		for size := 0; ; {
			r := by(issuer, map[string]string{"sub": filler})
			e, err := wire.EncodeEntry(r)
			if err != nil {
				t.Fatal(err)
			}
			if size += len(e) + 1; size > wire.MaxMessage-wire.BatchOverhead {
				break
			}
			rs = append(rs, r)
		}
		if _, err := l.Append(t.Context(), rs...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindReadsTheLargestMessages(t *testing.T) {
	l := open(t, t.TempDir())
	first := l.store(t, "first")
	l.large(t, 10)
	last := l.store(t, "last")
	for range 10 { // where there is no room for the next one, it takes a while, or an error, to see
		l.find(t, issuer, first.Selector, first)
		l.find(t, issuer, last.Selector, last)
	}
}

func TestFindThatIsBrokenOffIsAnError(t *testing.T) {
	t.Run("the stream is deleted", func(t *testing.T) {
		on, js := lone(t)
		l, err := openWith(t, on)
		l = must(t, l, err)
		l.large(t, 8)
		met := 0
		err = l.search(t.Context(), func(uint64, []byte) {
			if met++; met == 1 {
				if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
					t.Error(err)
				}
			}
		})
		if err == nil || met >= 8 {
			t.Errorf("%v after %d messages", err, met)
		}
		t.Log(err)
	})
	t.Run("the server restarts", func(t *testing.T) {
		l := open(t, t.TempDir())
		l.large(t, 8)
		met := 0
		err := l.search(t.Context(), func(uint64, []byte) {
			if met++; met == 1 {
				l.server.stop()
				if err := l.server.start(); err != nil {
					t.Error(err)
				}
			}
		})
		if err == nil || met >= 8 {
			t.Errorf("%v after %d messages", err, met)
		}
		t.Log(err)
		l.finds(t, l.store(t, "after"))
	})
	t.Run("the log is closed", func(t *testing.T) {
		l := open(t, t.TempDir())
		l.large(t, 8)
		if err := l.search(t.Context(), func(uint64, []byte) { _ = l.Close() }); !errors.Is(err, errClosing) {
			t.Error(err)
		}
		if _, _, err := l.Find(t.Context(), issuer, denylist.Selector{}, time.Now(), 1); err == nil {
			t.Error("a closed log was searched")
		}
	})
	t.Run("the caller leaves", func(t *testing.T) {
		l := open(t, t.TempDir())
		l.large(t, 5)
		ctx, cancel := context.WithCancelCause(t.Context())
		left, met := errors.New("left"), 0
		err := l.search(ctx, func(uint64, []byte) { met++; cancel(left) })
		if !errors.Is(err, left) || met != 1 {
			t.Errorf("%v after %d messages", err, met)
		}
	})
	t.Run("the log is being read", func(t *testing.T) {
		l := open(t, t.TempDir())
		l.cancel() // so that it stays as it is
		l.wg.Wait()
		l.mu.Lock()
		l.caught = false
		l.mu.Unlock()
		if found, _, err := l.Find(t.Context(), issuer, denylist.Selector{}, time.Now(), 1); !errors.Is(err, errReading) {
			t.Errorf("%+v, %v", found, err)
		}
	})
}

// A reader on a cluster may be behind, and a stream's last positions may hold nothing.
func TestFindReadsToTheEnd(t *testing.T) {
	for name, external := range map[string]bool{"embedded": false, "external": true} {
		t.Run(name, func(t *testing.T) {
			on := func(*Config) {}
			if external {
				on, _ = lone(t)
			}
			l, err := openWith(t, on)
			l = must(t, l, err)
			l.store(t, "a")
			info, err := l.stream.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ahead, reached := info.State.LastSeq+1, uint64(0)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = l.readAll(ctx, l.stream, ahead, func() {}, func(position uint64, _ []byte) { reached = position })
			if err != nil || external && reached < ahead || reached == 0 {
				t.Errorf("read up to %d, %v, where the end is %d", reached, err, ahead)
			}
			if !external {
				return
			}
			// Marks keep coming. They are no progress towards an end that doesn't.
			progress := uint64(0)
			err = l.readAll(ctx, l.stream, reached+1000, func() { progress++ }, func(position uint64, _ []byte) {
				if position >= reached+2 {
					cancel()
				}
			})
			if err == nil || progress > reached {
				t.Errorf("%v; progress %d times on the way to %d", err, progress, reached)
			}
		})
	}
}

func TestBoundedSearchesTakeTurnsAndLeaveNothingBehind(t *testing.T) {
	l := open(t, t.TempDir())
	r := l.store(t, "a")
	searching <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, _, err := l.Find(ctx, issuer, r.Selector, time.Now(), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("searched, though another one is: %+v, %v", found, err)
	}
	var wg sync.WaitGroup
	for range 300 { // more than the stream allows consumers
		wg.Go(func() { l.finds(t, r) })
	}
	<-searching
	wg.Wait()
	info, err := l.stream.Info(t.Context())
	if err != nil || info.State.Consumers != 1 { // the follower's
		t.Errorf("%d consumers are left, %v", info.State.Consumers, err)
	}
}

// BenchmarkFind measures a search of a million revocations, none of them the one that
// is asked for, and what it does to those who revoke meanwhile: the 99th percentile of
// Append by eight callers, with a search under way and without one, in turns.
func BenchmarkFind(b *testing.B) {
	const entries, callers, each = 1_000_000, 16, 100
	l := open(b, b.TempDir())
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c * each; i < entries; i += callers * each {
				rs := make([]denylist.Revocation, each)
				for k := range rs {
					rs[k] = revocation(fmt.Sprint("a revocation of no interest, number ", i+k))
				}
				if _, err := l.Append(b.Context(), rs...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	round := 0
	// p99 is that of appends until stop is closed.
	p99 := func(stop <-chan struct{}) time.Duration {
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		round++
		for c := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					r, start := revocation(fmt.Sprint(round, "-", c, "-", i)), time.Now()
					if _, err := l.Append(b.Context(), r); err != nil {
						b.Error(err)
						return
					}
					d := time.Since(start)
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	searches := func(n int) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range n {
				if found, _, err := l.Find(b.Context(), issuer, denylist.One(denylist.JTI, "absent"), time.Now(), 10); err != nil || len(found) > 0 {
					b.Error(found, err)
				}
			}
		}()
		return done
	}
	pause := func(d time.Duration) <-chan struct{} {
		ctx, cancel := context.WithTimeout(b.Context(), d)
		b.Cleanup(cancel)
		return ctx.Done()
	}
	var alone, busy, quiet time.Duration
	for b.Loop() {
		start := time.Now()
		<-searches(1)
		quiet += time.Since(start)
		alone += p99(pause(2 * time.Second))
		busy += p99(searches(3))
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(quiet), "search-ms")
	b.ReportMetric(per(alone), "p99-alone-ms")
	b.ReportMetric(per(busy), "p99-searching-ms")
}
