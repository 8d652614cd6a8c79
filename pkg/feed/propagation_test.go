package feed

import (
	"maps"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// TestPropagationIsTimedAcrossClocks that are ten minutes apart, counts each revocation
// once, and none that was stored before this process was in step.
func TestPropagationIsTimedAcrossClocks(t *testing.T) {
	now := time.Now()
	f, err := New(denylist.New(), Config{Authority: "http://127.0.0.1:1", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	f.ring = wire.NewKeyring(testSigner().Public())
	f.position.rebase("e", point{0, wire.ChainStart("e")}, 0)
	const apart = 10 * time.Minute
	f.clock.answer(f.reading(now), f.reading(now), now.Add(apart))
	at := uint64(0)
	arrives := func(live bool, took time.Duration, revocations int) {
		t.Helper()
		at++
		var encoded [][]byte
		for i := range revocations {
			e, err := wire.EncodeEntry(denylist.Revocation{
				Issuer: issuer, Selector: denylist.One(denylist.JTI, utoa(at*100+uint64(i))), Expires: now.Add(time.Hour), ExactExpiry: true, At: now,
			})
			if err != nil {
				t.Fatal(err)
			}
			encoded = append(encoded, e)
		}
		message := testSigner().SealBatch("e", now.Add(apart-took), encoded)
		opened, err := f.ring.Open(message)
		if err != nil {
			t.Fatal(err)
		}
		if live {
			f.mu.Lock()
			f.message(at, message, opened, now)
			f.mu.Unlock()
		}
		f.record("e", wire.Record{Message: message}, now) // a page of the log holds it, too
	}
	arrives(true, time.Millisecond, 1) // before the first confirmation
	f.mu.Lock()
	f.heartbeat(wire.Heartbeat{
		Epoch: "e", Position: 1, Chain: f.position.track.Chain(), AsOf: now.Add(apart), IssuedAt: now.Add(apart),
	}, now)
	f.mu.Unlock()
	if p := f.Status().Propagation; p != (Propagation{}) {
		t.Errorf("before it was in step: %+v", p)
	}
	now = now.Add(50 * time.Second) // the allowance for drift is 25 ms by now
	arrives(true, 1500*time.Microsecond, 1)
	arrives(false, 40*time.Second, 3)       // an outage that it lived through
	arrives(true, 51*time.Second, 1)        // before its time
	arrives(true, -100*time.Millisecond, 1) // a clock that was set: no less than nothing
	want := map[time.Duration]uint64{}
	for bound := range (Propagation{}).Buckets() {
		switch {
		case bound >= time.Minute:
			want[bound] = 5
		case bound >= 2*time.Millisecond:
			want[bound] = 2
		default:
			want[bound] = 1
		}
	}
	got := f.Status().Propagation
	if counts := maps.Collect(got.Buckets()); !maps.Equal(counts, want) {
		t.Errorf("got %v, want %v", counts, want)
	}
	if sum := 1500*time.Microsecond + 3*40*time.Second; (got.Sum - sum).Abs() > time.Millisecond { // messages count in microseconds
		t.Errorf("in all %s, want %s", got.Sum, sum)
	}
}
