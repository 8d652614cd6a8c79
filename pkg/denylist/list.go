package denylist

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxStaleness is how old a list may be before Clear becomes Unknown.
const DefaultMaxStaleness = 5 * time.Minute

// List is a set of revocations and the instant up to which it is complete. Make
// one with [New]. Safe for concurrent use.
type List struct {
	maxStaleness time.Duration
	complete     atomic.Pointer[instant] // nil while loading; only moves forward
	falseHits    atomic.Uint64
	changes      changes

	windows atomic.Pointer[[]span] // by number, ascending
	always  group                  // what every check asks

	mu      sync.Mutex // of writers
	floor   int64      // entries that expired at or before it are gone
	scratch Digest
}

// group is the tables that a check asks together, one for each shape: the first of
// a chain.
type group = atomic.Pointer[table]

// span is a run of expiry windows.
type span struct {
	number int64 // of its first window, over spanSize
	groups *[spanSize]group
}

const (
	spanSize      = 64
	windowSeconds = int64(Window / time.Second)
)

// Option changes a default of [New].
type Option func(*List)

// MaxStaleness sets how old the list may be before Clear becomes Unknown.
func MaxStaleness(d time.Duration) Option { return func(l *List) { l.maxStaleness = d } }

// New returns an empty list that is still loading.
func New(options ...Option) *List {
	l := &List{maxStaleness: DefaultMaxStaleness}
	l.windows.Store(&[]span{})
	for _, o := range options {
		o(l)
	}
	return l
}

func find(g *group, shape Shape) *table {
	for t := g.Load(); t != nil; t = t.next.Load() {
		if t.shape == shape {
			return t
		}
	}
	return nil
}

// group returns the group that a window's entries are in, or nil where there is
// none; 0 is the one that every check asks.
func (l *List) group(window int64) *group {
	if window == 0 {
		return &l.always
	}
	number, spans := window/windowSeconds, *l.windows.Load()
	if at := spanAt(spans, number/spanSize); at < len(spans) && spans[at].number == number/spanSize {
		return &spans[at].groups[number%spanSize]
	}
	return nil
}

// spanAt returns the place of the first span from number on.
func spanAt(spans []span, number int64) int {
	low, high := 0, len(spans)
	for low < high {
		if at := (low + high) / 2; spans[at].number < number {
			low = at + 1
		} else {
			high = at
		}
	}
	return low
}

// room returns the group of a window, made where there is none.
func (l *List) room(window int64) *group {
	g := l.group(window)
	if g == nil {
		s := span{window / windowSeconds / spanSize, new([spanSize]group)}
		spans := *l.windows.Load()
		if n := len(spans); n > 0 && spans[n-1].number > s.number {
			spans = slices.Insert(slices.Clone(spans), spanAt(spans, s.number), s)
		} else {
			spans = append(spans, s) // readers of the shorter slice see nothing of it
		}
		l.windows.Store(&spans)
		g = l.group(window)
	}
	return g
}

// table returns the table for entries of a shape and window, made where there is
// none.
func (l *List) table(shape Shape, window int64) *table {
	g := l.room(window)
	t := find(g, shape)
	if t == nil {
		if t = newTable(shape, keyColumns); window == 0 {
			t = newTable(shape, cutColumns)
		}
		link(g, t)
	}
	return t
}

// unlink takes a table out of its group. Who stands on it goes on from there.
func unlink(g *group, t *table) {
	for before := g; before.Load() != nil; before = &before.Load().next {
		if before.Load() == t {
			before.Store(t.next.Load())
			return
		}
	}
}

func link(g *group, t *table) {
	t.next.Store(g.Load())
	g.Store(t)
}

// groups yields the window of each group that has entries, 0 first.
func (l *List) groups() iter.Seq2[int64, *group] {
	return func(yield func(int64, *group) bool) {
		if l.always.Load() != nil && !yield(0, &l.always) {
			return
		}
		for _, s := range *l.windows.Load() {
			for i := range s.groups {
				if g := &s.groups[i]; g.Load() != nil && !yield((s.number*spanSize+int64(i))*windowSeconds, g) {
					return
				}
			}
		}
	}
}

// place returns the window that an entry lies in; 0 where every check asks for it.
func (e Entry) place() int64 {
	if e.Windowed {
		return WindowEnd(e.Expires)
	}
	return 0
}

// Add puts entries into the list and returns how many told it something new. An
// entry that is held already but for its cut-off and expiry is joined: the later
// of each counts.
func (l *List) Add(entries ...Entry) (added int) {
	if added = l.add(entries); added > 0 {
		l.changes.changed()
	}
	return added
}

func (l *List) add(entries []Entry) (added int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if WindowEnd(e.Expires) <= l.floor {
			continue
		}
		l.scratch = e.Digest
		if l.table(e.Shape, e.place()).add(keyOf(&l.scratch), Cut{e.Cutoff, e.Expires}) {
			added++
		}
	}
	return added
}

// AddSection adds a section's entries and returns how many told it something new.
// Where Window is 0, Cuts must be as long as Digests.
func (l *List) AddSection(s Section) (added int) {
	if added = l.addSection(s); added > 0 {
		l.changes.changed()
	}
	return added
}

func (l *List) addSection(s Section) (added int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Window != 0 && s.Window <= l.floor {
		return 0
	}
	var t *table
	for i, d := range s.Digests {
		var c Cut
		if s.Window == 0 {
			if c = s.Cuts[i]; WindowEnd(c.Expires) <= l.floor {
				continue
			}
		}
		if t == nil {
			t = l.table(s.Shape, s.Window)
		}
		l.scratch = d
		if t.add(keyOf(&l.scratch), c) {
			added++
		}
	}
	return added
}

// Join moves the entries of another list into this one and returns how many told
// it something new. It leaves the other one empty, and its age counts for nothing.
func (l *List) Join(other *List) (added int) {
	if other == l {
		return 0
	}
	other.mu.Lock()
	taken := &List{}
	taken.windows.Store(other.windows.Load())
	taken.always.Store(other.always.Load())
	other.windows.Store(&[]span{})
	other.always.Store(nil)
	other.mu.Unlock()

	for window, g := range taken.groups() {
		for t := g.Load(); t != nil; {
			next := t.next.Load()
			added += l.join(t, window)
			t = next
		}
	}
	if added > 0 {
		l.changes.changed()
	}
	return added
}

// join takes in a table that nobody else has.
func (l *List) join(from *table, window int64) (added int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if window != 0 && window <= l.floor {
		return 0
	}
	if window == 0 {
		for lo, more := uint64(0), true; more; {
			_, lo, more = from.expire(lo, l.floor)
		}
	}
	if from.entries.Load() == 0 {
		return 0
	}
	g := l.room(window)
	to := find(g, from.shape)
	if to == nil {
		link(g, from)
		return int(from.entries.Load())
	}
	if had := to.entries.Load(); window != 0 && from.entries.Load() > had {
		// The larger takes in the smaller: writers wait, and live revocations with them.
		from.addAll(to)
		link(g, from)
		unlink(g, to)
		return int(from.entries.Load() - had)
	}
	return to.addAll(from)
}

// Has reports whether adding e would change nothing. It never waits.
func (l *List) Has(e Entry) bool {
	g := l.group(e.place())
	if g == nil {
		return false
	}
	t := find(g, e.Shape)
	return t != nil && t.has(keyOf(&e.Digest), Cut{e.Cutoff, e.Expires})
}

// Prune gives back entries whose window ended more than [Grace] before now, and
// returns how many. Callers pass the earlier of their own clock and the
// authority's, so that a clock gone wrong drops nothing that is still needed. An
// earlier now than before lets entries be added again that were refused as expired.
func (l *List) Prune(now time.Time) (dropped int) {
	if !l.setFloor(max(0, now.Add(-Grace).Unix())) {
		return 0
	}
	var shapes []Shape
	for t := l.always.Load(); t != nil; t = t.next.Load() {
		shapes = append(shapes, t.shape)
	}
	// Where there are no windows to drop whole, writers get their turn after each page.
	// Whatever they do in it, only a table that is still here is touched, and only what
	// lies below the floor of the moment.
	for _, shape := range shapes {
		for lo, more := uint64(0), true; more; {
			var n int
			l.mu.Lock()
			if t := find(&l.always, shape); t == nil {
				more = false
			} else {
				n, lo, more = t.expire(lo, l.floor)
			}
			l.mu.Unlock()
			dropped += n
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for window, g := range l.groups() {
		for t := g.Load(); t != nil; t = t.next.Load() {
			if window != 0 && window <= l.floor {
				dropped += int(t.entries.Swap(0))
			}
			if t.entries.Load() == 0 {
				unlink(g, t)
			}
		}
	}
	spans := slices.DeleteFunc(slices.Clone(*l.windows.Load()), func(s span) bool {
		for i := range s.groups {
			if s.groups[i].Load() != nil {
				return false
			}
		}
		return true
	})
	l.windows.Store(&spans)
	return dropped
}

// setFloor sets the floor, and reports whether a window has ended since: expiry counts
// in whole windows.
func (l *List) setFloor(floor int64) (passed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed = WindowEnd(floor+1) != WindowEnd(l.floor+1)
	l.floor = floor
	return passed
}

// Floor returns what [Merge] needs to leave out the same as Prune has dropped: what
// lies in windows that ended at or before it, in Unix seconds.
func (l *List) Floor() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floor
}

// Check answers whether a token is revoked, as of now: the one call for those who
// verify tokens with a JWT library of their own. c is what that library has verified
// (verifier.ClaimsOf reads it from the token; see [Claims.Lifetime], too). What lacks
// issuer or expiry is Unknown, as [Uncheckable].
func (l *List) Check(c Claims, now time.Time) Verdict {
	t, err := prepare(c)
	if err != nil {
		age, _ := l.Age(now)
		return Verdict{Status: Unknown, Why: Uncheckable, Age: age}
	}
	return l.CheckToken(t, now)
}

// CheckToken is Check for a token that is asked about again and again.
func (l *List) CheckToken(t *Token, now time.Time) (v Verdict) {
	// The age first: read after the match, it could be that of a list that has since
	// been given what the match did not find.
	age, loaded := l.Age(now)
	v.Status, v.Age = Clear, age
	if g := l.group(t.window); g != nil && l.ask(g, t, &v) || l.ask(&l.always, t, &v) {
		v.Age = age
		return v
	}
	switch {
	case !loaded:
		v.Status, v.Why = Unknown, Loading
	case v.Status == Unknown:
	case age > l.maxStaleness:
		v.Status, v.Why = Unknown, Stale
	}
	return v
}

// ask reports whether a group revokes t.
func (l *List) ask(g *group, t *Token, v *Verdict) bool {
	for table := g.Load(); table != nil; table = table.next.Load() {
		p := t.probe(table.shape)
		if p.tooLarge {
			v.Status, v.Why = Unknown, Uncheckable
		}
		for i := range p.keys {
			cutoff, hit, falseHits := table.lookup(p.keys[i])
			if falseHits > 0 {
				l.falseHits.Add(uint64(falseHits))
			}
			if hit && t.iat <= cutoff {
				*v = Verdict{Status: Revoked, Shape: table.shape, Digest: p.digests[i]}
				return true
			}
		}
	}
	return false
}

// instant is a time, and its reading of the wall clock.
type instant struct {
	at      time.Time
	seconds int64
	nanos   int
}

// since is how long ago i was by the wall clock.
func (i *instant) since(now time.Time) time.Duration {
	const years = 1 << 33 // in seconds; more doesn't fit into a Duration
	seconds := min(max(now.Unix()-i.seconds, -years), years)
	return time.Duration(seconds)*time.Second + time.Duration(now.Nanosecond()-i.nanos)
}

// Advance says that the list holds everything that was revoked before through, an
// instant of the local clock. An earlier instant than before changes nothing.
func (l *List) Advance(through time.Time) {
	next := &instant{through, through.Unix(), through.Nanosecond()}
	for {
		old := l.complete.Load()
		if old != nil && !through.After(old.at) || l.complete.CompareAndSwap(old, next) {
			return
		}
	}
}

// Age returns how long ago the list was complete, and whether it ever was. Where
// the monotonic clock and the wall clock disagree on it (the machine slept, or
// the clock was set), the longer time counts.
func (l *List) Age(now time.Time) (time.Duration, bool) {
	through := l.complete.Load()
	if through == nil {
		return 0, false
	}
	return max(0, now.Sub(through.at), through.since(now)), true
}

// MaxStaleness returns the age beyond which Clear becomes Unknown.
func (l *List) MaxStaleness() time.Duration { return l.maxStaleness }

// Stats counts what a list holds.
type Stats struct {
	Entries   int
	Bytes     int            // of memory for entries
	Windows   int            // expiry windows with entries
	Shapes    map[string]int // entries by the claims of their selectors
	Slots     int            // for entries: how many the filter has room for
	FalseHits uint64         // hits of the filter that the entry itself did not confirm
}

// Stats returns the current counts. It makes nobody wait.
func (l *List) Stats() Stats {
	st := Stats{Shapes: map[string]int{}, FalseHits: l.falseHits.Load()}
	for window, g := range l.groups() {
		if window != 0 {
			st.Windows++
		}
		for t := g.Load(); t != nil; t = t.next.Load() {
			n := int(t.entries.Load())
			bytes, slots := t.size()
			st.Entries, st.Bytes, st.Slots = st.Entries+n, st.Bytes+bytes, st.Slots+slots
			st.Shapes[t.shape.String()] += n
		}
	}
	return st
}
