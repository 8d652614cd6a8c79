package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
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
}

// Config is what a [Sidecar] is made of.
type Config struct {
	Decider Decider // required
	// Upstream is the API behind the proxy; its path is put before that of requests.
	Upstream *url.URL // required
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
	ProxyListener Listener = iota // in front of the API
	CheckListener                 // for other proxies and operators
)

// door is one way to ask.
type door struct {
	on   Listener
	path string // as for [http.ServeMux], without a method
	// get: it answers GET and HEAD, and 405 to anything else.
	get  bool
	open func(*Sidecar) http.Handler
}

// doors is the table of all doors. A door more is a file and a row.
var doors = []door{
	{ProxyListener, "/", false, (*Sidecar).proxy},

	{CheckListener, "/healthz", true, (*Sidecar).healthz},
	{CheckListener, "/readyz", true, (*Sidecar).readyz},
	{CheckListener, "/metrics", true, (*Sidecar).metrics},
	{CheckListener, "/", false, (*Sidecar).nothing},
}

// Sidecar holds what the doors share. Safe for concurrent use.
type Sidecar struct {
	Config
	transport *http.Transport
}

// New makes a Sidecar.
func New(c Config) (*Sidecar, error) {
	if c.Decider == nil || c.Upstream == nil || c.Ready == nil {
		return nil, errors.New("sidecar: Decider, Upstream and Ready are required")
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
	return &Sidecar{c, newTransport(c.UpstreamTimeout)}, nil
}

// Handler returns the doors of a listener.
func (s *Sidecar) Handler(on Listener) http.Handler {
	var here []door
	for _, d := range doors {
		if d.on == on {
			here = append(here, d)
		}
	}
	// A mux redirects paths that aren't clean, which is for the upstream to do.
	if len(here) == 1 {
		return here[0].open(s)
	}
	mux := http.NewServeMux()
	for _, d := range here {
		h := d.open(s)
		if d.get {
			h = getOnly(h)
		}
		mux.Handle(d.path, h)
	}
	return mux
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
func (s *Sidecar) Close() { s.transport.CloseIdleConnections() }

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
