package verifier

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

const (
	// watchEvery is how soon an open request ends for what no change of the list tells:
	// time that passes, and keys that are withdrawn.
	watchEvery = 250 * time.Millisecond
	// longestPause bounds how long changes wait while looks at the open requests are kept
	// to a tenth of one processor.
	longestPause = 400 * time.Millisecond
)

// Ended is why a request's context was ended, as its cause ([context.Cause]): the
// decision that its token would get now.
type Ended struct{ Decision }

func (e *Ended) Error() string {
	return "the access token is not accepted any more: " + string(e.Reason)
}

// EndedBy returns why [Verifier.Hold] ended a context or one derived from it; nil where
// it did not.
func EndedBy(ctx context.Context) *Ended {
	if h, ok := ctx.Value(holdingKey{}).(*holding); ok {
		if by := h.by.Load(); by != nil { // whatever else had ended the context before
			return by
		}
	}
	ended, _ := errors.AsType[*Ended](context.Cause(ctx))
	return ended
}

// Hold returns a context for as long as an allowed request takes. It carries the claims
// ([FromContext]), and is cancelled, with an [*Ended] as cause, as soon as the token is
// not accepted any more: because it was revoked, has expired, its key was withdrawn, or
// the list has become stale under [Deny]. Revocations end it in the moment in which they
// are added to the list, as a rule, and anything else within half a second; where a
// hundred thousand are open, within a second.
//
// With [Config.OutliveExpiry] it goes on when the token expires. Revocations of the token
// itself are forgotten then, and only cut-offs still end it.
//
// release is to be called when the request is over. A decision that does not allow
// gives a context that has ended, and so may one that does: of a token that has been
// revoked since.
func (v *Verifier) Hold(ctx context.Context, d Decision) (held context.Context, release func()) {
	h := v.hold(ctx, d, nil, 0)
	return h, h.release
}

// HoldResponse is [Verifier.Hold] for the request that w answers. Where its context is
// ended, no more of the request's body can be read, and nothing can be written once
// grace is over: a client that neither sends nor reads keeps no handler waiting. (Where
// a middleware in between hides the connection, it does.) Setting w's deadlines must not
// wait for its reads and writes. After release, [EndedBy] tells for good whether they
// were set: if so, an HTTP/1 connection must not go on to another request.
func (v *Verifier) HoldResponse(ctx context.Context, d Decision, w http.ResponseWriter, grace time.Duration) (held context.Context, release func()) {
	h := v.hold(ctx, d, w, grace)
	return h, h.release
}

type holdingKey struct{}

// holding is the context of an open request. What can be cancelled is made when somebody
// asks for it: most handlers never do.
type holding struct {
	context.Context // the request's own
	mu              sync.Mutex
	cancellable     atomic.Pointer[cancellable] // nil as long as nobody asked
	over            bool                        // guarded by mu: released

	v     *Verifier
	entry *entry
	grace time.Duration         // for what is still to be written at the end
	by    atomic.Pointer[Ended] // set once, with the shard locked

	w http.ResponseWriter // whose connection is cut at the end; nil: none

	shard          *shard
	conn           net.Conn // guarded by shard.mu: what became of w's
	cut            bool     // guarded by shard.mu: it was
	previous, next *holding // guarded by shard.mu
	held           bool     // guarded by shard.mu: it is in the shard's list
}

// cancellable is a context that may be cancelled.
type cancellable struct {
	context.Context
	cancel context.CancelCauseFunc
}

// ending returns the context that ends when the request is to.
func (h *holding) ending() *cancellable {
	if c := h.cancellable.Load(); c != nil {
		return c
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.cancellable.Load()
	if c == nil {
		c = &cancellable{}
		c.Context, c.cancel = context.WithCancelCause(h.Context)
		if h.over {
			c.cancel(nil)
		}
		h.cancellable.Store(c)
	}
	return c
}

// Done implements [context.Context].
func (h *holding) Done() <-chan struct{} { return h.ending().Done() }

// Err implements [context.Context].
func (h *holding) Err() error {
	if c := h.cancellable.Load(); c != nil {
		return c.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return context.Canceled
	}
	return h.Context.Err()
}

// Value implements [context.Context]. What package context looks for in here, to be
// cancelled along with it, is found once Done has been called, which it does first.
func (h *holding) Value(key any) any {
	switch key {
	case any(contextKey{}):
		if h.entry == nil {
			return nil
		}
		return h.entry.claims
	case any(holdingKey{}):
		return h
	}
	if c := h.cancellable.Load(); c != nil {
		return c.Value(key)
	}
	return h.Context.Value(key)
}

// String keeps those who print a context from reading what is guarded.
func (h *holding) String() string { return "verifier.Hold" }

func (v *Verifier) hold(ctx context.Context, d Decision, w http.ResponseWriter, grace time.Duration) *holding {
	h := &holding{Context: ctx, v: v, entry: d.entry, w: w, grace: grace}
	if d.Outcome != Allowed || d.entry == nil {
		by := &Ended{d}
		h.by.Store(by)
		h.ending().cancel(by)
		return h
	}
	v.requests.add(h)
	// A revocation since the decision may have been told before the request was there to
	// be found. It can still be answered as any other.
	if v.list.Version() != d.version {
		h.shard.mu.Lock()
		by := h.look(v.now(), false)
		h.shard.mu.Unlock()
		if by != nil {
			v.report(end{h, by})
		}
	}
	return h
}

// release ends the watch. The context ends, too: nothing of the request may go on.
func (h *holding) release() {
	if h.shard != nil {
		h.shard.mu.Lock()
		h.shard.remove(h)
		h.shard.mu.Unlock()
	}
	h.mu.Lock()
	h.over = true
	c := h.cancellable.Load()
	h.mu.Unlock()
	if c != nil {
		c.cancel(nil)
	}
}

// look asks for the decision again, ends the request where it is another now, and
// returns why; else nil. The shard is locked, so that a request that is over is never
// touched: its connection may serve the next one.
func (h *holding) look(now time.Time, cut bool) *Ended {
	d := h.v.judge(h.entry, now, true)
	if d.Outcome == Allowed || !h.held {
		return nil
	}
	h.shard.remove(h)
	by := &Ended{d}
	h.by.Store(by)
	h.ending().cancel(by)
	switch {
	case !cut:
	case h.conn != nil:
		h.cut = true
		_ = h.conn.SetDeadline(time.Now()) // a connection that is closed already has no more to lose
	case h.w != nil:
		// Not every writer has deadlines. One that is now is over when it is looked at.
		h.cut = true
		control := http.NewResponseController(h.w)
		_ = control.SetReadDeadline(time.Now())
		_ = control.SetWriteDeadline(time.Now().Add(h.grace))
	}
	return by
}

// requests are the open ones. They are in shards, so that their starts and ends don't
// wait for each other.
type requests struct{ shards [64]shard }

type shard struct {
	mu    sync.Mutex
	first *holding
	n     int
	_     [40]byte // a cache line each
}

func (r *requests) add(h *holding) {
	s := &r.shards[rand.Uint32()%uint32(len(r.shards))]
	h.shard = s
	s.mu.Lock()
	if h.next = s.first; h.next != nil {
		h.next.previous = h
	}
	s.first, h.held = h, true
	s.n++
	s.mu.Unlock()
}

func (s *shard) remove(h *holding) {
	if !h.held {
		return
	}
	if h.previous != nil {
		h.previous.next = h.next
	} else {
		s.first = h.next
	}
	if h.next != nil {
		h.next.previous = h.previous
	}
	h.previous, h.next, h.held = nil, nil, false
	s.n--
}

func (r *requests) len() (n int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += s.n
		s.mu.Unlock()
	}
	return n
}

// look asks again for each open request, and returns those that it has ended.
func (r *requests) look(now time.Time) []end {
	return r.visit(func(h *holding) *Ended { return h.look(now, true) })
}

// recheck does so where the list does not clear the token, after the list has changed.
// Each thing more that were asked would be another cold cache line for each request.
func (r *requests) recheck(now time.Time) []end {
	return r.visit(func(h *holding) *Ended {
		if h.v.list.CheckToken(h.entry.checked, now).Status == denylist.Clear {
			return nil
		}
		return h.look(now, true)
	})
}

// end is a request that was ended.
type end struct {
	of *holding
	by *Ended
}

// visit calls f for each open request, with its shard locked.
func (r *requests) visit(f func(*holding) *Ended) (ends []end) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for h := s.first; h != nil; {
			next := h.next
			if by := f(h); by != nil {
				ends = append(ends, end{h, by})
			}
			h = next
		}
		s.mu.Unlock()
	}
	return ends
}

// watch looks at the open requests whenever the list changes, and now and then, until
// ctx ends. Now and then it has the cache forget, too.
func (v *core) watch(ctx context.Context) {
	changed := make(chan struct{}, 1)
	defer v.list.Notify(changed)()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	full := time.Now() // when all was asked last
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C:
		}
		began, look := time.Now(), v.requests.recheck
		if began.Sub(full) >= watchEvery { // however many changes there are
			full, look = began, v.requests.look
			v.cache.forget(v.now())
		}
		v.report(look(v.now())...)
		took := time.Since(began)
		if took < 100*time.Microsecond {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(9*took, longestPause)):
		}
	}
}

// maxUnlogged bounds the ended requests that wait to be logged.
const maxUnlogged = 10_000

// unlogged are requests that were ended: no logger, however slow, is to keep others from
// being ended.
type unlogged struct {
	mu   sync.Mutex
	ends []end
	more int // that found no room
	wake chan struct{}
}

// report counts requests that were ended, and has them logged.
func (v *core) report(ends ...end) {
	if len(ends) == 0 {
		return
	}
	for _, e := range ends {
		v.counts[e.by.Reason].ended.Add(1)
	}
	u := &v.unlogged
	u.mu.Lock()
	room := min(len(ends), maxUnlogged-len(u.ends))
	u.ends = append(u.ends, ends[:room]...)
	u.more += len(ends) - room
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default: // it has been woken
	}
}

// logEnded logs what is reported until ctx ends, and then what is left.
func (v *core) logEnded(ctx context.Context) {
	for u := &v.unlogged; ; {
		select {
		case <-ctx.Done():
		case <-u.wake:
		}
		u.mu.Lock()
		ends, more := u.ends, u.more
		u.ends, u.more = nil, 0
		u.mu.Unlock()
		for _, e := range ends {
			v.complain(e.of, "open request ended", &e.by.Decision)
		}
		if more > 0 {
			v.log.Warn("open requests ended, too many to log each", "count", more)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
