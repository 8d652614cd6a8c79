package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

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
)

// relays asks providers.
type relays struct {
	byIssuer map[string]Relay
	only     string // the issuer whose opaque tokens come here; "" where that is not clear
	client   *http.Client
	slots    chan struct{}
}

func newRelays(issuers map[string]Issuer) *relays {
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
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	transport.MaxResponseHeaderBytes = 64 << 10
	r.client = &http.Client{
		Transport: transport, Timeout: relayTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // what is sent is secret
	}
	return r
}

// of returns the relay of a token that nobody has verified: by its iss, or where it is
// opaque, the only one there is.
func (r *relays) of(raw string) (Relay, bool) {
	if len(r.byIssuer) == 0 {
		return Relay{}, false
	}
	issuer := r.only
	if _, err := token.Split(raw); !errors.Is(err, token.ErrNotCompact) {
		issuer, _ = token.PeekIssuer(raw)
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
var answerHeaders = []string{"Content-Type", "WWW-Authenticate", "Retry-After", "Access-Control-Allow-Origin", "Vary"}

func (a *relayedAnswer) write(w http.ResponseWriter) {
	for _, name := range answerHeaders[:3] {
		if values := a.header.Values(name); len(values) > 0 {
			w.Header()[name] = values
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
type vouched struct{ id string }

func (v vouched) ID() string       { return v.id }
func (vouched) May(...string) bool { return false }
func (vouched) Reserve([]time.Time, time.Time) (func(), time.Duration, bool) {
	return func() {}, 0, true // each stands for a token that the provider has signed
}

// claims reports whether a request says that it comes from a client.
func (all caller) claims(id string) bool {
	for _, c := range all {
		if issuer, ok := token.PeekIssuer(c.Assertion); ok && c.Method == client.PrivateKeyJWT {
			return issuer == id
		}
		for _, l := range c.Logins {
			if l.ID == id {
				return true
			}
		}
	}
	return false
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
	o := a.revokeVouched(ctx, c, now)
	switch {
	case o.kind == unavailable, overruled && o.kind == notOwner:
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
	who := vouched{}
	if v, err := a.tokens.ReadAs(ctx, token.Revocable, c.token); err == nil {
		if owner, ok := a.issuers[v.Issuer].owner(v); ok && c.caller.claims(owner.Value) {
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
