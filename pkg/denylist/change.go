package denylist

import (
	"slices"
	"sync"
	"sync/atomic"
)

// changes counts what may have revoked something, and says so to whom it may concern.
type changes struct {
	version atomic.Uint64

	mu      sync.Mutex
	waiting atomic.Pointer[[]chan<- struct{}]
}

// changed is called once the entries can be seen.
func (c *changes) changed() {
	c.version.Add(1)
	if all := c.waiting.Load(); all != nil {
		for _, one := range *all {
			select {
			case one <- struct{}{}:
			default: // it has not looked since the last
			}
		}
	}
}

// Version grows whenever entries have been added. Where it is the same after a
// [List.CheckToken] as before, nothing was added between.
func (l *List) Version() uint64 { return l.changes.version.Load() }

// Notify sends to c after entries have been added, until stop is called. It doesn't
// wait for c: with a buffer of one, no change goes unnoticed, and many are told as one.
func (l *List) Notify(c chan<- struct{}) (stop func()) {
	edit := func(f func([]chan<- struct{}) []chan<- struct{}) {
		l.changes.mu.Lock()
		defer l.changes.mu.Unlock()
		var now []chan<- struct{}
		if all := l.changes.waiting.Load(); all != nil {
			now = *all
		}
		now = f(slices.Clone(now))
		l.changes.waiting.Store(&now)
	}
	edit(func(all []chan<- struct{}) []chan<- struct{} { return append(all, c) })
	return sync.OnceFunc(func() {
		edit(func(all []chan<- struct{}) []chan<- struct{} {
			if i := slices.Index(all, c); i >= 0 {
				all = slices.Delete(all, i, i+1)
			}
			return all
		})
	})
}
