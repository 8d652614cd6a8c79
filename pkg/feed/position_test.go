package feed

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
)

// story is a log: messages 1..n and the chain at each position.
type story struct {
	hashes []wire.Hash
	chains []wire.Chain
}

func newStory(epoch string, n int, salt byte) story {
	s := story{make([]wire.Hash, n+1), make([]wire.Chain, n+1)}
	s.chains[0] = wire.ChainStart(epoch)
	for i := 1; i <= n; i++ {
		s.hashes[i] = wire.HashOf([]byte{byte(i), byte(i >> 8), salt})
		s.chains[i] = s.chains[i-1].Next(uint64(i), s.hashes[i])
	}
	return s
}

func (s story) heartbeat(at int, asOf time.Duration) wire.Heartbeat {
	return wire.Heartbeat{Epoch: "e", Position: uint64(at), Chain: s.chains[at], AsOf: era.Add(asOf), IssuedAt: era.Add(asOf)}
}

func based(s story, at int) *position {
	p := &position{}
	p.rebase("e", point{uint64(at), s.chains[at]}, p.ask())
	return p
}

func want(t *testing.T, what string, got, want decision) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestPositionDecisions(t *testing.T) {
	s, other := newStory("e", 20, 0), newStory("e", 20, 1)
	p := based(s, 5)
	want(t, "known position", p.message("e", 5, s.hashes[5]), duplicate)
	want(t, "next", p.message("e", 6, s.hashes[6]), apply)
	want(t, "again", p.message("e", 6, s.hashes[6]), duplicate)
	want(t, "beyond a hole", p.message("e", 8, s.hashes[8]), gap)
	if !p.missing() {
		t.Error("the hole is not noticed")
	}
	want(t, "heartbeat beyond the hole", p.heartbeat(s.heartbeat(8, 1)), gap)
	want(t, "heartbeat before the hole", p.heartbeat(s.heartbeat(6, 1)), apply)
	want(t, "the same heartbeat again", p.heartbeat(s.heartbeat(6, 1)), stale)
	want(t, "the hole is filled", p.message("e", 7, s.hashes[7]), apply)
	if p.missing() || p.track.Position() != 8 {
		t.Errorf("at %d, missing %v", p.track.Position(), p.missing())
	}
	want(t, "heartbeat at an earlier position than ours", p.heartbeat(s.heartbeat(7, 2)), apply)
	want(t, "heartbeat before what is confirmed", p.heartbeat(s.heartbeat(6, 3)), stale)
	want(t, "another epoch", p.message("f", 9, s.hashes[9]), foreign)
	foreignBeat := s.heartbeat(8, 4)
	foreignBeat.Epoch = "f"
	want(t, "heartbeat of another epoch", p.heartbeat(foreignBeat), foreign)
	want(t, "another message at a known position", p.message("e", 8, other.hashes[8]), conflict)
	if p.track.Position() != 7 {
		t.Errorf("after the conflict at %d", p.track.Position())
	}
}

func TestSignedAWithheldOrReplacedMessageShowsInTheChain(t *testing.T) {
	s, other := newStory("e", 20, 0), newStory("e", 20, 1)
	p := based(s, 5)
	want(t, "replaced", p.message("e", 6, other.hashes[6]), apply)
	want(t, "the next heartbeat", p.heartbeat(s.heartbeat(6, 1)), conflict)
	if p.track.Position() != 5 || p.confirmed.position != 5 {
		t.Errorf("went on from %d, confirmed %d", p.track.Position(), p.confirmed.position)
	}
	want(t, "the true one", p.message("e", 6, s.hashes[6]), apply)
	want(t, "confirmed", p.heartbeat(s.heartbeat(6, 2)), apply)
	// Withheld, and the rest renumbered so that no gap shows.
	want(t, "renumbered", p.message("e", 7, s.hashes[8]), apply)
	want(t, "the next heartbeat", p.heartbeat(s.heartbeat(8, 3)), gap)
	want(t, "renumbered again", p.message("e", 8, s.hashes[9]), apply)
	want(t, "the heartbeat after it", p.heartbeat(s.heartbeat(8, 4)), conflict)
}

func TestPositionConfirmsNothingThatIsNotHere(t *testing.T) {
	const n = 60
	s, other := newStory("e", n, 0), newStory("e", n, 1)
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		start := r.IntN(5)
		p := based(s, start)
		had := map[int]bool{}
		for i := range start + 1 {
			had[i] = true
		}
		asOf := time.Duration(0)
		for range 150 {
			at := 1 + r.IntN(n)
			switch r.IntN(6) {
			case 0, 1, 2: // shuffled, repeated
				p.message("e", uint64(at), s.hashes[at])
				had[at] = true
			case 3: // forged by whoever controls NATS
				p.message("e", uint64(at), other.hashes[at])
			case 4:
				asOf++
				if p.heartbeat(s.heartbeat(at, asOf)) == apply {
					for i := 1; i <= at; i++ {
						if !had[i] {
							t.Fatalf("seed %d: confirmed %d without message %d", seed, at, i)
						}
					}
				}
			case 5: // the answer to a question
				at = max(at, int(p.confirmed.position))
				for i := range at + 1 {
					had[i] = true
				}
				p.rebase("e", point{uint64(at), s.chains[at]}, p.ask())
			}
			if p.confirmed.chain != s.chains[p.confirmed.position] {
				t.Fatalf("seed %d: confirmed a chain that is not the log's", seed)
			}
		}
	}
}

func TestPositionIsBounded(t *testing.T) {
	s := newStory("e", 1, 0)
	p := based(s, 0)
	for i := range uint64(2 * maxSeen) {
		p.message("e", 10+i, wire.Hash{})
	}
	if len(p.seen) > maxSeen {
		t.Errorf("%d messages remembered", len(p.seen))
	}
}
