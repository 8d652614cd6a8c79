package client

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/revcast/revcast/internal/token"
)

const (
	burstSeconds = 2
	// maxRetryAfter bounds what a caller is told to wait where a rate is very low.
	maxRetryAfter = time.Hour
	// step is how far the clock may go back between two requests and still be taken
	// for two that overtook each other.
	step = time.Minute
	// maxReplays bounds the assertions that are remembered of one client: 400 a second that
	// live as long as they may.
	maxReplays = 1 << 18
)

// limits are what a client may use up.
type limits struct {
	rate    float64
	entries int64
}

// account is what a client has used of its limits. It belongs to an id, and outlives
// the [Client] values that share it.
type account struct {
	replays *token.Replay // of assertions
	pace
	Quota
}

func newAccount() *account { return &account{replays: token.NewReplay(maxReplays)} }

// limit sets the limits. What was used of those before stays used.
func (a *account) limit(l limits, now time.Time) {
	a.pace.limit(l.rate, now)
	a.Quota.limit(l.entries)
}

// idle reports whether there is nothing that a client of this id would be owed or owe.
func (a *account) idle(now time.Time) bool {
	return a.outstanding(now) == 0 && a.replays.Held(now) == 0
}

// pace is a rate of requests.
type pace struct {
	mu      sync.Mutex
	limiter *rate.Limiter // nil until there is a rate
	latest  time.Time     // the latest that the limiter was told
}

func (p *pace) limit(aSecond float64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit, burst := rate.Limit(aSecond), max(1, int(math.Ceil(aSecond*burstSeconds)))
	switch {
	case p.limiter == nil:
		p.limiter = rate.NewLimiter(limit, burst)
	case p.limiter.Limit() != limit:
		now = p.tick(now)
		p.limiter.SetLimitAt(now, limit)
		p.limiter.SetBurstAt(now, burst)
	}
}

// tick keeps requests that overtook each other from making tokens: the limiter takes
// each step back for the beginning of a new wait. A clock that was set back counts.
func (p *pace) tick(now time.Time) time.Time {
	if back := p.latest.Sub(now); back <= 0 || back > step {
		p.latest = now
	}
	return p.latest
}

// Admit takes one request from the client's rate. Where there is none left, it says
// when there will be, in whole seconds.
func (c *Client) Admit(now time.Time) (retryAfter time.Duration, ok bool) {
	p := &c.account.pace
	p.mu.Lock() // a reservation that is cancelled while others are made isn't given back in full
	defer p.mu.Unlock()
	now = p.tick(now)
	r := p.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return 0, true
	}
	r.CancelAt(now)
	return min(wholeSeconds(wait), maxRetryAfter), false
}

// wholeSeconds rounds up, to a second at least.
func wholeSeconds(d time.Duration) time.Duration {
	if rest := d % time.Second; rest > 0 {
		d -= rest
		d = max(d, d+time.Second) // not beyond the longest
	}
	return max(time.Second, d)
}
