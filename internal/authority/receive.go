package authority

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Where identity providers say that something is over, and how that is counted and
// logged.
const (
	logoutPath = "/backchannel-logout"
	eventsPath = "/v1/events"
	globalPath = "/global-token-revocation"

	logoutDialect = "backchannel_logout"
	eventsDialect = "security_event"
	globalDialect = "global_revocation"

	// maxReplays bounds the single-use tokens that are remembered: some 15 MB.
	maxReplays = 100_000
)

// Transmitter is an identity provider that may say that tokens are over: by security
// events, pushed or polled, and by global token revocation.
type Transmitter struct {
	// Issuer is the iss of what it signs.
	Issuer string
	// Audiences are what its events call us by: one of them.
	Audiences []string
	// Issuers are those of Config.Issuers about whose tokens it may speak. A subject that
	// names none is of the first.
	Issuers []string
	// PushTokenSHA256 is the hexadecimal SHA-256 of the bearer token that it shows when it
	// pushes. Empty: its signature is enough.
	PushTokenSHA256 string
}

// transmitter is a Transmitter that was checked.
type transmitter struct {
	rules event.Rules
	push  []byte
}

func checkTransmitters(list []Transmitter, issuers map[string]Issuer) (map[string]transmitter, error) {
	all := make(map[string]transmitter, len(list))
	sids, clientClaims := map[string]bool{}, map[string][]string{}
	for _, i := range issuers {
		sids[i.Issuer], clientClaims[i.Issuer] = i.TokensCarrySID, i.ClientClaims
	}
	for n, given := range list {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("transmitters[%d]."+format, append([]any{n}, args...)...)
		}
		t := transmitter{rules: event.Rules{Audiences: given.Audiences, Issuers: given.Issuers, TokensCarrySID: sids, ClientClaims: clientClaims}}
		var err error
		if t.push, err = hex.DecodeString(given.PushTokenSHA256); err != nil || len(t.push) != 0 && len(t.push) != sha256.Size {
			return nil, bad("push_token_sha256 must be %d hexadecimal digits", 2*sha256.Size)
		}
		_, twice := all[given.Issuer]
		switch {
		case given.Issuer == "":
			return nil, bad("issuer is missing")
		case twice:
			return nil, bad("issuer: %q is there twice", given.Issuer)
		case len(given.Audiences) == 0:
			return nil, bad("audiences: at least one is needed")
		case len(given.Issuers) == 0:
			return nil, bad("issuers: at least one is needed")
		}
		for _, i := range given.Issuers {
			if _, ok := issuers[i]; !ok {
				return nil, bad("issuers: %q is not one of issuers", i)
			}
		}
		all[given.Issuer] = t
	}
	return all, nil
}

// provider is an identity provider as a revoker. It is trusted with all of its
// issuers' tokens, and with how many it ends.
type provider struct{ id string }

func (p provider) ID() string {
	return strings.ToValidUTF8(p.id[:min(len(p.id), denylist.MaxNote)], "")
}
func (provider) May(...string) bool { return true }
func (provider) Reserve([]time.Time, time.Time) (func(), time.Duration, bool) {
	return func() {}, 0, true
}

// end stores what a provider says is over. What was over so long ago that no token of
// it is left is done without.
func (a *Authority) end(ctx context.Context, who provider, all []event.Over, now time.Time) outcome {
	var rs []denylist.Revocation
	for _, over := range all {
		issuer, ok := a.issuers[over.Issuer]
		if !ok {
			return outcome{kind: unavailable, why: "the subject can't be looked up now", cause: fmt.Errorf("issuer %.128q is not configured", over.Issuer), client: who.ID()}
		}
		r := denylist.Revocation{Issuer: over.Issuer, Selector: over.Selector, At: now, By: who.ID(), Reason: over.Reason}
		// By the event's time, not ours: said again, it lives no longer.
		from := earlier(over.Since, now)
		if !over.Before.IsZero() {
			// Whatever was accepted is within this: a provider's clock may be as far ahead as
			// a verifier's leeway for it, and ours as far behind as clock_skew.
			r.IssuedBefore = earlier(over.Before, now.Add(2*denylist.MaxLeeway))
			from = r.IssuedBefore
		}
		r.Expires = from.Add(issuer.MaxTokenLifetime)
		if r.Expires.Add(denylist.Grace).After(now) {
			rs = append(rs, r)
		}
	}
	o := outcome{kind: nothing, cause: errors.New("no token that is meant can be valid any more")}
	if len(rs) > 0 {
		o = a.store(ctx, who, now, rs...)
	}
	o.client = who.ID()
	return o
}

// earlier is the earlier of two times, in whole seconds as iat counts.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		a = b
	}
	return a.Truncate(time.Second)
}

// serveLogout takes OpenID Connect logout tokens (Back-Channel Logout 1.0 section 2.5).
func (a *Authority) serveLogout(w http.ResponseWriter, r *http.Request) {
	defer a.timed(logoutDialect)()
	f, o, ok := readForm(w, r, "logout_token")
	if ok {
		o = a.logout(r.Context(), f.Get("logout_token"), a.now())
	}
	a.record(r.Context(), logoutDialect, o)
	if !o.kind.done() {
		writeRefusal(w, o)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (a *Authority) logout(ctx context.Context, raw string, now time.Time) outcome {
	if raw == "" {
		return refuse(badRequest, "logout_token is missing")
	}
	v, err := a.tokens.ReadAs(ctx, token.LogoutToken, raw)
	if err != nil {
		return refusedEvent(event.Refused(err))
	}
	issuer := a.issuers[v.Issuer]
	over, err := event.Logout(v, event.LogoutRules{Audiences: issuer.LogoutAudiences, TokensCarrySID: issuer.TokensCarrySID}, now)
	if err != nil {
		return refusedEvent(err)
	}
	o, _ := a.once(v, event.LogoutUntil(v), now, func() outcome { return a.end(ctx, provider{v.Issuer}, over, now) })
	return o
}

// once carries out what a single-use token says, unless it was carried out before. A
// token that could not be is good for another attempt.
func (a *Authority) once(v *token.Verified, until, now time.Time, do func() outcome) (o outcome, replayed bool) {
	jti := v.Text(denylist.JTI)
	switch err := a.replays[v.Issuer].Reserve(v.Issuer, jti, until, now); {
	case errors.Is(err, token.ErrReplayed):
		return outcome{kind: badRequest, why: "the token was used before", client: v.Issuer}, true
	case err != nil:
		return outcome{kind: unavailable, why: "the token can't be taken now", cause: err, client: v.Issuer}, false
	}
	if o = do(); !o.kind.done() {
		a.replays[v.Issuer].Release(v.Issuer, jti)
	}
	return o, false
}

// refusedEvent is the outcome for an error of package event, or of reading a JWT.
func refusedEvent(err error) outcome {
	e, ok := errors.AsType[*event.Error](err)
	if !ok {
		return outcome{kind: unavailable, why: "the token can't be checked now", cause: err}
	}
	return outcome{kind: badRequest, why: e.Problem, event: e}
}

// serveEvents takes security events that are pushed (RFC 8935).
func (a *Authority) serveEvents(w http.ResponseWriter, r *http.Request) {
	defer a.timed(eventsDialect)()
	body, o, ok := readBody(w, r, "application/secevent+jwt")
	if ok {
		raw := strings.TrimSpace(string(body))
		if o = a.admitPush(r, raw); o.kind == 0 {
			o = a.takeEvent(r.Context(), raw, a.now())
		}
	}
	a.record(r.Context(), eventsDialect, o)
	if o.kind.done() {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if o.kind == unavailable {
		writeRefusal(w, o)
		return
	}
	w.Header().Set("Content-Language", "en") // of the description
	said := pushError{event.InvalidRequest, o.why}
	status := kinds[o.kind].status
	switch {
	case o.event != nil:
		said.Code = o.event.Code
	case o.kind == badClient:
		said.Code = event.AuthenticationFailed
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, status, said)
}

// pushError is RFC 8935 section 2.3.
type pushError struct {
	Code        string `json:"err"`
	Description string `json:"description"`
}

// admitPush asks a transmitter that is to show a token for it. Its zero outcome lets
// the request through.
func (a *Authority) admitPush(r *http.Request, raw string) outcome {
	issuer, _ := token.PeekIssuer(raw)
	t, ok := a.transmitters[issuer]
	if !ok || len(t.push) == 0 {
		return outcome{}
	}
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(shown)))
	if len(r.Header.Values("Authorization")) == 1 && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], t.push) == 1 {
		return outcome{}
	}
	return outcome{kind: badClient, why: "the transmitter's bearer token is missing or wrong", client: issuer}
}

// TakeEvent carries out a security event and returns once that is durable. An
// [event.Error] refuses it for good; after any other error it should come again.
func (a *Authority) TakeEvent(ctx context.Context, raw string) error {
	o := a.takeEvent(ctx, raw, a.now())
	a.record(ctx, eventsDialect, o)
	switch {
	case o.kind.done():
		return nil
	case o.event != nil:
		return o.event
	case o.cause == nil:
		return errors.New(o.why)
	}
	return fmt.Errorf("%s: %w", o.why, o.cause)
}

func (a *Authority) takeEvent(ctx context.Context, raw string, now time.Time) outcome {
	if a.events == nil {
		return refusedEvent(event.Refused(token.ErrUnknownIssuer))
	}
	v, err := a.events.ReadAs(ctx, token.SecurityEvent, raw)
	if err != nil {
		return refusedEvent(event.Refused(err))
	}
	said, err := event.Events(v, a.transmitters[v.Issuer].rules, now)
	if err != nil {
		o := refusedEvent(err)
		o.client = v.Issuer
		return o
	}
	if len(said.Over) > 0 {
		return a.hear(ctx, v, said.Over, now)
	}
	if said.Verification {
		return outcome{kind: nothing, cause: errors.New("the stream was verified"), client: v.Issuer}
	}
	return outcome{kind: ignored, cause: errors.New("an event of a type that ends no tokens here"), client: v.Issuer}
}

// hear carries out a security event. One that comes again within an hour, as its
// transmitter may not know that it arrived, stores nothing again.
func (a *Authority) hear(ctx context.Context, v *token.Verified, over []event.Over, now time.Time) outcome {
	heard, jti := a.heard[v.Issuer], v.Text(denylist.JTI)
	switch err := heard.Reserve(v.Issuer, jti, now.Add(time.Hour), now); {
	case errors.Is(err, token.ErrReplayed):
		return outcome{kind: nothing, cause: errors.New("the event was carried out before"), client: v.Issuer}
	case err != nil: // not remembered, and so stored once more if it comes again
		return a.end(ctx, provider{v.Issuer}, over, now)
	}
	o := a.end(ctx, provider{v.Issuer}, over, now)
	if !o.kind.done() {
		heard.Release(v.Issuer, jti)
	}
	return o
}

// serveGlobal takes Global Token Revocation requests
// (draft-parecki-oauth-global-token-revocation).
func (a *Authority) serveGlobal(w http.ResponseWriter, r *http.Request) {
	defer a.timed(globalDialect)()
	o := a.global(w, r)
	a.record(r.Context(), globalDialect, o)
	status, code := kinds[o.kind].status, kinds[o.kind].code
	switch {
	case o.kind.done():
		w.WriteHeader(http.StatusNoContent)
		return
	case o.kind == badClient:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		code = "invalid_token"
	case o.event != nil && o.event.Unmappable:
		status = http.StatusUnprocessableEntity
	case o.event != nil && o.event.Code == event.AccessDenied:
		status, code = http.StatusForbidden, event.AccessDenied
	}
	writeError(w, status, code, o.why)
}

func (a *Authority) global(w http.ResponseWriter, r *http.Request) outcome {
	now := a.now()
	stranger := func(cause error) outcome {
		return outcome{kind: badClient, why: "the bearer token is missing, or not one for this", cause: cause}
	}
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case len(r.Header.Values("Authorization")) != 1 || !strings.EqualFold(scheme, "Bearer"):
		return stranger(errors.New("no bearer token"))
	case a.publicURL == "":
		return stranger(errors.New("public_url is not configured: no bearer token can be for it"))
	case a.events == nil:
		return stranger(errors.New("transmitters are not configured"))
	}
	v, err := a.events.ReadAs(r.Context(), token.Assertion, strings.TrimSpace(raw))
	if errors.Is(err, token.ErrKeysUnavailable) {
		return outcome{kind: unavailable, why: "the bearer token can't be checked now", cause: err}
	}
	if err == nil {
		err = event.Bearer(v, a.publicURL+globalPath, now)
	}
	if err != nil {
		return stranger(err)
	}
	body, o, ok := readBody(w, r, jsonType)
	if !ok {
		return o
	}
	over, err := event.GlobalRevocation(body, a.transmitters[v.Issuer].rules, now)
	if err != nil {
		o = refusedEvent(err)
		o.client = v.Issuer
		return o
	}
	for i := range over { // the time is ours, and not the issuer's
		over[i].Since = a.issuers[over[i].Issuer].cutoff(now)
		if !over[i].Before.IsZero() {
			over[i].Before = over[i].Since
		}
	}
	o, replayed := a.once(v, event.BearerUntil(v), now, func() outcome { return a.end(r.Context(), provider{v.Issuer}, over, now) })
	if replayed {
		return stranger(token.ErrReplayed)
	}
	return o
}
