package feed

import (
	"slices"
	"time"
)

// PropagationBounds are the upper bounds of [Propagation]'s counts.
var PropagationBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2 * time.Second, 5 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, time.Hour,
}

// Propagation counts revocations by the time from the authority's timestamp to the list,
// as near as the round trip that compared the clocks allows. What was stored before this
// process was in step with the log for the first time is not among them.
type Propagation struct {
	Counts [len(PropagationBounds) + 1]uint64 // by the first bound that is no less; the last have none
	Sum    time.Duration
}

func (p *Propagation) observe(took time.Duration, revocations int) {
	i, _ := slices.BinarySearch(PropagationBounds[:], took)
	p.Counts[i] += uint64(revocations)
	p.Sum += took * time.Duration(revocations)
}

// propagated notes that revocations have arrived that were signed at issuedAt. The caller
// holds f.mu.
func (f *Feed) propagated(now, issuedAt time.Time, revocations int) {
	took, ok := f.clock.guess(f.reading(now), issuedAt)
	if ok && !f.inStep.IsZero() && now.Sub(f.inStep) >= took {
		f.status.Propagation.observe(took, revocations)
	}
}
