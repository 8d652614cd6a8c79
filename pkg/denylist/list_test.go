package denylist

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

var now = time.Unix(start, 0)

// token makes a token that expires in an hour, with claims given in pairs.
func token(t testing.TB, claims ...string) *Token {
	t.Helper()
	c := Claims{Issuer: "i", Expires: now.Add(time.Hour), IssuedAt: now, Values: map[string]any{}}
	for i := 0; i < len(claims); i += 2 {
		c.Values[claims[i]] = claims[i+1]
	}
	return newToken(t, c)
}

func newToken(t testing.TB, c Claims) *Token {
	t.Helper()
	made, err := NewToken(c)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// byJTI revokes one token as its owner does, knowing its exp, or as an admin does.
func byJTI(jti string, exact bool) Entry {
	return Revocation{Issuer: "i", Selector: One(JTI, jti), Expires: now.Add(time.Hour), ExactExpiry: exact}.Entry()
}

func bySub(sub string, issuedBefore, expires time.Time) Entry {
	return Revocation{Issuer: "i", Selector: One(Sub, sub), IssuedBefore: issuedBefore, Expires: expires}.Entry()
}

func fresh() *List {
	l := New()
	l.Advance(now)
	return l
}

func TestNoFalseRejectionOfAnyToken(t *testing.T) {
	l := fresh()
	const revoked, others = 2 * 128 * firstCapacity, 50_000 // two filters, each as full as it gets
	for i := range revoked {
		l.Add(byJTI(fmt.Sprint("revoked-", i), i%2 == 0))
	}
	for i := range others {
		if v := l.Check(token(t, JTI, fmt.Sprint("other-", i)), now); v.Status != Clear {
			t.Fatalf("token %d: %+v", i, v)
		}
	}
	// The filters did err on the way, or this test has shown nothing.
	if hits := l.Stats().FalseHits; hits == 0 || hits > others/100 {
		t.Errorf("%d false hits in %d checks", hits, others)
	}
}

func TestNoFalseRejectionWhenAFilterSaysYesToAll(t *testing.T) {
	l := fresh()
	l.Add(byJTI("x", false), byJTI("y", true))
	for _, s := range []*set{l.always, l.windows[WindowEnd(now.Add(time.Hour).Unix())]} {
		for i := range uint(s.filter.Cap()) {
			s.filter.BitSet().Set(i)
		}
	}
	if v := l.Check(token(t, JTI, "z"), now); v.Status != Clear || l.Stats().FalseHits != 2 {
		t.Errorf("%+v, %+v", v, l.Stats())
	}
}

func TestFreshOrUnknown(t *testing.T) {
	const most = time.Minute
	revoked, other := token(t, JTI, "x"), token(t, JTI, "y")
	l := New(MaxStaleness(most))
	l.Add(byJTI("x", true))
	for name, c := range map[string]struct {
		at   time.Duration // after the list was complete; negative: not yet
		want Verdict
	}{
		"fresh":                  {0, Verdict{Status: Clear}},
		"as old as it may be":    {most, Verdict{Status: Clear, Age: most}},
		"older":                  {most + 1, Verdict{Status: Unknown, Why: Stale, Age: most + 1}},
		"much older":             {100 * most, Verdict{Status: Unknown, Why: Stale, Age: 100 * most}},
		"a clock that went back": {-most, Verdict{Status: Clear}},
	} {
		before := New(MaxStaleness(most))
		before.Add(byJTI("x", true))
		if v := before.Check(other, now); v != (Verdict{Status: Unknown, Why: Loading}) {
			t.Errorf("before Advance: %+v", v)
		}
		if v := before.Check(revoked, now); v.Status != Revoked {
			t.Errorf("revoked before Advance: %+v", v)
		}
		before.Advance(now)
		if v := before.Check(other, now.Add(c.at)); v != c.want {
			t.Errorf("%s: %+v, want %+v", name, v, c.want)
		}
		if v := before.Check(revoked, now.Add(c.at)); v.Status != Revoked || v.Shape != JTI {
			t.Errorf("%s, revoked: %+v", name, v)
		}
	}
	if _, loaded := l.Age(now); loaded {
		t.Error("a list that was never complete has an age")
	}
	if New().MaxStaleness() != DefaultMaxStaleness || l.MaxStaleness() != most {
		t.Error("another MaxStaleness")
	}
	if v := (Verdict{}); v.Status == Clear {
		t.Error("a verdict that nobody gave is clear")
	}
}

func TestFreshOrUnknownNeverGoesBack(t *testing.T) {
	l := New()
	l.Advance(now)
	l.Advance(now.Add(-time.Hour))
	if age, _ := l.Age(now); age != 0 {
		t.Errorf("an earlier instant made the list %v old", age)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				l.Advance(now.Add(time.Duration(8*j+i) * time.Millisecond))
			}
		})
	}
	all.Wait()
	if age, _ := l.Age(now.Add(8 * time.Second)); age != time.Millisecond {
		t.Errorf("age %v after the latest of many", age)
	}
}

// drifted returns a time as far from t as wall says by the wall clock and as mono
// says by the monotonic one, which no public function makes.
func drifted(t *testing.T, from time.Time, wall, mono time.Duration) time.Time {
	t.Helper()
	later := from.Add(wall) // moves both
	ext := (*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&later))
	ext.ext += int64(mono - wall)
	if later.Sub(from) != mono || later.Round(0).Sub(from.Round(0)) != wall {
		t.Fatalf("%v is not %v and %v from %v", later, wall, mono, from)
	}
	return later
}

func TestFreshOrUnknownByTheLongerOfTwoClocks(t *testing.T) {
	from := time.Now()
	for _, c := range []struct{ wall, mono, want time.Duration }{
		{time.Minute, time.Minute, time.Minute},
		{time.Hour, time.Minute, time.Hour},    // the machine slept
		{-time.Hour, time.Minute, time.Minute}, // the clock was set back
		{time.Minute, time.Hour, time.Hour},    // the clock was set back while it ran
		{-time.Hour, -time.Minute, 0},
	} {
		l := New(MaxStaleness(c.want))
		l.Advance(from)
		at := drifted(t, from, c.wall, c.mono)
		if age, ok := l.Age(at); !ok || age != c.want {
			t.Errorf("wall %v, monotonic %v: %v", c.wall, c.mono, age)
		}
		if v := l.Check(token(t), at); v.Status != Clear {
			t.Errorf("wall %v, monotonic %v: %+v", c.wall, c.mono, v)
		}
		if c.want > 0 {
			l = New(MaxStaleness(c.want - 1))
			l.Advance(from)
			if v := l.Check(token(t), at); v.Status != Unknown || v.Why != Stale {
				t.Errorf("wall %v, monotonic %v: %+v", c.wall, c.mono, v)
			}
		}
	}
}

func TestFinalOrderAndRepetitionDontMatter(t *testing.T) {
	entries := []Entry{
		byJTI("x", true), byJTI("x", false), byJTI("y", false),
		bySub("a", now, now.Add(time.Hour)), bySub("a", now.Add(-time.Minute), now.Add(2*time.Hour)), bySub("a", now.Add(-time.Hour), now.Add(time.Minute)),
	}
	var want []Section
	permute(entries, func(order []Entry) {
		l := New()
		for _, e := range order {
			l.Add(e)
		}
		if l.Add(order...) != 0 {
			t.Error("entries count as new twice")
		}
		got := slices.Collect(l.Sections())
		if want == nil {
			want = got
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v gives %v, not %v", order, got, want)
		}
	})
}

func permute(s []Entry, do func([]Entry)) {
	var walk func(n int)
	walk = func(n int) {
		if n == len(s) {
			do(s)
			return
		}
		for i := n; i < len(s); i++ {
			s[n], s[i] = s[i], s[n]
			walk(n + 1)
			s[n], s[i] = s[i], s[n]
		}
	}
	walk(0)
}

func TestFinalACutOffNeverSparesWhatAnotherDenies(t *testing.T) {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	for _, c := range []struct {
		name    string
		entries []Entry
		held    int
		denies  int64 // the latest iat denied
	}{
		{"one", []Entry{bySub("a", at(0), at(3600))}, 1, start},
		{"the same", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(0), at(3600))}, 1, start},
		{"earlier, ends earlier", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(-9), at(3500))}, 1, start},
		{"earlier, ends with it", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(-9), at(3600))}, 1, start},
		{"earlier, ends later", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(-9), at(3601))}, 2, start},
		{"later, ends later", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(9), at(3700))}, 1, start + 9},
		{"later, ends earlier", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(9), at(600))}, 2, start + 9},
		{"two covered by one", []Entry{bySub("a", at(0), at(3600)), bySub("a", at(9), at(600)), bySub("a", at(9), at(3600))}, 1, start + 9},
	} {
		l := fresh()
		l.Add(c.entries...)
		if st := l.Stats(); st.Entries != c.held || st.Shapes["sub"] != c.held {
			t.Errorf("%s: %d entries, not %d", c.name, st.Entries, c.held)
		}
		for iat, want := range map[int64]Status{c.denies - 1: Revoked, c.denies: Revoked, c.denies + 1: Clear} {
			tok := newToken(t, Claims{Issuer: "i", Expires: at(3600), IssuedAt: time.Unix(iat, 999), Values: map[string]any{Sub: "a"}})
			if v := l.Check(tok, now); v.Status != want {
				t.Errorf("%s: iat %d: %s, not %s", c.name, iat-start, v.Status, want)
			}
		}
	}
	// An earlier cut-off that ends later is there when the other has gone.
	l := fresh()
	l.Add(bySub("a", at(9), at(600)), bySub("a", at(0), at(3600)))
	l.Prune(at(600).Add(Grace))
	for iat, want := range map[int64]Status{start: Revoked, start + 1: Clear} {
		tok := newToken(t, Claims{Issuer: "i", Expires: at(3600), IssuedAt: time.Unix(iat, 0), Values: map[string]any{Sub: "a"}})
		if v := l.Check(tok, now); v.Status != want {
			t.Errorf("iat %d after the later cut-off has gone: %s, not %s", iat-start, v.Status, want)
		}
	}
}

func TestBoundedByWindowAndGrace(t *testing.T) {
	for _, c := range []struct {
		expires int64 // after start, which ends a window
		ends    int64
	}{{0, 0}, {1, 600}, {599, 600}, {600, 600}, {601, 1200}} {
		for _, exact := range []bool{true, false} {
			e := Revocation{Issuer: "i", Selector: One(JTI, "x"), Expires: time.Unix(start+c.expires, 0), ExactExpiry: exact}.Entry()
			tok := newToken(t, Claims{Issuer: "i", Expires: time.Unix(start+c.expires, 0), Values: map[string]any{JTI: "x"}})
			l := fresh()
			l.Add(e)
			gone := time.Unix(start+c.ends, 0).Add(Grace)
			if l.Prune(gone.Add(-1)) != 0 || l.Check(tok, now).Status != Revoked {
				t.Errorf("expires %+d, exact %v: gone too early", c.expires, exact)
			}
			if l.Prune(gone) != 1 || l.Check(tok, now).Status != Clear || l.Stats().Entries != 0 || len(l.Stats().Shapes) != 0 {
				t.Errorf("expires %+d, exact %v: not gone", c.expires, exact)
			}
			if l.Add(e) != 0 || l.Check(tok, now).Status != Clear {
				t.Errorf("expires %+d, exact %v: came back", c.expires, exact)
			}
			// A clock that was ahead and is set right must not leave the list deaf.
			if l.Prune(gone.Add(-time.Hour)) != 0 || l.Add(e) != 1 || l.Check(tok, now).Status != Revoked {
				t.Errorf("expires %+d, exact %v: not taken after the clock went back", c.expires, exact)
			}
		}
	}
	if Grace < MaxLeeway {
		t.Error("a token outlives its entry")
	}
}

func TestBoundedMemoryIsGivenBack(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	l := fresh()
	empty := heap()
	const n = 100_000
	for i := range n {
		l.Add(Entry{Shape: JTI, Digest: Digest{byte(i), byte(i >> 8), byte(i >> 16)}, Cutoff: NoCutoff, Expires: start + int64(i%3600), Windowed: i%2 == 0})
	}
	full := heap()
	if st := l.Stats(); st.Entries != n || full-empty < 5<<20 {
		t.Fatalf("%+v, %d bytes", st, full-empty)
	}
	if got := l.Prune(now.Add(time.Hour + Grace)); got != n {
		t.Errorf("%d dropped", got)
	}
	if left := heap(); left > empty+1<<20 {
		t.Errorf("%d bytes are left of %d", left-empty, full-empty)
	}
	if st := l.Stats(); st.Entries != 0 || st.Windows != 0 || len(l.windows) != 0 || len(l.always.expiring) != 0 {
		t.Errorf("%+v is left", st)
	}
	runtime.KeepAlive(l)
}

func TestBoundedWhoeverIsRevokedAgainAndAgain(t *testing.T) {
	l := fresh()
	for i := range 1200 { // every second, for two windows
		at := now.Add(time.Duration(i) * time.Second)
		l.Add(bySub("a", at, at.Add(time.Hour)))
	}
	listed := 0
	for _, digests := range l.always.expiring {
		listed += len(digests)
	}
	if l.Stats().Entries != 1 || listed > 3 {
		t.Errorf("%d entries, %d times listed", l.Stats().Entries, listed)
	}
	if l.Prune(now.Add(2*time.Hour+Grace)) != 1 || len(l.always.expiring) != 0 || len(l.always.exact) != 0 {
		t.Error("something is left")
	}
}

func TestNoMissUnderConcurrency(t *testing.T) {
	const writers, perWriter, readers = 3, 300, 3
	tokens := make([]*Token, writers*perWriter)
	entries := make([]Entry, len(tokens))
	for i := range tokens {
		name := fmt.Sprint(i)
		tokens[i] = token(t, JTI, name, Sub, name)
		switch i % 3 {
		case 0:
			entries[i] = byJTI(name, true)
		case 1:
			entries[i] = byJTI(name, false)
		case 2:
			entries[i] = bySub(name, now, now.Add(time.Hour))
		}
	}
	l := fresh()
	var returned [writers]atomic.Int64 // how many Adds of a writer have returned
	var writing, all sync.WaitGroup
	var done atomic.Bool
	for w := range writers {
		writing.Go(func() {
			for i := range perWriter {
				l.Add(entries[w*perWriter+i])
				returned[w].Store(int64(i + 1))
			}
		})
	}
	all.Go(func() { // shapes come and go, and filters are made anew
		for i := int64(0); i < 3000 && !done.Load(); i++ { // never as late as the entries that are asked for
			l.Add(Entry{Shape: "x", Digest: Digest{byte(i)}, Cutoff: NoCutoff, Expires: start - 7200 + i})
			l.Prune(time.Unix(start-7200+i, 0).Add(Window + Grace))
			for range l.Sections() {
				break
			}
		}
	})
	for r := range readers {
		all.Go(func() {
			for round := 0; ; round++ {
				last := done.Load()
				for w := range writers {
					n := returned[w].Load()
					from := int64(0)
					if !last { // look closest at what was added just now, on shared tokens
						from = max(0, n-8)
					}
					for i := from; i < n; i++ {
						if v := l.Check(tokens[w*perWriter+int(i)], now); v.Status != Revoked {
							t.Errorf("reader %d: writer %d's entry %d: %+v", r, w, i, v)
							return
						}
					}
				}
				if last {
					return
				}
			}
		})
	}
	writing.Wait()
	done.Store(true)
	all.Wait()
	if got := l.Stats().Entries; got < len(tokens) {
		t.Errorf("%d entries of %d", got, len(tokens))
	}
}

func TestNoMissWhenOneTokenIsCheckedByMany(t *testing.T) {
	l, tok := fresh(), token(t, "a", "1", "b", "1", "c", "1", "d", "1")
	l.Add(bySub("someone else", now, now.Add(time.Hour)))
	for _, name := range []string{"a", "b", "c"} {
		l.Add(Entry{Shape: Shape(name), Digest: One(name, "2").Digest("i"), Cutoff: NoCutoff, Expires: start})
	}
	l.Add(Entry{Shape: "d", Digest: One("d", "1").Digest("i"), Cutoff: NoCutoff, Expires: start})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				if v := l.Check(tok, now); v.Status != Revoked || v.Shape != "d" {
					t.Errorf("%+v", v)
				}
			}
		})
	}
	all.Wait()
}

func TestUncheckable(t *testing.T) {
	list := func(n int) []any {
		v := make([]any, n)
		for i := range v {
			v[i] = fmt.Sprint(i)
		}
		return v
	}
	entry := func(names ...string) Entry {
		pairs := map[string]string{}
		for _, n := range names {
			pairs[n] = "0"
		}
		s := mustSelect(t, pairs)
		return Entry{Shape: s.Shape(), Digest: s.Digest("i"), Cutoff: NoCutoff, Expires: start}
	}
	other := func(e Entry) Entry { e.Digest[0]++; return e }
	for name, c := range map[string]struct {
		values  map[string]any
		entries []Entry
		want    Verdict
	}{
		"as many as may be":          {map[string]any{"a": list(maxDigests)}, []Entry{other(entry("a"))}, Verdict{Status: Clear}},
		"as many, and one matches":   {map[string]any{"a": list(maxDigests)}, []Entry{entry("a")}, Verdict{Status: Revoked, Shape: "a"}},
		"one more":                   {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("a")}, Verdict{Status: Unknown, Why: Uncheckable}},
		"combined, as many":          {map[string]any{"a": list(32), "b": list(32)}, []Entry{entry("a", "b")}, Verdict{Status: Revoked, Shape: "a\x00b"}},
		"combined, more":             {map[string]any{"a": list(33), "b": list(32)}, []Entry{entry("a", "b")}, Verdict{Status: Unknown, Why: Uncheckable}},
		"each alone":                 {map[string]any{"a": list(33), "b": list(32)}, []Entry{other(entry("a")), other(entry("b"))}, Verdict{Status: Clear}},
		"revoked by another claim":   {map[string]any{"a": list(maxDigests + 1), "c": "0"}, []Entry{entry("a"), entry("c")}, Verdict{Status: Revoked, Shape: "c"}},
		"revoked by a claim before":  {map[string]any{"a": list(maxDigests + 1), "A": "0"}, []Entry{entry("A"), entry("a")}, Verdict{Status: Revoked, Shape: "A"}},
		"a claim nobody asks for":    {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("c")}, Verdict{Status: Clear}},
		"the other claim is missing": {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("a", "b")}, Verdict{Status: Clear}},
		"it comes before":            {map[string]any{"b": list(maxDigests + 1)}, []Entry{entry("a", "b")}, Verdict{Status: Clear}},
		"eight arrays":               {map[string]any{"a": list(99), "b": list(99), "c": list(99), "d": list(99), "e": list(99), "f": list(99), "g": list(99), "h": list(99)}, []Entry{entry("a", "b", "c", "d", "e", "f", "g", "h")}, Verdict{Status: Unknown, Why: Uncheckable}},
	} {
		l := fresh()
		l.Add(c.entries...)
		tok := newToken(t, Claims{Issuer: "i", Expires: now.Add(time.Hour), Values: c.values})
		for range 2 { // the second time from what the token remembers
			v := l.Check(tok, now)
			if v.Digest = (Digest{}); v != c.want {
				t.Errorf("%s: %+v, want %+v", name, v, c.want)
			}
		}
	}
}

func TestNewTokenNeedsIssuerAndExpiry(t *testing.T) {
	for name, c := range map[string]Claims{
		"nothing":         {},
		"no issuer":       {Expires: now},
		"no expiry":       {Issuer: "i"},
		"expiry of 1970":  {Issuer: "i", Expires: time.Unix(0, 1)},
		"before 1970":     {Issuer: "i", Expires: time.Unix(-1, 0)},
		"expiry of 10000": {Issuer: "i", Expires: time.Unix(maxUnix+1, 0)},
	} {
		if tok, err := NewToken(c); err == nil || tok != nil {
			t.Errorf("%s: %+v", name, tok)
		}
	}
	tok := newToken(t, Claims{Issuer: "i", Expires: now, Values: map[string]any{"aud": []any{"x", 1.0, "", nil}}})
	if tok.Issuer() != "i" || !slices.Equal(tok.Values("aud"), []string{"x", "1"}) || tok.Values("sub") != nil {
		t.Errorf("%+v", tok)
	}
}

// A warm check is on the path of every request.
func TestWarmCheckAllocatesNothing(t *testing.T) {
	l := fresh()
	l.Add(byJTI("x", true), byJTI("y", false), bySub("a", now.Add(-time.Hour), now.Add(time.Hour)),
		Entry{Shape: "", Digest: Selector{}.Digest("other"), Cutoff: NoCutoff, Expires: start})
	for name, tok := range map[string]*Token{
		"clear": token(t, JTI, "z", Sub, "b"), "revoked": token(t, JTI, "x"), "spared by iat": token(t, Sub, "a"), "no claims": token(t),
	} {
		want := l.Check(tok, now).Status // warms it
		if n := testing.AllocsPerRun(100, func() {
			if l.Check(tok, now).Status != want {
				t.Error("another verdict")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// A list that was too old is given an entry and then an age: at no time is the
// token clear.
func TestFreshOrUnknownWhileTheListCatchesUp(t *testing.T) {
	tok, e := token(t, JTI, "x"), byJTI("x", true)
	for range 1000 {
		l := New(MaxStaleness(time.Minute))
		l.Advance(now.Add(-time.Hour))
		var writer sync.WaitGroup
		var begun, done atomic.Bool
		writer.Go(func() {
			for !begun.Load() {
			}
			l.Add(e)
			l.Advance(now)
			done.Store(true)
		})
		for last := false; !last; {
			last = done.Load()
			begun.Store(true)
			if v := l.Check(tok, now); v.Status == Clear {
				t.Fatalf("%+v", v)
			}
		}
		writer.Wait()
	}
}
