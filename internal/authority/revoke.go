package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// command is a request to revoke the token that it presents.
type command struct {
	caller caller
	token  string
	hint   string // token_type_hint: advice
	user   bool   // the token stands for its user
	// asksBefore: the outcome is to say whether the token was revoked already.
	asksBefore bool
	forward    forwarded // to a provider
}

// appendTimeout bounds how long a caller waits to hear that nothing is known to be
// stored: a log that can't write may not say so.
const appendTimeout = 15 * time.Second

// revoke carries out a command: it authenticates the client, reads the token, and
// stores what follows. Where the token's issuer has a revocation endpoint of its own
// that is to be asked, that one authenticates.
func (a *Authority) revoke(ctx context.Context, c command, now time.Time) outcome {
	if to := a.relays.of(c.token); to != nil {
		return a.revokeRelayed(ctx, to, c, now)
	}
	return a.revokeLocally(ctx, c, now)
}

// revokeLocally is revoke for clients that are configured here.
func (a *Authority) revokeLocally(ctx context.Context, c command, now time.Time) outcome {
	who, o, ok := a.authenticate(ctx, c.caller, now)
	if !ok {
		return o
	}
	o = a.revokeToken(ctx, who, c, now)
	o.client = who.ID()
	return o
}

// revoker is on whose behalf something is revoked: a [client.Client], or someone
// whom an identity provider vouches for.
type revoker interface {
	ID() string
	May(grants ...string) bool
	Reserve(expires []time.Time, now time.Time) (release func(), retryAfter time.Duration, ok bool)
}

func (a *Authority) revokeToken(ctx context.Context, who revoker, c command, now time.Time) outcome {
	v, err := a.tokens.ReadAs(ctx, token.Revocable, c.token)
	if errors.Is(err, token.ErrNotCompact) && a.opaque.Issuer != "" && a.relays.opaque == nil { // else they are a provider's alone
		return a.revokeOpaque(ctx, who, c, now)
	}
	if err != nil {
		return unread(err)
	}
	return a.revokeVerified(ctx, who, c, v, now)
}

func (a *Authority) revokeVerified(ctx context.Context, who revoker, c command, v *token.Verified, now time.Time) outcome {
	a.metrics.sawIssued(v, now)
	issuer, ok := a.issuers[v.Issuer]
	if !ok { // whoever reads tokens knows an issuer that nobody configured here
		return outcome{kind: unavailable, why: "the token can't be checked now", cause: fmt.Errorf("issuer %.128q is not configured", v.Issuer)}
	}
	rs, o, ok := issuer.over(who, c, v, now)
	if !ok {
		return o
	}
	before := false
	if c.asksBefore {
		t, err := v.DenylistToken()
		before = err == nil && a.isRevoked(ctx, t, now)
	}
	o = a.store(ctx, who, now, rs...)
	o.before = before
	return o
}

// isRevoked reports whether a token is denied already. That is worth knowing and no
// reason to store nothing: what denies it may end before the token does.
func (a *Authority) isRevoked(ctx context.Context, t *denylist.Token, now time.Time) bool {
	a.log.Settle(ctx)
	return a.list.CheckToken(t, now).Status == denylist.Revoked
}

// over decides what is over when a client presents a token. It is pure.
func (i Issuer) over(who revoker, c command, v *token.Verified, now time.Time) ([]denylist.Revocation, outcome, bool) {
	no := func(o outcome) ([]denylist.Revocation, outcome, bool) { return nil, o, false }
	owner, owned := i.owner(v)
	refresh := v.IsRefresh(c.hint == "refresh_token")
	// A verifier grants a leeway to the lifetime, and one to an iat ahead of its clock.
	tooLong := v.Expires.Sub(now) > i.MaxTokenLifetime+2*denylist.MaxLeeway
	switch {
	case !now.Before(v.Expires.Add(denylist.Grace)): // until then, by its own clock and leeway, a verifier may still accept it
		return no(outcome{kind: nothing, cause: token.ErrExpired})
	case tooLong && !(refresh && i.neverAccess(v)):
		return no(refuse(badRequest, fmt.Sprintf(
			"the token lives longer than max_token_lifetime of its issuer, %s: its revocation could not outlive it", i.MaxTokenLifetime)))
	case !who.May(client.GrantAny, client.GrantIssuer) && (!owned || owner.Value != who.ID()):
		return no(refuse(notOwner, "the token was issued to another client"))
	}
	said := denylist.Revocation{Issuer: v.Issuer, At: now, By: who.ID(), Reason: "token presented for revocation"}
	itself := said
	itself.Selector, itself.Expires, itself.ExactExpiry = selectorOf(v), v.Expires, true

	// Whatever else was issued so far, to the same client where the token names one: a
	// token is no claim on those of others. The token itself is among it, though its
	// issuer's clock is ahead of ours, as far as a verifier would follow; a cut-off further
	// ahead would end tokens still to be issued.
	wide := func(claim, value, reason string) (r denylist.Revocation, covers, ok bool) {
		pairs := map[string]string{claim: value}
		if owned {
			pairs[owner.Claim] = owner.Value
		}
		selector, err := denylist.NewSelector(pairs)
		r = said
		r.Selector, r.IssuedBefore, r.Reason = selector, i.cutoff(now), reason
		if v.IssuedAt.After(r.IssuedBefore) && !v.IssuedAt.After(now.Add(denylist.MaxLeeway+i.ClockSkew)) {
			r.IssuedBefore = v.IssuedAt.Truncate(time.Second)
		}
		r.Expires = r.IssuedBefore.Add(i.MaxTokenLifetime)
		return r, v.IssuedAt.Unix() <= r.IssuedBefore.Unix(), err == nil
	}
	if sub := v.Text(denylist.Sub); c.user && sub != "" {
		if r, covers, ok := wide(denylist.Sub, sub, "token presented for its user's access"); ok {
			all := []denylist.Revocation{r}
			if !covers && !tooLong {
				all = append(all, itself)
			}
			return all, outcome{}, true
		}
	}
	if !refresh {
		return []denylist.Revocation{itself}, outcome{}, true
	}
	var all []denylist.Revocation
	if !tooLong { // otherwise no verifier takes it
		all = append(all, itself)
	}
	if claim, value := i.grant(v); claim != "" {
		if r, _, ok := wide(claim, value, "refresh token of the grant presented for revocation"); ok {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return no(refuse(unsupported, "the refresh token has no claim in common with its access tokens"))
	}
	return all, outcome{}, true
}

// neverAccess reports whether no verifier ever takes a token for an access token: for
// its type, or for how long it lives by its own account. Without iat it has none, and
// gets younger.
func (i Issuer) neverAccess(v *token.Verified) bool {
	return !v.MayBe(token.AccessToken) ||
		!v.IssuedAt.IsZero() && v.Expires.Sub(v.IssuedAt) > i.MaxTokenLifetime+denylist.MaxLeeway
}

// grant returns what a refresh token shares with its access tokens: the first grant
// claim that has one value.
func (i Issuer) grant(v *token.Verified) (claim, value string) {
	t, err := v.DenylistToken() // spells values as verifiers do
	if err != nil {
		return "", ""
	}
	for _, claim := range i.GrantClaims {
		if values := t.Values(claim); len(values) == 1 {
			return claim, values[0]
		}
	}
	return "", ""
}

// owner returns the pair that says whose a token is: the first of the issuer's
// client claims that it has, so that a second one can't contradict.
func (i Issuer) owner(v *token.Verified) (p denylist.Pair, ok bool) {
	for _, claim := range i.ClientClaims {
		if value, there := v.Values[claim]; there {
			text, ok := value.(string)
			return denylist.Pair{Claim: claim, Value: text}, ok && text != ""
		}
	}
	return denylist.Pair{}, false
}

// cutoff is where tokens issued so far end, in whole seconds as iat counts. The
// issuer's clock may be ahead of ours by its skew: without it, tokens of the last
// moments escape; with it, so do those of a new sign-in fall.
func (i Issuer) cutoff(now time.Time) time.Time { return now.Add(i.ClockSkew).Truncate(time.Second) }

// revokeOpaque revokes a token that is no JWT by the digest of its bytes: nobody here
// can tell whose it is, or whether it is one.
func (a *Authority) revokeOpaque(ctx context.Context, who revoker, c command, now time.Time) outcome {
	if !token.IsOpaque(c.token) {
		return refuse(unsupported, "neither a JWT in compact form nor an opaque token")
	}
	fingerprint := denylist.FingerprintOf(c.token)
	r := denylist.Revocation{
		Issuer: a.opaque.Issuer, Selector: denylist.One(denylist.Fingerprint, fingerprint),
		Expires: now.Add(a.opaque.Lifetime).Truncate(time.Second), At: now, By: who.ID(), Reason: "opaque token presented for revocation",
	}
	before := false
	if c.asksBefore {
		t, err := denylist.NewToken(denylist.Claims{Issuer: r.Issuer, Expires: r.Expires, Fingerprint: fingerprint})
		before = err == nil && a.isRevoked(ctx, t, now)
	}
	o := a.store(ctx, who, now, r)
	o.before = before
	return o
}

// unread is the outcome for a token that could not be read. What no verifier will
// ever accept needs no revocation and is none of the caller's mistakes (RFC 7009
// section 2.2); what may yet be genuine must not be answered as done.
func unread(err error) outcome {
	switch {
	case errors.Is(err, token.ErrKeysUnavailable): // asked first: see [token.ErrUnknownKey]
		return outcome{kind: unavailable, why: "the keys of the token's issuer can't be had now", cause: err}
	case errors.Is(err, token.ErrTooLarge):
		return refuse(badRequest, "the token is larger than 8 KiB")
	case errors.Is(err, token.ErrNotCompact):
		return refuse(unsupported, "the token is not a JWT in compact form")
	// The caller can't help it where these two are our mistake, but the operator can.
	case errors.Is(err, token.ErrUnknownIssuer):
		return outcome{kind: unknownIssuer, cause: err}
	case errors.Is(err, token.ErrAlgorithm):
		return outcome{kind: badAlgorithm, cause: err}
	}
	for _, final := range []error{token.ErrMalformed, token.ErrType, token.ErrUnknownKey, token.ErrSignature} {
		if errors.Is(err, final) {
			return outcome{kind: nothing, cause: err}
		}
	}
	return outcome{kind: unavailable, why: "the token can't be checked now", cause: err}
}

// selectorOf names one token: by its jti, or where it has none, by its fingerprint.
func selectorOf(v *token.Verified) denylist.Selector {
	if jti := v.Text(denylist.JTI); jti != "" {
		if s, err := denylist.NewSelector(map[string]string{denylist.JTI: jti}); err == nil {
			return s
		}
	}
	return denylist.One(denylist.Fingerprint, v.Fingerprint)
}

// store stores revocations, all of them or none. Its outcome is revoked only if the
// log says so.
func (a *Authority) store(ctx context.Context, who revoker, now time.Time, rs ...denylist.Revocation) outcome {
	var expires []time.Time // of what the log will grow by: it has a token only once
	for _, r := range rs {
		if err := r.Validate(); err != nil {
			return refuse(badRequest, err.Error())
		}
		if e := r.Entry(); !e.Windowed || !a.list.Has(e) {
			expires = append(expires, r.Expires)
		}
	}
	release, retry, ok := who.Reserve(expires, now)
	if !ok {
		return outcome{kind: limited, why: "the client has as many revocations outstanding as it may", retry: retry, stored: rs[0]}
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	position, err := a.log.Append(ctx, rs...)
	if err != nil {
		release()
		return outcome{kind: unavailable, why: "the revocation is not known to be stored: try again", cause: err, stored: rs[0]}
	}
	return outcome{kind: revoked, position: position, stored: rs[0]}
}

// record counts and logs an outcome. Selector values are personal data and a jti
// stands for its token: the log names shapes only. Lines of refusals are bounded: who
// is no client can cause them too.
func (a *Authority) record(ctx context.Context, dialect string, o outcome) {
	a.metrics.requests.WithLabelValues(dialect, o.kind.String()).Inc()
	level, message := slog.LevelWarn, "revocation refused"
	switch o.kind {
	case revoked:
		a.logger.LogAttrs(ctx, slog.LevelInfo, "revoked",
			slog.String("dialect", dialect), slog.String("client", o.client), slog.String("issuer", o.stored.Issuer),
			slog.String("shape", o.stored.Selector.Shape().String()), slog.Uint64("position", o.position))
		return
	case nothing:
		level, message = slog.LevelInfo, "nothing to revoke"
	case unknownIssuer:
		message = "nothing revoked: a verifier that knows the token's issuer still accepts it; issuers must hold every verifier's"
	case badAlgorithm:
		message = "nothing revoked: a verifier that allows the token's algorithm still accepts it; algorithms must hold every verifier's"
	case ignored:
		message = "a security event was accepted, and ends nothing"
	case limited:
		message = "revocation refused: too many"
	case unavailable:
		level, message = slog.LevelError, "revocation not known to be stored"
		switch {
		case o.why == errShuttingDown.Error():
			level, message = slog.LevelInfo, "a stream ended since the authority does"
		case ctx.Err() != nil:
			level, message = slog.LevelInfo, "caller hung up before the revocation was known to be stored"
		}
	}
	a.complain(ctx, level, message, o, slog.String("dialect", dialect))
}
