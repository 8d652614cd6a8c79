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

// Tokens reads a presented token: its form, signature and issuer, not whether it
// is valid now. [token.Reader] is one; its errors decide the answer.
type Tokens interface {
	Read(ctx context.Context, raw string) (*token.Verified, error)
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
}

// Config is what an [Authority] is made of. Log, Tokens and Issuers are required.
type Config struct {
	Log     Log
	Tokens  Tokens
	Issuers []Issuer
	Clients []client.Config
	// Dialects are the names of the revoke endpoints to serve. Empty: all there are.
	Dialects []string
	Logger   *slog.Logger // nil: nothing is logged
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
	log      Log
	tokens   Tokens
	issuers  map[string]Issuer
	clients  *client.Registry
	logger   *slog.Logger
	now      func() time.Time
	metrics  *metrics
	mux      *http.ServeMux
	stopping context.Context // done from Stop on
	stop     context.CancelFunc
}

// New makes an Authority. An error names the setting that is wrong, in the words
// of the configuration file.
func New(c Config) (*Authority, error) {
	if c.Log == nil || c.Tokens == nil {
		return nil, errors.New("authority: Log and Tokens are required")
	}
	issuers, err := checkIssuers(c.Issuers)
	if err != nil {
		return nil, err
	}
	clients, err := client.New(c.Clients, client.Options{Logger: c.Logger, Now: c.Now})
	if err != nil {
		return nil, err
	}
	spoken, err := chooseDialects(c.Dialects)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		log: c.Log, tokens: c.Tokens, issuers: issuers, clients: clients,
		logger: c.Logger, now: c.Now, mux: http.NewServeMux(),
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	registry := c.Registry
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	if a.metrics, err = newMetrics(registry, c.Version); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	a.stopping, a.stop = context.WithCancel(context.Background())
	a.mount(spoken, registry)
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
		case slices.Contains(issuer.ClientClaims, ""):
			return nil, fmt.Errorf("issuers[%d].client_claims can't hold an empty name", i)
		}
		if issuer.MaxTokenLifetime == 0 {
			issuer.MaxTokenLifetime = token.DefaultMaxLifetime
		}
		if len(issuer.ClientClaims) == 0 {
			issuer.ClientClaims = []string{"client_id", "azp"}
		}
		issuers[issuer.Issuer] = issuer
	}
	return issuers, nil
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
