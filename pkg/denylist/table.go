package denylist

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"
)

const (
	groupSize  = 7       // slots whose tags share a word
	maxPage    = 1 << 16 // entries; a page that outgrows it is split
	maxDepth   = 48
	oneInEach  = 0x0101010101010101
	highInEach = 0x80808080808080 // of the slots
	tagBits    = 1<<(8*groupSize) - 1
)

// scramble is AES under a key that only this process knows: a permutation of
// digests that can't be told from a random one, so that chosen revocations spread
// as evenly as any.
var scramble = newScramble()

func newScramble() cipher.Block {
	var k [16]byte
	_, _ = rand.Read(k[:]) // never fails
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return block
}

// key is a digest, scrambled.
type key struct{ lo, hi uint64 }

// tag is the first byte of hi, but never 0, which marks a free slot.
func (k key) tag() uint64 { return max(k.hi>>56, 1) }

// passed marks a group that was full when a key which is like k in three bits came to
// it, and went on to the next.
func (k key) passed() uint64 { return 1 << (8*groupSize + k.lo%8) }

// keyOf scrambles d in place.
func keyOf(d *Digest) key {
	scramble.Encrypt(d[:], d[:])
	return key{binary.LittleEndian.Uint64(d[:8]), binary.LittleEndian.Uint64(d[8:])}
}

// table holds the keys of one shape, and in one that keeps cuts, a cut for each.
// One goroutine writes at a time; any number read meanwhile without waiting.
type table struct {
	shape   Shape
	columns int // words a slot: lo, or all of lo, hi, cut-off, expiry
	dir     atomic.Pointer[directory]
	next    atomic.Pointer[table] // of another shape, in the same window
	entries atomic.Int64
	used    []int // slots of each page, by its place; the writer's
}

const (
	keyColumns = 1
	cutColumns = 4
)

// directory finds a key's page by the first bits of lo. Several of its places may
// hold the same page, of a lesser depth. It never changes; the words of its pages do.
type directory struct {
	depth uint8
	pages []page
}

// page is a hash table with open addressing. Its filter is a word for each group of
// seven slots, all together at its front: their tags, and which keys passed the
// group when it was full. A key that isn't there costs one look at them, most often.
// A slot is written before its tag, which is what publishes it, and lo and hi never
// change after.
type page struct {
	words  []uint64 // the tags of each group, then column by column a word for each slot
	groups uint64   // of slots
	depth  uint8    // bits of lo that all its keys share
}

func newTable(shape Shape, columns int) *table {
	t := &table{shape: shape, columns: columns, used: make([]int, 1)}
	t.dir.Store(&directory{pages: []page{newPage(0, columns, 0)}})
	return t
}

// newPage makes a page with room for that many entries, and for as many more as
// the allocator has to give away.
func newPage(entries, columns int, depth uint8) page {
	width := 1 + groupSize*columns
	words := slices.Grow([]uint64(nil), ((entries+1)*8/(7*groupSize)+1)*width)
	groups := cap(words) / width
	return page{depth: depth, groups: uint64(groups), words: words[:groups*width]}
}

// room is for seven of eight slots, so that some group is never full.
func (p *page) room() int { return groupSize * int(p.groups) * 7 / 8 }

// home is the group in which a key's search begins.
func (p *page) home(lo uint64) uint64 {
	g, _ := bits.Mul64(lo<<p.depth, p.groups)
	return g
}

func (p *page) column(n int) []uint64 {
	slots := p.groups * groupSize
	return p.words[p.groups+uint64(n)*slots:][:slots]
}

func hasFree(tags uint64) bool { return (tags-oneInEach)&^tags&highInEach != 0 }

// find returns a key's slot, or -1, and how many other slots had its tag.
func (p *page) find(k key, columns int) (slot, falseHits int) {
	los := p.words[p.groups:]
	for g := p.home(k.lo); ; {
		tags := atomic.LoadUint64(&p.words[g])
		x := tags ^ oneInEach*k.tag()
		// No carry leaves a byte, so those marked are the matches: a free slot, which
		// may be written this moment, is never one.
		for m := ^(x&^highInEach + ^uint64(highInEach) | x) & highInEach; m != 0; m &= m - 1 {
			i := int(g)*groupSize + bits.TrailingZeros64(m)/8
			if los[i] == k.lo && (columns == keyColumns || p.column(1)[i] == k.hi) {
				return i, falseHits
			}
			falseHits++
		}
		if tags&k.passed() == 0 { // else it may have gone on
			return -1, falseHits
		}
		if g++; g == p.groups {
			g = 0
		}
	}
}

// put adds a key that isn't there to a page that has room.
func (p *page) put(k key, c Cut, columns int) {
	g := p.home(k.lo)
	for !hasFree(p.words[g]) { // only the writer writes, so it may read as it likes
		atomic.StoreUint64(&p.words[g], p.words[g]|k.passed())
		if g++; g == p.groups {
			g = 0
		}
	}
	tags := p.words[g]
	at := bits.TrailingZeros64((tags - oneInEach) &^ tags & highInEach) // the high bit of the first free byte
	i := int(g)*groupSize + at/8
	p.column(0)[i] = k.lo
	if columns == cutColumns {
		p.column(1)[i], p.column(2)[i], p.column(3)[i] = k.hi, uint64(c.Cutoff), uint64(c.Expires)
	}
	atomic.StoreUint64(&p.words[g], tags|k.tag()<<(at-7))
}

// slot is what a slot holds. Where there is no column for hi, its tag is left of it.
type slot struct {
	key
	Cut
}

// slots are a page's, for the writer.
func (p *page) slots(columns int) iter.Seq[slot] {
	return func(yield func(slot) bool) {
		for g, tags := range p.words[:p.groups] {
			for i, tags := g*groupSize, tags&tagBits; tags != 0; i, tags = i+1, tags>>8 { // a group fills from its first slot
				if !yield(p.slot(i, tags&0xff, columns)) {
					return
				}
			}
		}
	}
}

// scattered yields a table's slots, neighbours far apart. Those that come one after
// the other have the same home in another table too, where they would pile up while
// it grows.
func (t *table) scattered() iter.Seq[slot] {
	return func(yield func(slot) bool) {
		d := t.dir.Load()
		most := uint64(0)
		for at := range d.places() {
			most = max(most, d.pages[at].groups)
		}
		n := bits.Len64(most - 1)
		for i := range uint64(1) << n {
			g := bits.Reverse64(i) >> (64 - n)
			for at := range d.places() {
				p := &d.pages[at]
				if g >= p.groups {
					continue
				}
				for i, tags := int(g)*groupSize, p.words[g]&tagBits; tags != 0; i, tags = i+1, tags>>8 {
					if !yield(p.slot(i, tags&0xff, t.columns)) {
						return
					}
				}
			}
		}
	}
}

func (p *page) slot(i int, tag uint64, columns int) (s slot) {
	s.lo, s.hi = p.column(0)[i], tag<<56
	if columns == cutColumns {
		s.hi, s.Cut = p.column(1)[i], Cut{int64(p.column(2)[i]), int64(p.column(3)[i])}
	}
	return s
}

func (d *directory) place(lo uint64) int { return int(lo >> (64 - d.depth)) }

// places yields the first place of each page.
func (d *directory) places() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; i < len(d.pages) && yield(i); i += 1 << (d.depth - d.pages[i].depth) {
		}
	}
}

// lookup returns the latest cut-off at which k is denied.
func (t *table) lookup(k key) (cutoff int64, hit bool, falseHits int) {
	d := t.dir.Load()
	p := &d.pages[d.place(k.lo)]
	i, falseHits := p.find(k, t.columns)
	switch {
	case i < 0:
		return 0, false, falseHits
	case t.columns == keyColumns:
		return NoCutoff, true, falseHits
	}
	return int64(atomic.LoadUint64(&p.column(2)[i])), true, falseHits
}

// has reports whether adding k and c would change nothing.
func (t *table) has(k key, c Cut) bool {
	d := t.dir.Load()
	p := &d.pages[d.place(k.lo)]
	i, _ := p.find(k, t.columns)
	if i < 0 || t.columns == keyColumns {
		return i >= 0
	}
	return int64(atomic.LoadUint64(&p.column(2)[i])) >= c.Cutoff && int64(atomic.LoadUint64(&p.column(3)[i])) >= c.Expires
}

// add puts k in, or joins c to what is known of it, and reports whether anything
// changed.
func (t *table) add(k key, c Cut) bool {
	d := t.dir.Load()
	at := d.place(k.lo)
	if i, _ := d.pages[at].find(k, t.columns); i >= 0 {
		if t.columns == keyColumns {
			return false
		}
		raised := raise(&d.pages[at].column(2)[i], c.Cutoff)
		return raise(&d.pages[at].column(3)[i], c.Expires) || raised
	}
	t.insert(k, c)
	return true
}

// insert puts in a key that isn't there.
func (t *table) insert(k key, c Cut) {
	for {
		d := t.dir.Load()
		at := d.place(k.lo)
		first := d.first(at)
		if t.used[first] < d.pages[at].room() {
			d.pages[at].put(k, c, t.columns)
			t.used[first]++
			t.entries.Add(1)
			return
		}
		t.grow(first)
	}
}

// fill puts digests that differ into an empty table, made large enough at once. It
// needs a digest on the heap.
func (t *table) fill(scratch *Digest, s Section) {
	d := &directory{}
	n := len(s.Digests)
	for ; n > maxPage-maxPage/8; n = (n + 1) / 2 {
		d.depth++
	}
	for range 1 << d.depth {
		d.pages = append(d.pages, newPage(n+n/16, t.columns, d.depth)) // no page gets exactly its share
	}
	t.used = make([]int, len(d.pages))
	t.dir.Store(d)
	var c Cut
	for i := range s.Digests {
		if t.columns == cutColumns {
			c = s.Cuts[i]
		}
		*scratch = s.Digests[i]
		t.insert(keyOf(scratch), c)
	}
}

// addAll adds what another table of the same shape has, and returns how much of it
// changed anything.
func (t *table) addAll(from *table) (added int) {
	for s := range from.scattered() {
		if t.add(s.key, s.Cut) {
			added++
		}
	}
	return added
}

func raise(at *uint64, v int64) bool {
	if int64(*at) >= v {
		return false
	}
	atomic.StoreUint64(at, uint64(v))
	return true
}

// first is the first place of the page that stands at another.
func (d *directory) first(at int) int {
	shift := d.depth - d.pages[at].depth
	return at >> shift << shift
}

// grow gives the page whose first place is at more room, or splits it.
func (t *table) grow(at int) {
	d := t.dir.Load()
	p := d.pages[at]
	if t.used[at] < maxPage || p.depth == maxDepth {
		t.exchange(at, t.rebuild(&p, p.depth, t.used[at], nil))
		return
	}
	if d.depth == p.depth {
		wider := &directory{depth: d.depth + 1, pages: make([]page, 2*len(d.pages))}
		used := make([]int, len(wider.pages))
		for i := range wider.pages {
			wider.pages[i], used[i] = d.pages[i/2], t.used[i/2]
		}
		t.used, at = used, 2*at
		t.dir.Store(wider)
	}
	bit := uint64(1) << (63 - p.depth)
	t.exchange(at, t.part(&p, p.depth+1, func(s slot) bool { return s.lo&bit == 0 }),
		t.part(&p, p.depth+1, func(s slot) bool { return s.lo&bit != 0 }))
}

type rebuilt struct {
	page
	used int
}

// part makes a page of what is kept of another.
func (t *table) part(p *page, depth uint8, keep func(slot) bool) rebuilt {
	n := 0
	for s := range p.slots(t.columns) {
		if keep(s) {
			n++
		}
	}
	return t.rebuild(p, depth, n, keep)
}

// rebuild makes a page of the n slots that are kept of another; nil keeps them all.
// It has room for an eighth more.
func (t *table) rebuild(p *page, depth uint8, n int, keep func(slot) bool) rebuilt {
	r := rebuilt{newPage(n+n/8, t.columns, depth), n}
	for g, tags := range p.words[:p.groups] {
		for i, tags := g*groupSize, tags&tagBits; tags != 0; i, tags = i+1, tags>>8 {
			if s := p.slot(i, tags&0xff, t.columns); keep == nil || keep(s) {
				r.put(s.key, s.Cut, t.columns)
			}
		}
	}
	return r
}

// exchange publishes pages, the first of them at the place of the one it replaces.
func (t *table) exchange(at int, pages ...rebuilt) {
	d := t.dir.Load()
	next := &directory{depth: d.depth, pages: slices.Clone(d.pages)}
	for _, r := range pages {
		for range 1 << (d.depth - r.depth) {
			next.pages[at], t.used[at] = r.page, r.used
			at++
		}
	}
	t.dir.Store(next)
}

// expire drops the cuts of windows that ended at or before floor from the page that
// lo lies in. It returns how many, and where the next page begins, if there is one.
func (t *table) expire(lo uint64, floor int64) (dropped int, next uint64, more bool) {
	d := t.dir.Load()
	at := d.first(d.place(lo))
	p := &d.pages[at]
	left := func(s slot) bool { return WindowEnd(s.Expires) > floor }
	for s := range p.slots(t.columns) {
		if !left(s) {
			dropped++
		}
	}
	if dropped > 0 {
		t.exchange(at, t.rebuild(p, p.depth, t.used[at]-dropped, left))
		t.entries.Add(-int64(dropped))
	}
	next = (lo>>(64-p.depth) + 1) << (64 - p.depth)
	return dropped, next, next != 0
}

// size returns the bytes that a table takes, and its slots.
func (t *table) size() (bytes, slots int) {
	d := t.dir.Load()
	bytes = int(unsafe.Sizeof(*t)+unsafe.Sizeof(*d)) + cap(d.pages)*int(unsafe.Sizeof(page{})+unsafe.Sizeof(0))
	for at := range d.places() {
		p := &d.pages[at]
		bytes += 8 * cap(p.words)
		slots += int(p.groups) * groupSize
	}
	return bytes, slots
}
