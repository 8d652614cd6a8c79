package authority

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/internal/token"
)

// metrics have labels of few values only: nothing that a caller can make up.
type metrics struct {
	requests       *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	http           *prometheus.CounterVec
	authFailures   *prometheus.CounterVec
	introspections *prometheus.CounterVec
	ahead          *prometheus.GaugeVec
}

func newMetrics(registry prometheus.Registerer, version string) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revcast_revoke_requests_total",
			Help: "Revoke requests by dialect and outcome; a line of a stream counts as one.",
		}, []string{"dialect", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "revcast_revoke_duration_seconds",
			Help:    "Time from a revoke request to its answer, streams left out.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // to 8 s
		}, []string{"dialect"}),
		http: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revcast_http_requests_total",
			Help: "HTTP requests by route and status.",
		}, []string{"route", "status"}),
		authFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revcast_client_auth_failures_total",
			Help: "Requests whose credentials belong to no client, by method.",
		}, []string{"method"}),
	}
	m.introspections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "revcast_introspect_requests_total",
		Help: "Introspection requests by dialect and outcome.",
	}, []string{"dialect", "outcome"})
	m.ahead = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "revcast_issuer_clock_ahead_seconds",
		Help: "How far the iat of the last token that was seen ahead of our clock was ahead: clock_skew should be no less. Tokens are seen when they are revoked or introspected, most of them some time after they were issued, so a clock may be ahead by more.",
	}, []string{"issuer"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "revcast_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	var err error
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.http, m.authFailures, m.introspections, m.ahead, build} {
		err = errors.Join(err, registry.Register(c))
	}
	return m, err
}

// sawIssued notices an issuer whose clock is ahead of ours.
func (m *metrics) sawIssued(v *token.Verified, now time.Time) {
	if ahead := v.IssuedAt.Sub(now); ahead > 0 {
		m.ahead.WithLabelValues(v.Issuer).Set(ahead.Seconds())
	}
}

// timed returns what is to be called when a revoke call has been answered.
func (a *Authority) timed(dialect string) func() {
	started := time.Now()
	return func() { a.metrics.duration.WithLabelValues(dialect).Observe(time.Since(started).Seconds()) }
}

// counted counts the answers of a route.
func (a *Authority) counted(path string, handle http.HandlerFunc) http.Handler {
	a.metrics.http.WithLabelValues(path, "200") // so that the first answer is an increase, and every route can be seen
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { a.metrics.http.WithLabelValues(path, strconv.Itoa(seen.status)).Inc() }()
		handle(seen, r)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.wrote && status >= 200 {
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets a file go out without passing through this process.
func (w *statusWriter) ReadFrom(r io.Reader) (int64, error) {
	w.wrote = true
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap lets [http.ResponseController] reach deadlines and flushing.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
