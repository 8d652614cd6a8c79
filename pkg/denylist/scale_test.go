//go:build scale

package denylist

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestExact asks a list of 10^7 entries, spread over a day, for 10^8 tokens that were
// never revoked, and for some that were. Making a token costs more than checking it:
// so most of them are only a random digest, scrambled as NewToken's would be, and a
// million are tokens through and through.
func TestExact(t *testing.T) {
	const entries, checks, whole, goroutines = 10 * million, 100 * million, million, 2
	began := time.Now()
	l := newBig(entries)
	t.Logf("%d entries after %.0f s", l.Stats().Entries, time.Since(began).Seconds())

	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(g)))
			random, at, refused := newWarmTokens(l)[0], time.Now(), 0
			for i := range checks / goroutines {
				var d Digest
				binary.LittleEndian.PutUint64(d[:], r.Uint64())
				binary.LittleEndian.PutUint64(d[8:], r.Uint64())
				random.window, *random.jti = start+windowSeconds*(1+r.Int64N(dayLong)), keyOf(&d)
				if l.CheckToken(random.Token, at).Status != Clear {
					refused++
				}
				if n := i + 1; n%(10*million) == 0 {
					t.Logf("goroutine %d: %d checks after %.0f s, %d refused", g, n, time.Since(began).Seconds(), refused)
				}
			}
			if refused != 0 {
				t.Errorf("%d tokens refused that were never revoked", refused)
			}
		})
	}
	all.Wait()

	at := time.Now()
	for i := range whole {
		c := Claims{Issuer: "https://idp.example", Expires: time.Unix(start+1+int64(i)%86400, 0), IssuedAt: now,
			Values: map[string]any{JTI: fmt.Sprint("never-", i), Sub: fmt.Sprint("sub-", i%1000)}}
		if v := l.CheckToken(newToken(t, c), at); v.Status != Clear {
			t.Fatalf("%+v: %+v", c, v)
		}
	}
	revoked, _ := revokedOf(entries)
	ts := newWarmTokens(l)
	for i := range inStream {
		if status := ts.ask(l, &revoked, i, at); status != Revoked {
			t.Fatalf("%s, though it was revoked", status)
		}
	}
	// The filter did err on the way, or this has shown nothing.
	st := l.Stats()
	if st.FalseHits == 0 {
		t.Error("the filter was never wrong")
	}
	t.Logf("%d checks and %d whole tokens: none refused; the filter was wrong once in %.0f", checks, whole, checks/float64(st.FalseHits))
}

// TestSoakFlat revokes a hundred tokens a second over three lifetimes, a hundredth of
// them by subject, in a clock of its own. What the list takes must not grow after the
// first, and be given back when all have expired.
func TestSoakFlat(t *testing.T) {
	const lifetime, perSecond = 24 * 3600, 100
	inUse := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse)
	}
	l := New()
	before := inUse()
	var least, most struct{ entries, bytes, heap float64 }
	batch := make([]Entry, perSecond)
	for second := int64(0); second < 3*lifetime; second++ {
		at := start + second
		for i := range batch {
			d := numbered(ofEntries, int(second)*perSecond+i)
			batch[i] = windowed(JTI, d, at+1+int64(binary.BigEndian.Uint32(d[12:]))%lifetime)
			if i == 0 {
				batch[i] = Entry{Shape: Sub, Digest: d, Cutoff: at, Expires: at + lifetime}
			}
		}
		if l.Add(batch...) != perSecond {
			t.Fatal("not all of them are new")
		}
		if second%60 == 59 {
			l.Prune(time.Unix(at, 0))
		}
		if second%3600 != 3599 {
			continue
		}
		st, heap := l.Stats(), inUse()-before
		if second/3600%6 == 5 {
			t.Logf("hour %2d: %d entries in %d windows, %.1f MB in tables, %.1f MB of heap",
				second/3600+1, st.Entries, st.Windows, float64(st.Bytes)/1e6, heap/1e6)
		}
		if second < lifetime+int64((Grace+Window)/time.Second) {
			continue
		}
		now := struct{ entries, bytes, heap float64 }{float64(st.Entries), float64(st.Bytes), heap}
		if least.entries == 0 {
			least, most = now, now
		}
		least.entries, most.entries = min(least.entries, now.entries), max(most.entries, now.entries)
		least.bytes, most.bytes = min(least.bytes, now.bytes), max(most.bytes, now.bytes)
		least.heap, most.heap = min(least.heap, now.heap), max(most.heap, now.heap)
	}
	t.Logf("after the first lifetime: %+v to %+v", least, most)
	if most.entries > 1.05*least.entries || most.bytes > 1.1*least.bytes || most.heap > 1.1*least.heap {
		t.Error("it isn't flat")
	}

	if l.Prune(time.Unix(start+4*lifetime, 0).Add(Grace+Window)) == 0 || l.Stats().Entries != 0 {
		t.Errorf("all have expired: %+v", l.Stats())
	}
	left := inUse() - before
	t.Logf("at the end %.1f MB of heap are left", left/1e6)
	if left > most.heap/10 {
		t.Errorf("%.0f of %.0f bytes were not given back", left, most.heap)
	}
	runtime.KeepAlive(l)
}
