package verifier

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// BenchmarkCachedTokens is what 10,000 tokens of some 700 bytes take in the cache, each
// asked about once, and how long a garbage collection takes with them. The reference is
// the same tokens when a handler has asked for their Raw claims.
func BenchmarkCachedTokens(b *testing.B) {
	const tokens = 10_000
	key := tokentest.NewKey("e1", "EdDSA")
	idp := tokentest.NewIdP(key)
	raws := make([]string, tokens)
	for i := range raws {
		raws[i] = key.Token(claims(map[string]any{"jti": fmt.Sprint("t-", i), "sub": fmt.Sprint("s-", i), "pad": strings.Repeat("x", 200)}))
	}
	type measured struct {
		bytes, objects uint64
		collecting     time.Duration
	}
	measure := func() (m measured) {
		heap() // collects
		began := time.Now()
		const times = 5
		for range times {
			runtime.GC()
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return measured{stats.HeapAlloc, stats.HeapObjects, time.Since(began) / times}
	}
	var sums [2]measured
	for range b.N {
		r := newRig(b, func(c *Config) { c.HTTPClient, c.Issuers[0].Algorithms = idp.Client(), []string{"EdDSA"} }).fresh()
		before := measure()
		for i := range sums {
			for _, raw := range raws {
				d := r.Decide(b.Context(), raw)
				if d.Outcome != Allowed {
					b.Fatal(d)
				}
				if i == 1 && d.Claims.Raw() == nil {
					b.Fatal("no claims")
				}
			}
			now := measure()
			sums[i].bytes += now.bytes - before.bytes
			sums[i].objects += now.objects - before.objects
			sums[i].collecting += now.collecting
		}
		r.Close()
	}
	for i, of := range []string{"", "-with-raw"} {
		b.ReportMetric(float64(sums[i].bytes)/float64(b.N*tokens), "B/token"+of)
		b.ReportMetric(float64(sums[i].objects)/float64(b.N*tokens), "objects/token"+of)
		b.ReportMetric(float64(sums[i].collecting.Microseconds())/float64(b.N), "us/collection"+of)
	}
	b.ReportMetric(float64(sums[0].collecting)/float64(sums[1].collecting), "ratio")
}
