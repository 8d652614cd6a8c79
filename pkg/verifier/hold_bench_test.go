package verifier

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// BenchmarkOpenRequests applies batches of 10,000 revocations while requests are open,
// and looks at these; "ratio" is to what the same takes with none, in turns. "B/request"
// is the memory that holding one more takes, of which others derive no context.
func BenchmarkOpenRequests(b *testing.B) {
	key := tokentest.NewKey("e1", "EdDSA")
	for _, open := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(open), func(b *testing.B) {
			const batches = 20
			var took [2]time.Duration
			var bytes int64
			for range b.N {
				var rigs [2]*rig
				for i := range rigs {
					idp := tokentest.NewIdP(key)
					rigs[i] = newRig(b, func(c *Config) {
						c.HTTPClient, c.Issuers[0].Algorithms = idp.Client(), []string{"EdDSA"}
					}).fresh()
				}
				r := rigs[1]
				decisions, held := make([]Decision, open), make([]func(), open)
				for i := range decisions {
					if decisions[i] = r.Decide(b.Context(), key.Token(claims(map[string]any{"jti": fmt.Sprint("open-", i)}))); decisions[i].Outcome != Allowed {
						b.Fatalf("%+v", decisions[i])
					}
				}
				before := heap()
				for i, d := range decisions {
					_, held[i] = r.Hold(b.Context(), d)
				}
				bytes += int64(heap() - before)
				runtime.KeepAlive(decisions)
				for batch := range 2 * batches {
					entries := make([]denylist.Entry, 10_000)
					for i := range entries {
						entries[i] = revocation("jti", fmt.Sprint("revoked-", batch/2, "-", i))
					}
					at := batch % 2
					began := time.Now()
					rigs[at].list.Add(entries...)
					rigs[at].requests.recheck(rigs[at].clock.now())
					took[at] += time.Since(began)
				}
				if n := r.Stats().Open; n != open {
					b.Errorf("%d are open", n)
				}
				for i := range held {
					held[i]()
				}
				rigs[0].Close()
				rigs[1].Close()
			}
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
			b.ReportMetric(float64(bytes)/float64(b.N)/float64(open), "B/request")
			b.ReportMetric(float64(took[1].Microseconds())/float64(b.N)/batches, "us/batch")
		})
	}
}
