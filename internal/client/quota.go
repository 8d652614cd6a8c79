package client

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// bucket is how exactly an expiry is counted: an entry is outstanding until its
	// bucket ends.
	bucket        = 10 * time.Minute
	bucketSeconds = int64(bucket / time.Second)
	// maxBuckets bounds what is counted to eleven years ahead, which no token lives. What
	// expires later is counted in the last bucket.
	maxBuckets = 11 * 366 * 24 * 6
)

// Quota bounds the revocations that are outstanding. Safe for concurrent use.
type Quota struct {
	mu   sync.Mutex
	most int64

	// Revocations outstanding, by the bucket that they expire in: sorted, none is empty,
	// and total is their sum. Buckets before base have ended; it never goes back, so that
	// nothing is given back to a bucket that is forgotten.
	buckets []filled
	base    int64
	total   int64
}

// filled is a bucket with entries.
type filled struct{ bucket, entries int64 }

// NewQuota returns a quota that no client has to itself.
func NewQuota(most int64) *Quota { return &Quota{most: most} }

func (q *Quota) limit(most int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
}

// Reserve counts revocations that expire at some times as outstanding, all or none.
// release gives them back, once: for revocations that were not made after all, or
// had been made before. Where they are too many, retryAfter is until the first of
// those outstanding are forgotten, in whole seconds.
func (q *Quota) Reserve(expires []time.Time, now time.Time) (release func(), retryAfter time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	counted := make([]int64, 0, len(expires))
	for _, e := range expires {
		if b, counts := q.bucketOf(e); counts {
			counted = append(counted, b)
		}
	}
	if int64(len(counted)) > q.most-q.total {
		return nil, q.untilFirst(now), false
	}
	for _, b := range counted {
		q.add(b, 1)
	}
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for i, b := range counted {
			q.add(b, -1)
			counted[i] = math.MinInt64 // long forgotten: nothing is given back twice
		}
	}, 0, true
}

// bucketOf returns the bucket that an entry is counted in, and false for one that has
// expired with a bucket that is forgotten.
func (q *Quota) bucketOf(expires time.Time) (int64, bool) {
	b := bucketAt(expires.Unix())
	return min(b, q.base+maxBuckets-1), b >= q.base
}

// add changes the count of a bucket, unless it is forgotten. The last bucket is the
// one that most entries are for.
func (q *Quota) add(b, n int64) {
	if b < q.base {
		return
	}
	i, there := len(q.buckets)-1, true
	if i < 0 || q.buckets[i].bucket != b {
		i, there = slices.BinarySearchFunc(q.buckets, b, func(f filled, b int64) int { return cmp.Compare(f.bucket, b) })
	}
	if !there {
		q.buckets = slices.Insert(q.buckets, i, filled{bucket: b})
	}
	q.total += n
	if q.buckets[i].entries += n; q.buckets[i].entries == 0 {
		q.buckets = slices.Delete(q.buckets, i, i+1)
	}
}

// forget drops the buckets that have ended. Each is looked at once.
func (q *Quota) forget(now time.Time) {
	q.base = max(q.base, bucketAt(now.Unix()))
	ended := 0
	for ; ended < len(q.buckets) && q.buckets[ended].bucket < q.base; ended++ {
		q.total -= q.buckets[ended].entries
	}
	q.buckets = slices.Delete(q.buckets, 0, ended)
}

// untilFirst returns how long it is until a bucket ends.
func (q *Quota) untilFirst(now time.Time) time.Duration {
	if len(q.buckets) == 0 {
		return bucket // more than there may ever be: waiting won't help
	}
	return wholeSeconds(bucketEnd(q.buckets[0].bucket).Sub(now))
}

// bucketAt returns the bucket that a Unix time is in.
func bucketAt(unix int64) int64 {
	n := unix / bucketSeconds
	if unix < n*bucketSeconds {
		n--
	}
	return n
}

func bucketEnd(b int64) time.Time { return time.Unix((b+1)*bucketSeconds, 0) }

// outstanding returns how many revocations are counted.
func (q *Quota) outstanding(now time.Time) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	return q.total
}
