package verifier

import (
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// entry says that a token's signature is valid. Whether the token is allowed is
// not in it. Immutable.
type entry struct {
	raw      string
	verified *token.Verified
	checked  *denylist.Token
	claims   *Claims
}

func newEntry(raw string, v *token.Verified) (*entry, error) {
	t, err := v.DenylistToken()
	if err != nil {
		return nil, err
	}
	// A header's string may share its memory with the whole request.
	return &entry{raw: strings.Clone(raw), verified: v, checked: t, claims: claimsOf(v)}, nil
}

// cache remembers entries by token. It may lose any of them at any time.
type cache struct {
	gate         gate // ristretto must not be used while it closes
	tokens       *ristretto.Cache[string, *entry]
	hits, misses atomic.Uint64
}

func newCache(size int) (*cache, error) {
	seed := maphash.MakeSeed()
	tokens, err := ristretto.NewCache(&ristretto.Config[string, *entry]{
		NumCounters: 10 * int64(size), MaxCost: int64(size), BufferItems: 64, IgnoreInternalCost: true,
		// One keyed hash is enough, and of the signature's end, which differs between
		// valid tokens: get compares the whole token.
		KeyToHash: func(raw string) (uint64, uint64) { return maphash.String(seed, raw[max(0, len(raw)-64):]), 0 },
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't make the signature cache: %w", err)
	}
	return &cache{tokens: tokens}, nil
}

// get returns the entry of exactly this token, if the key that signed it is still
// the issuer's.
func (c *cache) get(raw string) *entry {
	var e *entry
	if c.gate.enter() {
		e, _ = c.tokens.Get(raw)
		c.gate.leave()
	}
	if e == nil || e.raw != raw || e.verified.KeyRetired() {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	return e
}

// put keeps an entry until its token has expired, if there is room.
func (c *cache) put(e *entry, now time.Time) {
	left := e.verified.Expires.Add(e.verified.Leeway()).Sub(now)
	if left > 0 && c.gate.enter() {
		c.tokens.SetWithTTL(e.raw, e, cost(e.raw), left)
		c.gate.leave()
	}
}

// cost counts a token in KiB, rounded up.
func cost(raw string) int64 { return int64(len(raw)+1023) / 1024 }

func (c *cache) close() {
	if c.gate.close() {
		c.tokens.Close()
	}
}

// gate lets calls in until it is closed. Those inside never wait, so closing waits
// for nanoseconds.
type gate struct{ inside atomic.Int64 }

const closed = math.MinInt64 / 2

func (g *gate) enter() bool {
	if g.inside.Add(1) > 0 {
		return true
	}
	g.inside.Add(-1)
	return false
}

func (g *gate) leave() { g.inside.Add(-1) }

// close returns once nobody is inside, and whether it was this call that closed.
func (g *gate) close() bool {
	for {
		n := g.inside.Load()
		if n < 0 {
			return false
		}
		if g.inside.CompareAndSwap(n, n+closed) {
			break
		}
	}
	for g.inside.Load() != closed {
		runtime.Gosched()
	}
	return true
}
