package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
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
	// relaysAtOnce bounds the requests that wait for one provider: whoever sends them has
	// not been authenticated yet.
	relaysAtOnce = 128
)

// relay is a Relay in use.
type relay struct {
	Relay
	slots chan struct{}
	// quota is what the provider's clients may have outstanding, together: each may come
	// again and again with the same token.
	quota *client.Quota
}

// relays asks providers.
type relays struct {
	byIssuer map[string]*relay
	opaque   *relay // whose tokens that name no issuer are; nil where that is not clear
	client   *http.Client
}

// newRelays makes the relays of some issuers. Opaque tokens are those of one issuer where
// that is configured, or of the only relay.
func newRelays(issuers map[string]Issuer, opaque string) *relays {
	r := &relays{byIssuer: map[string]*relay{}}
	for _, i := range issuers {
		if i.Relay.Endpoint != "" {
			r.opaque = &relay{Relay: i.Relay, slots: make(chan struct{}, relaysAtOnce), quota: client.NewQuota(client.DefaultMaxEntries)}
			r.byIssuer[i.Issuer] = r.opaque
		}
	}
	if opaque != "" || len(r.byIssuer) > 1 {
		r.opaque = r.byIssuer[opaque]
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
// none that can be read, that of opaque tokens. One of those may have two dots too.
func (r *relays) of(raw string) *relay {
	if len(r.byIssuer) == 0 {
		return nil
	}
	if issuer, ok := token.PeekIssuer(raw); ok {
		return r.byIssuer[issuer]
	}
	return r.opaque
}

// forwarded is a client's request as its provider gets it.
type forwarded struct {
	body   url.Values
	header http.Header
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

// ask sends the client's request to the provider. An answer of 500 or above is none.
func (r *relays) ask(ctx context.Context, to *relay, c command) (*relayedAnswer, error) {
	select {
	case to.slots <- struct{}{}:
		defer func() { <-to.slots }()
	default:
		return nil, fmt.Errorf("%d requests wait for the provider already", relaysAtOnce)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Endpoint, strings.NewReader(c.forward.body.Encode()))
	if err != nil {
		return nil, fmt.Errorf("make the provider's request: %w", err)
	}
	q.Header = c.forward.header.Clone()
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
	id string // "" where the token is not that client's
	*client.Quota
}

func (v vouched) ID() string       { return v.id }
func (vouched) May(...string) bool { return false }

// claims reports whether a request says that it comes from a client. Where it says so
// in several ways, they have been found to agree.
func (all caller) claims(id string) bool {
	is := func(l client.Login) bool { return l.ID == id }
	return slices.ContainsFunc(all, func(said client.Credentials) bool {
		if said.Method == client.PrivateKeyJWT {
			return isAssertionOf(said.Assertion, id) && (len(said.Logins) == 0 || slices.ContainsFunc(said.Logins, is))
		}
		return slices.ContainsFunc(said.Logins, is)
	})
}

// isAssertionOf reports whether an assertion says, by both iss and sub, that it is a
// client's (RFC 7523 section 3): there are providers that look at one of them.
func isAssertionOf(raw, id string) bool {
	issuer, subject, ok := token.PeekAssertion(raw)
	return ok && issuer == id && subject == id
}

// revokeRelayed carries out a command with the provider: it is the provider who
// authenticates, and whose answer the client gets. What the provider has revoked and
// can't be stored here is answered 503, so that the client comes again.
func (a *Authority) revokeRelayed(ctx context.Context, to *relay, c command, now time.Time) outcome {
	if to.LocalFirst {
		return a.revokeBefore(ctx, to, c, now)
	}
	v, err := a.tokens.ReadAs(ctx, token.Revocable, c.token)
	switch _, named := token.PeekIssuer(c.token); {
	case err == nil || errors.Is(err, token.ErrNotCompact) || errors.Is(err, token.ErrMalformed) && !named:
	case errors.Is(err, token.ErrSignature) && !errors.Is(err, token.ErrKeysUnavailable):
		return unread(err) // forged by whoever it is: nothing that its issuer must be asked about
	case slices.ContainsFunc(c.caller, func(said client.Credentials) bool { return a.clients.Claimed(said) != "" }):
		// It names the issuer, and nothing shows that it comes from there: that must not be
		// enough to send it a secret of a client of ours.
		return a.revokeLocally(ctx, c, now)
	}
	answer, asked := a.relays.ask(ctx, to, c)
	if asked != nil {
		return outcome{kind: unavailable, why: "the token's issuer can't be asked now", cause: asked}
	}
	overruled := to.OverruleUnsupported && answer.unsupported()
	if !answer.accepts() && !overruled {
		return outcome{kind: refusedUpstream, cause: fmt.Errorf("the provider answered %d", answer.status), relayed: answer}
	}
	if err != nil { // no verifier takes it, and so it is the provider's alone
		if o := unread(err); o.kind == unavailable {
			return o
		}
		return outcome{kind: nothing, cause: err, relayed: answer}
	}
	who := vouched{Quota: to.quota}
	if owner, ok := a.issuers[v.Issuer].owner(v); ok && c.caller.claims(owner.Value) {
		who.id = owner.Value
	}
	// What is over at the provider ends here too, though the caller may not wait for it.
	o := a.revokeVerified(context.WithoutCancel(ctx), who, c, v, now)
	o.client = who.id
	switch {
	case o.kind == unsupported:
		o = outcome{kind: nothing, cause: errors.New(o.why), client: o.client, relayed: answer}
	case o.kind.done() && !overruled:
		o.relayed = answer
	}
	return o // what could not be done here is not passed off as done, though the provider did its part
}

// revokeBefore is revokeRelayed for [Relay.LocalFirst].
func (a *Authority) revokeBefore(ctx context.Context, to *relay, c command, now time.Time) outcome {
	o := a.revokeLocally(ctx, c, now)
	if o.kind != revoked && o.kind != unsupported && !errors.Is(o.cause, token.ErrExpired) {
		return o // nothing shows that the token comes from there
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
