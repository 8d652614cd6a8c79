package feed

import (
	"iter"
	"math"
	"slices"
	"time"
)

// propagationBounds are the upper bounds of Propagation's counts.
var propagationBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2 * time.Second, 5 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, time.Hour, math.MaxInt64,
}

// Propagation counts revocations by the time from the authority's timestamp to the list,
// as near as the round trip that compared the clocks allows. What a snapshot brought is not
// among them, nor what was stored before this process was in step with the log.
type Propagation struct {
	Sum    time.Duration
	counts [len(propagationBounds)]uint64
}

// Buckets returns, for ascending bounds, how many revocations took no longer. The last bound
// is [math.MaxInt64].
func (p Propagation) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		below := uint64(0)
		for i, bound := range propagationBounds {
			if below += p.counts[i]; !yield(bound, below) {
				return
			}
		}
	}
}

// propagated notes that the list has taken up revocations that were signed at issuedAt. The
// caller holds f.mu.
func (f *Feed) propagated(now, issuedAt time.Time, revocations int) {
	took, ok := f.clock.guess(f.reading(now), issuedAt)
	if !ok || f.inStep.IsZero() || now.Sub(f.inStep) < took {
		return
	}
	i, _ := slices.BinarySearch(propagationBounds[:], took)
	f.status.Propagation.counts[i] += uint64(revocations)
	f.status.Propagation.Sum += took * time.Duration(revocations)
}
