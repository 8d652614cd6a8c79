package denylist

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// SectionSize is how many digests a section holds at most.
const SectionSize = 4096

// Section is a run of entries that share a shape and a window. A sequence of
// sections is canonical where they ascend by window, then shape, then digest, and
// all but the last of a shape and window are full: the same entries always give
// the same sections.
type Section struct {
	Shape   Shape
	Window  int64    // the window's end in Unix seconds; 0: asked by every check
	Digests []Digest // ascending
	Cuts    []Cut    // where Window is 0: a cut-off and an expiry for each digest
}

// Cut is the part of an entry that is not in its digest.
type Cut struct{ Cutoff, Expires int64 }

// join returns the later of each.
func (c Cut) join(o Cut) Cut { return Cut{max(c.Cutoff, o.Cutoff), max(c.Expires, o.Expires)} }

// Sections yields entries as canonical sections. It sorts them in place. A
// section's slices are good until the next is asked for.
func Sections(entries []Entry) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		slices.SortFunc(entries, func(a, b Entry) int {
			return cmp.Or(cmp.Compare(a.place(), b.place()), strings.Compare(string(a.Shape), string(b.Shape)), compareDigests(a.Digest, b.Digest))
		})
		w := sectioner{yield: yield}
		for _, e := range entries {
			if !w.add(e.Shape, e.place(), e.Digest, Cut{e.Cutoff, e.Expires}) {
				return
			}
		}
		w.flush()
	}
}

// Merge yields the union of two canonical sequences, less what expired in windows
// that ended at or before floor. It ends at the first error of either. A section's
// slices are good until the next is asked for.
func Merge(a, b iter.Seq2[Section, error], floor int64) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		w := sectioner{yield: yield, floor: floor}
		var from [2]cursor
		for i, sequence := range [2]iter.Seq2[Section, error]{a, b} {
			next, stop := iter.Pull2(sequence)
			defer stop()
			from[i].next = next
			from[i].fill()
		}
		for {
			c := &from[0]
			if from[1].before(c) {
				c = &from[1]
			}
			if c.err != nil {
				if w.flush() {
					yield(Section{}, c.err)
				}
				return
			}
			if c.done {
				w.flush()
				return
			}
			if !w.add(c.Shape, c.Window, c.Digests[c.at], c.cut()) {
				return
			}
			if c.at++; c.at == len(c.Digests) {
				c.fill()
			}
		}
	}
}

// cursor is a place in a sequence.
type cursor struct {
	Section
	at   int
	next func() (Section, error, bool)
	done bool
	err  error
}

func (c *cursor) fill() {
	for c.at = 0; ; {
		s, err, ok := c.next()
		if c.Section, c.err, c.done = s, err, !ok; c.done || err != nil || len(s.Digests) > 0 {
			return
		}
	}
}

func (c *cursor) cut() Cut {
	if c.Window != 0 {
		return Cut{}
	}
	return c.Cuts[c.at]
}

// before reports whether c's entry comes first. An error comes before everything,
// the end after.
func (c *cursor) before(o *cursor) bool {
	switch {
	case c.err != nil || o.err != nil:
		return c.err != nil
	case c.done || o.done:
		return !c.done
	case c.Window != o.Window:
		return c.Window < o.Window
	case c.Shape != o.Shape:
		return c.Shape < o.Shape
	}
	return compareDigests(c.Digests[c.at], o.Digests[o.at]) < 0
}

// sectioner makes full sections of entries that come in order, and one of those
// that come twice.
type sectioner struct {
	yield func(Section, error) bool
	floor int64
	Section
}

func (w *sectioner) add(shape Shape, window int64, d Digest, c Cut) bool {
	if window != 0 && window <= w.floor {
		return true
	}
	n := len(w.Digests)
	same := n > 0 && w.Window == window && w.Shape == shape
	if same && w.Digests[n-1] == d {
		if window == 0 {
			w.Cuts[n-1] = w.Cuts[n-1].join(c)
		}
		return true
	}
	if w.expire(); (!same || len(w.Digests) == SectionSize) && !w.flush() {
		return false
	}
	w.Shape, w.Window = shape, window
	w.Digests = append(w.Digests, d)
	if window == 0 {
		w.Cuts = append(w.Cuts, c)
	}
	return true
}

// flush hands on what there is, and reports whether more is wanted.
func (w *sectioner) flush() bool {
	w.expire()
	if w.Window != 0 {
		w.Cuts = nil
	}
	if len(w.Digests) > 0 && !w.yield(w.Section, nil) {
		return false
	}
	w.Digests, w.Cuts = w.Digests[:0], w.Cuts[:0]
	return true
}

// expire takes back the last entry, which nothing more can be joined to, where it
// has expired.
func (w *sectioner) expire() {
	if n := len(w.Digests) - 1; n >= 0 && w.Window == 0 && WindowEnd(w.Cuts[n].Expires) <= w.floor {
		w.Digests, w.Cuts = w.Digests[:n], w.Cuts[:n]
	}
}

// compareDigests is bytes.Compare, quicker.
func compareDigests(a, b Digest) int {
	if c := cmp.Compare(binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])); c != 0 {
		return c
	}
	return cmp.Compare(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:]))
}
