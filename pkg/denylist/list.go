package denylist

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
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
	complete     atomic.Pointer[time.Time] // nil while loading; only moves forward
	falseHits    atomic.Uint64

	mu      sync.RWMutex // guards the rest
	windows map[int64]*set
	always  *set
	floor   int64 // entries that expired at or before it are gone
}

// Option changes a default of [New].
type Option func(*List)

// MaxStaleness sets how old the list may be before Clear becomes Unknown.
func MaxStaleness(d time.Duration) Option { return func(l *List) { l.maxStaleness = d } }

// New returns an empty list that is still loading.
func New(options ...Option) *List {
	l := &List{maxStaleness: DefaultMaxStaleness, windows: map[int64]*set{}, always: newSet()}
	for _, o := range options {
		o(l)
	}
	return l
}

// Add puts entries into the list and returns how many were new.
func (l *List) Add(entries ...Entry) (added int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if WindowEnd(e.Expires) <= l.floor {
			continue
		}
		s := l.always
		if e.Windowed {
			end := WindowEnd(e.Expires)
			if s = l.windows[end]; s == nil {
				s = newSet()
				l.windows[end] = s
			}
		}
		if s.add(e) {
			added++
		}
	}
	return added
}

// Has reports whether adding e would change nothing. It doesn't wait: where the
// list is being written this moment, it answers false.
func (l *List) Has(e Entry) bool {
	if !l.mu.TryRLock() {
		return false
	}
	defer l.mu.RUnlock()
	s := l.always
	if e.Windowed {
		s = l.windows[WindowEnd(e.Expires)]
	}
	return s != nil && s.has(e)
}

// Prune gives back entries whose window ended more than [Grace] before now, and
// returns how many. Callers pass the earlier of their own clock and the
// authority's, so that a clock gone wrong drops nothing that is still needed. An
// earlier now than before lets entries be added again that were refused as expired.
func (l *List) Prune(now time.Time) (dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	floor := now.Add(-Grace).Unix()
	if floor == l.floor {
		return 0
	}
	l.floor = floor
	for end, s := range l.windows {
		if end <= floor {
			dropped += s.len()
			delete(l.windows, end)
		}
	}
	return dropped + l.always.prune(floor)
}

// Check answers whether t is revoked, as of now.
func (l *List) Check(t *Token, now time.Time) Verdict {
	// The age first: read after the match, it could be that of a list that has since
	// been given what the match did not find.
	age, loaded := l.Age(now)
	v := l.match(t)
	v.Age = age
	if v.Status == Revoked {
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

func (l *List) match(t *Token) Verdict {
	l.mu.RLock()
	defer l.mu.RUnlock()
	answer := Verdict{Status: Clear}
	for _, s := range [2]*set{l.windows[WindowEnd(t.exp)], l.always} {
		if s == nil {
			continue
		}
		for _, shape := range s.shapes {
			p := t.probe(shape)
			if p.tooLarge {
				answer.Status, answer.Why = Unknown, Uncheckable
			}
			for _, d := range p.digests {
				cut, hit, falseHit := s.lookup(d)
				if falseHit {
					l.falseHits.Add(1)
				}
				if hit && t.iat <= cut {
					return Verdict{Status: Revoked, Shape: shape, Digest: d}
				}
			}
		}
	}
	return answer
}

// Advance says that the list holds everything that was revoked before through, an
// instant of the local clock. An earlier instant than before changes nothing.
func (l *List) Advance(through time.Time) {
	for {
		old := l.complete.Load()
		if old != nil && !through.After(*old) || l.complete.CompareAndSwap(old, &through) {
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
	return max(0, now.Sub(*through), now.Round(0).Sub(through.Round(0))), true
}

// MaxStaleness returns the age beyond which Clear becomes Unknown.
func (l *List) MaxStaleness() time.Duration { return l.maxStaleness }

// Stats counts what a list holds.
type Stats struct {
	Entries   int
	Windows   int            // expiry windows with entries
	Shapes    map[string]int // entries by the claims of their selectors
	FalseHits uint64         // filter hits that the exact set did not confirm
}

// Stats returns the current counts.
func (l *List) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	st := Stats{Windows: len(l.windows), Shapes: map[string]int{}, FalseHits: l.falseHits.Load()}
	count := func(s *set) {
		st.Entries += s.len()
		for i, shape := range s.shapes {
			st.Shapes[shape.String()] += s.perShape[i]
		}
	}
	for _, s := range l.windows {
		count(s)
	}
	count(l.always)
	return st
}

// Section is a part of a list that shares a shape and a window, for snapshots.
type Section struct {
	Shape   Shape
	Window  int64    // the window's end in Unix seconds; 0: asked by every check
	Digests []Digest // ascending; where Window is 0, one may repeat with another cut-off
	Cuts    []Cut    // where Window is 0: a cut-off and an expiry for each digest
}

// Cut is the part of an entry that is not in its digest.
type Cut struct{ Cutoff, Expires int64 }

// Sections returns the whole list in canonical order: by window, then by shape,
// then by digest, cut-off. Two lists with the same entries give the same
// sections. Entries added meanwhile may or may not be among them.
func (l *List) Sections() iter.Seq[Section] {
	return func(yield func(Section) bool) {
		l.mu.RLock()
		ends := append([]int64{0}, slices.Sorted(maps.Keys(l.windows))...)
		l.mu.RUnlock()
		for _, end := range ends {
			l.mu.RLock()
			s := l.always
			if end != 0 {
				s = l.windows[end]
			}
			var all []copied
			if s != nil {
				all = s.copy()
			}
			l.mu.RUnlock()
			for _, section := range sectionsOf(all, end) {
				if !yield(section) {
					return
				}
			}
		}
	}
}

// AddSection adds a section's entries and returns how many were new. Where Window
// is 0, Cuts must be as long as Digests.
func (l *List) AddSection(s Section) (added int) {
	entries := make([]Entry, 0, min(len(s.Digests), 4096))
	for i, d := range s.Digests {
		e := Entry{Shape: s.Shape, Digest: d, Cutoff: NoCutoff, Expires: s.Window, Windowed: s.Window != 0}
		if s.Window == 0 {
			e.Cutoff, e.Expires = s.Cuts[i].Cutoff, s.Cuts[i].Expires
		}
		if entries = append(entries, e); len(entries) == cap(entries) {
			added += l.Add(entries...)
			entries = entries[:0]
		}
	}
	return added + l.Add(entries...)
}

func compareCuts(a, b Cut) int {
	return cmp.Or(cmp.Compare(a.Cutoff, b.Cutoff), cmp.Compare(a.Expires, b.Expires))
}

func compareDigests(a, b Digest) int { return bytes.Compare(a[:], b[:]) }
