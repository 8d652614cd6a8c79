package denylist

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/bits-and-blooms/bloom/v3"
)

const benchEntries = 100_000

// benchList holds the entries jti=0 and on, in one window. Lists don't change once
// made, so the benchmarks share it.
var benchList = sync.OnceValue(func() *List {
	l := fresh()
	for i := range benchEntries {
		l.Add(byJTI(fmt.Sprint(i), true))
	}
	return l
})

// benchTokens are more than a processor's nearest cache holds of the filter.
func benchTokens(b *testing.B, from int) []*Token {
	tokens := make([]*Token, 1024)
	for i := range tokens {
		tokens[i] = token(b, JTI, fmt.Sprint(from+i*97))
		benchList().Check(tokens[i], now)
	}
	return tokens
}

func benchmarkCheck(b *testing.B, from int, want Status) {
	l, tokens := benchList(), benchTokens(b, from)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if l.Check(tokens[i%len(tokens)], now).Status != want {
			b.Fatal("another verdict")
		}
	}
}

func BenchmarkCheckClear(b *testing.B)   { benchmarkCheck(b, benchEntries, Clear) }
func BenchmarkCheckRevoked(b *testing.B) { benchmarkCheck(b, 0, Revoked) }

func BenchmarkCheckClearParallel(b *testing.B) {
	l, tokens := benchList(), benchTokens(b, benchEntries)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			l.Check(tokens[i%len(tokens)], now)
		}
	})
}

func benchDigest(i int) Digest { return One(JTI, fmt.Sprint(i)).Digest("i") }

// BenchmarkReferenceBloom is one bare filter test, to hold the above against.
func BenchmarkReferenceBloom(b *testing.B) {
	filter := bloom.NewWithEstimates(benchEntries, falsePositives)
	for i := range benchEntries {
		d := benchDigest(i)
		filter.Add(d[:])
	}
	asked := make([]Digest, 1024)
	for i := range asked {
		asked[i] = benchDigest(benchEntries + i*97)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		filter.Test(asked[i%len(asked)][:])
	}
}

// BenchmarkReferenceMap is one bare map lookup that finds nothing.
func BenchmarkReferenceMap(b *testing.B) {
	m := make(map[[16]byte]uint32, benchEntries)
	for i := range benchEntries {
		d := benchDigest(i)
		m[d] = binary.BigEndian.Uint32(d[:])
	}
	asked := make([]Digest, 1024)
	for i := range asked {
		asked[i] = benchDigest(benchEntries + i*97)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := m[asked[i%len(asked)]]; ok {
			b.Fatal("found")
		}
	}
}

// BenchmarkAdd is what a new revocation costs.
func BenchmarkAdd(b *testing.B) {
	l := fresh()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var d Digest
		binary.BigEndian.PutUint64(d[:], uint64(i))
		l.Add(Entry{Shape: JTI, Digest: d, Cutoff: NoCutoff, Expires: start + 3600, Windowed: true})
	}
}
