package denylist

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bits-and-blooms/bloom/v3"
)

// Every benchmark here measures a reference too, in turns with ours, so that
// whatever else the machine does meets both. Entries are of tokens whose expiries
// are spread over a day. Their digests are made up: they are as random as hashes.

const (
	million  = 1_000_000
	dayLong  = 24 * 3600 / windowSeconds // in windows
	inStream = 1 << 18                   // different checks in a row
)

// Series of numbered digests.
const (
	ofEntries = iota
	ofNobody  // never revoked
	ofGrowth
	ofDoomed
	ofCuts
)

// spread is the window of a digest's token: any of a day.
func spread(d Digest) int64 {
	return start + windowSeconds*(1+int64(binary.BigEndian.Uint32(d[12:]))%dayLong)
}

func spreadEntries(series, from, n int) []Entry {
	all := make([]Entry, n)
	for i := range all {
		d := numbered(series, from+i)
		all[i] = windowed(JTI, d, spread(d))
	}
	return all
}

// perSize remembers what was made of each size: big ones are made once.
func perSize[T any](build func(n int) T) func(n int) T {
	kept := map[int]T{}
	return func(n int) T {
		if _, ok := kept[n]; !ok {
			kept[n] = build(n)
		}
		return kept[n]
	}
}

func newBig(n int) *List {
	l := newLasting()
	for i := range n {
		d := numbered(ofEntries, i)
		l.Add(windowed(JTI, d, spread(d)))
	}
	return l
}

// newLasting returns a list that doesn't grow stale while it is measured.
func newLasting() *List {
	l := New(MaxStaleness(1000 * time.Hour))
	l.Advance(time.Now())
	return l
}

func newBigMap(n int) map[[16]byte]uint32 {
	m := map[[16]byte]uint32{}
	for i := range n {
		d := numbered(ofEntries, i)
		m[d] = uint32(spread(d))
	}
	return m
}

var (
	bigLists = perSize(newBig)
	bigMaps  = perSize(newBigMap)
	blooms   = perSize(func(n int) *bloom.BloomFilter {
		f := bloom.NewWithEstimates(uint(n), 0.001)
		for i := range n {
			d := numbered(ofEntries, i)
			f.Add(d[:])
		}
		return f
	})
	// What benchmarks add to is apart, and only begins with that size.
	growingLists = perSize(newBig)
	growingMaps  = perSize(newBigMap)

	// ascendingDigests are those of the entries, by window.
	ascendingDigests = perSize(func(n int) map[int64][]Digest {
		all := map[int64][]Digest{}
		for i := range n {
			d := numbered(ofEntries, i)
			all[spread(d)] = append(all[spread(d)], d)
		}
		for _, digests := range all {
			slices.SortFunc(digests, compareDigests)
		}
		return all
	})
)

var grown int

// unheardOf returns entries that no list has.
func unheardOf(n int) []Entry {
	grown += n
	return spreadEntries(ofGrowth, grown-n, n)
}

// questions are what checks ask of a list: a key each, and which window of the day.
// They take up as much of the caches as the digests that a reference is asked.
type questions struct {
	keys    []key
	windows []uint8
}

func newQuestions(number func() (series, n int)) (questions, []Digest) {
	qs, ds := questions{make([]key, inStream), make([]uint8, inStream)}, make([]Digest, inStream)
	for i := range ds {
		d := numbered(number())
		ds[i], qs.windows[i] = d, uint8((spread(d)-start)/windowSeconds)
		qs.keys[i] = keyOf(&d)
	}
	return qs, ds
}

func (qs *questions) window(i int) int64 { return start + int64(qs.windows[i])*windowSeconds }

// neverRevoked are questions to which the answer is no, revokedOf such as are
// answered with yes by a list of n entries.
func neverRevoked() (questions, []Digest) {
	n := 0
	return newQuestions(func() (int, int) { n++; return ofNobody, n })
}

func revokedOf(n int) (questions, []Digest) {
	r := rand.New(rand.NewPCG(1, 2))
	return newQuestions(func() (int, int) { return ofEntries, r.IntN(n) })
}

// warmTokens are a thousand tokens that stand for any number: each check sets the
// window and the key of the next one. So the token is as warm as it is right after
// its signature was found in the cache, and the list as cold as traffic leaves it.
type warmTokens [1024]struct {
	*Token
	jti *key
}

func newWarmTokens(l *List) *warmTokens {
	var ts warmTokens
	for i := range ts {
		t, err := NewToken(Claims{Issuer: "i", Expires: time.Unix(start+1, 0), IssuedAt: now, Values: map[string]any{
			JTI: fmt.Sprint("j", i), Sub: fmt.Sprint("s", i), ClientID: fmt.Sprint("c", i), SID: fmt.Sprint("d", i), "tenant": fmt.Sprint("t", i),
		}})
		if err != nil {
			panic(err)
		}
		ts[i].Token, ts[i].jti = t, &t.probe(JTI).keys[0]
		l.CheckToken(t, now)
	}
	return &ts
}

// ask makes the i-th check.
func (ts *warmTokens) ask(l *List, qs *questions, i int, at time.Time) Status {
	t, i := &ts[i%len(ts)], i%inStream
	t.window, *t.jti = qs.window(i), qs.keys[i]
	return l.CheckToken(t.Token, at).Status
}

// checks asks a list all questions, and panics at another answer.
func checks(l *List, qs questions, want Status) func() {
	ts, at := newWarmTokens(l), time.Now()
	return func() {
		for i := range inStream {
			if ts.ask(l, &qs, i, at) != want {
				panic("another verdict")
			}
		}
	}
}

var found int // keeps what references do from being optimized away

func bloomTests(f *bloom.BloomFilter, ds []Digest) func() {
	return func() {
		for i := range ds {
			if f.Test(ds[i][:]) {
				found++
			}
		}
	}
}

func mapLookups(m map[[16]byte]uint32, ds []Digest) func() {
	return func() {
		for i := range ds {
			if _, ok := m[ds[i]]; ok {
				found++
			}
		}
	}
}

// inTurns runs each of them in every iteration, which makes that many calls, and
// returns the median of how long a call took, in nanoseconds. The first of two runs,
// which finds in the caches what another left there, doesn't count.
func inTurns(b *testing.B, calls int, each ...func()) []float64 {
	took := make([][]float64, len(each))
	for b.Loop() {
		for i, run := range each {
			run()
			took[i] = append(took[i], nanoseconds(run)/float64(calls))
		}
	}
	medians := make([]float64, len(each))
	for i := range took {
		medians[i] = median(took[i])
	}
	return medians
}

func nanoseconds(run func()) float64 {
	began := time.Now()
	run()
	return float64(time.Since(began).Nanoseconds())
}

func median(of []float64) float64 {
	slices.Sort(of)
	return (of[(len(of)-1)/2] + of[len(of)/2]) / 2
}

// report prints our figure, the reference's, and ours over the reference's.
func report(b *testing.B, ours, reference float64, unit string) {
	b.ReportMetric(ours, unit)
	b.ReportMetric(reference, "ref-"+unit)
	b.ReportMetric(ours/reference, "ratio")
	b.ReportMetric(0, "ns/op")
}

func sized(n int) string { return fmt.Sprintf("entries=1e%d", len(strconv.Itoa(n))-1) }

// BenchmarkClear: a valid token for which nothing is revoked, one live shape;
// against one Test of a bloom filter. Beside them one look into a map.
func BenchmarkClear(b *testing.B) {
	for _, n := range []int{million, 10 * million} {
		b.Run(sized(n), func(b *testing.B) {
			qs, ds := neverRevoked()
			ns := inTurns(b, inStream, checks(bigLists(n), qs, Clear), bloomTests(blooms(n), ds), mapLookups(bigMaps(n), ds))
			report(b, ns[0], ns[1], "ns/check")
			b.ReportMetric(ns[2], "map-ns/check")
			b.ReportMetric(testing.AllocsPerRun(1, checks(bigLists(n), qs, Clear))/inStream, "allocs/check")
		})
	}
}

// BenchmarkClearShapes: what a further live shape adds, each of 10^4 cut-offs, which
// every check asks for; against one Test of a bloom filter of 10^6.
func BenchmarkClearShapes(b *testing.B) {
	shapes := []Shape{Sub, ClientID + shapeSep + Sub, SID, "", "tenant"}
	for further := 1; further <= len(shapes); further++ {
		b.Run(fmt.Sprintf("further=%d", further), func(b *testing.B) {
			one, more := bigLists(million), newLasting()
			more.windows.Store(one.windows.Load())
			for i := range further * 10_000 {
				more.Add(Entry{Shape: shapes[i%further], Digest: numbered(ofCuts, i), Cutoff: start, Expires: start + 3600})
			}
			qs, ds := neverRevoked()
			ns := inTurns(b, inStream, checks(more, qs, Clear), checks(one, qs, Clear), bloomTests(blooms(million), ds))
			report(b, (ns[0]-ns[1])/float64(further), ns[2], "ns/shape")
			b.ReportMetric(ns[0], "ns/check")
		})
	}
}

// BenchmarkRevoked: a check that finds an entry; against one that finds none.
func BenchmarkRevoked(b *testing.B) {
	for _, n := range []int{million, 10 * million} {
		b.Run(sized(n), func(b *testing.B) {
			clear, _ := neverRevoked()
			revoked, _ := revokedOf(n)
			ns := inTurns(b, inStream, checks(bigLists(n), revoked, Revoked), checks(bigLists(n), clear, Clear))
			report(b, ns[0], ns[1], "ns/check")
		})
	}
}

// BenchmarkParallel: a clear check while every core makes them; against one core.
func BenchmarkParallel(b *testing.B) {
	qs, _ := neverRevoked()
	each := make([]func(), runtime.GOMAXPROCS(0))
	for i := range each {
		each[i] = checks(bigLists(10*million), qs, Clear)
	}
	ns := inTurns(b, inStream, func() {
		var all sync.WaitGroup
		for _, run := range each {
			all.Go(run)
		}
		all.Wait()
	}, each[0])
	report(b, ns[0], ns[1], "ns/check")
}

// BenchmarkAdd: one at a time; against setting as many in a map, one at a time.
func BenchmarkAdd(b *testing.B) {
	add := func(l *List, entries []Entry) float64 {
		return million / nanoseconds(func() {
			for i := range entries {
				l.Add(entries[i])
			}
		}) * 1e9
	}
	set := func(m map[[16]byte]uint32, entries []Entry) float64 {
		return million / nanoseconds(func() {
			for i := range entries {
				m[entries[i].Digest] = uint32(entries[i].Expires)
			}
		}) * 1e9
	}
	for _, windows := range []string{"day", "one"} {
		b.Run("to=empty/windows="+windows, func(b *testing.B) {
			entries := spreadEntries(ofEntries, 0, million)
			for i := range entries {
				if windows == "one" {
					entries[i].Expires = start + windowSeconds
				}
			}
			var ours, reference []float64
			for b.Loop() {
				ours = append(ours, add(New(), entries))
				reference = append(reference, set(map[[16]byte]uint32{}, entries))
			}
			report(b, median(ours), median(reference), "adds/s")
		})
	}
	b.Run("to=1e7/windows=day", func(b *testing.B) {
		l, m := growingLists(10*million), growingMaps(10*million)
		var ours, reference []float64
		for b.Loop() {
			entries := unheardOf(million)
			ours = append(ours, add(l, entries))
			reference = append(reference, set(m, entries))
		}
		report(b, median(ours), median(reference), "adds/s")
	})
}

// BenchmarkLoad: 10^7 entries from their canonical sections, on one core; against
// making a map of their digests that knows its size beforehand.
func BenchmarkLoad(b *testing.B) {
	const n = 10 * million
	var sections []Section
	for window, digests := range ascendingDigests(n) {
		for run := range slices.Chunk(digests, SectionSize) {
			sections = append(sections, Section{Shape: JTI, Window: window, Digests: run})
		}
	}
	slices.SortStableFunc(sections, func(a, b Section) int { return cmp.Compare(a.Window, b.Window) })
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, by := range []string{"Loader", "AddSection"} {
		b.Run("by="+by, func(b *testing.B) {
			load := func() {
				l, loader := New(), NewLoader()
				for _, s := range sections {
					if by == "Loader" {
						loader.Add(s)
					} else {
						l.AddSection(s)
					}
				}
				if l.Join(loader.List()); l.Stats().Entries != n {
					b.Fatal("not all of them are there")
				}
			}
			fill := func() {
				m := make(map[[16]byte]uint32, n)
				for _, s := range sections {
					for _, d := range s.Digests {
						m[d] = uint32(s.Window)
					}
				}
			}
			var ours, reference []float64
			for b.Loop() {
				ours, reference = append(ours, nanoseconds(load)/1e9), append(reference, nanoseconds(fill)/1e9)
			}
			report(b, median(ours), median(reference), "s/load")
		})
	}
}

// BenchmarkCheckWhileAdding: what all but one clear check in a thousand takes less
// than, at 10^7 entries, while another goroutine adds 10^5 a second, 100 at a time;
// against the same while nobody adds. In both is the time that the clock takes.
func BenchmarkCheckWhileAdding(b *testing.B) {
	const phase, perMillisecond = 200 * time.Millisecond, 100
	l := growingLists(10 * million)
	ts := newWarmTokens(l)
	qs, _ := neverRevoked()
	measure := func(took []float64) []float64 {
		at := time.Now()
		for i, before := 0, at; before.Sub(at) < phase; i++ {
			before = time.Now()
			if ts.ask(l, &qs, i, at) != Clear {
				panic("another verdict")
			}
			took = append(took, float64(time.Since(before)))
		}
		return took
	}
	var idle, adding, rates []float64
	for b.Loop() {
		idle = measure(idle)

		batches := slices.Collect(slices.Chunk(unheardOf(2*perMillisecond*int(phase.Milliseconds())), perMillisecond))
		stop, rate := make(chan bool), make(chan float64)
		go func() {
			began, every := time.Now(), time.NewTicker(time.Millisecond)
			defer every.Stop()
			for n := 0; ; {
				select {
				case <-every.C:
					for ; n < int(time.Since(began).Milliseconds()); n++ {
						l.Add(batches[n]...)
					}
				case <-stop:
					rate <- float64(n*perMillisecond) / time.Since(began).Seconds()
					return
				}
			}
		}()
		adding = measure(adding)
		close(stop)
		rates = append(rates, <-rate)
	}
	tail := func(took []float64) float64 {
		slices.Sort(took)
		return took[len(took)*999/1000]
	}
	report(b, tail(adding), tail(idle), "p99.9-ns/check")
	b.ReportMetric(median(rates), "adds/s")
}

// BenchmarkPrune: the longest that a goroutine waited which does nothing but check,
// while another dropped a window of 10^6 entries, and collected garbage or didn't;
// against the longest in as long a time thereafter. Both are the median of many
// drops; the worst of all, which says as much about the machine, is beside it.
func BenchmarkPrune(b *testing.B) {
	l := growingLists(million)
	ts := newWarmTokens(l)
	qs, _ := neverRevoked()
	longest := func(during func()) float64 {
		var stop atomic.Bool
		began, answer := make(chan bool), make(chan time.Duration)
		go func() {
			close(began)
			var most time.Duration
			for i, last := 0, time.Now(); !stop.Load(); i++ {
				ts.ask(l, &qs, i, last)
				next := time.Now()
				most, last = max(most, next.Sub(last)), next
			}
			answer <- most
		}()
		<-began
		during()
		stop.Store(true)
		return float64(<-answer)
	}
	full := newTable(JTI, keyColumns)
	for i := range million {
		d := numbered(ofDoomed, i)
		full.add(keyOf(&d), Cut{})
	}
	for _, collect := range []bool{false, true} {
		b.Run(fmt.Sprintf("collect=%t", collect), func(b *testing.B) {
			var dropping, idle []float64
			for b.Loop() {
				window := WindowEnd(l.floor+1) + windowSeconds
				link(l.room(window), full.copy())
				runtime.GC()
				began := time.Now()
				dropping = append(dropping, longest(func() {
					if l.Prune(time.Unix(window, 0).Add(Grace)) != million {
						panic("another number was dropped")
					}
					if collect {
						runtime.GC()
					}
				}))
				took := time.Since(began)
				idle = append(idle, longest(func() { time.Sleep(took) }))
			}
			report(b, median(dropping), median(idle), "ns/pause")
			b.ReportMetric(slices.Max(dropping), "worst-ns/pause")
			b.ReportMetric(slices.Max(idle), "ref-worst-ns/pause")
		})
	}
}

// copy returns a table of the same entries in memory of its own.
func (t *table) copy() *table {
	c, d := newTable(t.shape, t.columns), t.dir.Load()
	pages := slices.Clone(d.pages)
	for at := range d.places() {
		pages[at].words = slices.Clone(pages[at].words)
		for i := range 1 << (d.depth - d.pages[at].depth) {
			pages[at+i] = pages[at]
		}
	}
	c.dir.Store(&directory{d.depth, pages})
	c.used = slices.Clone(t.used)
	c.entries.Store(t.entries.Load())
	return c
}

// BenchmarkMemory: what 10^7 entries add to what a process takes, after a garbage
// collection; against a map of their digests. Each is a process of its own.
func BenchmarkMemory(b *testing.B) {
	const variable, n = "DENYLIST_BENCHMARK_HOLDS", 10 * million
	if what := os.Getenv(variable); what != "" { // this is such a process
		var held any
		switch what {
		case "list":
			held = newBig(n)
		case "map":
			held = newBigMap(n)
		}
		debug.FreeOSMemory() // collects garbage first
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			b.Fatal(err)
		}
		os.Stdout.Write(status)
		runtime.KeepAlive(held)
		os.Exit(0)
	}
	resident := func(what string) float64 {
		c := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkMemory$", "-test.benchtime=1x")
		c.Env = append(os.Environ(), variable+"="+what)
		out, err := c.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		var kib float64
		_, after, _ := bytes.Cut(out, []byte("VmRSS:"))
		if _, err := fmt.Fscan(bytes.NewReader(after), &kib); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return 1024 * kib
	}
	var ours, reference []float64
	for b.Loop() {
		nothing := resident("nothing")
		ours = append(ours, (resident("list")-nothing)/n)
		reference = append(reference, (resident("map")-nothing)/n)
	}
	report(b, median(ours), median(reference), "B/entry")
}
