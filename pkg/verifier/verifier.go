package verifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Verifier decides on tokens. Make one with [New].
type Verifier struct {
	list    *denylist.List
	onStale StalePolicy
	log     *slog.Logger
	now     func() time.Time
	reader  *token.Reader
	cache   *cache
	counts  map[Reason]*atomic.Uint64 // the map itself never changes
	clear   *atomic.Uint64            // the one of Clear

	stop    context.CancelFunc
	running sync.WaitGroup
}

// New makes a verifier and starts to fetch the issuers' keys in the background,
// which goes on until [Verifier.Close]. A mistake in the configuration is an error
// of one line that names the field.
func New(c Config) (*Verifier, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("verifier.Config: %w", err)
	}
	reader, err := c.reader()
	if err != nil {
		return nil, err
	}
	cache, err := newCache(c.CacheSize)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	v := &Verifier{
		list: c.Denylist, onStale: c.OnStale, log: c.Logger, now: c.Now, reader: reader, cache: cache,
		counts: make(map[Reason]*atomic.Uint64, len(outcomes)), stop: stop,
	}
	for why := range outcomes {
		v.counts[why] = new(atomic.Uint64)
	}
	v.clear = v.counts[Clear]
	v.running.Go(func() { reader.Run(ctx) })
	return v, nil
}

// Close stops fetching keys and gives the cache back. A closed verifier still
// decides, by the keys it has. Closing twice is harmless.
func (v *Verifier) Close() {
	v.stop()
	v.running.Wait()
	v.cache.close()
}

// Decide is the one decision behind every door. It waits only where a token names
// a key that is not known yet, and no longer than ctx and two seconds.
func (v *Verifier) Decide(ctx context.Context, rawToken string) Decision {
	d := v.decide(ctx, rawToken)
	v.record(ctx, &d)
	return d
}

// DecideHeader decides on the bearer token of a request's header.
func (v *Verifier) DecideHeader(ctx context.Context, h http.Header) Decision {
	raw, why := BearerToken(h)
	if why != "" {
		d := decide(why)
		v.record(ctx, &d)
		return d
	}
	return v.Decide(ctx, raw)
}

func (v *Verifier) decide(ctx context.Context, raw string) Decision {
	e := v.cache.get(raw)
	cached := e != nil
	if !cached {
		verified, err := v.reader.Read(ctx, raw)
		if err != nil {
			return refuse(err)
		}
		if e, err = newEntry(raw, verified); err != nil {
			return refuse(err)
		}
	}
	now := v.now() // not before Read, which may have waited
	if err := e.verified.ValidAt(now); err != nil {
		d := refuse(err)
		d.Issuer = e.claims.Issuer
		return d
	}
	if !cached {
		v.cache.put(e, now)
	}
	verdict := v.list.CheckToken(e.checked, now)
	d := decide(judge(verdict, v.onStale))
	d.Issuer, d.Verdict = e.claims.Issuer, verdict
	if d.Outcome == Allowed {
		d.Claims = e.claims
	}
	return d
}

func refuse(err error) Decision {
	why := Reason(token.Reason(err))
	if _, known := outcomes[why]; !known {
		why = Malformed
	}
	d := decide(why)
	d.Err = err
	return d
}

// record counts a decision, and logs it unless it allows.
func (v *Verifier) record(ctx context.Context, d *Decision) {
	if d.Reason == Clear {
		v.clear.Add(1)
		return
	}
	v.counts[d.Reason].Add(1)
	if d.Outcome == Allowed {
		return
	}
	level := slog.LevelInfo
	if d.Outcome == Unavailable {
		level = slog.LevelWarn
	}
	if !v.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 6)
	attrs = append(attrs, slog.String("outcome", d.Outcome.String()), slog.String("reason", string(d.Reason)))
	if d.Issuer != "" {
		attrs = append(attrs, slog.String("issuer", d.Issuer))
	}
	if d.Verdict.Status == denylist.Revoked {
		attrs = append(attrs, slog.String("shape", d.Verdict.Shape.String()))
	}
	if age, loaded := v.list.Age(v.now()); loaded {
		attrs = append(attrs, slog.Duration("list_age", age.Round(time.Millisecond)))
	}
	if d.Err != nil {
		attrs = append(attrs, slog.String("error", d.Err.Error()))
	}
	v.log.LogAttrs(ctx, level, "token not accepted", attrs...)
}

// Ready is nil when good tokens are allowed: the list is loaded, and fresh unless
// OnStale is Allow, and the keys of at least one issuer are loaded. Otherwise it
// says what is missing.
func (v *Verifier) Ready() error {
	var missing []string
	age, loaded := v.list.Age(v.now())
	switch {
	case !loaded:
		missing = append(missing, "the denylist is still loading")
	case age > v.list.MaxStaleness() && v.onStale != Allow:
		missing = append(missing, fmt.Sprintf("the denylist is %s old, and %s is allowed",
			age.Round(time.Second), v.list.MaxStaleness()))
	}
	if err := v.reader.Ready(); err != nil {
		missing = append(missing, err.Error())
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	return nil
}
