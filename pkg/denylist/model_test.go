package denylist

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
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

func (r ruling) key() string {
	names := slices.Sorted(maps.Keys(r.pairs))
	var b strings.Builder
	fmt.Fprintf(&b, "%q", r.issuer)
	for _, n := range names {
		fmt.Fprintf(&b, " %q=%q", n, r.pairs[n])
	}
	if r.exact {
		fmt.Fprintf(&b, " in %d", window(r.expires))
	}
	return b.String()
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
	rulings []ruling
	floor   int64
}

func (m *model) add(r ruling) {
	if window(r.expires) > m.floor {
		m.rulings = append(m.rulings, r)
	}
}

func (m *model) prune(now time.Time) {
	m.floor = now.Unix() - 15*60
	m.rulings = slices.DeleteFunc(m.rulings, func(r ruling) bool { return window(r.expires) <= m.floor })
}

func (m *model) denies(s subject) bool {
	return slices.ContainsFunc(m.rulings, func(r ruling) bool { return r.denies(s) })
}

// count returns how many entries a list should hold: of the revocations that
// differ in nothing but cut-off and expiry, those that no other covers.
func (m *model) count() (n int, shapes map[string]int, windows int) {
	shapes = map[string]int{}
	groups := map[string][]ruling{}
	ends := map[int64]bool{}
	for _, r := range m.rulings {
		groups[r.key()] = append(groups[r.key()], r)
		if r.exact {
			ends[window(r.expires)] = true
		}
	}
	last := func(r ruling) int64 {
		if r.cutoff == 0 {
			return 1 << 62
		}
		return r.cutoff
	}
	for _, g := range groups {
		left := 0
		for i, r := range g {
			covered := false
			for j, o := range g {
				same := r.exact || last(o) == last(r) && o.expires == r.expires
				if same && j < i || !same && last(o) >= last(r) && o.expires >= r.expires {
					covered = true
				}
			}
			if !covered {
				left++
			}
		}
		n += left
		shapes[g[0].shape()] += left
	}
	return n, shapes, len(ends)
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
	now := time.Unix(w.now, 0)
	l.Advance(now)
	for _, s := range population {
		v := l.Check(s.token, now)
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

	n, shapes, windows := m.count()
	if st := l.Stats(); st.Entries != n || st.Windows != windows || !maps.Equal(st.Shapes, shapes) {
		t.Fatalf("stats %+v; want %d entries, %d windows, %v", st, n, windows, shapes)
	}

	sections := slices.Collect(l.Sections())
	held := 0
	for i, s := range sections {
		held += len(s.Digests)
		if len(s.Digests) == 0 || s.Window != window(s.Window) || s.Window == 0 && len(s.Cuts) != len(s.Digests) || s.Window != 0 && s.Cuts != nil {
			t.Fatalf("section %+v", s)
		}
		if i > 0 && (sections[i-1].Window > s.Window || sections[i-1].Window == s.Window && sections[i-1].Shape >= s.Shape) {
			t.Fatalf("section %d is out of order", i)
		}
		if !sort.SliceIsSorted(s.Digests, func(a, b int) bool { return compareDigests(s.Digests[a], s.Digests[b]) < 0 }) {
			t.Fatalf("digests of section %d are out of order", i)
		}
		for j := 1; j < len(s.Digests); j++ {
			if s.Digests[j] == s.Digests[j-1] && (s.Window != 0 || s.Cuts[j].Cutoff <= s.Cuts[j-1].Cutoff || s.Cuts[j].Expires >= s.Cuts[j-1].Expires) {
				t.Fatalf("section %d says something twice", i)
			}
		}
	}
	if held != n {
		t.Fatalf("sections hold %d entries, not %d", held, n)
	}

	other := New()
	for _, i := range w.Perm(len(m.rulings)) {
		other.Add(m.rulings[i].revocation(t).Entry())
	}
	if got := slices.Collect(other.Sections()); !reflect.DeepEqual(got, sections) {
		t.Fatalf("the same entries in another order give other sections:\n%v\n%v", got, sections)
	}
	for _, r := range m.rulings {
		if l.Add(r.revocation(t).Entry()) != 0 {
			t.Fatalf("adding again what is held: %+v", r)
		}
	}
	for _, s := range sections {
		if l.AddSection(s) != 0 {
			t.Fatalf("adding a section of its own")
		}
	}
}

func TestListAgreesWithTheModel(t *testing.T) {
	const seeds, steps = 12, 30
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := &world{rand.New(rand.NewPCG(seed, 0)), start}
			l, m := New(), &model{}
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
				var did string
				added := func(rs ...ruling) {
					for _, r := range rs {
						m.add(r)
						if w.IntN(4) == 0 && len(population) < 200 {
							population = append(population, w.near(t, r)...)
						}
					}
					revoked = append(revoked, make([]bool, len(population)-len(revoked))...)
				}
				switch w.IntN(6) {
				case 0:
					did = "add one"
					r := w.ruling()
					l.Add(r.revocation(t).Entry())
					added(r)
				case 1, 2:
					did = "add a batch, some of it twice"
					var entries []Entry
					for range 1 + w.IntN(8) {
						r := w.ruling()
						entries = append(entries, r.revocation(t).Entry())
						added(r)
					}
					entries = append(entries, entries[:w.IntN(len(entries))]...)
					w.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
					l.Add(entries...)
				case 3:
					did = "join another list"
					other := New()
					for range 1 + w.IntN(10) {
						r := w.ruling()
						other.Add(r.revocation(t).Entry())
						added(r)
					}
					sections := slices.Collect(other.Sections())
					for _, i := range w.Perm(len(sections)) {
						l.AddSection(sections[i])
					}
				case 4:
					did = "add what outgrows the filter"
					var entries []Entry
					for i := range 100 {
						r := ruling{issuer: "b", pairs: map[string]string{JTI: fmt.Sprintf("%d-%d", step, i)}, expires: w.expiry(), exact: i%2 == 0}
						entries = append(entries, r.revocation(t).Entry())
						m.add(r)
					}
					l.Add(entries...)
				case 5:
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
					before, _, _ := m.count()
					dropped := l.Prune(at)
					m.prune(at)
					if after, _, _ := m.count(); dropped != before-after {
						t.Fatalf("step %d, %s: %d dropped, not %d", step, did, dropped, before-after)
					}
					for i, s := range population {
						if revoked[i] && survives[i] && l.Check(s.token, at).Status != Revoked {
							t.Fatalf("step %d, %s: un-revoked too early: %+v", step, did, s.claims)
						}
						revoked[i] = revoked[i] && survives[i]
					}
				}
				trace = append(trace, did)
				m.check(t, w, l, population)
				for i, s := range population {
					is := l.Check(s.token, time.Unix(w.now, 0)).Status == Revoked
					if revoked[i] && !is {
						t.Fatalf("step %d, %s: un-revoked: %+v", step, did, s.claims)
					}
					revoked[i] = is
				}
			}
		})
	}
}
