package feed

import (
	"time"

	"github.com/revcast/revcast/internal/wire"
)

// decision is what a message or a heartbeat means for the position. The entries of
// a signed batch of this epoch are applied whatever the decision; those of another
// epoch only where the log itself holds them.
type decision uint8

const (
	apply     decision = iota // the next in order, or a heartbeat that confirms
	duplicate                 // known already
	gap                       // something before it is missing
	stale                     // a heartbeat older than the last one that confirmed
	foreign                   // of another epoch
	conflict                  // not what is known to stand there: the log or NATS was tampered with
	decisions
)

func (d decision) String() string {
	return [...]string{"apply", "duplicate", "gap", "stale", "foreign", "conflict"}[d]
}

// maxSeen bounds the messages remembered past the confirmed position. Those
// dropped are asked for again.
const maxSeen = 64 << 10

// point is a place in the log.
type point struct {
	position uint64
	chain    wire.Chain
}

// position follows one epoch of the log. It is pure: no clock, no I/O.
type position struct {
	epoch     string
	track     *wire.Track // contiguous from confirmed; nil before the first base
	confirmed point       // by a heartbeat, or by a snapshot
	asOf      time.Time   // authority time of the newest heartbeat that confirmed
	seen      map[uint64]seen
	questions uint64 // counts those that left
}

// seen is a message past the confirmed position, and the question before which it
// came.
type seen struct {
	message  wire.Hash
	question uint64
}

// ask counts a question that leaves now, for the rebase on its answer.
func (p *position) ask() (question uint64) {
	p.questions++
	return p.questions
}

// rebase starts from a point that is known to be good: where the answer to a
// question says that the log ends. What was seen beyond it after the question left
// stays and is taken in order. What came before it and lies beyond the log's end was
// never in the log.
func (p *position) rebase(epoch string, at point, question uint64) {
	if p.epoch != "" && p.epoch != epoch || p.seen == nil {
		p.seen, p.asOf = map[uint64]seen{}, time.Time{}
	}
	for n, s := range p.seen {
		if n > at.position && s.question < question {
			delete(p.seen, n)
		}
	}
	p.epoch, p.confirmed, p.track = epoch, at, wire.NewTrack(at.position, at.chain)
	p.forget()
	p.drain()
}

func (p *position) based() bool { return p.track != nil }

// message takes a message that the live subject says stands at a position.
func (p *position) message(epoch string, at uint64, message wire.Hash) decision {
	if p.epoch != "" && epoch != p.epoch {
		return foreign
	}
	if p.seen == nil {
		p.seen = map[uint64]seen{}
	}
	if p.based() && at <= p.confirmed.position {
		return duplicate
	}
	if known, ok := p.seen[at]; ok {
		if known.message == message {
			return duplicate
		}
		// One of the two is not what the log holds. Forget both, and all that was built
		// on them: the authority will be asked.
		delete(p.seen, at)
		p.restart()
		return conflict
	}
	if len(p.seen) >= maxSeen {
		return gap
	}
	p.seen[at] = seen{message, p.questions}
	if !p.based() || at != p.track.Position()+1 {
		return gap
	}
	p.drain()
	return apply
}

// heartbeat compares a signed heartbeat with what is known. Where it answers apply,
// the log up to its position is here, and everything revoked before its AsOf.
func (p *position) heartbeat(h wire.Heartbeat) decision {
	switch {
	case p.epoch != "" && h.Epoch != p.epoch:
		return foreign
	case !p.based():
		return gap
	case !h.AsOf.After(p.asOf):
		return stale
	case h.Position > p.track.Position():
		return gap
	case h.Position < p.confirmed.position:
		// Another authority that is a moment behind, or a log that was rolled back. It
		// says nothing about what comes after its position.
		return stale
	}
	chain, ok := p.track.At(h.Position)
	if !ok {
		return gap
	}
	if chain != h.Chain {
		p.seen = map[uint64]seen{}
		p.restart()
		return conflict
	}
	p.confirmed, p.asOf = point{h.Position, h.Chain}, h.AsOf
	p.forget()
	return apply
}

// missing reports whether messages beyond a hole are waiting for what is in it.
func (p *position) missing() bool {
	return !p.based() || p.confirmed.position+uint64(len(p.seen)) > p.track.Position()
}

// restart goes back to what is confirmed and takes up from there what was seen.
func (p *position) restart() {
	if p.based() {
		p.track = wire.NewTrack(p.confirmed.position, p.confirmed.chain)
		p.drain()
	}
}

func (p *position) drain() {
	for {
		s, ok := p.seen[p.track.Position()+1]
		if !ok {
			return
		}
		p.track.Append(s.message)
	}
}

func (p *position) forget() {
	for at := range p.seen {
		if at <= p.confirmed.position {
			delete(p.seen, at)
		}
	}
}
