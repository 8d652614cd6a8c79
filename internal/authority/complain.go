package authority

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	complaintsAtOnce  = 1000
	complaintsASecond = 20
)

// complaints bound the lines that callers can have written to the log by being
// refused, each kind of refusal by itself, so that none hides another. The metrics
// count all of them. Safe for concurrent use.
type complaints [len(kinds)]struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	left    int // out, since the last line
}

func newComplaints() *complaints {
	c := &complaints{}
	for k := range c {
		c[k].limiter = rate.NewLimiter(complaintsASecond, complaintsAtOnce)
	}
	return c
}

// complain writes a line about what was not carried out, unless there are too many.
func (a *Authority) complain(ctx context.Context, level slog.Level, message string, o outcome, attrs ...slog.Attr) {
	left, ok := a.complaints.take(o.kind, a.now())
	if !ok {
		return
	}
	why := o.why
	if o.cause != nil {
		why = o.cause.Error()
	}
	attrs = append(attrs, slog.String("client", o.client), slog.String("outcome", o.kind.String()), slog.String("why", why))
	if left > 0 {
		attrs = append(attrs, slog.Int("left_out", left))
	}
	a.logger.LogAttrs(ctx, level, message, attrs...)
}

// take reports whether there may be one more line, and how many were left out before it.
func (c *complaints) take(k kind, now time.Time) (left int, ok bool) {
	one := &c[k]
	one.mu.Lock()
	defer one.mu.Unlock()
	if !one.limiter.AllowN(now, 1) {
		one.left++
		return 0, false
	}
	left, one.left = one.left, 0
	return left, true
}
