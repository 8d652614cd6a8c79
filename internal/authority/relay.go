package authority

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/time/rate"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
)

// Relay puts the authority in front of a provider's own revocation endpoint. The
// provider authenticates the client: none need be configured here.
type Relay struct {
	// Endpoint is the provider's revocation endpoint. Empty: there is no relay.
	Endpoint string
	// LocalFirst revokes here before the provider is asked, and so also while it is
	// down. Then the client must be configured here too: nobody else vouches for it in
	// time.
	LocalFirst bool
	// OverruleUnsupported takes the provider's unsupported_token_type for "the client is
	// who it says, and I can't revoke this JWT", and revokes it here. Only for a provider
	// that authenticates before it looks at the token, as RFC 7009 section 2.1 asks.
	OverruleUnsupported bool
}

const (
	relayTimeout = 5 * time.Second
	// relaysAtOnce bounds the requests that wait for providers: whoever sends them has
	// not been authenticated yet.
	relaysAtOnce = 256
	// Opaque tokens that only a provider vouches for: RFC 7009 has it accept any string.
	// So many revocations of them are outstanding at most, and so many come at once.
	maxVouchedOpaque   = 1_000_000
	vouchedOpaqueBurst = 10_000
)

// relays asks providers.
type relays struct {
	byIssuer map[string]Relay
	only     string // the issuer whose opaque tokens come here; "" where that is not clear
	client   *http.Client
	slots    chan struct{}
	opaque   *rate.Limiter
}

// newRelays makes the relays of some issuers. Revocations of opaque tokens are kept for
// a while.
func newRelays(issuers map[string]Issuer, opaque time.Duration) *relays {
	r := &relays{byIssuer: map[string]Relay{}, slots: make(chan struct{}, relaysAtOnce)}
	for _, i := range issuers {
		if i.Relay.Endpoint != "" {
			r.byIssuer[i.Issuer] = i.Relay
			r.only = i.Issuer
		}
	}
	if len(r.byIssuer) != 1 {
		r.only = ""
	}
	if opaque > 0 {
		r.opaque = rate.NewLimiter(rate.Limit(maxVouchedOpaque/opaque.Seconds()), vouchedOpaqueBurst)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.DisableCompression = true // what comes is passed on as it is
	r.client = &http.Client{
		Transport: transport, Timeout: relayTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // what is sent is secret
	}
	return r
}

// of returns the relay of a token that nobody has verified: by its iss, or where it has
// none that can be read, the only one there is. An opaque token may have two dots too.
func (r *relays) of(raw string) (Relay, bool) {
	if len(r.byIssuer) == 0 {
		return Relay{}, false
	}
	issuer, ok := token.PeekIssuer(raw)
	if !ok {
		issuer = r.only
	}
	to, ok := r.byIssuer[issuer]
	return to, ok
}

// relayedAnswer is what a provider answered.
type relayedAnswer struct {
	status int
	header http.Header
	body   []byte
}

// answerHeaders are passed on; the others are between the provider and us.
var answerHeaders = []string{"Content-Type", "WWW-Authenticate", "Retry-After"}

func (a *relayedAnswer) write(w http.ResponseWriter) {
	w.Header()["Content-Type"] = nil // no guess, where the provider doesn't say
	for _, name := range answerHeaders {
		if values := a.header.Values(name); len(values) > 0 {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func (a *relayedAnswer) accepts() bool { return a.status >= 200 && a.status < 300 }

func (a *relayedAnswer) unsupported() bool {
	var said struct {
		Error string `json:"error"`
	}
	return a.status == http.StatusBadRequest && json.Unmarshal(a.body, &said) == nil && said.Error == "unsupported_token_type"
}

// requestHeaders are those by which clients of the dialects authenticate, or ask for
// a kind of answer.
var requestHeaders = []string{"Content-Type", "Accept", "Authorization", "X-App-Id", "X-App-Token"}

// ask sends the client's request to the provider as it came. An answer of 500 or
// above is none.
func (r *relays) ask(ctx context.Context, to Relay, c command) (*relayedAnswer, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		return nil, fmt.Errorf("%d requests wait for providers already", relaysAtOnce)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Endpoint, strings.NewReader(c.body))
	if err != nil {
		return nil, fmt.Errorf("make the provider's request: %w", err)
	}
	for _, name := range requestHeaders {
		if values := c.request.Header.Values(name); len(values) > 0 {
			q.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	q.Header.Set("User-Agent", "revcast")
	response, err := r.client.Do(q)
	if err != nil {
		return nil, fmt.Errorf("ask the provider: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the provider's answer: %w", err)
	case len(body) > maxBody:
		return nil, errors.New("the provider's answer is larger than 64 KiB")
	case response.StatusCode < 200 || response.StatusCode >= 500 || response.StatusCode/100 == 3:
		return nil, fmt.Errorf("the provider answers %s", response.Status)
	}
	return &relayedAnswer{response.StatusCode, response.Header, body}, nil
}

// vouched is a client that its provider has authenticated. Only tokens of its own are
// its to revoke.
type vouched struct {
	id     string // "" where the token doesn't tell
	opaque *rate.Limiter
}

func (v vouched) ID() string       { return v.id }
func (vouched) May(...string) bool { return false }
func (v vouched) Reserve(expires []time.Time, now time.Time) (release func(), retryAfter time.Duration, ok bool) {
	if v.id != "" || len(expires) == 0 {
		return func() {}, 0, true // each stands for a token that the provider has signed
	}
	r := v.opaque.ReserveN(now, len(expires))
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return nil, wait, false
	}
	return func() { r.CancelAt(now) }, 0, true
}

// claims reports whether a request says that it comes from a client, and says nothing
// else anywhere: whichever of its credentials the provider went by, they were that
// client's.
func (c command) claims(id string) bool {
	for _, h := range c.request.Header.Values("Authorization") {
		basic, _, _ := basicCredentials(&http.Request{Header: http.Header{"Authorization": {h}}})
		if scheme, _, _ := strings.Cut(h, " "); strings.EqualFold(scheme, "Basic") && !names(basic.Logins, id) {
			return false
		}
	}
	f, err := url.ParseQuery(c.body)
	if err != nil {
		return false
	}
	differs := func(said string) bool { return said != "" && said != id }
	if slices.ContainsFunc(slices.Concat(f["client_id"], c.request.Header.Values("X-App-Id")), differs) ||
		slices.ContainsFunc(f["client_assertion"], func(raw string) bool { return raw != "" && !isAssertionOf(raw, id) }) {
		return false
	}
	return slices.ContainsFunc(c.caller, func(said client.Credentials) bool {
		return said.Method == client.PrivateKeyJWT && isAssertionOf(said.Assertion, id) || names(said.Logins, id)
	})
}

func names(logins []client.Login, id string) bool {
	return slices.ContainsFunc(logins, func(l client.Login) bool { return l.ID == id })
}

// isAssertionOf reports whether an assertion says, by both iss and sub, that it is a
// client's (RFC 7523 section 3): there are providers that look at one of them.
func isAssertionOf(raw, id string) bool {
	issuer, ok := token.PeekIssuer(raw)
	if !ok || issuer != id {
		return false
	}
	parts, err := token.Split(raw)
	if err != nil {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts.Payload)
	var said struct {
		Subject string `json:"sub"`
	}
	return err == nil && json.Unmarshal(payload, &said) == nil && said.Subject == id
}

// revokeRelayed carries out a command with the provider: it is the provider who
// authenticates, and whose answer the client gets. What the provider has revoked and
// can't be stored here is answered 503, so that the client comes again.
func (a *Authority) revokeRelayed(ctx context.Context, to Relay, c command, now time.Time) outcome {
	if to.LocalFirst {
		return a.revokeBefore(ctx, to, c, now)
	}
	answer, err := a.relays.ask(ctx, to, c)
	if err != nil {
		return outcome{kind: unavailable, why: "the token's issuer can't be asked now", cause: err}
	}
	overruled := to.OverruleUnsupported && answer.unsupported()
	if !answer.accepts() && !overruled {
		return outcome{kind: refusedUpstream, cause: fmt.Errorf("the provider answered %d", answer.status), relayed: answer}
	}
	// What is over at the provider ends here too, though the caller may not wait for it.
	o := a.revokeVouched(context.WithoutCancel(ctx), c, now)
	switch {
	case o.kind == unavailable, o.kind == limited, overruled && o.kind == notOwner:
		return o
	case overruled && o.kind.done():
		return o
	case !o.kind.done():
		o = outcome{kind: nothing, cause: fmt.Errorf("accepted by the provider, and nothing to store: %s", o.kind), client: o.client}
	}
	o.relayed = answer
	return o
}

// revokeVouched revokes a token for the client that the provider knows, if it is that
// client's own.
func (a *Authority) revokeVouched(ctx context.Context, c command, now time.Time) outcome {
	who := vouched{opaque: a.relays.opaque}
	if v, err := a.tokens.ReadAs(ctx, token.Revocable, c.token); err == nil {
		if owner, ok := a.issuers[v.Issuer].owner(v); ok && c.claims(owner.Value) {
			who.id = owner.Value
		}
	}
	o := a.revokeToken(ctx, who, c, now)
	o.client = who.id
	return o
}

// revokeBefore is revokeRelayed for [Relay.LocalFirst].
func (a *Authority) revokeBefore(ctx context.Context, to Relay, c command, now time.Time) outcome {
	who, o, ok := a.authenticate(ctx, c.caller, now)
	if !ok {
		return o
	}
	o = a.revokeToken(ctx, who, c, now)
	o.client = who.ID()
	if !o.kind.done() && o.kind != unsupported {
		return o
	}
	answer, err := a.relays.ask(ctx, to, c)
	switch {
	case err == nil && !(to.OverruleUnsupported && answer.unsupported()):
		o.relayed = answer
	case err != nil && o.kind != revoked:
		return outcome{kind: unavailable, why: "the token's issuer can't be asked now", cause: err, client: o.client}
	case err != nil:
		a.logger.WarnContext(ctx, "revoked here, and the provider does not know: it can't be asked", "client", o.client, "why", err)
	}
	return o
}
