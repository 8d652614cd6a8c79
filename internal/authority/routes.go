package authority

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/revcast/revcast/internal/wire"
)

// route is what one path answers. A GET route answers HEAD too.
type route struct {
	method, path string
	handle       http.HandlerFunc
}

func (a *Authority) mount(spoken []dialect, registry *prometheus.Registry) {
	routes := []route{
		{http.MethodPost, "/v1/revocations", a.serveRevocations},
		{http.MethodGet, wire.DiscoveryPath, a.serveDiscovery},
		{http.MethodGet, wire.SnapshotPath, a.serveSnapshot},
		{http.MethodGet, wire.LogPath, a.serveLog},
		{http.MethodGet, "/healthz", a.serveHealth},
		{http.MethodGet, "/readyz", a.serveReady},
		{http.MethodGet, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP},
	}
	for _, d := range spoken {
		for _, path := range d.paths {
			routes = append(routes, route{http.MethodPost, path, a.serveDialect(d)})
		}
	}
	for _, r := range routes {
		a.mux.Handle(r.path, a.counted(r.path, r.serve))
	}
	// The mux's own 404 and 405 are plain text, which clients that read an error
	// as JSON trip over.
	a.mux.Handle("/", a.counted("other", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	}))
}

func (r route) serve(w http.ResponseWriter, q *http.Request) {
	if q.Method == r.method || q.Method == http.MethodHead && r.method == http.MethodGet {
		r.handle(w, q)
		return
	}
	allow := r.method
	if allow == http.MethodGet {
		allow = strings.Join([]string{http.MethodGet, http.MethodHead}, ", ")
	}
	w.Header().Set("Allow", allow)
	writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this path answers "+allow)
}
