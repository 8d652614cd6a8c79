package denylist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

// ordered returns the digest of that place in an order, in which neighbours may
// differ in their last bytes only.
func ordered(n int) (d Digest) {
	binary.BigEndian.PutUint64(d[:8], uint64(n/3))
	binary.BigEndian.PutUint64(d[8:], uint64(n%3)<<40)
	return d
}

// ascending makes entries whose digests are those of from, from+step and so on.
func ascending(shape Shape, window int64, from, step, n int) (entries []Entry) {
	for i := range n {
		e := Entry{Shape: shape, Digest: ordered(from + i*step), Cutoff: NoCutoff, Expires: window, Windowed: window != 0}
		if window == 0 {
			e.Cutoff, e.Expires = int64(from+i*step), start
		}
		entries = append(entries, e)
	}
	return entries
}

// mustMatch asserts that both ways of making sections, and each way of sharing the
// entries out between the inputs of Merge, give what is right.
func mustMatch(t *testing.T, name string, entries []Entry, want []Section) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 0))
	shuffled := slices.Clone(entries)
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	same := func(how string, got []Section) {
		t.Helper()
		if !sameSections(got, want) {
			var sizes [2][]int
			for i, sections := range [][]Section{got, want} {
				for _, s := range sections {
					sizes[i] = append(sizes[i], len(s.Digests))
				}
			}
			t.Errorf("%s, %s: sections of %d, not of %d", name, how, sizes[0], sizes[1])
		}
	}
	same("sorted", collect(t, Sections(slices.Clone(shuffled))))
	inOrder := collect(t, Sections(slices.Clone(shuffled)))
	none := sequence(nil)
	same("with nothing", collect(t, Merge(sequence(inOrder), none, 0)))
	same("nothing with it", collect(t, Merge(none, sequence(inOrder), 0)))
	same("with itself", collect(t, Merge(sequence(inOrder), sequence(inOrder), 0)))
	for _, at := range []int{1, 4095, 4096, 4097} {
		at = min(at, len(entries))
		a, b := collect(t, Sections(slices.Clone(entries[:at]))), collect(t, Sections(slices.Clone(entries[at:])))
		same(fmt.Sprintf("split at %d", at), collect(t, Merge(sequence(a), sequence(b), 0)))
		same(fmt.Sprintf("split at %d and back", at), collect(t, Merge(sequence(b), sequence(a), 0)))
	}
	var odd, even []Entry
	for i, e := range entries {
		if i%2 == 0 {
			even = append(even, e)
		} else {
			odd = append(odd, e)
		}
	}
	same("in turn", collect(t, Merge(Sections(odd), Sections(even), 0)))
	// Of inputs that overlap, and of inputs that were merged.
	same("nested", collect(t, Merge(Merge(Sections(slices.Clone(odd)), sequence(inOrder), 0), Merge(Sections(even), none, 0), 0)))
}

func TestSectionsAreCanonicalAroundTheirSize(t *testing.T) {
	if SectionSize != 4096 {
		t.Errorf("a section has %d digests", SectionSize)
	}
	for _, n := range []int{0, 1, 4095, 4096, 4097} {
		for _, window := range []int64{0, start} {
			entries := ascending(JTI, window, 0, 1, n)
			want := canonicalSections(slices.Clone(entries))
			mustMatch(t, fmt.Sprintf("%d in window %d", n, window), entries, want)
			for i, s := range want {
				if i < len(want)-1 && len(s.Digests) != SectionSize {
					t.Errorf("section %d of %d has %d digests", i, n, len(s.Digests))
				}
			}
			// Another shape and another window begin another section.
			entries = slices.Concat(entries, ascending(SID, window, 0, 1, n/2), ascending("", window, 0, 1, 3), ascending(JTI, start+600, 0, 1, 3))
			mustMatch(t, fmt.Sprintf("%d in window %d, and more", n, window), entries, canonicalSections(slices.Clone(entries)))
		}
	}
}

// An entry that is said twice at the end of a full section is in it once, and
// with what both say.
func TestSectionsAreCanonicalWhereWhatRepeatsIsAtTheirEnd(t *testing.T) {
	for _, n := range []int{4096, 4097} {
		for _, window := range []int64{0, start} {
			for repeated := n - 3; repeated < n; repeated++ {
				entries := ascending(JTI, window, 0, 1, n)
				want := canonicalSections(slices.Clone(entries))
				again := entries[repeated]
				if window == 0 {
					again.Cutoff += 10
					again.Expires -= 600
					want[repeated/4096].Cuts[repeated%4096] = Cut{int64(repeated) + 10, start}
				}
				mustMatch(t, fmt.Sprintf("%d in window %d, %d twice", n, window, repeated), append(entries, again), want)
			}
		}
	}
}

func TestMergeDropsWhatPruneDropsAroundASectionsEnd(t *testing.T) {
	const gone, kept = start - 600, start
	for _, n := range []int{1, 4096, 4098} {
		for name, expired := range map[string]func(i int) bool{
			"the first":        func(i int) bool { return i == 0 },
			"the last":         func(i int) bool { return i == n-1 },
			"number 4095":      func(i int) bool { return i == 4094 },
			"number 4096":      func(i int) bool { return i == 4095 },
			"number 4097":      func(i int) bool { return i == 4096 },
			"4095 and on":      func(i int) bool { return i >= 4094 },
			"up to 4096":       func(i int) bool { return i < 4096 },
			"every other":      func(i int) bool { return i%2 == 0 },
			"every one":        func(i int) bool { return true },
			"all but the last": func(i int) bool { return i != n-1 },
		} {
			entries := ascending(Sub, 0, 0, 1, n)
			var left []Entry
			l := New()
			for i := range entries {
				entries[i].Expires = kept
				if expired(i) {
					entries[i].Expires = gone
				} else {
					left = append(left, entries[i])
				}
			}
			windows := append(ascending(JTI, gone, 0, 1, n), ascending(JTI, kept, 0, 1, n)...)
			entries, left = append(entries, windows...), append(left, windows[n:]...)
			l.Add(entries...)
			want := canonicalSections(left)
			for at := 0; at <= len(entries); at += max(1, len(entries)/2) {
				a, b := slices.Clone(entries[:at]), slices.Clone(entries[at:])
				if got := collect(t, Merge(Sections(a), Sections(b), gone)); !sameSections(got, want) {
					t.Errorf("%d, %s expired, split at %d: %d sections, not %d", n, name, at, len(got), len(want))
				}
			}
			// What has expired on one side lives on with what the other says.
			if got := collect(t, Merge(Sections(slices.Clone(entries)), Sections(ascending(Sub, 0, 0, 1, n)), gone)); len(got) == 0 || len(got[0].Digests) != min(n, SectionSize) {
				t.Errorf("%d, %s expired on one side: %d sections", n, name, len(got))
			}
			l.Prune(now.Add(-Window + Grace))
			for _, s := range want {
				if l.AddSection(s) != 0 {
					t.Errorf("%d, %s expired: Prune drops what Merge keeps", n, name)
				}
			}
			if got := l.Stats().Entries; got != len(left) {
				t.Errorf("%d, %s expired: Prune leaves %d, and Merge %d", n, name, got, len(left))
			}
			mustHold(t, l)
		}
	}
}

// watched counts how many sections were asked for, and whether it was let go.
type watched struct {
	asked, open int
}

func (w *watched) of(sequence iter.Seq2[Section, error]) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		w.open++
		defer func() { w.open-- }()
		for s, err := range sequence {
			if w.asked++; !yield(s, err) {
				return
			}
		}
	}
}

// then yields a sequence, and then an error.
func then(sequence iter.Seq2[Section, error], err error) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		for s := range sequence {
			if !yield(s, nil) {
				return
			}
		}
		if yield(Section{}, err) {
			panic("went on after an error")
		}
	}
}

func TestMergeEndsAtTheFirstError(t *testing.T) {
	broken, other := errors.New("broken"), errors.New("other")
	before := runtime.NumGoroutine()
	full := func() iter.Seq2[Section, error] { return Sections(ascending(JTI, start, 0, 2, 3*4096)) }
	early := func() iter.Seq2[Section, error] { return Sections(ascending(JTI, start-600, 0, 2, 100)) }
	late := func() iter.Seq2[Section, error] { return Sections(ascending(JTI, start+600, 0, 2, 100)) }
	none := sequence(nil)
	for name, c := range map[string]struct {
		a, b iter.Seq2[Section, error]
		want []error
		held int // at least, of what comes before the error
	}{
		"at once":                 {then(none, broken), none, []error{broken}, 0},
		"the second at once":      {none, then(none, broken), []error{broken}, 0},
		"before the other's":      {then(none, broken), full(), []error{broken}, 0},
		"after some":              {then(full(), broken), none, []error{broken}, 3 * 4096},
		"after some, the second":  {full(), then(full(), broken), []error{broken}, 3*4096 - 1},
		"amid the other's":        {then(early(), broken), full(), []error{broken}, 100},
		"before the other begins": {late(), then(full(), broken), []error{broken}, 3 * 4096},
		"both at once":            {then(none, broken), then(none, other), []error{broken, other}, 0},
		"both, one after":         {then(early(), broken), then(full(), other), []error{broken}, 100},
	} {
		var w [2]watched
		var held, ended int
		for s, err := range Merge(w[0].of(c.a), w[1].of(c.b), 0) {
			if ended > 0 {
				t.Errorf("%s: goes on after an error with %d digests, %v", name, len(s.Digests), err)
			}
			if err != nil {
				ended++
				if len(s.Digests) > 0 || !slices.Contains(c.want, err) {
					t.Errorf("%s: %d digests with %v", name, len(s.Digests), err)
				}
				continue
			}
			held += len(s.Digests)
		}
		if ended != 1 || held < c.held {
			t.Errorf("%s: ended by %d errors after %d digests", name, ended, held)
		}
		if w[0].open != 0 || w[1].open != 0 {
			t.Errorf("%s: an input is still open", name)
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines became %d", before, after)
	}
}

func TestMergeThatIsLeftEarlyLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	entries := append(ascending(Sub, 0, 0, 2, 3*4096), ascending(JTI, start, 0, 2, 3*4096)...)
	all := collect(t, Sections(entries))
	for stop := range 8 {
		for _, broken := range []error{nil, errors.New("broken")} {
			var w [2]watched
			inputs := [2]iter.Seq2[Section, error]{sequence(all), sequence(all)}
			if broken != nil {
				inputs[1] = then(sequence(all[:2]), broken)
			}
			n := 0
			for range Merge(w[0].of(inputs[0]), w[1].of(inputs[1]), 0) {
				if n++; n > stop {
					break
				}
			}
			if w[0].open != 0 || w[1].open != 0 || n > stop+1 {
				t.Errorf("left after %d, an input is still open", n)
			}
			// Nothing is asked for that isn't needed.
			if most := n + 2; w[0].asked > most || w[1].asked > most {
				t.Errorf("left after %d, and %d and %d were asked for", n, w[0].asked, w[1].asked)
			}
		}
	}
	n := 0
	for range Sections(slices.Clone(entries)) {
		if n++; n == 2 {
			break
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic got lost")
			}
		}()
		for range Merge(sequence(all), sequence(all), 0) {
			panic("stop")
		}
	}()
	// A merge that nobody begins has begun nothing.
	_ = Merge(sequence(all), sequence(all), 0)
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines became %d", before, after)
	}
}

// A snapshot that is larger than memory can be merged: it goes through section by
// section.
func TestMergeStreams(t *testing.T) {
	const sections = 400
	generate := func(odd int) iter.Seq2[Section, error] {
		return func(yield func(Section, error) bool) {
			s := Section{Shape: JTI, Window: start, Digests: make([]Digest, SectionSize)}
			for n := range sections {
				for i := range s.Digests {
					s.Digests[i] = ordered(2*(n*SectionSize+i) + odd)
				}
				if !yield(s, nil) {
					return
				}
			}
		}
	}
	var w [2]watched
	var m [2]runtime.MemStats
	runtime.ReadMemStats(&m[0])
	n := 0
	for s, err := range Merge(w[0].of(generate(0)), w[1].of(generate(1)), 0) {
		if err != nil || len(s.Digests) != SectionSize || s.Digests[0] != ordered(n*SectionSize) {
			t.Fatalf("section %d: %d digests from %x, %v", n, len(s.Digests), s.Digests[0], err)
		}
		if n++; w[0].asked > n/2+2 || w[1].asked > n/2+2 {
			t.Fatalf("%d and %d sections were asked for, to give %d", w[0].asked, w[1].asked, n)
		}
	}
	runtime.ReadMemStats(&m[1])
	const size = 2 * sections * SectionSize * 16
	if took := int(m[1].TotalAlloc - m[0].TotalAlloc); n != 2*sections || took > size/50 {
		t.Errorf("%d sections took %d bytes, of %d", n, took, size)
	}
}

// Sections that come empty, as no canonical sequence has them, do no harm.
func TestMergePassesOverEmptySections(t *testing.T) {
	full := collect(t, Sections(ascending(JTI, start, 0, 1, 5000)))
	holes := []Section{{}, full[0], {Shape: JTI, Window: start}, {}, full[1], {}}
	for _, b := range [][]Section{nil, {{}}, full, holes} {
		if got := collect(t, Merge(sequence(holes), sequence(b), 0)); !sameSections(got, full) {
			t.Errorf("%d sections, not %d", len(got), len(full))
		}
	}
}

// A list takes sections in any order, and of any size.
func TestFinalSectionsInAnyOrder(t *testing.T) {
	entries := slices.Concat(ascending(Sub, 0, 0, 1, 5000), ascending(JTI, start, 0, 1, 5000), ascending(JTI, start+600, 0, 1, 10), ascending(SID, 0, 7, 1, 10))
	sections := collect(t, Sections(slices.Clone(entries)))
	r := rand.New(rand.NewPCG(1, 0))
	for range 10 {
		r.Shuffle(len(sections), func(i, j int) { sections[i], sections[j] = sections[j], sections[i] })
		l, added := New(), 0
		for _, s := range sections {
			added += l.AddSection(s)
		}
		if again := l.Add(entries...); added != len(entries) || again != 0 || l.Stats().Entries != len(entries) {
			t.Errorf("%d of %d entries were new, %d again", added, len(entries), again)
		}
		mustHold(t, l)
	}
	// What has expired leaves no trace, not even a table.
	l := New()
	l.Prune(now.Add(Grace))
	for _, s := range sections {
		want := 0
		if s.Window == start+600 {
			want = 10
		}
		if got := l.AddSection(s); got != want {
			t.Errorf("%d entries of window %d, shape %s, were new", got, s.Window, s.Shape)
		}
		mustHold(t, l)
	}
	if st := l.Stats(); st.Entries != 10 || len(st.Shapes) != 1 {
		t.Errorf("%+v", st)
	}
}

// What a Loader makes of sections is the list that they make one by one, whether or
// not they are canonical.
func TestFinalLoader(t *testing.T) {
	full := ascending(JTI, start, 0, 3, 10_000)
	canonical := collect(t, Sections(slices.Concat(slices.Clone(full), ascending(Sub, 0, 0, 1, 9000), ascending(SID, start, 7, 1, 1), ascending(JTI, start+600, 0, 1, 5000))))
	backwards := slices.Clone(canonical)
	slices.Reverse(backwards)
	raised := ascending(Sub, 0, 0, 1, 9000)
	for i := range raised {
		raised[i].Cutoff += int64(i % 2)
	}
	repeated := Section{Shape: JTI, Window: start, Digests: []Digest{full[1].Digest, full[0].Digest, full[1].Digest, full[0].Digest}}
	for name, sections := range map[string][]Section{
		"nothing":               nil,
		"an empty section":      {{}, {Shape: JTI, Window: start}},
		"canonical":             canonical,
		"the other way round":   backwards,
		"twice":                 slices.Concat(canonical, canonical),
		"each twice":            {canonical[0], canonical[0], canonical[4], canonical[4], canonical[0]},
		"with raised cuts":      slices.Concat(canonical, collect(t, Sections(slices.Clone(raised)))),
		"a digest twice":        {repeated, repeated},
		"a digest in a row":     {{Shape: JTI, Window: start, Digests: []Digest{full[0].Digest, full[0].Digest, full[1].Digest}}},
		"a digest twice, later": append(slices.Clone(canonical), repeated),
	} {
		want, loader := New(), NewLoader()
		for _, s := range sections {
			want.AddSection(s)
			loader.Add(Section{s.Shape, s.Window, slices.Clone(s.Digests), slices.Clone(s.Cuts)})
		}
		got := loader.List()
		mustHold(t, got)
		if got != loader.List() {
			t.Errorf("%s: another list", name)
		}
		a, b := want.Stats(), got.Stats()
		if a.Entries != b.Entries || a.Windows != b.Windows || !maps.Equal(a.Shapes, b.Shapes) {
			t.Errorf("%s: %+v, not %+v", name, b, a)
		}
		for _, s := range sections {
			if n := got.AddSection(s); n != 0 {
				t.Errorf("%s: %d entries of window %d, shape %s, are new", name, n, s.Window, s.Shape)
			}
		}
		// Of lists with the same tables, and with none.
		l, entries := New(), a.Entries
		if n := l.Join(got); n != entries || l.Stats().Entries != entries || got.Stats().Entries != 0 {
			t.Errorf("%s: %d entries of %d are new to an empty list", name, n, entries)
		}
		l.Add(ascending(JTI, start, 1, 3, 10)...)
		if n := l.Join(want); n != 0 || l.Stats().Entries != entries+10 {
			t.Errorf("%s: %d entries are new", name, n)
		}
		mustHold(t, l)
	}
}

// More than a Loader holds back comes out the same.
func TestFinalLoaderOfMoreThanItHoldsBack(t *testing.T) {
	const n = (maxRun + 3*SectionSize) / slowly
	loader := NewLoader()
	s := Section{Shape: JTI, Window: start}
	flush := func() {
		loader.Add(s)
		clear(s.Digests) // it keeps none of them
		s.Digests = s.Digests[:0]
	}
	for i := range n {
		if s.Digests = append(s.Digests, ordered(i)); len(s.Digests) == SectionSize {
			flush()
		}
	}
	flush()
	l := loader.List()
	mustHold(t, l)
	if got := l.Stats(); got.Entries != n || got.Slots > n*5/4 {
		t.Errorf("%d entries became %+v", n, got)
	}
	for i := range n + 1000 {
		if l.Has(windowed(JTI, ordered(i), start)) != (i < n) {
			t.Fatalf("entry %d of %d", i, n)
		}
	}
}

// A list's floor tells Merge what Prune has dropped.
func TestMergeDropsWhatPruneDropped(t *testing.T) {
	var entries []Entry
	for i := range int64(60) {
		entries = append(entries, windowed(JTI, numbered(0, int(i)), start+60*i), Entry{Shape: Sub, Digest: numbered(1, int(i)), Cutoff: start, Expires: start + 60*i})
	}
	sections := collect(t, Sections(slices.Clone(entries)))
	for after := -Grace - time.Hour; after < 2*time.Hour; after += 59 * time.Second {
		l := New()
		l.Add(entries...)
		l.Prune(now.Add(after))
		left := 0
		for _, s := range collect(t, Merge(sequence(sections), sequence(nil), l.Floor())) {
			if left += len(s.Digests); l.AddSection(s) != 0 {
				t.Errorf("%v: Merge leaves what Prune has dropped", after)
			}
		}
		if got := l.Stats().Entries; left != got {
			t.Errorf("%v: Merge leaves %d, and Prune %d", after, left, got)
		}
	}
	if l := New(); l.Floor() != 0 || l.Prune(time.Time{}) != 0 || l.Floor() != 0 {
		t.Errorf("a new list has floor %d", l.Floor())
	}
}
