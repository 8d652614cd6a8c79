package client

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/revcast/revcast/internal/token"
)

const (
	burstSeconds = 2
	// bucket is how exactly an expiry is counted: an entry is outstanding until its
	// bucket ends.
	bucket = 10 * time.Minute
	// maxBuckets bounds what is counted of a client to eleven years ahead, which no
	// token lives. What expires later is counted in the last bucket.
	maxBuckets = 11 * 366 * 24 * 6
	// maxRetryAfter bounds what a caller is told to wait where a rate is very low.
	maxRetryAfter = time.Hour
	// step is how far the clock may go back between two requests and still be taken
	// for two that overtook each other.
	step = time.Minute
)

// limits are what a client may use up.
type limits struct {
	rate    float64
	entries int64
}

// account is what a client has used of its limits. It belongs to an id, and outlives
// the [Client] values that share it.
type account struct {
	replays *token.Replay // of assertions

	mu      sync.Mutex // guards the rest
	limits  limits
	limiter *rate.Limiter // nil until the id is a client's
	latest  time.Time     // the latest that the limiter was told

	// Revocations outstanding, by the bucket that they expire in: sorted, none is empty,
	// and total is their sum. Buckets before base have ended; it never goes back, so that
	// nothing is given back to a bucket that is forgotten.
	buckets []filled
	base    int64
	total   int64
}

// maxReplays bounds the assertions that are remembered of one client: 400 a second that
// live as long as they may.
const maxReplays = 1 << 18

func newAccount() *account { return &account{replays: token.NewReplay(maxReplays)} }

// filled is a bucket with entries.
type filled struct{ bucket, entries int64 }

// limit sets the limits. What was used of those before stays used.
func (a *account) limit(l limits, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	burst := max(1, int(math.Ceil(l.rate*burstSeconds)))
	switch {
	case a.limiter == nil:
		a.limiter = rate.NewLimiter(rate.Limit(l.rate), burst)
	case a.limits.rate != l.rate:
		now = a.tick(now)
		a.limiter.SetLimitAt(now, rate.Limit(l.rate))
		a.limiter.SetBurstAt(now, burst)
	}
	a.limits = l
}

// tick keeps requests that overtook each other from making tokens: the limiter takes
// each step back for the beginning of a new wait. A clock that was set back counts.
func (a *account) tick(now time.Time) time.Time {
	if back := a.latest.Sub(now); back <= 0 || back > step {
		a.latest = now
	}
	return a.latest
}

// Admit takes one request from the client's rate. Where there is none left, it says
// when there will be, in whole seconds.
func (c *Client) Admit(now time.Time) (retryAfter time.Duration, ok bool) {
	a := c.account
	a.mu.Lock() // a reservation that is cancelled while others are made isn't given back in full
	defer a.mu.Unlock()
	now = a.tick(now)
	if a.limiter.AllowN(now, 1) {
		return 0, true
	}
	r := a.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	r.CancelAt(now)
	return min(wholeSeconds(wait), maxRetryAfter), false
}

// Reserve counts revocations that expire at some times as outstanding, all or none.
// release gives them back, once: for revocations that were not made after all, or
// had been made before. Where they are too many, retryAfter is until the first of
// those outstanding are forgotten, in whole seconds.
func (c *Client) Reserve(expires []time.Time, now time.Time) (release func(), retryAfter time.Duration, ok bool) {
	a := c.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(now)
	n, one, same := int64(0), int64(0), true
	for _, e := range expires {
		b, counts := a.bucketOf(e)
		if !counts {
			continue
		}
		same = same && (n == 0 || b == one)
		one = b
		n++
	}
	if n > a.limits.entries-a.total {
		return nil, a.untilFirst(now), false
	}
	switch {
	case n == 0:
		return func() {}, 0, true
	case same:
		a.add(one, n)
		return a.giveBack(one, n, nil), 0, true
	}
	all := make([]int64, 0, n)
	for _, e := range expires {
		if b, counts := a.bucketOf(e); counts {
			a.add(b, 1)
			all = append(all, b)
		}
	}
	return a.giveBack(0, 0, all), 0, true
}

// giveBack returns what takes n entries out of a bucket, and one out of each of others.
func (a *account) giveBack(b, n int64, others []int64) func() {
	done := false
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if done {
			return
		}
		done = true
		a.add(b, -n)
		for _, b := range others {
			a.add(b, -1)
		}
	}
}

// bucketOf returns the bucket that an entry is counted in, and false for one that has
// expired with a bucket that is forgotten.
func (a *account) bucketOf(expires time.Time) (int64, bool) {
	b := floorDiv(expires.Unix(), bucket)
	return min(b, a.base+maxBuckets-1), b >= a.base
}

// add changes the count of a bucket, unless it is forgotten. The last bucket is the
// one that most entries are for.
func (a *account) add(b, n int64) {
	if b < a.base || n == 0 {
		return
	}
	i, there := len(a.buckets)-1, true
	if i < 0 || a.buckets[i].bucket != b {
		i, there = slices.BinarySearchFunc(a.buckets, b, func(f filled, b int64) int { return cmp.Compare(f.bucket, b) })
	}
	if !there {
		a.buckets = slices.Insert(a.buckets, i, filled{bucket: b})
	}
	a.total += n
	if a.buckets[i].entries += n; a.buckets[i].entries == 0 {
		a.buckets = slices.Delete(a.buckets, i, i+1)
	}
}

// forget drops the buckets that have ended. Each is looked at once.
func (a *account) forget(now time.Time) {
	a.base = max(a.base, floorDiv(now.Unix(), bucket))
	ended := 0
	for ; ended < len(a.buckets) && a.buckets[ended].bucket < a.base; ended++ {
		a.total -= a.buckets[ended].entries
	}
	a.buckets = slices.Delete(a.buckets, 0, ended)
}

// untilFirst returns how long it is until a bucket ends.
func (a *account) untilFirst(now time.Time) time.Duration {
	if len(a.buckets) == 0 {
		return bucket // more than there may ever be: waiting won't help
	}
	return wholeSeconds(bucketEnd(a.buckets[0].bucket).Sub(now))
}

// floorDiv returns the bucket that a Unix time is in.
func floorDiv(unix int64, width time.Duration) int64 {
	w := int64(width / time.Second)
	n := unix / w
	if unix < n*w {
		n--
	}
	return n
}

func bucketEnd(b int64) time.Time { return time.Unix((b+1)*int64(bucket/time.Second), 0) }

// outstanding returns how many revocations are counted.
func (a *account) outstanding(now time.Time) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(now)
	return a.total
}

// idle reports whether there is nothing that a client of this id would be owed or owe.
func (a *account) idle(now time.Time) bool {
	return a.outstanding(now) == 0 && a.replays.Held(now) == 0
}

// wholeSeconds rounds up, to a second at least.
func wholeSeconds(d time.Duration) time.Duration {
	if rest := d % time.Second; rest > 0 {
		d -= rest
		d = max(d, d+time.Second) // not beyond the longest
	}
	return max(time.Second, d)
}
