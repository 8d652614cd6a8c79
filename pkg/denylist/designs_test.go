package denylist

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"testing"

	"github.com/bits-and-blooms/bloom/v3"
)

// design is one of those that docs/decisions/9-denylist.md compares: as little as
// holds digests by window, and answers which of some it has.
type design interface {
	load(window int64, ascending []Digest)
	add(window int64, d Digest)
	ask(qs *questions, ds []Digest) (has int)
}

var designs = [...]func() design{
	func() design { return &filtersAndMaps{windows: map[int64]*filterAndMap{}} },
	func() design { return sortedDigests{} },
	func() design { return tables{New()} },
}

// filtersAndMaps is what this package was: a bloom filter, keyed against chosen
// revocations, in front of a Go map for each window, and one lock for readers and
// writers.
type filtersAndMaps struct {
	mu      sync.RWMutex
	windows map[int64]*filterAndMap
}

type filterAndMap struct {
	filter   *bloom.BloomFilter
	capacity int
	exact    map[Digest]shapeAndCuts
}

type shapeAndCuts struct {
	shape Shape
	cuts  []Cut
}

var filterSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func seeded(d Digest) (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:], maphash.Bytes(filterSeeds[0], d[:]))
	binary.LittleEndian.PutUint64(b[8:], maphash.Bytes(filterSeeds[1], d[:]))
	return b
}

func (f *filtersAndMaps) load(window int64, ascending []Digest) {
	for _, d := range ascending {
		f.add(window, d)
	}
}

func (f *filtersAndMaps) add(window int64, d Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.windows[window]
	if w == nil {
		w = &filterAndMap{bloom.NewWithEstimates(64, 0.001), 64, map[Digest]shapeAndCuts{}}
		f.windows[window] = w
	}
	w.exact[d] = shapeAndCuts{JTI, nil}
	if len(w.exact) <= w.capacity {
		k := seeded(d)
		w.filter.Add(k[:])
		return
	}
	w.capacity *= 2
	w.filter = bloom.NewWithEstimates(uint(w.capacity), 0.001)
	for d := range w.exact {
		k := seeded(d)
		w.filter.Add(k[:])
	}
}

func (f *filtersAndMaps) has(window int64, d Digest) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	w := f.windows[window]
	if w == nil {
		return false
	}
	if k := seeded(d); !w.filter.Test(k[:]) {
		return false
	}
	_, ok := w.exact[d]
	return ok
}

func (f *filtersAndMaps) ask(qs *questions, ds []Digest) (has int) {
	for i := range ds {
		if f.has(qs.window(i), ds[i]) {
			has++
		}
	}
	return has
}

// sortedDigests is one array for each window, searched by where a digest's first
// bytes say that it is. Readers may hold an array, so adding makes another.
type sortedDigests map[int64][]Digest

func (s sortedDigests) load(window int64, ascending []Digest) { s[window] = slices.Clone(ascending) }

func (s sortedDigests) add(window int64, d Digest) {
	old := s[window]
	at, _ := slices.BinarySearchFunc(old, d, compareDigests)
	all := make([]Digest, len(old)+1)
	copy(all, old[:at])
	all[at] = d
	copy(all[at+1:], old[at:])
	s[window] = all
}

func leading(d *Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

func (s sortedDigests) has(window int64, d *Digest) bool {
	all, x := s[window], leading(d)
	n := uint64(len(all))
	if n == 0 {
		return false
	}
	at, _ := bits.Mul64(x, n)
	for range 2 { // two corrections by how far off it is come close
		if v := leading(&all[at]); v <= x {
			off, _ := bits.Mul64(x-v, n)
			at = min(at+off, n-1)
		} else {
			off, _ := bits.Mul64(v-x, n)
			at -= min(off, at)
		}
	}
	for at > 0 && leading(&all[at]) >= x {
		at--
	}
	for at < n && leading(&all[at]) <= x {
		if all[at] == *d {
			return true
		}
		at++
	}
	return false
}

func (s sortedDigests) ask(qs *questions, ds []Digest) (has int) {
	for i := range ds {
		if s.has(qs.window(i), &ds[i]) {
			has++
		}
	}
	return has
}

// tables is what this package is.
type tables struct{ *List }

func (l tables) load(window int64, ascending []Digest) {
	l.AddSection(Section{Shape: JTI, Window: window, Digests: ascending})
}

func (l tables) add(window int64, d Digest) { l.Add(windowed(JTI, d, window)) }

func (l tables) ask(qs *questions, ds []Digest) (has int) {
	for i := range ds {
		if t := find(l.group(qs.window(i)), JTI); t != nil {
			if _, hit, _ := t.lookup(qs.keys[i]); hit {
				has++
			}
		}
	}
	return has
}

// filled is a design with entries in it, and the memory that they take.
type filled struct {
	design
	bytes float64
}

// filledDesigns are all of them with the same entries.
var filledDesigns = perSize(func(n int) (all []filled) {
	digests := ascendingDigests(n)
	for _, empty := range designs {
		before := heap()
		f := filled{design: empty()}
		for w, ds := range digests {
			f.load(w, ds)
		}
		f.bytes = float64(heap()-before) / float64(n)
		all = append(all, f)
	}
	return all
})

// BenchmarkDesigns: what entries take, looking for digests in the windows of a day
// (without what [List.CheckToken] does around it), and adding one at a time to a window
// that has half of its 69,444.
func BenchmarkDesigns(b *testing.B) {
	for _, n := range []int{million, 10 * million} {
		clear, clearDigests := neverRevoked()
		revoked, revokedDigests := revokedOf(n)
		asking := func(qs questions, ds []Digest, want int) (each []func()) {
			for _, f := range filledDesigns(n) {
				each = append(each, func() {
					if f.ask(&qs, ds) != want {
						b.Fatal("another answer")
					}
				})
			}
			return each
		}
		b.Run("clear/"+sized(n), func(b *testing.B) {
			reportDesigns(b, inTurns(b, inStream, asking(clear, clearDigests, 0)...), "ns/check")
		})
		b.Run("revoked/"+sized(n), func(b *testing.B) {
			reportDesigns(b, inTurns(b, inStream, asking(revoked, revokedDigests, inStream)...), "ns/check")
		})
		b.Run("memory/"+sized(n), func(b *testing.B) {
			var bytes []float64
			for b.Loop() { // they don't change once filled
			}
			for _, f := range filledDesigns(n) {
				bytes = append(bytes, f.bytes)
			}
			reportDesigns(b, bytes, "B/entry")
		})
	}
	b.Run("add", func(b *testing.B) {
		const half, adds = 10 * million / 144 / 2, 100
		_, there := neverRevoked()
		there = slices.Clone(there[:half])
		slices.SortFunc(there, compareDigests)
		_, others := revokedOf(million)
		took := make([][]float64, len(designs))
		for b.Loop() {
			for i, empty := range designs {
				halfFull := empty()
				halfFull.load(start, there)
				took[i] = append(took[i], nanoseconds(func() {
					for _, d := range others[:adds] {
						halfFull.add(start, d)
					}
				})/adds)
			}
		}
		reportDesigns(b, []float64{median(took[0]), median(took[1]), median(took[2])}, "ns/add")
	})
}

// reportDesigns prints a figure of each, and the last one's over the first's.
func reportDesigns(b *testing.B, each []float64, unit string) {
	report(b, each[2], each[0], unit)
	b.ReportMetric(each[1], "sorted-"+unit)
}
