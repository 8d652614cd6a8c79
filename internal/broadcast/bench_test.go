package broadcast

import (
	"context"
	"fmt"
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
				grouped += rate(b, callers, 300*time.Millisecond, l.Append)
				alone += rate(b, callers, 300*time.Millisecond, single)
			}
			b.ReportMetric(grouped/float64(b.N), "grouped/s")
			b.ReportMetric(alone/float64(b.N), "alone/s")
			b.ReportMetric(grouped/alone, "ratio")
		})
	}
}

// rate is how many calls a second so many callers get answered.
func rate(b *testing.B, callers int, during time.Duration, call func(context.Context, ...denylist.Revocation) (uint64, error)) float64 {
	const most = 60_000 // calls: what is revoked is made beforehand, each once
	made := make([][]denylist.Revocation, callers)
	round := time.Now().UnixNano()
	for c := range made {
		made[c] = make([]denylist.Revocation, most/callers)
		for i := range made[c] {
			made[c][i] = revocation(fmt.Sprint(round, "-", c, "-", i))
		}
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for c := range callers {
		wg.Go(func() {
			for _, r := range made[c] {
				if time.Since(start) > during {
					return
				}
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
