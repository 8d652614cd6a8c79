package verifier

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
)

// verified is some token; the cache looks at its key only.
var verified = sync.OnceValue(func() *token.Verified {
	idp := tokentest.NewIdP(es256())
	reader, err := token.NewReader([]token.Issuer{{Issuer: issuer, JWKSURI: issuer, Algorithms: []string{"ES256"}}}, idp.Client(), silent)
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { reader.Run(ctx) })
	v, err := reader.Read(ctx, es256().Token(claims(nil)))
	if err != nil {
		panic(err)
	}
	stop()
	running.Wait()
	return v
})

func cached(raw string, until time.Time) *entry {
	return &entry{text: text{raw: raw}, verified: verified(), until: until}
}

// clear empties a cache.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.sets {
		for way := range ways {
			c.drop(&c.sets[i], way)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(set{}); size != 64 {
		t.Errorf("a set takes %d bytes", size)
	}
	now := time.Now()
	for _, size := range []int{1, 2, 5, 100, 1000} {
		for _, long := range []int{1, 8} { // KiB
			c := newCache(size)
			for i := range 4 * size {
				raw := fmt.Sprint(strings.Repeat("x", long*1024-20), i)
				c.put(cached(raw, now.Add(time.Hour)), now)
				if c.held > int64(size) {
					t.Fatalf("size %d holds %d", size, c.held)
				}
			}
			held, sum := 0, int64(0)
			for i := range c.sets {
				for way := range ways {
					if e := c.sets[i].entries[way].Load(); e != nil {
						held++
						sum += cost(e.raw)
					}
				}
			}
			if sum != c.held || long <= size && held < size/long*9/10 {
				t.Errorf("size %d, %d KiB each: %d entries that cost %d, counted as %d", size, long, held, sum, c.held)
			}
		}
	}
}

func TestCacheHoldsItsSize(t *testing.T) {
	now, c := time.Now(), newCache(10_000)
	for i := range 10_000 {
		c.put(cached(fmt.Sprint("token-", i), now.Add(time.Hour)), now)
	}
	lost := 0
	for i := range 10_000 {
		if c.get(fmt.Sprint("token-", i)) == nil {
			lost++
		}
	}
	if lost > 1_000 {
		t.Errorf("%d of 10000 are lost", lost)
	}
	// What is asked for again and again stays, whatever else comes by.
	for i := range 100_000 {
		c.put(cached(fmt.Sprint("other-", i), now.Add(time.Hour)), now)
		c.get(fmt.Sprint("other-", i-1))
		if hot := fmt.Sprint("hot-", i%100); c.get(hot) == nil {
			c.put(cached(hot, now.Add(time.Hour)), now)
			if i > 1000 {
				lost++
			}
		}
	}
	if lost > 2_000 {
		t.Errorf("hot entries were lost %d times", lost)
	}
}

func TestCacheForgetsWhatHasExpired(t *testing.T) {
	now, c := time.Now(), newCache(1000)
	c.put(cached("expired", now), now)
	for i := range 500 {
		c.put(cached(fmt.Sprint("token-", i), now.Add(time.Minute)), now)
	}
	c.put(cached("long", now.Add(time.Hour)), now)
	c.put(cached("long", now.Add(2*time.Hour)), now) // again: it takes its own place
	held := c.held
	for range 256 {
		c.forget(now.Add(time.Minute))
	}
	if held < 480 || held > 501 || c.held != 1 || c.get("long") == nil || c.get("expired") != nil || c.get("token-1") != nil {
		t.Errorf("%d, then %d", held, c.held)
	}
}

func TestCacheUnderConcurrency(t *testing.T) {
	now, c := time.Now(), newCache(50)
	var running sync.WaitGroup
	for worker := range 4 {
		running.Go(func() {
			for i := range 5_000 {
				raw := fmt.Sprint("token-", (i*7+worker)%200)
				if e := c.get(raw); e != nil && e.raw != raw {
					t.Errorf("%s for %s", e.raw, raw)
				} else if e == nil {
					c.put(cached(raw, now.Add(time.Duration(i)*time.Second)), now)
				}
				if i%100 == 0 {
					c.forget(now.Add(time.Hour))
				}
			}
		})
	}
	running.Wait()
}
