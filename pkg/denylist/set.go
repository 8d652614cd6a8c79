package denylist

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/bits-and-blooms/bloom/v3"
)

// seeds key the filters: without them a revocation could be chosen so that it
// makes a stranger's token a false positive.
var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

const (
	falsePositives = 0.001
	firstCapacity  = 64
)

// set is a bloom filter in front of an exact map. The List's lock guards it.
type set struct {
	shapes   []Shape // those that have entries
	perShape []int   // how many, by index in shapes
	exact    map[Digest]held
	filter   *bloom.BloomFilter
	capacity int // entries the filter is made for
	gone     int // entries dropped since exact and filter were made
	// expiring lists the digests by the end of the window they expire in.
	expiring map[int64][]Digest
}

// held is what the set knows of a digest: its shape and, most often, one cut.
type held struct {
	shape Shape
	cuts  []Cut // none dominated by another; empty in a windowed set
}

func newSet() *set {
	s := &set{exact: map[Digest]held{}, expiring: map[int64][]Digest{}}
	s.grow(firstCapacity)
	return s
}

func (s *set) len() (n int) {
	for _, c := range s.perShape {
		n += c
	}
	return n
}

func keyed(d Digest) (b [16]byte) {
	for i, seed := range seeds {
		h := maphash.Bytes(seed, d[:])
		for j := range 8 {
			b[8*i+j] = byte(h >> (8 * j))
		}
	}
	return b
}

func (s *set) grow(capacity int) {
	s.capacity = capacity
	s.filter = bloom.NewWithEstimates(uint(capacity), falsePositives)
	for d := range s.exact {
		k := keyed(d)
		s.filter.Add(k[:])
	}
}

// lookup returns the latest cut-off at which d is denied.
func (s *set) lookup(d Digest) (cutoff int64, hit, falseHit bool) {
	k := keyed(d)
	if !s.filter.Test(k[:]) {
		return 0, false, false
	}
	h, ok := s.exact[d]
	if !ok {
		return 0, false, true
	}
	if len(h.cuts) == 0 {
		return NoCutoff, true, false
	}
	return h.cuts[len(h.cuts)-1].Cutoff, true, false
}

func (s *set) count(shape Shape, delta int) {
	i := slices.Index(s.shapes, shape)
	if i < 0 {
		s.shapes, s.perShape = append(s.shapes, shape), append(s.perShape, 0)
		i = len(s.shapes) - 1
	}
	if s.perShape[i] += delta; s.perShape[i] == 0 {
		s.shapes, s.perShape = slices.Delete(s.shapes, i, i+1), slices.Delete(s.perShape, i, i+1)
	}
}

func (s *set) has(e Entry) bool {
	h, known := s.exact[e.Digest]
	if e.Windowed || !known {
		return known
	}
	_, changed := union(h.cuts, Cut{e.Cutoff, e.Expires})
	return !changed
}

func (s *set) add(e Entry) bool {
	h, known := s.exact[e.Digest]
	before := max(len(h.cuts), 1)
	if e.Windowed {
		if known {
			return false
		}
	} else {
		cuts, changed := union(h.cuts, Cut{e.Cutoff, e.Expires})
		if !changed {
			return false
		}
		end := WindowEnd(e.Expires)
		// A cut of the same window has listed the digest already: revoking one subject
		// again and again takes no memory.
		if !slices.ContainsFunc(h.cuts, func(c Cut) bool { return WindowEnd(c.Expires) == end }) {
			s.expiring[end] = append(s.expiring[end], e.Digest)
		}
		h.cuts = cuts
	}
	h.shape = e.Shape
	s.exact[e.Digest] = h
	if known {
		s.count(e.Shape, len(h.cuts)-before)
		return true
	}
	s.count(e.Shape, 1)
	if len(s.exact) > s.capacity {
		s.grow(2 * s.capacity)
	} else {
		k := keyed(e.Digest)
		s.filter.Add(k[:])
	}
	return true
}

// union adds c to cuts, which are ascending by cut-off and descending by expiry:
// a cut that ends before another and denies less says nothing and is left out.
// It returns a new slice where anything changes.
func union(cuts []Cut, c Cut) ([]Cut, bool) {
	for _, o := range cuts {
		if o.Cutoff >= c.Cutoff && o.Expires >= c.Expires {
			return cuts, false
		}
	}
	next := make([]Cut, 0, len(cuts)+1)
	for _, o := range cuts {
		if o.Cutoff > c.Cutoff || o.Expires > c.Expires {
			next = append(next, o)
		}
	}
	next = append(next, c)
	slices.SortFunc(next, compareCuts)
	return next, true
}

// prune drops what expired in windows that ended at or before floor.
func (s *set) prune(floor int64) (dropped int) {
	for end, digests := range s.expiring {
		if end > floor {
			continue
		}
		delete(s.expiring, end)
		for _, d := range digests {
			h, ok := s.exact[d]
			if !ok {
				continue
			}
			left := slices.DeleteFunc(slices.Clone(h.cuts), func(c Cut) bool { return WindowEnd(c.Expires) <= floor })
			n := len(h.cuts) - len(left)
			dropped += n
			if n > 0 {
				s.count(h.shape, -n)
			}
			if h.cuts = left; len(left) == 0 {
				delete(s.exact, d)
			} else {
				s.exact[d] = h
			}
		}
	}
	// A bloom filter can't forget, and a Go map keeps its size: make them anew, but not
	// for a few entries, since readers wait.
	if s.gone += dropped; s.gone > len(s.exact)/4 {
		s.gone = 0
		exact := make(map[Digest]held, len(s.exact))
		for d, h := range s.exact {
			exact[d] = h
		}
		s.exact = exact
		s.grow(max(firstCapacity, 2*len(exact)))
	}
	return dropped
}

// copied is a part of a set, for sorting without the lock.
type copied struct {
	digest Digest
	shape  Shape
	cuts   []Cut // never changed once in a set: union makes new ones
}

func (s *set) copy() []copied {
	all := make([]copied, 0, len(s.exact))
	for d, h := range s.exact {
		all = append(all, copied{d, h.shape, h.cuts})
	}
	return all
}

// sectionsOf sorts a set's entries into sections.
func sectionsOf(all []copied, window int64) (sections []Section) {
	slices.SortFunc(all, func(a, b copied) int {
		return cmp.Or(cmp.Compare(a.shape, b.shape), compareDigests(a.digest, b.digest))
	})
	for i, c := range all {
		if i == 0 || c.shape != all[i-1].shape {
			sections = append(sections, Section{Shape: c.shape, Window: window})
		}
		s := &sections[len(sections)-1]
		if window != 0 {
			s.Digests = append(s.Digests, c.digest)
			continue
		}
		for _, cut := range c.cuts {
			s.Digests, s.Cuts = append(s.Digests, c.digest), append(s.Cuts, cut)
		}
	}
	return sections
}
