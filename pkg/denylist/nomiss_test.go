package denylist

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A table that splits, some that only grow, and what every check asks.
const (
	crowded = int64(start + 86400) // the window of most entries
	passing = int64(start)         // what a pruner lets pass, long before the others
)

// nomissEntry is entry number i of a writer, and nomissToken one that it denies.
func nomissEntry(writer, i int) Entry {
	e := Entry{Shape: JTI, Digest: numbered(writer, i), Cutoff: NoCutoff, Expires: crowded, Windowed: true}
	switch {
	case i%16 == 0: // asked by every check, next to what expires
		e.Shape, e.Cutoff, e.Expires, e.Windowed = Sub, start+int64(i), crowded, false
	case i%16 == 1:
		e.Shape = Fingerprint
	case i%16 < 6:
		e.Expires += 600 * int64(i%1000)
	}
	return e
}

func nomissToken(writer, i int) *Token {
	e := nomissEntry(writer, i)
	return asker(e.Expires, min(e.Cutoff, start+int64(i)), e.Shape, e.Digest)
}

// Whatever way an entry comes in, and whatever happens to others meanwhile, whoever
// has heard of it finds it.
func TestNoMiss(t *testing.T) {
	const (
		writers   = 4
		perWriter = 1_000_000 / slowly / writers
		readers   = 2
		step      = perWriter / 25
	)
	l := fresh()
	var told [writers]atomic.Int64 // how many of a writer's entries are in
	var writing, all sync.WaitGroup
	var done atomic.Bool
	progress := make(chan struct{}, 1)
	for w := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			for i := 0; i < perWriter; {
				var entries []Entry
				for n := r.IntN(4 * (1 + i%100)); len(entries) <= n && i < perWriter; i++ {
					entries = append(entries, nomissEntry(w, i))
				}
				added := 0
				switch r.IntN(4) {
				case 0:
					for _, e := range entries {
						added += l.Add(e)
					}
				case 1:
					added = l.Add(entries...)
				case 2:
					for s := range Sections(slices.Clone(entries)) {
						added += l.AddSection(s)
					}
				case 3:
					other := New()
					other.Add(entries...)
					added = l.Join(other)
				}
				if added != len(entries) {
					t.Errorf("writer %d: %d entries of %d are new", w, added, len(entries))
				}
				if before := told[w].Swap(int64(i)); int(before)/step != i/step {
					progress <- struct{}{}
				}
			}
		})
	}
	var rounds, pruned int
	all.Go(func() { // other windows fill and pass, in the same tables and in others
		at := passing
		for range progress {
			for i := range 50 {
				d := numbered(writers, int(at)+i)
				l.Add(windowed(JTI, d, at), windowed(SID, d, at), Entry{Shape: Sub, Digest: d, Cutoff: start, Expires: at}, Entry{Shape: ClientID, Digest: d, Cutoff: start, Expires: at})
			}
			pruned += l.Prune(time.Unix(at, 0).Add(Grace))
			at += 600
			rounds++
		}
	})
	var checks atomic.Int64
	for r := range readers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(r), 1))
			for last := false; !last; {
				last = done.Load()
				for w := range writers {
					n := int(told[w].Load())
					look := func(i int) bool {
						v := l.CheckToken(nomissToken(w, i), now)
						if v.Status != Revoked || v.Digest != numbered(w, i) {
							t.Errorf("reader %d: writer %d's entry %d of %d: %+v", r, w, i, n, v)
							return false
						}
						return true
					}
					from := max(0, n-8) // what has just come in, and some of the rest
					if last && r == 0 {
						from = 0 // at the end, everything
					}
					for i := from; i < n; i++ {
						if !look(i) {
							return
						}
					}
					for range 8 {
						if n > 0 && !look(random.IntN(n)) {
							return
						}
					}
					// Nor is anything found that nobody added.
					for range 4 {
						if v := l.CheckToken(nomissToken(writers+1, random.Int()%perWriter), now); v.Status != Clear {
							t.Errorf("reader %d: what nobody added: %+v", r, v)
							return
						}
					}
					checks.Add(int64(n - from + 12))
				}
			}
		})
	}
	writing.Wait()
	done.Store(true)
	close(progress)
	all.Wait()
	mustHold(t, l)
	l.Prune(time.Unix(crowded-3600, 0).Add(Grace))
	if got := l.Stats().Entries; got != writers*perWriter {
		t.Errorf("%d entries of %d", got, writers*perWriter)
	}
	// The writers and the pruner were in each other's way, or this has shown nothing.
	depth := find(l.group(crowded), JTI).dir.Load().depth
	if rounds < 10 || pruned != 200*rounds || depth == 0 {
		t.Errorf("%d windows passed with %d entries, and the largest table has depth %d", rounds, pruned, depth)
	}
	t.Logf("%d checks, %d windows passed with %d entries, depth %d", checks.Load(), rounds, pruned, depth)
}

// A cut-off that was raised denies from then on what it denies, while the table that
// holds it is rebuilt again and again.
func TestNoMissOfARaisedCutoff(t *testing.T) {
	const subjects, rises = 50, 20_000 / slowly
	l := fresh()
	var told [subjects]atomic.Int64
	var done atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		defer done.Store(true)
		for i := range rises {
			s := i % subjects
			cutoff := int64(start + i)
			if l.Add(Entry{Shape: Sub, Digest: numbered(1, s), Cutoff: cutoff, Expires: crowded}) != 1 {
				t.Errorf("raising to %d told nothing", cutoff)
			}
			told[s].Store(cutoff)
			l.Add(Entry{Shape: Sub, Digest: numbered(2, i), Cutoff: start, Expires: start})
			if i%400 == 399 { // grown by now, and shrinks
				l.Prune(now.Add(-time.Hour))
				if l.Prune(now.Add(Grace)) == 0 {
					t.Error("nothing has expired")
				}
				l.Prune(now.Add(-time.Hour))
			}
		}
	})
	for range 2 {
		all.Go(func() {
			var tokens [subjects]*Token
			for last := false; !last; {
				last = done.Load()
				for s := range tokens {
					cutoff := told[s].Load()
					if cutoff == 0 {
						continue
					}
					if tokens[s] == nil || tokens[s].iat != cutoff {
						tokens[s] = asker(crowded, cutoff, Sub, numbered(1, s))
					}
					if v := l.CheckToken(tokens[s], now); v.Status != Revoked {
						t.Errorf("subject %d, iat %d: %+v", s, cutoff-start, v)
						return
					}
				}
			}
		})
	}
	all.Wait()
	mustHold(t, l)
}

// A slot is written while others look beside it: whatever their tags, nobody reads
// what is not published. Under the race detector this fails otherwise.
func TestNoMissNorReadOfAnUnfinishedSlot(t *testing.T) {
	for _, exact := range []bool{true, false} {
		for range 40 / slowly {
			l := fresh()
			r := rand.New(rand.NewPCG(1, 0))
			entries := make([]Entry, 3000)
			for i := range entries { // all with the tag that differs least from none
				entries[i] = Entry{Shape: JTI, Digest: digestOf(key{r.Uint64(), uint64(i)}), Cutoff: NoCutoff, Expires: start, Windowed: exact}
			}
			absent := asker(start, start, JTI, digestOf(key{r.Uint64(), 1}), digestOf(key{r.Uint64(), 2}), digestOf(key{0, 3}))
			var told atomic.Int64
			var reader sync.WaitGroup
			reader.Go(func() {
				for n := 0; n < len(entries); {
					if n = int(told.Load()); n > 0 {
						if v := l.CheckToken(asker(start, start, JTI, entries[n-1].Digest), now); v.Status != Revoked {
							t.Errorf("entry %d: %+v", n-1, v)
						}
					}
					if v := l.CheckToken(absent, now); v.Status != Clear {
						t.Errorf("what nobody added, after %d: %+v", n, v)
					}
				}
			})
			for i, e := range entries {
				l.Add(e)
				told.Store(int64(i + 1))
			}
			reader.Wait()
		}
	}
}

// A check that goes on while its window is dropped, and its shapes with it, asks the
// other groups all the same.
func TestNoMissWhileShapesComeAndGo(t *testing.T) {
	const rounds = 3000 / slowly
	l := fresh()
	stays := One(SID, "s")
	l.Add(Entry{Shape: SID, Digest: stays.Digest("i"), Cutoff: NoCutoff, Expires: crowded})
	tok := newToken(t, Claims{Issuer: "i", Expires: now, IssuedAt: now, Values: map[string]any{SID: "s", "a": "1", "b": "1", "c": "1"}})
	var done atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		defer done.Store(true)
		for i := range rounds {
			for n, shape := range []Shape{"a", "b", "c"} {
				d := numbered(n, i)
				l.Add(windowed(shape, d, start), Entry{Shape: shape, Digest: d, Cutoff: NoCutoff, Expires: start})
				if i%3 == n {
					l.Add(windowed(SID, d, start))
				}
			}
			if l.Prune(now.Add(Grace)) != 7 {
				t.Error("not all that expired is gone")
			}
			l.Prune(now.Add(-time.Hour))
		}
	})
	for range 2 {
		all.Go(func() {
			for last := false; !last; {
				last = done.Load()
				if v := l.CheckToken(tok, now); v.Status != Revoked || v.Shape != SID {
					t.Errorf("%+v", v)
					return
				}
			}
		})
	}
	all.Wait()
	mustHold(t, l)
	if st := l.Stats(); st.Entries != 1 || len(st.Shapes) != 1 {
		t.Errorf("%+v", st)
	}
}

// Lists that are joined, pruned and added to all at once lose nothing that has not
// expired. Under the race detector, this shows that a table has one writer at a time.
func TestFinalWhatMovesBetweenLists(t *testing.T) {
	const each = 100_000 / slowly
	lists := [2]*List{fresh(), fresh()}
	var shapes [10]Shape
	for i := range shapes {
		shapes[i] = Shape(fmt.Sprint(i))
	}
	entry := func(i int) Entry {
		if i%2 == 0 {
			return windowed(JTI, numbered(1, i), crowded)
		}
		return Entry{Shape: shapes[i%len(shapes)], Digest: numbered(1, i), Cutoff: start, Expires: crowded}
	}
	var writing, all sync.WaitGroup
	var done atomic.Bool
	for w := range 2 {
		writing.Go(func() {
			for i := w * each; i < (w+1)*each; i++ {
				d := numbered(2, i)
				lists[w].Add(entry(i), Entry{Shape: shapes[i%len(shapes)], Digest: d, Cutoff: start, Expires: start}, windowed(JTI, d, start))
			}
		})
		all.Go(func() {
			for !done.Load() {
				lists[w].Join(lists[1-w])
				runtime.Gosched()
			}
		})
		all.Go(func() {
			for !done.Load() {
				lists[w].Prune(now.Add(Grace))
				lists[w].Prune(now.Add(-time.Hour))
				lists[w].Stats()
			}
		})
	}
	writing.Wait()
	done.Store(true)
	all.Wait()
	lists[0].Join(lists[1])
	lists[0].Prune(now.Add(Grace))
	for _, l := range lists {
		mustHold(t, l)
	}
	if got := lists[0].Stats().Entries; got != 2*each {
		t.Errorf("%d entries of %d", got, 2*each)
	}
	for i := range 2 * each {
		if !lists[0].Has(entry(i)) {
			t.Fatalf("entry %d is lost", i)
		}
	}
}

// Where the other list has more, its table takes the place of ours: at no time is
// there neither.
func TestNoMissWhileTheLargerTakesInTheSmaller(t *testing.T) {
	const first, rounds = 30, 160 / slowly
	var current atomic.Pointer[List]
	var tokens [2 * first]*Token
	for i := range tokens {
		tokens[i] = asker(crowded, start, JTI, numbered(0, i))
	}
	begin := func() *List {
		l := fresh()
		for i := range tokens { // in one window, and for every check
			l.Add(Entry{Shape: JTI, Digest: numbered(0, i), Cutoff: start, Expires: crowded, Windowed: i%2 == 0})
		}
		return l
	}
	current.Store(begin())
	var done atomic.Bool
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for !done.Load() {
				l := current.Load()
				for i, tok := range tokens {
					if v := l.CheckToken(tok, now); v.Status != Revoked {
						t.Errorf("entry %d: %+v", i, v)
						return
					}
				}
			}
		})
	}
	defer all.Wait()
	defer done.Store(true)
	n := 0
	for range rounds {
		l := begin()
		current.Store(l)
		held := len(tokens)
		for size := 2 * first; size < 1000; size *= 2 {
			other := New()
			for i := range size {
				n++
				other.Add(Entry{Shape: JTI, Digest: numbered(1, n), Cutoff: start, Expires: crowded, Windowed: true})
				if i%10 == 0 { // and some that both have
					other.Add(Entry{Shape: JTI, Digest: numbered(0, i/10%first*2), Cutoff: start, Expires: crowded, Windowed: true})
				}
			}
			if got := l.Join(other); got != size {
				t.Errorf("%d entries of %d are new", got, size)
			}
			if held += size; l.Stats().Entries != held {
				t.Errorf("%d entries of %d", l.Stats().Entries, held)
			}
		}
		mustHold(t, l)
	}
}

// A list that is pruned while another one takes its entries has no more to say in
// what becomes of them.
func TestFinalWhatIsTakenWhileItIsPruned(t *testing.T) {
	const tables, each, rounds = 60, 200, 1 + 40/slowly
	missed := 0
	for round := range rounds {
		l, other := fresh(), fresh()
		for i := range tables * each {
			shape := Shape(fmt.Sprint(i / each))
			l.Add(Entry{Shape: shape, Digest: numbered(0, i), Cutoff: start, Expires: start}, Entry{Shape: shape, Digest: numbered(1, i), Cutoff: start, Expires: crowded})
		}
		var pruner sync.WaitGroup
		pruner.Go(func() { l.Prune(now.Add(Grace)) })
		for l.Stats().Entries == 2*tables*each {
			runtime.Gosched()
		}
		other.Join(l)
		if other.Stats().Entries == tables*each {
			missed++ // it was pruned by then
		}
		for i := range 2000 { // to what is pruned last
			other.Add(Entry{Shape: "0", Digest: numbered(2, i), Cutoff: start, Expires: crowded})
		}
		pruner.Wait()
		for _, l := range []*List{l, other} {
			mustHold(t, l)
		}
		other.Prune(now.Add(Grace))
		if got := other.Stats().Entries; got != tables*each+2000 {
			t.Errorf("round %d: %d entries are left", round, got)
		}
		for i := range 2000 {
			if !other.Has(Entry{Shape: "0", Digest: numbered(2, i), Cutoff: start, Expires: crowded}) {
				t.Fatalf("round %d: entry %d is lost", round, i)
			}
		}
	}
	t.Logf("in %d rounds of %d it was not in time", missed, rounds)
}
