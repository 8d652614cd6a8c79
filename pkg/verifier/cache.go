package verifier

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// entry says that a token's signature is valid. Whether the token is allowed is
// not in it. Immutable, but for used and what text remembers.
type entry struct {
	text
	verified *token.Verified
	checked  *denylist.Token
	claims   *Claims
	until    time.Time // when the token has expired
	used     atomic.Bool
}

func newEntry(raw string, v *token.Verified) (*entry, error) {
	t, err := v.DenylistToken()
	if err != nil {
		return nil, err
	}
	// A header's string may share its memory with the whole request.
	e := &entry{text: text{raw: strings.Clone(raw)}, verified: v.Lasting(), checked: t, until: v.Expires.Add(v.Leeway())}
	c := claimsOf(&e.text, v.Values)
	c.Issuer, c.KeyID, c.Audience, c.Expires, c.IssuedAt = v.Issuer, v.KeyID, v.Audience, v.Expires, v.IssuedAt
	e.claims = c
	return e, nil
}

// cache remembers entries by token. It may lose any of them at any time. A token has
// its place in one of a few ways of a set, which is one line of the processor's cache;
// reading takes no lock. Where a set is full, or the whole cache, an entry goes that was
// not asked for since it was last looked at.
type cache struct {
	seed         maphash.Seed
	sets         []set // a power of two
	hits, misses atomic.Uint64

	mu   sync.Mutex // of writers
	size int64      // the most that entries may cost together
	held int64
	next int // the set from which on forget goes on
}

const ways = 5

type set struct {
	tags    [ways]atomic.Uint32 // of the entries' hashes; 0: none
	_       uint32
	entries [ways]atomic.Pointer[entry]
}

func newCache(size int) *cache {
	// A quarter more room than entries, so that few sets are full before the cache is.
	return &cache{seed: maphash.MakeSeed(), size: int64(size), sets: make([]set, 1<<bits.Len(uint(max(0, size/4-1))))}
}

// place returns the set of a token, and its tag in it. The hash is of the signature's
// end, which differs between valid tokens: get compares the whole token.
func (c *cache) place(raw string) (*set, uint32) {
	h := maphash.String(c.seed, raw[max(0, len(raw)-64):])
	return &c.sets[h&uint64(len(c.sets)-1)], uint32(h>>32) | 1
}

// get returns the entry of exactly this token, if the key that signed it is still
// the issuer's.
func (c *cache) get(raw string) *entry {
	s, tag := c.place(raw)
	for i := range s.tags {
		if s.tags[i].Load() != tag {
			continue
		}
		if e := s.entries[i].Load(); e != nil && e.raw == raw && !e.verified.KeyRetired() {
			if !e.used.Load() { // or all who ask would write
				e.used.Store(true)
			}
			c.hits.Add(1)
			return e
		}
	}
	c.misses.Add(1)
	return nil
}

// put keeps an entry until its token has expired, if nothing else has more right to the
// room.
func (c *cache) put(e *entry, now time.Time) {
	if !now.Before(e.until) {
		return
	}
	s, tag := c.place(e.raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	way := s.way(e.raw, now)
	c.drop(s, way)
	for tries := 0; c.held+cost(e.raw) > c.size; tries++ {
		if tries == 64 {
			return
		}
		c.evict()
	}
	c.held += cost(e.raw)
	// Whoever reads between the two compares the whole token.
	s.entries[way].Store(e)
	s.tags[way].Store(tag)
}

// way returns the way of a set that a token may have: its own, a free one, or that of
// an entry which has done its time.
func (s *set) way(raw string, now time.Time) int {
	free := -1
	for i := range s.entries {
		switch e := s.entries[i].Load(); {
		case e != nil && e.raw == raw:
			return i
		case e == nil || !now.Before(e.until) || e.verified.KeyRetired():
			free = i
		}
	}
	for i := rand.IntN(ways); free < 0; i = (i + 1) % ways {
		if !s.entries[i].Load().used.CompareAndSwap(true, false) {
			free = i
		}
	}
	return free
}

func (c *cache) drop(s *set, way int) {
	if e := s.entries[way].Load(); e != nil {
		s.tags[way].Store(0)
		s.entries[way].Store(nil)
		c.held -= cost(e.raw)
	}
}

// evict drops an entry from somewhere, if it finds one that may go.
func (c *cache) evict() {
	s, way := &c.sets[rand.IntN(len(c.sets))], rand.IntN(ways)
	if e := s.entries[way].Load(); e != nil && !e.used.CompareAndSwap(true, false) {
		c.drop(s, way)
	}
}

// forget drops what has expired, from a part of the sets: all have had their turn after
// 256 calls.
func (c *cache) forget(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range len(c.sets)/256 + 1 {
		s := &c.sets[c.next]
		for way := range s.entries {
			if e := s.entries[way].Load(); e != nil && !now.Before(e.until) {
				c.drop(s, way)
			}
		}
		c.next = (c.next + 1) % len(c.sets)
	}
}

// cost counts a token in KiB, rounded up.
func cost(raw string) int64 { return int64(len(raw)+1023) / 1024 }
