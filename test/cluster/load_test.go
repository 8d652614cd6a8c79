//go:build fault

package cluster

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	callers = 8 // at once
	// rest is between two revocations of a caller, and retry after one that was not stored.
	rest  = 20 * time.Millisecond
	retry = 50 * time.Millisecond
)

// ack is a revocation that an authority has answered with 200.
type ack struct {
	token string
	at    time.Time     // when the answer was here
	took  time.Duration // the call that was answered so
	all   time.Duration // since the first call for that token
}

// load is callers who revoke one token after the other, at both authorities in turn. What
// one doesn't store they tell the other, until it is stored.
type load struct {
	running sync.WaitGroup
	stopped atomic.Bool
	retries atomic.Int64

	mu    sync.Mutex // guards the rest
	acked []ack      // in the order of at
}

func startLoad(w *world) *load {
	l := &load{}
	for i := range callers {
		l.running.Go(func() {
			for turn := i; !l.stopped.Load(); time.Sleep(rest) {
				turn = l.one(w, turn)
			}
		})
	}
	w.Cleanup(l.end)
	return l
}

// one revokes a token, beginning with the authority whose turn it is.
func (l *load) one(w *world, turn int) (next int) {
	token, began := w.token(), time.Now()
	for {
		called := time.Now()
		status, err := w.revoke(w.authorities[turn%len(w.authorities)].URL, token)
		turn++
		switch now := time.Now(); {
		case err == nil && status == http.StatusOK:
			l.mu.Lock()
			defer l.mu.Unlock()
			l.acked = append(l.acked, ack{token, time.Now(), now.Sub(called), now.Sub(began)})
			return turn
		case err == nil && status < http.StatusInternalServerError:
			w.Errorf("revoke: %d", status)
			return turn
		case now.Sub(began) > patience:
			w.Errorf("a revocation was not stored for %s: %d, %v", patience, status, err)
			return turn
		}
		l.retries.Add(1)
		time.Sleep(retry)
	}
}

// end waits for what was begun to be stored.
func (l *load) end() {
	l.stopped.Store(true)
	l.running.Wait()
}

// all returns what was acknowledged so far.
func (l *load) all() []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked[:len(l.acked):len(l.acked)] // nothing in there changes
}

// before returns those of acks that were there at an instant.
func before(acks []ack, instant time.Time) []ack {
	n, _ := slices.BinarySearchFunc(acks, instant, func(a ack, at time.Time) int { return a.at.Compare(at) })
	return acks[:n]
}

// gap is the longest time without an acknowledgement, from one instant to another.
func gap(acks []ack, from, to time.Time) (longest time.Duration) {
	last := from
	for _, a := range acks[len(before(acks, from)):len(before(acks, to))] {
		longest, last = max(longest, a.at.Sub(last)), a.at
	}
	return max(longest, to.Sub(last))
}

// quantiles of durations, which it sorts: the median, 99 of 100, all.
func quantiles(d []time.Duration) (p50, p99, most time.Duration) {
	slices.Sort(d)
	return d[len(d)/2], d[len(d)*99/100], d[len(d)-1]
}
