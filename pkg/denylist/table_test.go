package denylist

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// verify returns the first invariant of the list that does not hold.
func (l *List) verify() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	spans := *l.windows.Load()
	for i, s := range spans {
		if i > 0 && s.number <= spans[i-1].number {
			return fmt.Errorf("span %d follows span %d", s.number, spans[i-1].number)
		}
		used := false
		for i := range s.groups {
			used = used || s.groups[i].Load() != nil
		}
		if !used {
			return fmt.Errorf("span %d is empty", s.number)
		}
	}
	last := int64(-1)
	for window, g := range l.groups() {
		if window <= last || window%600 != 0 || window != 0 && window <= l.floor || l.group(window) != g {
			return fmt.Errorf("window %d after %d, with all up to %d gone", window, last, l.floor)
		}
		last = window
		shapes := map[Shape]bool{}
		for t := g.Load(); t != nil; t = t.next.Load() {
			if err := t.verify(); err != nil {
				return fmt.Errorf("window %d, shape %s: %w", window, t.shape, err)
			}
			if shapes[t.shape] || find(g, t.shape) != t {
				return fmt.Errorf("window %d has two tables for shape %s", window, t.shape)
			}
			shapes[t.shape] = true
			if t.entries.Load() == 0 || t.columns != map[bool]int{true: 4, false: 1}[window == 0] {
				return fmt.Errorf("window %d, shape %s: %d entries of %d columns", window, t.shape, t.entries.Load(), t.columns)
			}
			if window != 0 {
				continue
			}
			for at := range t.dir.Load().places() {
				for s := range t.dir.Load().pages[at].slots(t.columns) {
					if WindowEnd(s.Expires) <= l.floor {
						return fmt.Errorf("%+v is left, with all up to %d gone", s, l.floor)
					}
				}
			}
		}
	}
	return nil
}

func (t *table) verify() error {
	d := t.dir.Load()
	if len(d.pages) != 1<<d.depth || len(t.used) != len(d.pages) {
		return fmt.Errorf("%d places and %d counts at depth %d", len(d.pages), len(t.used), d.depth)
	}
	seen, entries := map[*uint64]bool{}, 0
	for at := 0; at < len(d.pages); {
		p := d.pages[at]
		if p.depth > d.depth || at%(1<<(d.depth-p.depth)) != 0 || seen[&p.words[0]] {
			return fmt.Errorf("place %d of depth %d has a page of depth %d, or one of another place", at, d.depth, p.depth)
		}
		seen[&p.words[0]] = true
		for i := range 1 << (d.depth - p.depth) {
			if q := d.pages[at+i]; &q.words[0] != &p.words[0] || q.depth != p.depth || q.groups != p.groups || d.first(at+i) != at {
				return fmt.Errorf("place %d has not the page of place %d", at+i, at)
			}
		}
		if err := p.verify(t.columns, uint64(at)>>(d.depth-p.depth), t.used[at]); err != nil {
			return fmt.Errorf("page %d: %w", at, err)
		}
		entries += t.used[at]
		at += 1 << (d.depth - p.depth)
	}
	if n := int(t.entries.Load()); n != entries {
		return fmt.Errorf("%d entries, said to be %d", entries, n)
	}
	return nil
}

// verify takes what the first bits of all its keys must be, and how many they are.
func (p *page) verify(columns int, prefix uint64, used int) error {
	if p.groups == 0 || len(p.words) != int(p.groups)*(1+groupSize*columns) || used > p.room() || p.room() > max(maxPage, used)*5/4+40 {
		return fmt.Errorf("%d slots of %d are used, in %d words", used, p.groups*groupSize, len(p.words))
	}
	n, passed := 0, make([]uint64, p.groups)
	for i := range int(p.groups) * groupSize {
		lo, tag := p.column(0)[i], p.words[i/groupSize]>>(i%groupSize*8)&0xff
		if tag == 0 {
			for c := range columns {
				if p.column(c)[i] != 0 {
					return fmt.Errorf("slot %d has no tag, and yet %x", i, p.column(c)[i])
				}
			}
			if rest := p.words[i/groupSize] & tagBits >> (i % groupSize * 8); rest != 0 {
				return fmt.Errorf("slot %d is free, and one behind it is not", i)
			}
			continue
		}
		n++
		k := key{lo, tag << 56}
		if columns == cutColumns {
			k.hi = p.column(1)[i]
		}
		if k.tag() != tag {
			return fmt.Errorf("slot %d of %x has tag %x", i, k, tag)
		}
		if at, _ := p.find(k, columns); at != i {
			return fmt.Errorf("%x lies in slot %d and is found in slot %d", k, i, at)
		}
		for g := p.home(lo); g != uint64(i/groupSize); g = (g + 1) % p.groups {
			passed[g] |= k.passed()
		}
		if p.depth > 0 && lo>>(64-p.depth) != prefix {
			return fmt.Errorf("%x lies among the keys that begin with %x of %d bits", k, prefix, p.depth)
		}
	}
	for g, tags := range p.words[:p.groups] {
		if tags&^tagBits != passed[g] || passed[g] != 0 && hasFree(tags) {
			return fmt.Errorf("group %d of tags %x is marked as passed, and should be by %x", g, tags, passed[g])
		}
	}
	if n != used {
		return fmt.Errorf("%d slots are used, said to be %d", n, used)
	}
	return nil
}

// digestOf returns the digest that is scrambled into k.
func digestOf(k key) (d Digest) {
	binary.LittleEndian.PutUint64(d[:8], k.lo)
	binary.LittleEndian.PutUint64(d[8:], k.hi)
	scramble.Decrypt(d[:], d[:])
	return d
}

// under does something while block is the key of this process.
func under(block cipher.Block, do func()) {
	was := scramble
	defer func() { scramble = was }()
	scramble = block
	do()
}

// randomKey makes keys that begin with so many bits of first, and pass the same groups.
func randomKey(r *rand.Rand, first uint64, n int, tag uint64) key {
	return key{(first<<(64-n) | r.Uint64()>>n) &^ 7, tag<<56 | r.Uint64()>>8}
}

func TestExactKeysSurviveTheScramble(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for range 1000 {
		k := key{r.Uint64(), r.Uint64()}
		d := digestOf(k)
		if keyOf(&d) != k {
			t.Fatalf("%x", k)
		}
	}
	one := newScramble()
	var a, b Digest
	scramble.Encrypt(a[:], a[:])
	one.Encrypt(b[:], b[:])
	if a == b {
		t.Error("two keys are the same")
	}
}

// A filter at many times its planned fill costs time, never a refusal: however many
// keys share a home and a tag, what was not added is not found.
func TestExactWhereAllShareAHomeAndATag(t *testing.T) {
	const firstBits = 20 // more than any table here has groups
	r := rand.New(rand.NewPCG(2, 0))
	for name, c := range map[string]struct {
		n     int
		first uint64
		tag   uint64
	}{
		"one group":                     {7, 0x12345, 0x42},
		"ten times its fill":            {70, 0x12345, 0x42},
		"a hundred times":               {700, 0x12345, 0x42},
		"from the first group":          {700, 0, 0xff},
		"around the end":                {700, 1<<firstBits - 1, 0x42},
		"around the end, a free slot's": {700, 1<<firstBits - 1, 0},
		"a tag that is next to free":    {700, 1<<firstBits - 1, 1},
		"the last tag":                  {70, 1<<firstBits - 1, 0xff},
	} {
		for _, columns := range []int{keyColumns, cutColumns} {
			table := newTable(JTI, columns)
			var in, out []key
			for range c.n {
				in = append(in, randomKey(r, c.first, firstBits, c.tag))
				out = append(out, randomKey(r, c.first, firstBits, c.tag))
			}
			if columns == cutColumns { // where all 128 bits count
				for _, k := range in {
					out = append(out, key{k.lo, k.hi ^ 1}, key{k.lo ^ 8, k.hi})
				}
			}
			for i, k := range in {
				if !table.add(k, Cut{int64(i), 1}) || table.add(k, Cut{int64(i), 1}) {
					t.Fatalf("%s: key %d is counted wrongly", name, i)
				}
			}
			if err := table.verify(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for i, k := range in {
				want := NoCutoff
				if columns == cutColumns {
					want = int64(i)
				}
				if cutoff, hit, _ := table.lookup(k); !hit || cutoff != want {
					t.Errorf("%s: key %d: %d, %v", name, i, cutoff, hit)
				}
			}
			for i, k := range out {
				if _, hit, falseHits := table.lookup(k); hit || falseHits != c.n {
					t.Fatalf("%s, %d columns: key %d of those that aren't there: hit %v, after %d false ones", name, columns, i, hit, falseHits)
				}
			}
		}
	}
}

// A group is passed by keys of some kinds and not of others: whichever they are, all
// that was added is found, and nothing else.
func TestExactWhicheverKeysPassedAGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 0))
	for kinds := range 256 {
		table := newTable(JTI, keyColumns)
		var in, out []key
		for i := range 200 {
			k := key{0xfffff<<44 | r.Uint64()>>20, 0x42 << 56}
			if i%2 == 0 && kinds>>(k.lo%8)&1 != 0 {
				table.add(k, Cut{})
				in = append(in, k)
			} else {
				out = append(out, k)
			}
		}
		if err := table.verify(); err != nil {
			t.Fatalf("kinds %08b: %v", kinds, err)
		}
		for _, k := range in {
			if _, hit, _ := table.lookup(k); !hit {
				t.Errorf("kinds %08b: %x is not found", kinds, k)
			}
		}
		for _, k := range out {
			most := len(in)
			if kinds>>(k.lo%8)&1 == 0 {
				most = min(most, groupSize) // none of its kind went on, so neither does it
			}
			if _, hit, falseHits := table.lookup(k); hit || falseHits > most {
				t.Errorf("kinds %08b: %x: found %v, after %d false hits", kinds, k, hit, falseHits)
			}
		}
	}
}

// The same by way of the list, which counts what the filter let through.
func TestExactVerdictsWhereAllShareAHomeAndATag(t *testing.T) {
	const n = 500
	r := rand.New(rand.NewPCG(3, 0))
	for _, window := range []int64{0, start + 600} {
		l := fresh()
		var in, out []Digest
		for range n {
			in = append(in, digestOf(randomKey(r, 0xfffff, 20, 7)))
			out = append(out, digestOf(randomKey(r, 0xfffff, 20, 7)))
		}
		for _, d := range in {
			l.Add(Entry{Shape: JTI, Digest: d, Cutoff: start, Expires: start + 600, Windowed: window != 0})
		}
		mustHold(t, l)
		for i := range in {
			if v := l.CheckToken(asker(start+600, start, JTI, in[i]), now); v.Status != Revoked || v.Digest != in[i] {
				t.Fatalf("window %d: %d: %+v", window, i, v)
			}
			before := l.Stats().FalseHits
			if v := l.CheckToken(asker(start+600, start, JTI, out[i]), now); v.Status != Clear || l.Stats().FalseHits != before+n {
				t.Fatalf("window %d: %d that isn't there: %+v, %+v", window, i, v, l.Stats())
			}
		}
		// All at once, as a token with arrays asks.
		if v := l.CheckToken(asker(start+600, start, JTI, append(out, in[n/2])...), now); v.Status != Revoked || v.Digest != in[n/2] {
			t.Errorf("window %d: %+v", window, v)
		}
	}
}

// Tag 0 marks a free slot, so a key that has it takes 1, and all of a key's bits that
// the table keeps are compared: none of those that lie beside one is taken for it.
func TestExactTagsAndBits(t *testing.T) {
	in := key{0x123456789abcdef0, 0x42_23456789abcdef}
	for _, columns := range []int{keyColumns, cutColumns} {
		table := newTable(JTI, columns)
		table.add(in, Cut{1, 1})
		for bit := range 128 {
			k := in
			if bit < 64 {
				k.lo ^= 1 << bit
			} else {
				k.hi ^= 1 << (bit - 64)
			}
			want := columns == keyColumns && 64 <= bit && bit < 64+56 // what a window doesn't keep
			if _, hit, _ := table.lookup(k); hit != want {
				t.Errorf("%d columns: with bit %d changed it is found: %v", columns, bit, hit)
			}
		}
		// Whatever the tag, of the keys that differ in nothing else.
		table = newTable(JTI, columns)
		for tag := range uint64(256) {
			k := key{in.lo, tag<<56 | tag}
			same := columns == keyColumns && tag == 1 // as tag 0
			if table.add(k, Cut{1, 1}) == same {
				t.Errorf("%d columns: tag %d: same %v", columns, tag, same)
			}
			for other := range uint64(256) {
				_, hit, _ := table.lookup(key{in.lo, other<<56 | other})
				if want := other <= tag || columns == keyColumns && tag == 0 && other == 1; hit != want {
					t.Errorf("%d columns: tags up to %d are in, and %d is found: %v", columns, tag, other, hit)
				}
			}
		}
		if err := table.verify(); err != nil {
			t.Error(err)
		}
	}
	for tag, want := range map[uint64]uint64{0: 1, 1: 1, 2: 2, 255: 255} {
		if got := (key{hi: tag<<56 | (1<<56 - 1)}).tag(); got != want {
			t.Errorf("tag %d becomes %d", tag, got)
		}
	}
}

// Neither a free slot nor one of another tag is ever compared: above a slot of the
// tag that is looked for, their tags all but match.
func TestExactBesideASlotOfTheSameTag(t *testing.T) {
	for _, columns := range []int{keyColumns, cutColumns} {
		for tag := uint64(1); tag < 256; tag++ {
			table := newTable(JTI, columns)
			table.add(key{1, tag << 56}, Cut{1, 1})
			if _, hit, falseHits := table.lookup(key{0, tag << 56}); hit || falseHits != 1 {
				t.Errorf("%d columns, tag %d: what a free slot holds is found: %v, after %d false hits", columns, tag, hit, falseHits)
			}
			if tag^1 == 0 {
				continue
			}
			table.add(key{2, (tag ^ 1) << 56}, Cut{1, 1})
			if _, hit, falseHits := table.lookup(key{2, tag << 56}); hit || falseHits != 1 {
				t.Errorf("%d columns, tag %d: a slot of tag %d is found: %v, after %d false hits", columns, tag, tag^1, hit, falseHits)
			}
		}
	}
}

// Pages of every size begin empty, whatever was in the memory before.
func TestExactNewPagesAreEmpty(t *testing.T) {
	var dirt [][]uint64
	for entries := 0; entries < 4000; entries += 1 + entries/9 {
		for range 3 {
			dirt = append(dirt, slices.Repeat([]uint64{^uint64(0)}, 9*(entries/7+1)))
		}
	}
	runtime.KeepAlive(dirt)
	dirt = nil
	runtime.GC()
	for entries := 0; entries < 4000; entries += 1 + entries/9 {
		for _, columns := range []int{keyColumns, cutColumns} {
			p := newPage(entries, columns, 0)
			if p.room() <= entries || p.room() > entries*5/4+40 {
				t.Errorf("a page for %d has room for %d", entries, p.room())
			}
			if err := p.verify(columns, 0, 0); err != nil {
				t.Errorf("a page for %d: %v", entries, err)
			}
		}
	}
}

func TestNoFalseRejectionOfAnyToken(t *testing.T) {
	l := fresh()
	const revoked, others = 20_000, 50_000
	for i := range revoked {
		l.Add(byJTI(fmt.Sprint("revoked-", i), i%2 == 0))
	}
	for i := range others {
		if v := l.CheckToken(token(t, JTI, fmt.Sprint("other-", i)), now); v.Status != Clear {
			t.Fatalf("token %d: %+v", i, v)
		}
	}
	// The filters did err on the way, or this test has shown nothing.
	if hits := l.Stats().FalseHits; hits == 0 || hits > others/5 {
		t.Errorf("%d false hits in %d checks", hits, others)
	}
}

// An attacker who knows the code, and not the key, revokes what under a key of his
// own lies where his victims' tokens are looked for. It does him no more good than
// chance.
func TestNoFalseRejectionCostsMoreUnderAttack(t *testing.T) {
	const (
		victims, chosen = 2000, 5000
		lists           = 20 + 20/slowly
		firstBits       = 10 // of a home: about as many as a table of so many has groups
	)
	type place struct{ home, tag uint64 }
	placeOf := func(k key) place { return place{k.lo >> (64 - firstBits), k.tag()} }
	his := newScramble()

	// He collects candidates, whose digests he can't choose but compute.
	var aimed, random []Digest
	candidate := 0
	under(his, func() {
		targets := map[place]bool{}
		for i := range victims {
			d := numbered(1, i)
			targets[placeOf(keyOf(&d))] = true
		}
		var s Digest
		for len(aimed) < chosen {
			candidate++
			d := numbered(2, candidate)
			s = d
			if targets[placeOf(keyOf(&s))] {
				aimed = append(aimed, d)
			}
		}
	})
	for i := range chosen {
		random = append(random, numbered(3, i))
	}

	// falseHits counts those of a list that uses block, in a window and outside.
	falseHits := func(block cipher.Block, entries []Digest, exact bool) int {
		l := fresh()
		under(block, func() {
			for _, d := range entries {
				l.Add(Entry{Shape: JTI, Digest: d, Cutoff: NoCutoff, Expires: start + 600, Windowed: exact})
			}
			for i := range victims {
				if v := l.CheckToken(asker(start+600, start, JTI, numbered(1, i)), now); v.Status != Clear {
					t.Fatalf("victim %d: %+v", i, v)
				}
			}
		})
		return int(l.Stats().FalseHits)
	}
	for _, exact := range []bool{true, false} {
		var underAttack, byChance int
		for range lists {
			block := newScramble()
			underAttack += falseHits(block, aimed, exact)
			byChance += falseHits(block, random, exact)
		}
		if byChance < 1000 {
			t.Errorf("exact %v: %d false hits are too few to tell", exact, byChance)
		}
		if underAttack > byChance*6/5 {
			t.Errorf("exact %v: %d false hits, and %d by chance", exact, underAttack, byChance)
		}
		if knowing := lists * falseHits(his, aimed, exact); knowing < 20*byChance {
			t.Errorf("exact %v: %d false hits where he has the key, and %d by chance: this attack shows nothing", exact, knowing, byChance)
		} else {
			t.Logf("exact %v: %d false hits in %d checks by chance, %d under attack, %d where he has the key", exact, byChance, lists*victims, underAttack, knowing)
		}
	}
}

// Keys that nobody could choose, spread as badly as can be: pages split where the
// keys are, and nowhere else.
func TestExactWherePagesAreOfDifferentDepths(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 0))
	table := newTable(JTI, keyColumns)
	var in []key
	for range maxPage {
		in = append(in, randomKey(r, 0, 1, r.Uint64N(256)), randomKey(r, 1, 1, r.Uint64N(256)))
	}
	for _, more := range []struct{ first, bits uint64 }{{1, 1}, {0b11, 2}, {0b111, 3}, {0b00, 2}} { // the last where others are deeper
		for range maxPage / 2 {
			in = append(in, randomKey(r, more.first, int(more.bits), r.Uint64N(256)))
		}
	}
	deepest := uint8(0)
	for i, k := range in {
		if !table.add(k, Cut{}) {
			t.Fatalf("key %d is there already", i)
		}
		if d := table.dir.Load(); d.depth != deepest || i%20_000 == 0 {
			deepest = d.depth
			if err := table.verify(); err != nil {
				t.Fatalf("after %d keys, at depth %d: %v", i+1, d.depth, err)
			}
		}
	}
	if err := table.verify(); err != nil {
		t.Fatal(err)
	}
	depths := map[uint8]int{}
	d := table.dir.Load()
	for at := range d.places() {
		depths[d.pages[at].depth]++
	}
	if deepest != 4 || !maps.Equal(depths, map[uint8]int{2: 3, 3: 1, 4: 2}) {
		t.Errorf("depth %d, pages by depth %v", deepest, depths)
	}
	for i, k := range in {
		if _, hit, _ := table.lookup(k); !hit {
			t.Fatalf("key %d is not there", i)
		}
		if _, hit, _ := table.lookup(key{bits.Reverse64(k.lo), k.hi}); hit {
			t.Fatalf("what key %d is backwards is there", i)
		}
	}
	bytes, slots := table.size()
	if slots < len(in) || bytes < 9*slots || bytes > 10*slots {
		t.Errorf("%d entries, %d slots in %d bytes", len(in), slots, bytes)
	}
}

// What is moved from one table to another has the same home in both: taken in that
// order, it would pile up in the first groups of a table that is still small.
func TestBoundedWhatIsMovedIsScattered(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 0))
	from := newTable(JTI, keyColumns)
	for range 2 * maxPage {
		from.add(key{r.Uint64(), r.Uint64()}, Cut{})
	}
	for range 5000 { // and a page of another size
		from.add(randomKey(r, 0b10, 2, r.Uint64N(256)), Cut{})
	}
	n := int(from.entries.Load())
	to, moved := newTable(JTI, keyColumns), 0
	var parts [16]int // of the range of keys
	for s := range from.scattered() {
		parts[s.lo>>60]++
		if moved++; !to.add(s.key, s.Cut) {
			t.Fatalf("%x comes twice", s.key)
		}
		if moved%5000 != 0 {
			continue
		}
		if most := slices.Max(parts[:]); most > moved/16*3/2+50 {
			t.Errorf("of %d, %d are of one part in 16", moved, most)
		}
		if full := to.longest(); full > 300 {
			t.Errorf("after %d, %d groups in a row are full", moved, full)
		}
	}
	if moved != n {
		t.Errorf("%d of %d are moved", moved, n)
	}
	if err := to.verify(); err != nil {
		t.Error(err)
	}
	for range from.scattered() {
		break
	}
	for _, few := range []int{0, 1, 7, 8} {
		small, moved := newTable(JTI, cutColumns), 0
		for i := range few {
			small.add(key{r.Uint64(), r.Uint64()}, Cut{int64(i), 1})
		}
		for s := range small.scattered() {
			if moved++; small.has(s.key, Cut{s.Cutoff + 1, 1}) || !small.has(s.key, s.Cut) {
				t.Errorf("%+v is not what was added", s)
			}
		}
		if moved != few {
			t.Errorf("%d of %d are moved", moved, few)
		}
	}
}

// longest returns the length of the longest run of full groups.
func (t *table) longest() (longest int) {
	d := t.dir.Load()
	for at := range d.places() {
		p, run := &d.pages[at], 0
		for _, tags := range p.words[:p.groups] {
			if run++; hasFree(tags) {
				run = 0
			}
			longest = max(longest, run)
		}
	}
	return longest
}
