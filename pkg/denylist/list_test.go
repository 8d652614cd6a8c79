package denylist

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
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

// asker makes a token that a check takes for one whose selectors of a shape have
// these digests.
func asker(window, iat int64, shape Shape, digests ...Digest) *Token {
	p := &probe{shape: shape, digests: digests}
	for _, d := range digests {
		p.keys = append(p.keys, keyOf(&d))
	}
	t := &Token{issuer: "i", window: window, iat: iat}
	t.probes.Store(p)
	return t
}

// numbered makes digests as different as any, of which those that differ in series
// or number are never the same.
func numbered(series, number int) (d Digest) {
	mix := func(x uint64) uint64 { // each step can be undone
		x ^= x >> 31
		x *= 0x7fb5d329728ea185
		x ^= x >> 27
		x *= 0x81dadef4bc2dd44d
		return x ^ x>>33
	}
	n := mix(uint64(series)<<40 | uint64(number))
	binary.LittleEndian.PutUint64(d[:], n)
	binary.LittleEndian.PutUint64(d[8:], mix(n+1))
	return d
}

// byJTI revokes one token as its owner does, knowing its exp, or as an admin does.
func byJTI(jti string, exact bool) Entry {
	return Revocation{Issuer: "i", Selector: One(JTI, jti), Expires: now.Add(time.Hour), ExactExpiry: exact}.Entry()
}

func bySub(sub string, issuedBefore, expires time.Time) Entry {
	return Revocation{Issuer: "i", Selector: One(Sub, sub), IssuedBefore: issuedBefore, Expires: expires}.Entry()
}

func windowed(shape Shape, d Digest, exp int64) Entry {
	return Entry{Shape: shape, Digest: d, Cutoff: NoCutoff, Expires: WindowEnd(exp), Windowed: true}
}

func fresh() *List {
	l := New()
	l.Advance(now)
	return l
}

func mustHold(t testing.TB, l *List) {
	t.Helper()
	if err := l.verify(); err != nil {
		t.Fatal(err)
	}
}

func TestFinalOrderAndRepetitionDontMatter(t *testing.T) {
	entries := []Entry{
		byJTI("x", true), byJTI("x", false), byJTI("y", false),
		bySub("a", now, now.Add(time.Hour)), bySub("a", now.Add(-time.Minute), now.Add(2*time.Hour)), bySub("a", now.Add(time.Minute), now.Add(time.Minute)),
	}
	probes := []struct {
		claims []string
		iat    int64
		want   Status
	}{
		{[]string{JTI, "x"}, 0, Revoked}, {[]string{JTI, "y"}, 0, Revoked}, {[]string{JTI, "z"}, 0, Clear},
		{[]string{Sub, "a"}, 60, Revoked}, {[]string{Sub, "a"}, 61, Clear}, {[]string{Sub, "b"}, 0, Clear},
	}
	var want Stats
	var sections []Section
	permute(entries, func(order []Entry) {
		l := fresh()
		for _, e := range order {
			l.Add(e)
		}
		if l.Add(order...) != 0 {
			t.Error("entries count as new twice")
		}
		got := collect(t, Sections(slices.Clone(order)))
		if sections == nil {
			want, sections = l.Stats(), got
		}
		if !sameSections(got, sections) {
			t.Fatalf("%v gives %v, not %v", order, got, sections)
		}
		st := l.Stats()
		if st.FalseHits = want.FalseHits; !reflect.DeepEqual(st, want) || st.Entries != 4 {
			t.Fatalf("%v gives %+v, not %+v", order, st, want)
		}
		for _, p := range probes {
			c := Claims{Issuer: "i", Expires: now.Add(time.Hour), IssuedAt: time.Unix(start+p.iat, 0), Values: map[string]any{p.claims[0]: p.claims[1]}}
			if v := l.CheckToken(newToken(t, c), now); v.Status != p.want {
				t.Fatalf("%v: %v with iat %+d is %s", order, p.claims, p.iat, v.Status)
			}
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
		name   string
		first  Entry
		then   []Entry
		told   int   // how many of those said something new
		denies int64 // the latest iat denied
		until  int   // when the window ends that the entry is kept for
	}{
		{"one", bySub("a", at(0), at(3600)), nil, 0, start, 3600},
		{"the same", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(0), at(3600))}, 0, start, 3600},
		{"earlier, ends earlier", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(-9), at(3500))}, 0, start, 3600},
		{"earlier, ends with it", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(-9), at(3600))}, 0, start, 3600},
		{"earlier, ends later", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(-9), at(3601))}, 1, start, 4200},
		{"later, ends later", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(9), at(3700))}, 1, start + 9, 4200},
		{"later, ends earlier", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(9), at(600))}, 1, start + 9, 3600},
		{"later, ends with it", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(9), at(3600))}, 1, start + 9, 3600},
		{"ends later", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(0), at(7200))}, 1, start, 7200},
		{"one step after the other", bySub("a", at(0), at(3600)), []Entry{bySub("a", at(9), at(600)), bySub("a", at(9), at(3600)), bySub("a", at(9), at(3601))}, 2, start + 9, 4200},
	} {
		l := fresh()
		if l.Add(c.first) != 1 || l.Add(c.then...) != c.told || l.Add(append(c.then, c.first)...) != 0 {
			t.Errorf("%s: counted wrongly", c.name)
		}
		if st := l.Stats(); st.Entries != 1 || st.Shapes["sub"] != 1 || len(st.Shapes) != 1 {
			t.Errorf("%s: %+v", c.name, st)
		}
		spared := func() (spared []int64) {
			for iat := c.denies - 12; iat <= c.denies+2; iat++ {
				if l.CheckToken(newToken(t, Claims{Issuer: "i", Expires: at(3600), IssuedAt: time.Unix(iat, 999), Values: map[string]any{Sub: "a"}}), now).Status != Revoked {
					spared = append(spared, iat)
				}
			}
			return spared
		}
		if got := spared(); !slices.Equal(got, []int64{c.denies + 1, c.denies + 2}) {
			t.Errorf("%s: spares iat %v", c.name, got)
		}
		// What was joined lives until the later expiry.
		l.Prune(at(c.until).Add(Grace - 1))
		if got := spared(); len(got) != 2 {
			t.Errorf("%s: spares iat %v too early", c.name, got)
		}
		if l.Prune(at(c.until).Add(Grace)) != 1 || len(spared()) != 15 {
			t.Errorf("%s: not gone in time", c.name)
		}
		mustHold(t, l)
	}
}

// What was pruned is out, and joins nothing.
func TestFinalWhatIsGoneSaysNoMore(t *testing.T) {
	l := fresh()
	l.Add(bySub("a", now.Add(9*time.Second), now))
	l.Prune(now.Add(Grace))
	l.Add(bySub("a", now, now.Add(time.Hour)), bySub("a", now.Add(9*time.Second), now))
	for iat, want := range map[int64]Status{start: Revoked, start + 1: Clear} {
		tok := newToken(t, Claims{Issuer: "i", Expires: now.Add(time.Hour), IssuedAt: time.Unix(iat, 0), Values: map[string]any{Sub: "a"}})
		if v := l.CheckToken(tok, now); v.Status != want {
			t.Errorf("iat %d: %s, not %s", iat-start, v.Status, want)
		}
	}
}

func TestFinalJoin(t *testing.T) {
	exact, always, cut := byJTI("x", true), byJTI("y", false), bySub("a", now, now.Add(time.Hour))
	later := bySub("a", now.Add(time.Minute), now.Add(time.Minute))
	expired := []Entry{bySub("gone", now, now), windowed(SID, numbered(0, 0), start)}
	l, other := fresh(), New()
	l.Add(exact, cut)
	l.Prune(now.Add(Grace))
	other.Advance(now.Add(time.Hour))
	other.Add(exact, always, later)
	other.Add(expired...)
	if got := l.Join(other); got != 2 {
		t.Errorf("%d entries are new", got)
	}
	mustHold(t, l)
	mustHold(t, other)
	if st := l.Stats(); st.Entries != 3 || st.Windows != 1 || !reflect.DeepEqual(st.Shapes, map[string]int{"jti": 2, "sub": 1}) {
		t.Errorf("%+v", st)
	}
	if st := other.Stats(); st.Entries != 0 || st.Bytes != 0 || len(st.Shapes) != 0 {
		t.Errorf("left %+v", st)
	}
	if age, _ := l.Age(now); age != 0 {
		t.Errorf("the other list's age counts: %v", age)
	}
	for _, e := range []Entry{exact, always, cut, later} {
		if !l.Has(e) || other.Has(e) {
			t.Errorf("%+v is in the wrong list", e)
		}
	}
	// The other is as good as new, and what it is given is its own.
	if other.Add(exact) != 1 || other.Add(byJTI("z", true)) != 1 || l.Has(byJTI("z", true)) || other.Stats().Entries != 2 {
		t.Error("the list that was left is unfit for use")
	}
	if l.Join(New()) != 0 || l.Stats().Entries != 3 {
		t.Error("joining nothing changes something")
	}
	if l.Join(l) != 0 || l.Stats().Entries != 3 || l.CheckToken(token(t, JTI, "x"), now).Status != Revoked {
		t.Error("joining a list to itself changes something")
	}
	mustHold(t, l)
}

// Two lists that join each other at the same time lose nothing and don't wait for
// ever.
func TestFinalJoinBothWays(t *testing.T) {
	a, b := fresh(), fresh()
	const each = 2000
	for i := range each {
		a.Add(windowed(JTI, numbered(1, i), start+int64(i)))
		b.Add(windowed(JTI, numbered(2, i), start+int64(i)))
	}
	var all sync.WaitGroup
	for _, pair := range [][2]*List{{a, b}, {b, a}} {
		all.Go(func() {
			for range 50 {
				pair[0].Join(pair[1])
			}
		})
	}
	all.Wait()
	a.Join(b)
	if got := a.Stats().Entries; got != 2*each {
		t.Errorf("%d entries of %d", got, 2*each)
	}
	mustHold(t, a)
	mustHold(t, b)
}

// Has is true exactly where Add would change nothing, but for what has expired: the
// list refuses it, and doesn't have it.
func TestHasIsWhatAddWouldNotChange(t *testing.T) {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	shape := func(e Entry, s Shape) Entry { e.Shape = s; return e }
	held := []Entry{byJTI("x", true), byJTI("y", false), bySub("a", at(0), at(3600))}
	asked := append(slices.Clone(held),
		byJTI("x", false), byJTI("y", true), byJTI("z", true), byJTI("z", false), shape(byJTI("x", true), SID), shape(byJTI("y", false), SID),
		Revocation{Issuer: "i", Selector: One(JTI, "x"), Expires: at(3601), ExactExpiry: true}.Entry(),
		Revocation{Issuer: "i", Selector: One(JTI, "x"), Expires: at(3599), ExactExpiry: true}.Entry(),
		Revocation{Issuer: "i", Selector: One(JTI, "y"), Expires: at(3601)}.Entry(),
		Revocation{Issuer: "i", Selector: One(JTI, "y"), Expires: at(3599)}.Entry(),
		Revocation{Issuer: "i", Selector: One(JTI, "y"), Expires: at(3600), IssuedBefore: at(0)}.Entry(),
		bySub("b", at(0), at(3600)), bySub("a", at(1), at(3600)), bySub("a", at(0), at(3601)), bySub("a", at(1), at(3000)),
		bySub("a", at(-1), at(3600)), bySub("a", at(0), at(3599)), bySub("a", at(-1), at(3601)), bySub("a", at(-1), at(3599)),
	)
	made := func() *List {
		l := fresh()
		l.Prune(at(0))
		l.Add(held...)
		return l
	}
	for _, e := range asked {
		l := made()
		has, before := l.Has(e), l.Stats()
		if !reflect.DeepEqual(l.Stats(), before) {
			t.Errorf("asking for %+v changed the list", e)
		}
		if changed := l.Add(e) == 1; has == changed {
			t.Errorf("has %+v: %v, and yet adding it changes something: %v", e, has, changed)
		}
		if !l.Has(e) {
			t.Errorf("%+v was added, and is not there", e)
		}
	}
	for _, c := range []struct {
		expired Entry
		has     bool // since a live one says as much
	}{
		{bySub("a", at(-9), at(-1200)), true}, {bySub("a", at(9), at(-1200)), false}, {bySub("b", at(-9), at(-1200)), false},
		{windowed(JTI, byJTI("x", true).Digest, start-1200), false},
	} {
		if l := made(); l.Has(c.expired) != c.has || l.Add(c.expired) != 0 || l.Has(c.expired) != c.has {
			t.Errorf("%+v has expired", c.expired)
		}
	}
	if New().Has(held[0]) || New().Has(held[2]) {
		t.Error("a new list has something")
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
			if l.Prune(gone.Add(-1)) != 0 || l.CheckToken(tok, now).Status != Revoked {
				t.Errorf("expires %+d, exact %v: gone too early", c.expires, exact)
			}
			if l.Prune(gone) != 1 || l.CheckToken(tok, now).Status != Clear || l.Stats().Entries != 0 || len(l.Stats().Shapes) != 0 {
				t.Errorf("expires %+d, exact %v: not gone", c.expires, exact)
			}
			other := New()
			other.Add(e)
			for name, added := range map[string]int{
				"Add": l.Add(e), "AddSection": l.AddSection(collect(t, Sections([]Entry{e}))[0]), "Join": l.Join(other),
			} {
				if added != 0 || l.CheckToken(tok, now).Status != Clear {
					t.Errorf("expires %+d, exact %v: came back by %s", c.expires, exact, name)
				}
			}
			mustHold(t, l)
			// A clock that was ahead and is set right must not leave the list deaf.
			if l.Prune(gone.Add(-time.Hour)) != 0 || l.Add(e) != 1 || l.CheckToken(tok, now).Status != Revoked {
				t.Errorf("expires %+d, exact %v: not taken after the clock went back", c.expires, exact)
			}
			mustHold(t, l)
		}
	}
	if Grace < MaxLeeway {
		t.Error("a token outlives its entry")
	}
}

// However absurd the clock: it takes nothing that is still needed where it is
// behind, and where it was ahead the list takes entries again as soon as it is right.
func TestBoundedByAnAbsurdClock(t *testing.T) {
	for name, at := range instants() {
		l := fresh()
		l.Add(byJTI("x", true), byJTI("y", false))
		want := 2
		if at.After(now.Add(2 * time.Hour)) {
			want = 0
		}
		if l.Prune(at); l.Stats().Entries != want {
			t.Errorf("%s: %+v", name, l.Stats())
		}
		mustHold(t, l)
		l.Prune(now)
		if l.Add(byJTI("x", true), byJTI("y", false)) != 2-want || l.Stats().Entries != 2 {
			t.Errorf("%s: %+v after the clock was set right", name, l.Stats())
		}
		mustHold(t, l)
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestBoundedMemoryIsGivenBack(t *testing.T) {
	for _, exact := range []bool{true, false} {
		l := fresh()
		empty := heap()
		const n = 100_000
		for i := range n {
			e := Entry{Shape: JTI, Digest: numbered(0, i), Cutoff: NoCutoff, Expires: start + int64(i%3600), Windowed: exact}
			if i%2 == 0 {
				e.Shape = Sub
			}
			l.Add(e)
		}
		took, st := heap()-empty, l.Stats()
		// A slot without cuts is 9 bytes, and one with cuts 33.
		least := n * 9
		if !exact {
			least = n * 33
		}
		if st.Entries != n || st.Bytes < least || st.Slots < n || st.Bytes > 3*least/2 {
			t.Errorf("exact %v: %+v", exact, st)
		}
		if took < st.Bytes*9/10 || took > st.Bytes*11/10+1<<16 {
			t.Errorf("exact %v: %d bytes of memory, said to be %d", exact, took, st.Bytes)
		}
		mustHold(t, l)
		if got := l.Prune(now.Add(time.Hour + Grace)); got != n {
			t.Errorf("exact %v: %d dropped", exact, got)
		}
		if left := heap() - empty; left > 1<<16 {
			t.Errorf("exact %v: %d bytes are left of %d", exact, left, took)
		}
		if st := l.Stats(); st.Entries != 0 || st.Bytes != 0 || st.Slots != 0 || st.Windows != 0 || len(st.Shapes) != 0 || len(*l.windows.Load()) != 0 || l.always.Load() != nil {
			t.Errorf("exact %v: %+v is left", exact, st)
		}
		runtime.KeepAlive(l)
	}
}

// A window that is dropped leaves the list as if it had never been.
func TestBoundedADroppedWindowTakesItsBytes(t *testing.T) {
	const each = 10_000
	one, two := fresh(), fresh()
	for i := range each {
		for _, shape := range []Shape{JTI, Fingerprint} {
			stays := windowed(shape, numbered(0, i), start+1200)
			one.Add(stays)
			two.Add(stays, windowed(shape, numbered(1, i), start+600))
		}
	}
	both := two.Stats()
	if got := two.Prune(now.Add(600*time.Second + Grace)); got != 2*each {
		t.Errorf("%d dropped", got)
	}
	st, want := two.Stats(), one.Stats()
	if !reflect.DeepEqual(st, want) || both.Bytes != 2*want.Bytes || both.Windows != 2 {
		t.Errorf("%+v of %+v is left, not %+v", st, both, want)
	}
	mustHold(t, two)
}

func TestBoundedWhatEveryCheckAsksShrinks(t *testing.T) {
	for _, n := range []int{5_000, 80_000 + 120_000/slowly} { // one page, and several
		var few []Entry
		for i := range n / 50 {
			few = append(few, Entry{Shape: Sub, Digest: numbered(0, i), Cutoff: start, Expires: start + 1200})
		}
		alone, l := fresh(), fresh()
		alone.Add(few...)
		l.Add(few...)
		for i := range n {
			l.Add(Entry{Shape: Sub, Digest: numbered(1, i), Cutoff: start, Expires: start + 600})
		}
		full := l.Stats()
		if got := l.Prune(now.Add(600*time.Second + Grace)); got != n {
			t.Errorf("%d dropped", got)
		}
		mustHold(t, l)
		if st, want := l.Stats(), alone.Stats(); st.Entries != len(few) || st.Bytes > want.Bytes*3/2 || st.Bytes > full.Bytes/20 {
			t.Errorf("%+v of %+v is left, not %+v", st, full, want)
		}
		for _, e := range few {
			if !l.Has(e) {
				t.Fatalf("%+v is gone", e)
			}
		}
	}
}

func TestBoundedWhoeverIsRevokedAgainAndAgain(t *testing.T) {
	l := fresh()
	l.Add(bySub("a", now, now.Add(time.Hour)), windowed(JTI, Digest{}, start))
	first := l.Stats()
	for i := range 1200 { // every second, for two windows
		at := now.Add(time.Duration(i) * time.Second)
		l.Add(bySub("a", at, at.Add(time.Hour)), windowed(JTI, Digest{}, start))
	}
	if st := l.Stats(); !reflect.DeepEqual(st, first) || st.Entries != 2 {
		t.Errorf("%+v became %+v", first, st)
	}
	if l.Prune(now.Add(2*time.Hour+Grace)) != 2 || l.Stats().Bytes != 0 {
		t.Error("something is left")
	}
}

// Years of service in a second: tokens are revoked all the time, and what they take
// stays what one lifetime takes.
func TestBoundedForEver(t *testing.T) {
	const (
		lifetime = 1800
		step     = 10
		perStep  = 40 // of them half in windows
	)
	l := fresh()
	var settled, most Stats
	at := int64(start)
	kept := lifetime + int64((Window+Grace)/time.Second) // the longest that an entry is held
	for n := 0; at < start+3*lifetime+kept; at += step {
		for range perStep / 4 {
			n++
			exp := at + int64(n*7919%lifetime)
			l.Add(windowed(JTI, numbered(0, n), exp), windowed(Fingerprint, numbered(0, n), exp),
				Entry{Shape: Sub, Digest: numbered(1, n), Cutoff: at, Expires: at + lifetime},
				Entry{Shape: Sub, Digest: numbered(2, n%100), Cutoff: at, Expires: at + lifetime}) // who is revoked every minute
		}
		l.Prune(time.Unix(at, 0))
		st := l.Stats()
		// Nothing that can still be presented is gone, and nothing else is left.
		if live := 100 + perStep/4*int(min(at-start, lifetime)/step); at > start+1000 && st.Entries < live {
			t.Fatalf("%d s: %d entries, and %d are live", at-start, st.Entries, live)
		}
		if st.Entries > 100+3*perStep/4*int(min(at-start+step, kept)/step) || st.Windows > int(kept)/600+1 || len(st.Shapes) > 3 {
			t.Fatalf("%d s: %+v", at-start, st)
		}
		into := &most
		if at < start+kept+600 { // windows fill and go
			into = &settled
		}
		into.Entries, into.Bytes = max(into.Entries, st.Entries), max(into.Bytes, st.Bytes)
	}
	mustHold(t, l)
	if most.Entries > settled.Entries*101/100 || most.Bytes > settled.Bytes*11/10 || most.Bytes > 60*most.Entries {
		t.Errorf("grew from %+v to %+v", settled, most)
	}
	for end := at + kept; at < end; at += step {
		l.Prune(time.Unix(at, 0))
	}
	if st := l.Stats(); st.Entries != 0 || st.Bytes != 0 || st.Windows != 0 || len(*l.windows.Load()) != 0 {
		t.Errorf("left: %+v", st)
	}
	mustHold(t, l)
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
				if v := l.CheckToken(tok, now); v.Status != Revoked || v.Shape != "d" {
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
	exact := func(e Entry) Entry { e.Windowed, e.Expires = true, start+3600; return e }
	for name, c := range map[string]struct {
		values  map[string]any
		entries []Entry
		want    Verdict
	}{
		"as many as may be":           {map[string]any{"a": list(maxDigests)}, []Entry{other(entry("a"))}, Verdict{Status: Clear}},
		"as many, and one matches":    {map[string]any{"a": list(maxDigests)}, []Entry{entry("a")}, Verdict{Status: Revoked, Shape: "a"}},
		"one more":                    {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("a")}, Verdict{Status: Unknown, Why: Uncheckable}},
		"one more, in a window":       {map[string]any{"a": list(maxDigests + 1)}, []Entry{exact(entry("a"))}, Verdict{Status: Unknown, Why: Uncheckable}},
		"combined, as many":           {map[string]any{"a": list(32), "b": list(32)}, []Entry{entry("a", "b")}, Verdict{Status: Revoked, Shape: "a\x00b"}},
		"combined, more":              {map[string]any{"a": list(33), "b": list(32)}, []Entry{entry("a", "b")}, Verdict{Status: Unknown, Why: Uncheckable}},
		"each alone":                  {map[string]any{"a": list(33), "b": list(32)}, []Entry{other(entry("a")), other(entry("b"))}, Verdict{Status: Clear}},
		"revoked by another claim":    {map[string]any{"a": list(maxDigests + 1), "c": "0"}, []Entry{entry("a"), entry("c")}, Verdict{Status: Revoked, Shape: "c"}},
		"revoked by a claim before":   {map[string]any{"a": list(maxDigests + 1), "A": "0"}, []Entry{entry("A"), entry("a")}, Verdict{Status: Revoked, Shape: "A"}},
		"revoked outside the window":  {map[string]any{"a": list(maxDigests + 1), "c": "0"}, []Entry{exact(entry("a")), entry("c")}, Verdict{Status: Revoked, Shape: "c"}},
		"too many, and others to ask": {map[string]any{"a": list(maxDigests + 1), "c": "0"}, []Entry{exact(entry("a")), other(entry("c"))}, Verdict{Status: Unknown, Why: Uncheckable}},
		"a claim nobody asks for":     {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("c")}, Verdict{Status: Clear}},
		"the other claim is missing":  {map[string]any{"a": list(maxDigests + 1)}, []Entry{entry("a", "b")}, Verdict{Status: Clear}},
		"it comes before":             {map[string]any{"b": list(maxDigests + 1)}, []Entry{entry("a", "b")}, Verdict{Status: Clear}},
		"eight arrays":                {map[string]any{"a": list(99), "b": list(99), "c": list(99), "d": list(99), "e": list(99), "f": list(99), "g": list(99), "h": list(99)}, []Entry{entry("a", "b", "c", "d", "e", "f", "g", "h")}, Verdict{Status: Unknown, Why: Uncheckable}},
	} {
		l := fresh()
		l.Add(c.entries...)
		tok := newToken(t, Claims{Issuer: "i", Expires: now.Add(time.Hour), Values: c.values})
		for range 2 { // the second time from what the token remembers
			v := l.CheckToken(tok, now)
			if v.Digest = (Digest{}); v != c.want {
				t.Errorf("%s: %+v, want %+v", name, v, c.want)
			}
		}
		l.Advance(now.Add(-time.Hour))
		loading := New()
		loading.Add(c.entries...)
		want := c.want
		if want.Status != Revoked {
			want = Verdict{Status: Unknown, Why: Loading}
		}
		v := loading.CheckToken(tok, now)
		if v.Digest = (Digest{}); v != want {
			t.Errorf("%s, while loading: %+v, want %+v", name, v, want)
		}
	}
}

// TestBoundedTokens: what a token takes is bounded by its own length, and not by how often
// a long name has a value.
func TestBoundedTokens(t *testing.T) {
	name, many := strings.Repeat("n", 2000), make([]any, 1000)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	token, err := NewToken(Claims{
		Issuer: "i", Expires: time.Unix(2_000_000_000, 0), KeyID: "k",
		Values: map[string]any{name: many, "": "nameless", "sub": "alice", "kid": "another"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for claim, want := range map[string]string{name: fmt.Sprint(many), "": "[nameless]", "sub": "[alice]", KeyID: "[k]"} {
		if got := fmt.Sprint(token.Values(claim)); got != want {
			t.Errorf("%.10s: %.80s, want %.80s", claim, got, want)
		}
	}
	texts := map[*byte]int{}
	for _, p := range token.pairs {
		for _, s := range []string{p.Claim, p.Value} {
			if s != "" {
				texts[unsafe.StringData(s)] = len(s)
			}
		}
	}
	size := 0
	for _, n := range texts {
		size += n
	}
	if size > 6000 {
		t.Errorf("%d bytes of text", size)
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
	// The last and the first second that a token can name have windows like any other.
	for _, exp := range []int64{1, maxUnix} {
		l := fresh()
		tok := newToken(t, Claims{Issuer: "i", Expires: time.Unix(exp, 0), Values: map[string]any{JTI: "x"}})
		l.Add(Revocation{Issuer: "i", Selector: One(JTI, "x"), Expires: time.Unix(exp, 0), ExactExpiry: true}.Entry())
		if v := l.CheckToken(tok, now); v.Status != Revoked || l.Stats().Windows != 1 {
			t.Errorf("exp %d: %+v", exp, v)
		}
		mustHold(t, l)
	}
}

// A warm check is on the path of every request.
func TestWarmCheckAllocatesNothing(t *testing.T) {
	groups := func(prefix string) (v []any) {
		for i := range 9 {
			v = append(v, prefix+fmt.Sprint(i))
		}
		return v
	}
	l, stale, loading := fresh(), New(MaxStaleness(time.Second)), New()
	stale.Advance(now.Add(-time.Minute))
	both := mustSelect(t, map[string]string{"groups": "g8", "aud": "a8"})
	entries := []Entry{
		byJTI("x", true), byJTI("y", false), bySub("a", now.Add(-time.Hour), now.Add(time.Hour)),
		{Shape: "", Digest: Selector{}.Digest("other"), Cutoff: NoCutoff, Expires: start},
		{Shape: SID, Digest: One(SID, "s").Digest("i"), Cutoff: NoCutoff, Expires: start},
		{Shape: both.Shape(), Digest: both.Digest("i"), Cutoff: NoCutoff, Expires: start},
		windowed(both.Shape(), numbered(0, 0), start+3600), windowed(Fingerprint, numbered(0, 0), start+3600),
	}
	for i := range 5000 {
		entries = append(entries, windowed(JTI, numbered(1, i), start+3600), Entry{Shape: JTI, Digest: numbered(1, i), Cutoff: NoCutoff, Expires: start})
	}
	for _, l := range []*List{l, stale, loading} {
		l.Add(entries...)
	}
	claims := Claims{Issuer: "i", Expires: now.Add(time.Hour), IssuedAt: now}
	with := func(values map[string]any) *Token { c := claims; c.Values = values; return newToken(t, c) }
	var wide []any
	for i := range maxDigests + 1 {
		wide = append(wide, fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		token *Token
		want  Status
	}{
		"clear":                    {token(t, JTI, "z", Sub, "b"), Clear},
		"revoked":                  {token(t, JTI, "x"), Revoked},
		"revoked outside windows":  {token(t, JTI, "y"), Revoked},
		"revoked by another claim": {token(t, JTI, "z", SID, "s"), Revoked},
		"spared by iat":            {token(t, Sub, "a"), Clear},
		"no claims":                {token(t), Clear},
		"arrays, clear":            {with(map[string]any{"groups": groups("x"), "aud": groups("y")}), Clear},
		"arrays, revoked":          {with(map[string]any{"groups": groups("g"), "aud": groups("a")}), Revoked},
		"arrays too large":         {with(map[string]any{"groups": wide, "aud": groups("a")}), Unknown},
		"another window":           {newToken(t, Claims{Issuer: "i", Expires: now.Add(1e6 * time.Second), Values: map[string]any{JTI: "x"}}), Clear},
	} {
		for which, l := range map[string]*List{"fresh": l, "stale": stale, "loading": loading} {
			want := c.want
			if which != "fresh" && want == Clear {
				want = Unknown
			}
			if v := l.CheckToken(c.token, now); v.Status != want { // warms it
				t.Errorf("%s, %s: %+v", name, which, v)
			}
			remembered := c.token.probes.Load()
			if n := testing.AllocsPerRun(100, func() {
				if l.CheckToken(c.token, now).Status != want {
					t.Error("another verdict")
				}
			}); n != 0 {
				t.Errorf("%s, %s: %v allocations", name, which, n)
			}
			if c.token.probes.Load() != remembered {
				t.Errorf("%s, %s: digests are computed again", name, which)
			}
		}
		// Without its claims it could not compute them.
		pairs := c.token.pairs
		c.token.pairs = nil
		if v := l.CheckToken(c.token, now); v.Status != c.want {
			t.Errorf("%s, from memory: %+v", name, v)
		}
		c.token.pairs = pairs
	}
}
