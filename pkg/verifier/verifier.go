package verifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Verifier decides on tokens. Make one with [New], and others that ask more with
// [Verifier.Requiring].
type Verifier struct {
	*core
	need    Requirement
	onStale StalePolicy
}

// core is what a verifier shares with those that were made from it.
type core struct {
	list     *denylist.List
	policy   StalePolicy // where no Requirement has another
	outlive  bool        // see Config.OutliveExpiry
	log      *slog.Logger
	now      func() time.Time
	reader   *token.Reader
	cache    *cache
	requests requests
	unlogged unlogged
	counts   map[Reason]*counts // the map itself never changes
	clear    *counts            // those of Clear

	stop    context.CancelFunc
	running sync.WaitGroup
}

// counts are of one reason.
type counts struct{ decisions, ended atomic.Uint64 }

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
	ctx, stop := context.WithCancel(context.Background())
	v := &Verifier{onStale: c.OnStale, core: &core{
		list: c.Denylist, policy: c.OnStale, outlive: c.OutliveExpiry, log: c.Logger, now: c.Now, reader: reader, cache: newCache(c.CacheSize),
		counts: make(map[Reason]*counts, len(outcomes)), stop: stop, unlogged: unlogged{wake: make(chan struct{}, 1)},
	}}
	for why := range outcomes {
		v.counts[why] = new(counts)
	}
	v.clear = v.counts[Clear]
	v.running.Go(func() { reader.Run(ctx) })
	v.running.Go(func() { v.watch(ctx) })
	v.running.Go(func() { v.logEnded(ctx) })
	return v, nil
}

// Requirement is what some requests need beyond a good token. The zero Requirement
// asks for nothing.
type Requirement struct {
	// Audiences: aud must hold one of them, besides one of the issuer's. Empty: no more.
	Audiences []string
	// Scopes must all be among the token's. See [Claims.Scopes].
	Scopes []string
	// OnStale takes the place of [Config.OnStale]. nil: that one counts.
	OnStale *StalePolicy
}

// Requiring returns a verifier that asks for r, in place of what v may require. It
// shares everything else with v: list, keys, cache, counts, and its end by
// [Verifier.Close].
func (v *Verifier) Requiring(r Requirement) *Verifier {
	stricter := &Verifier{core: v.core, need: r, onStale: v.policy}
	if r.OnStale != nil {
		stricter.onStale = *r.OnStale
	}
	return stricter
}

// Close stops fetching keys and watching open requests. A closed verifier still decides,
// by the keys it has. Closing twice is harmless.
func (v *Verifier) Close() {
	v.stop()
	v.running.Wait()
}

// Decide is the one decision behind every door. It waits only where a token names
// a key that is not known yet, and no longer than ctx and two seconds.
func (v *Verifier) Decide(ctx context.Context, rawToken string) Decision {
	d := v.decide(ctx, rawToken)
	v.record(ctx, &d)
	return d
}

// DecideRequest decides on the bearer token of a request with this header and query.
func (v *Verifier) DecideRequest(ctx context.Context, h http.Header, rawQuery string) Decision {
	raw, why := BearerToken(h, rawQuery)
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
	d := v.judge(e, now, false)
	if !cached {
		v.cache.put(e, now) // whatever was decided: the signature is right
	}
	return d
}

// judge asks what has to be asked at each request, and again while it is open: whatever
// no cache may answer.
func (v *Verifier) judge(e *entry, now time.Time, open bool) Decision {
	version := v.list.Version() // before the list is asked
	if err := e.verified.ValidAt(now); err != nil && !(open && v.outlive && errors.Is(err, token.ErrExpired)) {
		return refuse(err).of(e)
	}
	if e.verified.KeyRetired() {
		return decide(UnknownKey).of(e)
	}
	if !v.need.audience(e.claims) {
		return decide(WrongAudience).of(e)
	}
	verdict := v.list.CheckToken(e.checked, now)
	d := decide(judge(verdict, v.onStale)).of(e)
	d.Verdict = verdict
	if d.Outcome == Allowed {
		if !v.need.scopes(e.claims) { // last: of a token that is no good this must tell nothing
			return decide(InsufficientScope).of(e)
		}
		d.Claims, d.entry, d.version = e.claims, e, version
	}
	return d
}

func (r *Requirement) audience(c *Claims) bool {
	return len(r.Audiences) == 0 || slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(r.Audiences, a) })
}

func (r *Requirement) scopes(c *Claims) bool {
	for _, scope := range r.Scopes {
		if !slices.Contains(c.scopes, scope) {
			return false
		}
	}
	return true
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
		v.clear.decisions.Add(1)
		return
	}
	v.counts[d.Reason].decisions.Add(1)
	if d.Outcome != Allowed {
		v.complain(ctx, "token not accepted", d)
	}
}

// complain logs the one line of a request that is refused or ended.
func (v *core) complain(ctx context.Context, what string, d *Decision) {
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
	v.log.LogAttrs(ctx, level, what, attrs...)
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
	case age > v.list.MaxStaleness() && v.policy != Allow:
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
