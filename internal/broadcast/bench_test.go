package broadcast

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// BenchmarkAppend compares group commit with one message for each revocation, both
// signed and both fsynced before they are acknowledged, in turns on the same log.
// The ratio is what counts: revocations per second move with the disk.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := open(b, b.TempDir())
			single := func(ctx context.Context, rs ...denylist.Revocation) (uint64, error) {
				r, err := newRequest(rs)
				if err != nil {
					return 0, err
				}
				l.write(ctx, batch{requests: []*request{r}, size: r.size, entries: 1})
				a := <-r.answer
				return a.position, a.err
			}
			var grouped, alone float64
			for b.Loop() {
				grouped += rate(b, callers, time.Second, l.Append)
				alone += rate(b, callers, time.Second, single)
			}
			b.ReportMetric(grouped/float64(b.N), "grouped/s")
			b.ReportMetric(alone/float64(b.N), "alone/s")
			b.ReportMetric(grouped/alone, "ratio")
		})
	}
}

// rate is how many calls a second so many callers get answered.
func rate(b *testing.B, callers int, during time.Duration, call func(context.Context, ...denylist.Revocation) (uint64, error)) float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	round := start.UnixNano() // a revocation said twice is stored once
	for c := range callers {
		wg.Go(func() {
			r, name := revocation("any"), fmt.Sprint(round, "-", c, "-")
			for i := 0; time.Since(start) < during; i++ {
				r.Selector = denylist.One(denylist.JTI, name+strconv.Itoa(i))
				if _, err := call(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}
