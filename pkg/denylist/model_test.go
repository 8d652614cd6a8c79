package denylist

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The model is the definition of a right answer: a slice of revocations, held
// against a token's claims value by value. It knows no digest, no filter, no
// shape and no window but as a number.

const start = 1_700_000_400 // the end of a window

type ruling struct {
	issuer  string
	pairs   map[string]string
	cutoff  int64 // 0: none
	expires int64
	exact   bool
}

func (r ruling) revocation(t *testing.T) Revocation {
	t.Helper()
	s, err := NewSelector(r.pairs)
	if err != nil {
		t.Fatal(err)
	}
	out := Revocation{Issuer: r.issuer, Selector: s, Expires: time.Unix(r.expires, 0), ExactExpiry: r.exact}
	if r.cutoff != 0 {
		out.IssuedBefore = time.Unix(r.cutoff, 0)
	}
	if err := out.Validate(); err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return out
}

// window is where an expiry falls, written without WindowEnd.
func window(unix int64) int64 {
	if past := unix % 600; past != 0 {
		return unix + 600 - past
	}
	return unix
}

// same reports whether two revocations differ in cut-off and expiry at most.
func (r ruling) same(o ruling) bool {
	return r.issuer == o.issuer && r.exact == o.exact && maps.Equal(r.pairs, o.pairs) && (!r.exact || window(r.expires) == window(o.expires))
}

func (r ruling) shape() string {
	if len(r.pairs) == 0 {
		return "issuer"
	}
	return strings.Join(slices.Sorted(maps.Keys(r.pairs)), ",")
}

// subject is a token as the model sees it: each claim with all the texts that it
// matches.
type subject struct {
	claims Claims
	texts  map[string][]string
	token  *Token
}

func (r ruling) denies(s subject) bool {
	if r.issuer != s.claims.Issuer || r.exact && window(r.expires) != window(s.claims.Expires.Unix()) {
		return false
	}
	for name, value := range r.pairs {
		if !slices.Contains(s.texts[name], value) {
			return false
		}
	}
	return r.cutoff == 0 || s.claims.IssuedAt.IsZero() || s.claims.IssuedAt.Unix() <= r.cutoff
}

type model struct {
	rulings []ruling // no two of which are the same
	floor   int64
}

// later returns the later of two cut-offs; none is the latest.
func later(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// join returns what two revocations that are the same say together.
func (r ruling) join(o ruling) ruling {
	if !r.exact {
		r.cutoff, r.expires = later(r.cutoff, o.cutoff), max(r.expires, o.expires)
	}
	return r
}

// find returns what is held that is the same as r; -1: nothing.
func (m *model) find(r ruling) int { return slices.IndexFunc(m.rulings, r.same) }

// add reports whether r says something new.
func (m *model) add(r ruling) bool {
	if window(r.expires) <= m.floor {
		return false
	}
	i := m.find(r)
	if i < 0 {
		m.rulings = append(m.rulings, r)
		return true
	}
	was := m.rulings[i]
	m.rulings[i] = was.join(r)
	return m.rulings[i].cutoff != was.cutoff || m.rulings[i].expires != was.expires
}

func (m *model) addAll(rs []ruling) (told int) {
	for _, r := range rs {
		if m.add(r) {
			told++
		}
	}
	return told
}

// has reports whether r is held, or something that says as much.
func (m *model) has(r ruling) bool {
	i := m.find(r)
	if i < 0 {
		return false
	}
	joined := m.rulings[i].join(r)
	return joined.cutoff == m.rulings[i].cutoff && joined.expires == m.rulings[i].expires
}

// prune drops what expired in windows that ended 15 minutes before, and returns how
// much.
func (m *model) prune(now time.Time) int {
	m.floor = now.Unix() - 15*60
	n := len(m.rulings)
	m.rulings = m.after(m.floor)
	return n - len(m.rulings)
}

// after returns what is left where all windows up to floor are gone.
func (m *model) after(floor int64) []ruling {
	return slices.DeleteFunc(slices.Clone(m.rulings), func(r ruling) bool { return window(r.expires) <= floor })
}

func (m *model) denies(s subject) bool {
	return slices.ContainsFunc(m.rulings, func(r ruling) bool { return r.denies(s) })
}

func (m *model) count() (shapes map[string]int, windows int) {
	shapes = map[string]int{}
	ends := map[int64]bool{}
	for _, r := range m.rulings {
		shapes[r.shape()]++
		if r.exact {
			ends[window(r.expires)] = true
		}
	}
	return shapes, len(ends)
}

func entriesOf(t *testing.T, rs []ruling) (entries []Entry) {
	for _, r := range rs {
		entries = append(entries, r.revocation(t).Entry())
	}
	return entries
}

// canonical writes sections down as they must be, by a way of its own: entries that
// differ in cut-off and expiry at most must have been joined.
func canonicalSections(entries []Entry) (sections []Section) {
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.place(), b.place()), cmp.Compare(a.Shape, b.Shape), slices.Compare(a.Digest[:], b.Digest[:]))
	})
	for _, e := range entries {
		n := len(sections) - 1
		if n < 0 || sections[n].Window != e.place() || sections[n].Shape != e.Shape || len(sections[n].Digests) == 4096 {
			sections = append(sections, Section{Shape: e.Shape, Window: e.place()})
			n++
		}
		sections[n].Digests = append(sections[n].Digests, e.Digest)
		if !e.Windowed {
			sections[n].Cuts = append(sections[n].Cuts, Cut{e.Cutoff, e.Expires})
		}
	}
	return sections
}

func sameSections(a, b []Section) bool {
	return slices.EqualFunc(a, b, func(a, b Section) bool {
		return a.Shape == b.Shape && a.Window == b.Window && slices.Equal(a.Digests, b.Digests) && slices.Equal(a.Cuts, b.Cuts)
	})
}

// collect copies sections, whose slices are good for one step only, and spoils them.
func collect(t testing.TB, sequence iter.Seq2[Section, error]) (sections []Section) {
	t.Helper()
	for s, err := range sequence {
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Digests) == 0 || s.Window == 0 && len(s.Cuts) != len(s.Digests) || s.Window != 0 && s.Cuts != nil {
			t.Fatalf("a section of %d digests and %d cuts, of window %d", len(s.Digests), len(s.Cuts), s.Window)
		}
		sections = append(sections, s)
		last := &sections[len(sections)-1]
		last.Digests, last.Cuts = slices.Clone(s.Digests), slices.Clone(s.Cuts)
		clear(s.Digests)
		clear(s.Cuts)
	}
	return sections
}

// sequence yields sections, and spoils each when the next is asked for.
func sequence(sections []Section) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		for _, s := range sections {
			s.Digests, s.Cuts = slices.Clone(s.Digests), slices.Clone(s.Cuts)
			more := yield(s, nil)
			clear(s.Digests)
			clear(s.Cuts)
			if !more {
				return
			}
		}
	}
}

// value is a claim's value as JSON decodes it, and the texts that it matches.
type value struct {
	raw   any
	texts []string
}

var values = []value{
	{"a", []string{"a"}}, {"b", []string{"b"}}, {"é", []string{"é"}}, {"", nil}, {"A", []string{"A"}},
	{float64(1), []string{"1"}}, {"1", []string{"1"}}, {1.5, nil}, {float64(-1), []string{"-1"}}, {1e15, []string{"1000000000000000"}},
	{float64(1<<53 - 1), []string{"9007199254740991"}}, {float64(1 << 53), nil}, {true, []string{"true"}}, {"true", []string{"true"}},
	{false, []string{"false"}}, {nil, nil}, {map[string]any{"a": "a"}, nil}, {[]any{}, nil},
	{[]any{"a"}, []string{"a"}}, {[]any{"b", "a", float64(1), true}, []string{"b", "a", "1", "true"}},
	{[]any{"b", []any{"a"}, nil, ""}, []string{"b"}}, {[]string{"a", "é"}, []string{"a", "é"}},
}

var selectable = []string{"a", "b", "é", "A", "1", "-1", "1000000000000000", "9007199254740991", "9007199254740992", "true", "false", "1.5", "null"}

type world struct {
	*rand.Rand
	now int64
}

func pick[T any](w *world, from []T) T { return from[w.IntN(len(from))] }

func (w *world) issuer() string {
	return pick(w, []string{"https://a.example", "https://a.example/", "b"})
}

// expiry is a time around now and its windows' ends.
func (w *world) expiry() int64 {
	return w.now + pick(w, []int64{-1500, -901, -900, -600, -1, 0, 1, 599, 600, 601, 1200, 3600})
}

func (w *world) ruling() ruling {
	r := ruling{issuer: w.issuer(), pairs: map[string]string{}, expires: w.expiry()}
	text := func() string { return pick(w, selectable) }
	switch w.IntN(9) {
	case 0, 1:
		r.pairs[pick(w, []string{JTI, Fingerprint})] = text()
		r.exact = true
		return r
	case 2:
		r.pairs[pick(w, []string{JTI, Fingerprint, SID})] = text()
		if w.IntN(2) == 0 {
			return r
		}
	case 3:
		r.pairs[Sub] = text()
	case 4:
		r.pairs[KeyID] = text()
	case 5: // the whole issuer
	case 6:
		r.pairs[Sub], r.pairs[ClientID] = text(), text()
	case 7:
		r.pairs["groups"], r.pairs["aud"] = text(), text()
	case 8:
		for _, n := range []string{"groups", "aud", "x", Sub} {
			if w.IntN(2) == 0 {
				r.pairs[n] = text()
			}
		}
	}
	r.cutoff = start + int64(w.IntN(4))
	return r
}

func (w *world) subject(t *testing.T) subject {
	s := subject{texts: map[string][]string{}, claims: Claims{Issuer: w.issuer(), Expires: time.Unix(w.expiry(), w.Int64N(1e9)), Values: map[string]any{}}}
	if w.IntN(4) != 0 {
		s.claims.IssuedAt = time.Unix(start+int64(w.IntN(6))-1, w.Int64N(1e9))
	}
	for _, n := range []string{JTI, SID, Sub, ClientID, "groups", "aud", "x", KeyID, Fingerprint, "SUB"} {
		if w.IntN(3) == 0 {
			continue
		}
		v := pick(w, values)
		s.claims.Values[n] = v.raw
		if n != KeyID && n != Fingerprint { // a payload's own don't count
			s.texts[n] = v.texts
		}
	}
	if w.IntN(2) == 0 {
		s.claims.KeyID = pick(w, selectable)
		s.texts[KeyID] = []string{s.claims.KeyID}
	}
	if w.IntN(2) == 0 {
		s.claims.Fingerprint = pick(w, selectable)
		s.texts[Fingerprint] = []string{s.claims.Fingerprint}
	}
	return s.prepare(t)
}

func (s subject) prepare(t *testing.T) subject {
	t.Helper()
	var err error
	if s.token, err = NewToken(s.claims); err != nil {
		t.Fatal(err)
	}
	return s
}

// near returns the token that a revocation names, and some that it all but names.
func (w *world) near(t *testing.T, r ruling) []subject {
	exact := subject{
		claims: Claims{Issuer: r.issuer, Expires: time.Unix(max(r.expires, 1), 0), Values: map[string]any{}},
		texts:  map[string][]string{},
	}
	if r.cutoff != 0 {
		exact.claims.IssuedAt = time.Unix(r.cutoff, 999_999_999)
	}
	change := func(s subject, edit func(*subject)) subject {
		s.claims.Values, s.texts = maps.Clone(s.claims.Values), maps.Clone(s.texts)
		edit(&s)
		return s.prepare(t)
	}
	set := func(name, text string) func(*subject) {
		return func(s *subject) {
			switch name {
			case KeyID:
				s.claims.KeyID = text
			case Fingerprint:
				s.claims.Fingerprint = text
			default:
				s.claims.Values[name] = text
			}
			s.texts[name] = []string{text}
			if text == "" {
				s.texts[name] = nil
			}
		}
	}
	for n, v := range r.pairs {
		exact = change(exact, set(n, v))
	}
	exact = exact.prepare(t)
	all := []subject{
		exact,
		change(exact, func(s *subject) { s.claims.Issuer += "/" }),
		change(exact, func(s *subject) { s.claims.IssuedAt = time.Unix(r.cutoff+1, 0) }),
		change(exact, func(s *subject) { s.claims.IssuedAt = time.Time{} }),
		change(exact, func(s *subject) { s.claims.Expires = s.claims.Expires.Add(Window) }),
		change(exact, func(s *subject) { s.claims.Expires = s.claims.Expires.Add(time.Second) }),
	}
	for n, v := range r.pairs {
		all = append(all, change(exact, set(n, v+" ")), change(exact, set(n, "")))
	}
	return all
}

// check asserts everything that must hold of a list at any time.
func (m *model) check(t *testing.T, w *world, l *List, population []subject) {
	t.Helper()
	mustHold(t, l)
	now := time.Unix(w.now, 0)
	l.Advance(now)
	for _, s := range population {
		v := l.CheckToken(s.token, now)
		want := Clear
		if m.denies(s) {
			want = Revoked
		}
		if v.Status != want {
			t.Fatalf("%s, not %s: %+v", v.Status, want, s.claims)
		}
		if v.Status == Revoked && !slices.ContainsFunc(m.rulings, func(r ruling) bool {
			return r.denies(s) && v.Shape.String() == r.shape() && v.Digest == r.revocation(t).Selector.Digest(r.issuer)
		}) {
			t.Fatalf("revoked by %s, which does not match: %+v", v.Shape, s.claims)
		}
	}

	shapes, windows := m.count()
	if st := l.Stats(); st.Entries != len(m.rulings) || st.Windows != windows || !maps.Equal(st.Shapes, shapes) || st.Slots < st.Entries || st.Bytes < 9*st.Slots {
		t.Fatalf("stats %+v; want %d entries, %d windows, %v", st, len(m.rulings), windows, shapes)
	}
	for _, r := range m.rulings {
		e := r.revocation(t).Entry()
		if !l.Has(e) || l.Add(e) != 0 {
			t.Fatalf("adding again what is held changes something: %+v", r)
		}
	}
	for range 20 {
		r := w.ruling()
		if len(m.rulings) > 0 && w.IntN(2) == 0 {
			r = pick(w, m.rulings)
			r.expires += pick(w, []int64{-1, 0, 1, 600})
			if r.cutoff != 0 {
				r.cutoff += int64(w.IntN(3)) - 1
			}
		}
		if has := l.Has(r.revocation(t).Entry()); has != m.has(r) {
			t.Fatalf("has %+v: %v", r, has)
		}
	}
	m.checkSections(t, w, l)
}

// checkSections asserts that the same entries always make the same sections, and
// that the sections make the same list.
func (m *model) checkSections(t *testing.T, w *world, l *List) {
	t.Helper()
	entries := entriesOf(t, m.rulings)
	want := canonicalSections(slices.Clone(entries))
	shuffled := func() []Entry { // all of them, and some twice
		some := append(slices.Clone(entries), entries[:w.IntN(len(entries)+1)]...)
		w.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		return some
	}
	if got := collect(t, Sections(shuffled())); !sameSections(got, want) {
		t.Fatalf("the same entries in another order give other sections:\n%v\n%v", got, want)
	}
	all := shuffled()
	i := w.IntN(len(all) + 1)
	a, b := collect(t, Sections(all[:i])), collect(t, Sections(all[i:]))
	if got := collect(t, Merge(sequence(a), sequence(b), 0)); !sameSections(got, want) {
		t.Fatalf("merging %d and %d of the same entries gives other sections:\n%v\n%v", i, len(all)-i, got, want)
	}
	floor := w.expiry()
	left := canonicalSections(entriesOf(t, m.after(floor)))
	if got := collect(t, Merge(sequence(a), sequence(b), floor)); !sameSections(got, left) {
		t.Fatalf("merging %d and %d entries less those up to %d gives other sections:\n%v\n%v", i, len(all)-i, floor, got, left)
	}

	loader := NewLoader()
	for _, s := range want {
		loader.Add(s)
	}
	if loaded := loader.List(); loaded.Stats().Entries != len(entries) || l.Join(loaded) != 0 {
		t.Fatal("a list that is loaded from sections is another one")
	}
	other := New()
	for _, i := range w.Perm(len(want)) {
		if n := other.AddSection(want[i]); n != len(want[i].Digests) || other.AddSection(want[i]) != 0 || l.AddSection(want[i]) != 0 {
			t.Fatalf("%d entries of a section of %d are new", n, len(want[i].Digests))
		}
	}
	mustHold(t, other)
	got, st := other.Stats(), l.Stats()
	got.FalseHits, got.Bytes, got.Slots = st.FalseHits, st.Bytes, st.Slots
	if !reflect.DeepEqual(got, st) {
		t.Fatalf("a list's sections make another list: %+v, not %+v", got, st)
	}
	for _, e := range entries {
		if !other.Has(e) {
			t.Fatalf("a list's sections make another list, without %+v", e)
		}
	}
	// A list and its store drop the same.
	dropped := other.Prune(time.Unix(floor, 0).Add(Grace))
	if kept := len(m.after(floor)); dropped != len(entries)-kept || other.Stats().Entries != kept {
		t.Fatalf("pruned to %+v, not to %d entries", other.Stats(), kept)
	}
	for _, s := range left {
		if other.AddSection(s) != 0 {
			t.Fatal("Merge keeps what Prune drops")
		}
	}
	mustHold(t, other)
}

func TestListAgreesWithTheModel(t *testing.T) {
	const seeds, steps = 2 + 14/slowly, 30
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := &world{rand.New(rand.NewPCG(seed, 0)), start}
			l, m := New(), &model{}
			// What a verifier stores: it is merged, and expires, as the list does.
			var stored []Section
			store := &model{}
			var population []subject
			for range 60 {
				population = append(population, w.subject(t))
			}
			revoked := make([]bool, len(population))
			var trace []string
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("seed %d, after %q", seed, trace)
				}
			})
			for step := range steps {
				did, told, want := "", 0, 0
				some := func(n int) (rs []ruling, joined *model) {
					joined = &model{}
					for range n {
						r := w.ruling()
						rs = append(rs, r)
						joined.add(r)
						if w.IntN(4) == 0 && len(population) < 200 {
							population = append(population, w.near(t, r)...)
						}
					}
					revoked = append(revoked, make([]bool, len(population)-len(revoked))...)
					sections := collect(t, Sections(entriesOf(t, rs)))
					stored = collect(t, Merge(sequence(stored), sequence(sections), m.floor))
					store.addAll(joined.rulings)
					store.rulings = store.after(m.floor)
					return rs, joined
				}
				switch w.IntN(7) {
				case 0:
					did = "add one"
					rs, _ := some(1)
					told, want = l.Add(entriesOf(t, rs)...), m.addAll(rs)
				case 1, 2:
					did = "add a batch, some of it twice"
					rs, _ := some(1 + w.IntN(8))
					rs = append(rs, rs[:w.IntN(len(rs))]...)
					w.Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
					told, want = l.Add(entriesOf(t, rs)...), m.addAll(rs)
				case 3:
					did = "add a snapshot"
					rs, joined := some(1 + w.IntN(10))
					sections := collect(t, Sections(entriesOf(t, rs)))
					for _, i := range w.Perm(len(sections)) {
						told += l.AddSection(sections[i])
					}
					want = m.addAll(joined.rulings)
				case 4:
					did = "join another list"
					rs, joined := some(1 + w.IntN(10))
					other := New()
					if other.Add(entriesOf(t, rs)...); w.IntN(2) == 0 {
						loader := NewLoader()
						for s := range Sections(entriesOf(t, rs)) {
							loader.Add(s)
						}
						other = loader.List()
						mustHold(t, other)
					}
					told, want = l.Join(other), m.addAll(joined.rulings)
					if st := other.Stats(); st.Entries != 0 || len(st.Shapes) != 0 {
						t.Fatalf("step %d, %s: left %+v", step, did, st)
					}
					mustHold(t, other)
				case 5:
					did = "add what outgrows a page"
					var rs []ruling
					for i := range 100 {
						rs = append(rs, ruling{issuer: "b", pairs: map[string]string{JTI: fmt.Sprintf("%d-%d", step, i)}, expires: w.expiry(), exact: i%2 == 0})
					}
					told, want = l.Add(entriesOf(t, rs)...), m.addAll(rs)
				case 6:
					w.now += pick(w, []int64{1, 60, 599, 600, 900, 901})
					at := time.Unix(w.now-pick(w, []int64{0, 0, 1, 3000}), w.Int64N(1e9))
					did = fmt.Sprintf("prune at %d", at.Unix())
					// Gone is what expired in a window that ended Grace before.
					survives := make([]bool, len(population))
					for i, s := range population {
						survives[i] = slices.ContainsFunc(m.rulings, func(r ruling) bool {
							return r.denies(s) && at.Before(time.Unix(window(r.expires), 0).Add(Grace))
						})
					}
					told, want = l.Prune(at), m.prune(at)
					for i, s := range population {
						if revoked[i] && survives[i] && l.CheckToken(s.token, at).Status != Revoked {
							t.Fatalf("step %d, %s: un-revoked too early: %+v", step, did, s.claims)
						}
						revoked[i] = revoked[i] && survives[i]
					}
				}
				trace = append(trace, did)
				if told != want {
					t.Fatalf("step %d, %s: %d entries, not %d", step, did, told, want)
				}
				m.check(t, w, l, population)
				for i, s := range population {
					is := l.CheckToken(s.token, time.Unix(w.now, 0)).Status == Revoked
					if revoked[i] && !is {
						t.Fatalf("step %d, %s: un-revoked: %+v", step, did, s.claims)
					}
					revoked[i] = is
				}
				if want := canonicalSections(entriesOf(t, store.rulings)); !sameSections(stored, want) {
					t.Fatalf("step %d, %s: stored\n%v\nnot\n%v", step, did, stored, want)
				}
			}
		})
	}
}

// bigModel is the same for more entries than a slice can be searched for.
type bigModel struct {
	held  map[Entry]Cut // by what is no cut
	floor int64
}

func (m *bigModel) add(e Entry) bool {
	c := Cut{e.Cutoff, e.Expires}
	e.Cutoff = 0
	if window(e.Expires) <= m.floor {
		return false
	}
	if !e.Windowed {
		e.Expires = 0
	}
	old, known := m.held[e]
	if known && (e.Windowed || old.Cutoff >= c.Cutoff && old.Expires >= c.Expires) {
		return false
	}
	if known {
		c = Cut{max(old.Cutoff, c.Cutoff), max(old.Expires, c.Expires)}
	}
	m.held[e] = c
	return true
}

func (m *bigModel) entry(e Entry, c Cut) Entry {
	e.Cutoff, e.Expires = c.Cutoff, c.Expires
	return e
}

func (m *bigModel) prune(floor int64) int {
	n := len(m.held)
	maps.DeleteFunc(m.held, func(_ Entry, c Cut) bool { return window(c.Expires) <= floor })
	m.floor = floor
	return n - len(m.held)
}

// check asks for some of what is held, all around its cut-off, and for some of what
// is not.
func (m *bigModel) check(t *testing.T, r *rand.Rand, l *List) {
	t.Helper()
	mustHold(t, l)
	l.Advance(now)
	shapes, windows := map[string]int{}, map[int64]bool{}
	for e, c := range m.held {
		if shapes[e.Shape.String()]++; e.Windowed {
			windows[e.Expires] = true
		}
		if r.IntN(len(m.held)) >= 3000 {
			continue
		}
		full := m.entry(e, c)
		if !l.Has(full) {
			t.Fatalf("%+v is not there", full)
		}
		at := cmp.Or(e.Expires, start)
		iat, next := int64(start), Revoked
		if c.Cutoff < NoCutoff {
			iat, next = c.Cutoff, Clear
		}
		stranger := numbered(99, r.Int()%1e9)
		for i, want := range []Status{Revoked, next, Clear, Clear} {
			tok := []*Token{
				asker(at, iat, e.Shape, stranger, e.Digest), asker(at, iat+1, e.Shape, e.Digest), asker(at, iat, e.Shape, stranger), asker(at, iat, "other", e.Digest),
			}[i]
			if v := l.CheckToken(tok, now); v.Status != want || want == Revoked && (v.Digest != e.Digest || v.Shape != e.Shape) {
				t.Fatalf("question %d for %+v: %+v", i, full, v)
			}
		}
		if e.Windowed {
			if v := l.CheckToken(asker(at+600, iat, e.Shape, e.Digest), now); v.Status != Clear {
				t.Fatalf("%+v in the next window: %+v", full, v)
			}
			full.Expires += 600
		} else {
			full.Expires++
		}
		if l.Has(full) {
			t.Fatalf("%+v is there", full)
		}
	}
	if st := l.Stats(); st.Entries != len(m.held) || !maps.Equal(st.Shapes, shapes) || st.Windows != len(windows) || st.Slots < st.Entries {
		t.Fatalf("%+v; want %d entries, %v, in %d windows", st, len(m.held), shapes, len(windows))
	}
}

func TestListAgreesWithTheModelAtScale(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	w := &world{Rand: r}
	l, m := New(), &bigModel{held: map[Entry]Cut{}}
	const crowded = start + 6000
	made := 0
	digest := func() Digest { made++; return numbered(1, made) }
	cut := func() Entry {
		return Entry{Shape: Sub, Digest: digest(), Cutoff: start + int64(r.IntN(1000)), Expires: start + 1 + 600*int64(r.IntN(3))}
	}
	repeat := func(n int, make func() Entry) (entries []Entry) {
		for range n {
			entries = append(entries, make())
		}
		return entries
	}
	known := func(n int) (entries []Entry) { // some of what is held, and what says a little more or less
		for e, c := range m.held {
			if len(entries) == n {
				break
			}
			e = m.entry(e, c)
			if entries = append(entries, e); !e.Windowed {
				e.Cutoff += int64(r.IntN(3)) - 1
				e.Expires += int64(r.IntN(3))
				entries = append(entries, e)
			}
		}
		return entries
	}
	steps := []struct {
		did     string
		entries func() []Entry
	}{
		{"a page that splits, and again", func() []Entry {
			return repeat(80_000+120_000/slowly, func() Entry { return windowed(JTI, digest(), crowded) })
		}},
		{"cuts on pages that split", func() []Entry { return repeat(100_000/slowly, cut) }},
		{"two shapes in one window", func() []Entry {
			return repeat(50_000/slowly, func() Entry { return windowed(pick(w, []Shape{JTI, Fingerprint}), digest(), crowded) })
		}},
		{"many windows and shapes", func() []Entry {
			return repeat(5_000, func() Entry {
				return windowed(pick(w, []Shape{JTI, Fingerprint, "a"}), digest(), start+600*int64(r.IntN(3000)))
			})
		}},
		{"what is known", func() []Entry { return known(20_000 / slowly) }},
		{"nothing, and a window passes", func() []Entry { m.mustPrune(t, l, start+600); return nil }},
		{"more cuts", func() []Entry { return append(repeat(50_000/slowly, cut), known(1000)...) }},
		{"nothing, and most pass", func() []Entry { m.mustPrune(t, l, start+1800); return nil }},
		{"some after them", func() []Entry { return append(repeat(1000, cut), known(1000)...) }},
		{"nothing, and the clock goes back", func() []Entry { m.mustPrune(t, l, start-600); return nil }},
		{"cuts after them", func() []Entry { return repeat(1000, cut) }},
		{"nothing, and all pass", func() []Entry { m.mustPrune(t, l, start+600*4000); return nil }},
	}
	for i, step := range steps {
		entries := step.entries()
		for n := 0; n < len(entries); {
			part := entries[n:min(len(entries), n+r.IntN(60_000)+1)]
			n += len(part)
			told, want := 0, 0
			way := r.IntN(4)
			switch way {
			case 0:
				told = l.Add(part...)
			case 1:
				other := New()
				if other.Add(part...); r.IntN(2) == 0 {
					other.Join(l) // and so the other way round
					told = l.Join(other)
					told -= len(m.held)
				} else {
					told = l.Join(other)
				}
			case 2:
				half := r.IntN(len(part))
				for s := range Merge(Sections(slices.Clone(part[:half])), Sections(slices.Clone(part[half:])), m.floor) {
					told += l.AddSection(s)
				}
			case 3:
				loader := NewLoader()
				for s := range Sections(slices.Clone(part)) {
					loader.Add(s)
				}
				told = l.Join(loader.List())
			}
			before := len(m.held)
			for _, e := range part {
				if m.add(e) {
					want++
				}
			}
			// What says the same subject's cut in two steps is joined first, but for Add.
			if grown := len(m.held) - before; way == 0 && told != want || told < grown || told > want {
				t.Fatalf("step %d, %s: %d entries of %d are new, not %d to %d", i, step.did, told, len(part), grown, want)
			}
		}
		m.check(t, r, l)
		if i == 4 {
			m.checkSections(t, r, l)
		}
	}
	if st := l.Stats(); st.Entries != 0 || st.Bytes != 0 {
		t.Errorf("left: %+v", st)
	}
}

func (m *bigModel) mustPrune(t *testing.T, l *List, floor int64) {
	t.Helper()
	if got, want := l.Prune(time.Unix(floor, 0).Add(Grace)), m.prune(floor); got != want {
		t.Fatalf("%d entries are dropped, not %d", got, want)
	}
}

// checkSections asserts that a list's sections, whatever they are merged from, make
// the same list.
func (m *bigModel) checkSections(t *testing.T, r *rand.Rand, l *List) {
	t.Helper()
	var halves [2][]Entry
	for e, c := range m.held {
		i := r.IntN(2)
		halves[i] = append(halves[i], m.entry(e, c))
	}
	want := canonicalSections(slices.Concat(halves[0], halves[1]))
	got := collect(t, Merge(Sections(halves[0]), Sections(halves[1]), 0))
	if !sameSections(got, want) {
		t.Fatalf("%d sections, not %d, or others", len(got), len(want))
	}
	other, loader := New(), NewLoader()
	for _, s := range got {
		if n := other.AddSection(s); n != len(s.Digests) || l.AddSection(s) != 0 {
			t.Fatalf("a section of %d: %d are new", len(s.Digests), n)
		}
		loader.Add(s)
	}
	m.check(t, r, other)
	m.check(t, r, loader.List())
	if n := other.Join(loader.List()); n != 0 {
		t.Fatalf("the same from a loader: %d are new", n)
	}
}
