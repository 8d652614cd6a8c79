package feed

import "time"

const (
	driftPerSecond = 500 * time.Microsecond // two clocks of poor quality, apart
	wallJump       = time.Second            // more than slewing explains
	future         = time.Second
)

// reading is the local clocks at one moment: mono counts from the feed's start and
// can't be set; wall can be, but goes on while the machine sleeps.
type reading struct {
	mono time.Duration
	wall time.Time
}

// clock bounds the authority's clock by the local one.
type clock struct {
	set    bool
	ahead  time.Duration // authority time since 1970 less mono, at most
	anchor reading
}

// answer takes the answer to a nonce: asked is when the question left, issuedAt
// what the authority's clock said afterwards. The tighter of two bounds stays,
// unless the older one has become impossible.
func (c *clock) answer(asked, now reading, issuedAt time.Time) {
	ahead := sinceEpoch(issuedAt) - asked.mono
	known, ok := c.at(now)
	steppedForward := sinceEpoch(issuedAt)-now.mono > known+future
	if !ok || ahead < known || steppedForward {
		*c = clock{set: true, ahead: ahead, anchor: asked}
	}
}

// at returns the bound as of now, drift included, and whether it still holds.
func (c *clock) at(now reading) (time.Duration, bool) {
	if !c.set {
		return 0, false
	}
	mono, wall := now.mono-c.anchor.mono, now.wall.Sub(c.anchor.wall)
	if d := wall - mono; d > wallJump || d < -wallJump {
		return 0, false
	}
	return c.ahead + time.Duration(mono.Seconds()*float64(driftPerSecond)), true
}

// age returns how long ago, at most, the authority's clock read t. It is false
// where that can't be said.
func (c *clock) age(now reading, t time.Time) (time.Duration, bool) {
	ahead, ok := c.at(now)
	if !ok {
		return 0, false
	}
	age := now.mono + ahead - sinceEpoch(t)
	if age < -future {
		return 0, false
	}
	return max(age, 0), true
}

// guess is age without the allowance for drift: for people, not for decisions.
func (c *clock) guess(now reading, t time.Time) (time.Duration, bool) {
	if _, ok := c.at(now); !ok {
		return 0, false
	}
	return max(now.mono+c.ahead-sinceEpoch(t), 0), true
}

func sinceEpoch(t time.Time) time.Duration { return time.Duration(t.UnixNano()) }
