package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/revcast/revcast/pkg/verifier"
)

// Decider is the one decision behind every door. [verifier.Verifier] is one. Its
// methods are called from many goroutines at once, never panic, and answer soon
// after ctx ends; an answer that is not Allowed refuses.
type Decider interface {
	// Decide decides on a raw token, for doors that are handed one.
	Decide(ctx context.Context, rawToken string) verifier.Decision
	// DecideRequest decides on the bearer token of a request with this header and query.
	DecideRequest(ctx context.Context, h http.Header, rawQuery string) verifier.Decision
	// HoldResponse returns a context that ends when an allowed request's token is not
	// accepted any more. From then on nothing of the request can be read, and after grace
	// w can't be written to. release is called when the request is over.
	HoldResponse(ctx context.Context, d verifier.Decision, w http.ResponseWriter, grace time.Duration) (held context.Context, release func())
}

// Config is what a [Sidecar] is made of.
type Config struct {
	Decider Decider // required; decides on what no route is for
	// Routes are paths that need less or more than a good token.
	Routes []Route
	// Identity says which claims the upstream is told, in which headers.
	Identity []Identity
	// Preflights lets CORS preflights through, which never carry credentials.
	Preflights bool
	// Upstream is the API behind the proxy: an http, https or h2c (HTTP/2 without TLS) URL
	// whose path is put before that of requests, or unix and the path of a socket. nil: no
	// proxy.
	Upstream *url.URL
	// UpstreamTimeout is how long the upstream may take from the end of a request to
	// the header of its answer. 0: [DefaultUpstreamTimeout].
	UpstreamTimeout time.Duration
	// Ready returns why requests would be refused whatever their token, or nil.
	Ready    func() error        // required
	Gatherer prometheus.Gatherer // what /metrics shows; nil: nothing
	Logger   *slog.Logger        // nil: nothing is logged
}

// DefaultUpstreamTimeout is the default of Config.UpstreamTimeout.
const DefaultUpstreamTimeout = time.Minute

// Listener is where doors are: each listener has an address of its own.
type Listener int

const (
	ProxyListener    Listener = iota // in front of the API
	CheckListener                    // for other proxies, local callers and operators
	ExtAuthzListener                 // for Envoy
)

// door is one way to ask.
type door struct {
	on   Listener
	path string // exactly; "/" is for all others, too
	// get: it answers GET and HEAD, and 405 to anything else.
	get bool
	// below: it answers for all paths below, too, as they came.
	below bool
	open  func(*Sidecar) http.Handler
}

// doors is the table of all doors. A door more is a file and a row.
var doors = []door{
	{on: ProxyListener, path: "/", open: (*Sidecar).proxy},

	{on: CheckListener, path: checkPath, below: true, open: (*Sidecar).check},
	{on: CheckListener, path: "/oauth2/introspect", open: (*Sidecar).introspect},
	{on: CheckListener, path: "/healthz", get: true, open: (*Sidecar).healthz},
	{on: CheckListener, path: "/readyz", get: true, open: (*Sidecar).readyz},
	{on: CheckListener, path: "/metrics", get: true, open: (*Sidecar).metrics},
	{on: CheckListener, path: "/", open: (*Sidecar).nothing},

	{on: ExtAuthzListener, path: "/", open: (*Sidecar).extAuthz},
}

// Sidecar holds what the doors share. Safe for concurrent use.
type Sidecar struct {
	Config
	gate       gate
	identities identities
	transport  *http.Transport
	engine     http.RoundTripper
	upstream   *url.URL // that the transport is asked by
	asked      counts
	failures   [len(failureNames)]atomic.Uint64
}

// ConfigError is a mistake in a [Config].
type ConfigError struct {
	Key     string // path of the field, as in the configuration file
	Problem string // reads on from it
}

func (e *ConfigError) Error() string { return "sidecar: " + e.Key + ": " + e.Problem }

func bad(key, problem string, args ...any) error {
	return &ConfigError{key, fmt.Sprintf(problem, args...)}
}

// Check reports the first mistake in routes and identity as a [ConfigError].
func Check(given []Route, told []Identity) error {
	_, err := newRoutes(given)
	if err == nil {
		_, err = newIdentities(told)
	}
	return err
}

// New makes a Sidecar. A mistake in routes or identity is a [ConfigError].
func New(c Config) (*Sidecar, error) {
	if c.Decider == nil || c.Ready == nil {
		return nil, errors.New("sidecar: Decider and Ready are required")
	}
	if slices.ContainsFunc(c.Routes, func(r Route) bool { return !r.Public && r.Decider == nil }) {
		return nil, errors.New("sidecar: a route that is not Public needs a Decider")
	}
	if c.UpstreamTimeout == 0 {
		c.UpstreamTimeout = DefaultUpstreamTimeout
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sidecar{Config: c, gate: gate{decider: c.Decider, preflights: c.Preflights, logger: c.Logger, counts: newReasons()}}
	var err error
	if s.gate.routes, err = newRoutes(c.Routes); err != nil {
		return nil, err
	}
	if s.identities, err = newIdentities(c.Identity); err != nil {
		return nil, err
	}
	if c.Upstream != nil {
		s.transport, s.upstream = newTransport(c.Upstream, c.UpstreamTimeout)
		s.engine = newEngine(s.transport, c.UpstreamTimeout)
	}
	return s, nil
}

// Handler returns the doors of a listener: none, nil, for the proxy's without an upstream.
func (s *Sidecar) Handler(on Listener) http.Handler {
	if on == ProxyListener && s.engine == nil {
		return nil
	}
	var here []door
	for _, d := range doors {
		if d.on == on {
			here = append(here, d)
		}
	}
	if len(here) == 1 {
		return here[0].open(s)
	}
	at := make(map[string]http.Handler, len(here))
	// A mux would redirect paths that aren't clean, and other proxies may pass a redirect on.
	var others http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, known := at[r.URL.Path]
		if !known {
			h = at["/"]
		}
		h.ServeHTTP(w, r)
	})
	for _, d := range here {
		h := d.open(s)
		if d.get {
			h = getOnly(h)
		}
		if d.below {
			others = firstBelow(d.path, h, others)
			continue
		}
		at[d.path] = h
	}
	return others
}

// firstBelow has h answer for a path and all below it.
func firstBelow(path string, h, others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, in := strings.CutPrefix(r.URL.Path, path); in && (rest == "" || rest[0] == '/') {
			h.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// getOnly answers 405 to other methods, as JSON: clients that read errors as JSON
// would trip over the mux's plain text.
func getOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this path answers GET, HEAD")
	})
}

// Close gives back idle connections to the upstream.
func (s *Sidecar) Close() {
	if s.engine != nil {
		s.engine.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	}
}

// health is what the authority answers at these paths, too.
type health struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitzero"`
}

func (s *Sidecar) healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, health{Status: "ok"})
	})
}

func (s *Sidecar) readyz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			writeJSON(w, http.StatusServiceUnavailable, health{"unavailable", err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, health{Status: "ready"})
	})
}

func (s *Sidecar) metrics() http.Handler {
	return promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	})
}

// nothing answers what is at no path, as JSON.
func (s *Sidecar) nothing() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	})
}
