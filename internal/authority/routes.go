package authority

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/cors"

	"github.com/revcast/revcast/internal/wire"
)

// route is what one path answers. A GET route answers HEAD too.
type route struct {
	method, path string
	handle       http.HandlerFunc
}

const openAPIPath = "/openapi.yaml"

// mount errs where two places are the same.
func (a *Authority) mount(chosen []spoken, registry *prometheus.Registry) (err error) {
	routes := []route{
		{http.MethodPost, "/v1/revocations", a.serveRevocations},
		{http.MethodGet, metadataPath, a.serveMetadata},
		{http.MethodGet, openAPIPath, serveOpenAPI},
		{http.MethodGet, wire.DiscoveryPath, a.serveDiscovery},
		{http.MethodGet, wire.SnapshotPath, a.serveSnapshot},
		{http.MethodGet, wire.LogPath, a.serveLog},
		{http.MethodGet, "/healthz", a.serveHealth},
		{http.MethodGet, "/readyz", a.serveReady},
		{http.MethodGet, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP},
	}
	defer func() {
		if said := recover(); said != nil { // how ServeMux says that two patterns conflict
			err = fmt.Errorf("mounts: two of the places are the same: %v", said)
		}
	}()
	for _, r := range routes {
		a.mux.Handle(r.path, a.counted(r.path, r.serve))
	}
	browsers := cors.New(cors.Options{
		AllowOriginFunc: a.clients.AllowsOrigin, AllowedMethods: []string{http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "X-App-Id", "X-App-Token"},
		ExposedHeaders: []string{"Retry-After", "WWW-Authenticate"},
	})
	for _, s := range chosen {
		for _, path := range s.revoke {
			r := route{http.MethodPost, s.at(path), a.serveRevoke(s.dialect)}
			a.mux.Handle(r.path, browsers.Handler(a.counted(r.path, r.serve)))
		}
		for _, path := range s.introspect {
			r := route{http.MethodPost, s.at(path), a.serveIntrospection(s.dialect)}
			a.mux.Handle(r.path, browsers.Handler(a.counted(r.path, r.serve)))
		}
	}
	// The mux's own 404 and 405 are plain text, which clients that read an error
	// as JSON trip over.
	a.mux.Handle("/", a.counted("other", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	}))
	return nil
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
