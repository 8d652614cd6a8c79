package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// ErrOpening is the error of a [Log] that can't serve yet because the process has
// just started.
var ErrOpening = errors.New("the log is being opened")

// Log is the durable log behind the HTTP face. All methods are called from many
// goroutines at once and return soon after their context ends.
type Log interface {
	// Append returns the position of the batch that holds the revocations, after
	// that batch is durable. They are all in it or Append errs. Any error means
	// "not known to be stored", whether or not it was: nothing here retries, the
	// caller is told to (503), and storing twice is harmless. Callers that arrive
	// together may share a batch.
	Append(ctx context.Context, revocations ...denylist.Revocation) (position uint64, err error)
	// Settle waits a moment for the list to hold what Append has stored so far.
	Settle(ctx context.Context)
	// Find returns the revocations of exactly this issuer and selector that are live at
	// now, oldest first: at most the newest so many, and whether there are more.
	Find(ctx context.Context, issuer string, s denylist.Selector, now time.Time, most int) (found []Stored, more bool, err error)
	// Page returns an encoded log page ([wire.AppendPage]) after a position, its
	// heartbeat signed with the nonce. Where the log ends there, it waits up to wait
	// for the log to grow and then answers with what there is, be it only the
	// heartbeat. It wraps [wire.ErrGone] where a snapshot is needed instead.
	Page(ctx context.Context, after uint64, wait time.Duration, nonce string) ([]byte, error)
	// Snapshot returns a reader of its own, at offset 0, over an encoded and signed
	// snapshot, which is closed after use. The bytes don't change.
	Snapshot(ctx context.Context) (io.ReadSeekCloser, error)
	// Discovery returns the discovery document. Where Live.URL names an unspecified
	// host (0.0.0.0, ::), verifiers are given the host that they asked at instead.
	Discovery() (wire.Discovery, error)
	// Ready returns why Append would fail now, or nil. It answers from memory.
	Ready() error
}

// Stored is a revocation at its position in the log.
type Stored struct {
	Position uint64
	denylist.Revocation
}

// Tokens reads a presented token: its form, signature and issuer, not whether it
// is valid now. [token.Reader] is one; its errors decide the answer.
type Tokens interface {
	ReadAs(ctx context.Context, kind token.Kind, raw string) (*token.Verified, error)
}

// Issuer is what the authority needs to know of a token issuer.
type Issuer struct {
	// Issuer is the exact iss.
	Issuer string
	// MaxTokenLifetime is the longest life of its tokens, and so of an entry about
	// them. 0: [token.DefaultMaxLifetime].
	MaxTokenLifetime time.Duration
	// ClientClaims say whose a token is: the first that it has names the client.
	// Empty: client_id, azp.
	ClientClaims []string
	// GrantClaims link a refresh token that is a JWT to its access tokens: the first
	// that it has is looked for in them. Empty: sid.
	GrantClaims []string
	// ClockSkew is how far ahead of ours the issuer's clock may be where we say up to
	// which iat tokens are over. A larger one lets no token of the last moments escape;
	// a smaller one lets a user sign in again sooner. At most [denylist.MaxLeeway].
	ClockSkew time.Duration
	// TokensCarrySID says that access tokens carry sid, so that the end of one session
	// need not end the user's others.
	TokensCarrySID bool
	// LogoutAudiences are the client ids for which the issuer's logout tokens are taken.
	// Empty: none are.
	LogoutAudiences []string
	// Relay puts this authority in front of the issuer's own revocation endpoint.
	Relay Relay
}

// Opaque says what becomes of tokens that are no JWTs. The zero value refuses them.
type Opaque struct {
	// Issuer is the one of Issuers under which they are revoked.
	Issuer string
	// Lifetime is how long such a revocation is kept: at most the issuer's
	// MaxTokenLifetime, which 0 stands for.
	Lifetime time.Duration
}

// Config is what an [Authority] is made of. Log, List, Tokens, Issuers and Clients are
// required.
type Config struct {
	Log Log
	// List is the denylist that is kept in step with Log.
	List    *denylist.List
	Tokens  Tokens
	Issuers []Issuer
	Clients *client.Registry
	// Transmitters are those who may say, beside clients, that tokens are over, and Events
	// reads what they sign. Both or none.
	Transmitters []Transmitter
	Events       Tokens
	// Opaque tokens are refused, unless it says otherwise.
	Opaque Opaque
	// PublicURL is what clients call the authority by, without a slash at its end.
	// Empty: that is not known, and metadata is for callers on the machine itself.
	PublicURL string
	// Dialects are the names of the revoke endpoints to serve at their own paths. Empty:
	// all there are.
	Dialects []string
	// Mounts are more places for them.
	Mounts []Mount
	Logger *slog.Logger // nil: nothing is logged
	// Registry takes the metrics, and /metrics serves what it gathers. nil: a new one.
	Registry *prometheus.Registry
	Now      func() time.Time // nil: time.Now
	Version  string           // shown by /metrics
}

// Authority is an [http.Handler]. Safe for concurrent use.
//
// It sets its own deadlines for request bodies and for long answers. Its server
// needs a ReadTimeout, for bodies that nobody asked for, and an IdleTimeout; a
// WriteTimeout that is set must leave 30 seconds to a commit that takes long.
type Authority struct {
	log           Log
	list          *denylist.List
	tokens        Tokens
	issuers       map[string]Issuer
	opaque        Opaque
	relays        *relays
	transmitters  map[string]transmitter
	events        Tokens
	replays       map[string]*token.Replay // by issuer, so that none is in another's way
	heard         map[string]*token.Replay // security events, which may come again, by transmitter
	questions     chan struct{}
	clients       *client.Registry
	publicURL     string
	speaksRFC7009 bool
	logger        *slog.Logger
	complaints    *complaints
	now           func() time.Time
	metrics       *metrics
	mux           *http.ServeMux
	stopping      context.Context // done from Stop on
	stop          context.CancelFunc
}

// New makes an Authority. An error names the setting that is wrong, in the words
// of the configuration file.
func New(c Config) (*Authority, error) {
	if c.Log == nil || c.List == nil || c.Tokens == nil || c.Clients == nil {
		return nil, errors.New("authority: Log, List, Tokens and Clients are required")
	}
	issuers, err := checkIssuers(c.Issuers)
	if err != nil {
		return nil, err
	}
	if c.Opaque, err = c.Opaque.check(issuers); err != nil {
		return nil, err
	}
	transmitters, err := checkTransmitters(c.Transmitters, issuers)
	if err != nil {
		return nil, err
	}
	chosen, err := chooseDialects(c.Dialects, c.Mounts)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		log: c.Log, list: c.List, tokens: c.Tokens, issuers: issuers, opaque: c.Opaque,
		transmitters: transmitters, events: c.Events, questions: make(chan struct{}, questionsAtOnce),
		clients: c.Clients, publicURL: c.PublicURL,
		logger: c.Logger, complaints: newComplaints(), now: c.Now, mux: http.NewServeMux(),
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.replays, a.heard = map[string]*token.Replay{}, map[string]*token.Replay{}
	for iss := range issuers {
		a.replays[iss] = token.NewReplay(maxReplays)
	}
	for iss := range transmitters {
		a.replays[iss], a.heard[iss] = token.NewReplay(maxReplays), token.NewReplay(maxReplays)
	}
	a.relays = newRelays(issuers, c.Opaque.Issuer)
	registry := c.Registry
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	if a.metrics, err = newMetrics(registry, c.Version); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	a.stopping, a.stop = context.WithCancel(context.Background())
	a.speaksRFC7009 = slices.ContainsFunc(chosen, func(s spoken) bool { return s.name == rfc7009.name && s.at("") == "" })
	if err := a.mount(chosen, registry); err != nil {
		return nil, err
	}
	return a, nil
}

func checkIssuers(list []Issuer) (map[string]Issuer, error) {
	issuers := make(map[string]Issuer, len(list))
	if len(list) == 0 {
		return nil, errors.New("issuers: at least one is needed")
	}
	for i, issuer := range list {
		_, twice := issuers[issuer.Issuer]
		switch {
		case issuer.Issuer == "":
			return nil, fmt.Errorf("issuers[%d].issuer is missing", i)
		case twice:
			return nil, fmt.Errorf("issuers[%d].issuer: %q is there twice", i, issuer.Issuer)
		case issuer.MaxTokenLifetime < 0:
			return nil, fmt.Errorf("issuers[%d].max_token_lifetime must be positive", i)
		case slices.ContainsFunc(issuer.ClientClaims, unselectable):
			return nil, fmt.Errorf("issuers[%d].client_claims can hold only names of claims that a selector may have", i)
		case slices.ContainsFunc(issuer.GrantClaims, unselectable):
			return nil, fmt.Errorf("issuers[%d].grant_claims can hold only names of claims that a selector may have", i)
		case issuer.ClockSkew < 0 || issuer.ClockSkew > denylist.MaxLeeway:
			return nil, fmt.Errorf("issuers[%d].clock_skew must be from 0 to %s", i, denylist.MaxLeeway)
		}
		if issuer.MaxTokenLifetime == 0 {
			issuer.MaxTokenLifetime = token.DefaultMaxLifetime
		}
		if len(issuer.ClientClaims) == 0 {
			issuer.ClientClaims = []string{"client_id", "azp"}
		}
		if len(issuer.GrantClaims) == 0 {
			issuer.GrantClaims = []string{denylist.SID}
		}
		issuers[issuer.Issuer] = issuer
	}
	return issuers, nil
}

// unselectable reports whether no selector finds tokens by a claim of that name: a
// revocation by it would be stored, and deny nothing.
func unselectable(claim string) bool {
	_, err := denylist.ShapeOf(claim)
	return err != nil || claim == denylist.KeyID || claim == denylist.Fingerprint
}

// check returns o with its default.
func (o Opaque) check(issuers map[string]Issuer) (Opaque, error) {
	if o.Issuer == "" {
		if o.Lifetime != 0 {
			return o, errors.New("opaque_tokens.lifetime needs opaque_tokens.issuer")
		}
		return o, nil
	}
	issuer, ok := issuers[o.Issuer]
	switch {
	case !ok:
		return o, fmt.Errorf("opaque_tokens.issuer: %q is not one of issuers", o.Issuer)
	case o.Lifetime < 0 || o.Lifetime > issuer.MaxTokenLifetime:
		return o, fmt.Errorf("opaque_tokens.lifetime must be positive and at most max_token_lifetime of the issuer, %s", issuer.MaxTokenLifetime)
	case o.Lifetime == 0:
		o.Lifetime = issuer.MaxTokenLifetime
	}
	return o, nil
}

// Stop makes the authority end what would keep a server from shutting down:
// long-polls end at once, streams after the line they are at, and /readyz says
// no. Revocations under way finish. For [http.Server.RegisterOnShutdown].
func (a *Authority) Stop() { a.stop() }

// ServeHTTP answers a request.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	a.mux.ServeHTTP(w, r)
}
