package feed

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/revcast/revcast/pkg/denylist"
)

// BenchmarkPropagation measures from a revoke call's answer until the last of a
// hundred feeds denies the token, and beside it, with the same calls, until the
// last of a hundred bare subscribers has the message.
func BenchmarkPropagation(b *testing.B) {
	const verifiers, calls = 100, 300
	const pollEvery = 50 * time.Microsecond // often enough to tell, and seldom enough not to take the cores
	a := startAuthority(b, b.TempDir())

	feeds := make([]*follower, verifiers)
	for i := range feeds {
		feeds[i] = follow(b, a.URL)
	}
	for _, f := range feeds {
		eventually(b, "ready", func() bool { return f.Status().Connected && f.Status().Heartbeats > 0 })
	}
	round := 0
	ours := measure(b, a, calls, func(token *denylist.Token) {
		for _, f := range feeds {
			for !f.denies(token) {
				time.Sleep(pollEvery)
			}
		}
	}, &round)
	for _, f := range feeds {
		f.stop()
	}

	d, err := a.Discovery()
	if err != nil {
		b.Fatal(err)
	}
	received := make([]atomic.Int64, verifiers)
	for i := range received {
		nc, err := nats.Connect(d.Live.URL, nats.UserInfo(d.Live.User, d.Live.Password))
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Subscribe("revcast.live.batch", func(*nats.Msg) { received[i].Add(1) }); err != nil {
			b.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	done := int64(0)
	bare := measure(b, a, calls, func(*denylist.Token) {
		done++
		for i := range received {
			for received[i].Load() < done {
				time.Sleep(pollEvery)
			}
		}
	}, &round)

	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	for b.Loop() { // measured once, above: what counts is the ratio of the two
	}
	for _, p := range []int{50, 99} {
		x, y := ours[len(ours)*p/100], bare[len(bare)*p/100]
		b.ReportMetric(us(x), fmt.Sprintf("feeds-p%d-µs", p))
		b.ReportMetric(us(y), fmt.Sprintf("bare-p%d-µs", p))
		b.ReportMetric(float64(x)/float64(y), fmt.Sprintf("ratio-p%d", p))
	}
	b.ReportMetric(0, "ns/op")
}

func measure(b *testing.B, a *authority, calls int, all func(*denylist.Token), round *int) []time.Duration {
	times := make([]time.Duration, calls)
	for i := range times {
		*round++
		token := a.revoke(b, fmt.Sprint("bench", *round))
		answered := time.Now()
		all(token)
		times[i] = max(time.Since(answered), time.Microsecond)
	}
	slices.Sort(times)
	return times
}
