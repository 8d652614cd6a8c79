package wire

// trackSize is how many positions back a Track remembers the chain, so that a
// heartbeat that was overtaken by newer messages can still be compared.
const trackSize = 8192

// Track follows the chain over contiguous messages. Not safe for concurrent use.
type Track struct {
	position uint64
	first    uint64 // the oldest position remembered
	chains   []Chain
}

// NewTrack starts at a position whose chain is known.
func NewTrack(position uint64, chain Chain) *Track {
	t := &Track{position: position, first: position, chains: make([]Chain, 1, 16)}
	t.chains[0] = chain
	return t
}

// Position returns the position reached.
func (t *Track) Position() uint64 { return t.position }

// Chain returns the chain at Position.
func (t *Track) Chain() Chain { return t.chains[t.position%uint64(len(t.chains))] }

// Append takes the message at the next position.
func (t *Track) Append(message Hash) {
	next := t.Chain().Next(t.position+1, message)
	if n := uint64(len(t.chains)); t.position+1-t.first >= n {
		if n < trackSize { // double it, each chain moving to its place in the larger ring
			grown := make([]Chain, 2*n)
			for p := t.first; p <= t.position; p++ {
				grown[p%(2*n)] = t.chains[p%n]
			}
			t.chains = grown
		} else {
			t.first++
		}
	}
	t.position++
	t.chains[t.position%uint64(len(t.chains))] = next
}

// At returns the chain at a position, where it is still remembered.
func (t *Track) At(position uint64) (Chain, bool) {
	if position < t.first || position > t.position {
		return Chain{}, false
	}
	return t.chains[position%uint64(len(t.chains))], true
}
