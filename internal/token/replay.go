package token

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

var (
	// ErrReplayed: the issuer's jti was there before.
	ErrReplayed = errors.New("token was used before")
	// ErrReplayFull: there is no room to remember a token, so it can't be accepted
	// now. It may be later.
	ErrReplayFull = errors.New("too many single-use tokens are remembered to take another one now")
	// ErrReplayForgotten: tokens that end so late have been forgotten, since the clock was
	// ahead, or a request overtook this one. Whether it was there can't be told.
	ErrReplayForgotten = errors.New("whether the token was used before is forgotten")
)

// Replay remembers single-use tokens, logout tokens and assertions, until they could
// not be accepted any more. It forgets none earlier: where it is full, it takes no
// others. An entry takes about 150 bytes, whatever the token's jti is. Safe for
// concurrent use.
type Replay struct {
	max int

	mu   sync.Mutex
	seen map[[sha256.Size]byte]*reserved
	next expiring  // the first to be forgotten is at its head
	gone time.Time // the latest until of what was forgotten
}

type reserved struct {
	key   [sha256.Size]byte
	until time.Time
	index int // in Replay.next
}

// NewReplay makes a Replay that remembers at most max tokens.
func NewReplay(max int) *Replay {
	return &Replay{max: max, seen: make(map[[sha256.Size]byte]*reserved)}
}

// Reserve remembers an issuer's jti until then, the time from which on the token is
// refused for its age. It errs with [ErrReplayed], [ErrReplayFull] or
// [ErrReplayForgotten].
func (r *Replay) Reserve(issuer, jti string, until, now time.Time) error {
	key := replayKey(issuer, jti)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	if r.seen[key] != nil {
		return ErrReplayed
	}
	if !until.After(r.gone) {
		return ErrReplayForgotten
	}
	if len(r.seen) >= r.max {
		return ErrReplayFull
	}
	e := &reserved{key: key, until: until}
	r.seen[key] = e
	heap.Push(&r.next, e)
	return nil
}

// Held returns how many tokens are remembered.
func (r *Replay) Held(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	return len(r.seen)
}

func (r *Replay) forget(now time.Time) {
	for len(r.next) > 0 && !now.Before(r.next[0].until) {
		e := heap.Pop(&r.next).(*reserved)
		delete(r.seen, e.key)
		r.gone = e.until // never goes back: what ends earlier is not taken any more
	}
}

// Release forgets a jti that the caller has reserved and then could not act on, so
// that the sender's next attempt is taken.
func (r *Replay) Release(issuer, jti string) {
	key := replayKey(issuer, jti)
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.seen[key]; e != nil {
		heap.Remove(&r.next, e.index)
		delete(r.seen, key)
	}
}

// replayKey has one size for all, and keeps no jti in memory.
func replayKey(issuer, jti string) [sha256.Size]byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(issuer)))
	return sha256.Sum256(append(append(b, issuer...), jti...))
}

// expiring is a heap by time.
type expiring []*reserved

func (e expiring) Len() int           { return len(e) }
func (e expiring) Less(i, j int) bool { return e[i].until.Before(e[j].until) }
func (e expiring) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].index, e[j].index = i, j
}

func (e *expiring) Push(x any) {
	r := x.(*reserved)
	r.index = len(*e)
	*e = append(*e, r)
}

func (e *expiring) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return last
}
