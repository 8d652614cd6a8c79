package authority

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/cors"

	"github.com/revcast/revcast/internal/wire"
)

// route is what one path answers. A GET route answers HEAD too. get, where it is set,
// answers GET beside method.
type route struct {
	method, path string
	handle       http.HandlerFunc
	get          http.HandlerFunc
}

const openAPIPath = "/openapi.yaml"

// mount errs where two places are the same.
func (a *Authority) mount(chosen []spoken, registry *prometheus.Registry) (err error) {
	routes := []route{
		{http.MethodPost, "/v1/revocations", a.serveRevocations, a.serveQuestion},
		{http.MethodPost, logoutPath, a.serveLogout, nil},
		{http.MethodPost, eventsPath, a.serveEvents, nil},
		{http.MethodPost, globalPath, a.serveGlobal, nil},
		{http.MethodGet, metadataPath, a.serveMetadata, nil},
		{http.MethodGet, openAPIPath, serveOpenAPI, nil},
		{http.MethodGet, wire.DiscoveryPath, a.serveDiscovery, nil},
		{http.MethodGet, wire.SnapshotPath, a.serveSnapshot, nil},
		{http.MethodGet, wire.LogPath, a.serveLog, nil},
		{http.MethodGet, "/healthz", a.serveHealth, nil},
		{http.MethodGet, "/readyz", a.serveReady, nil},
		{http.MethodGet, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP, nil},
	}
	if u, err := url.Parse(a.publicURL); err == nil && u.Path != "" { // RFC 8414 section 3.1
		routes = append(routes, route{http.MethodGet, metadataPath + u.Path, a.serveMetadata, nil})
	}
	defer func() {
		if said := recover(); said != nil { // how ServeMux says that two patterns conflict
			a.logger.Debug("conflicting routes", "said", said)
			err = errors.New("mounts: two of the places are, or could be, the same")
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
	serve := func(paths []string, s spoken, handle http.HandlerFunc) {
		for _, path := range paths {
			r := route{http.MethodPost, s.at(path), handle, nil}
			a.mux.Handle(r.path, browsers.Handler(a.counted(r.path, r.serve)))
		}
	}
	for _, s := range chosen {
		serve(s.revoke, s, a.serveRevoke(s.dialect))
		serve(s.introspect, s, a.serveIntrospection(s.dialect))
	}
	// The mux's own 404 and 405 are plain text, which clients that read an error
	// as JSON trip over.
	a.mux.Handle("/", a.counted("other", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	}))
	return nil
}

func (r route) serve(w http.ResponseWriter, q *http.Request) {
	read := q.Method == http.MethodGet || q.Method == http.MethodHead
	switch {
	case q.Method == r.method || read && r.method == http.MethodGet:
		r.handle(w, q)
		return
	case read && r.get != nil:
		r.get(w, q)
		return
	}
	allow := r.method
	if r.method == http.MethodGet || r.get != nil {
		allow = strings.Join([]string{http.MethodGet, http.MethodHead}, ", ")
		if r.get != nil {
			allow += ", " + r.method
		}
	}
	w.Header().Set("Allow", allow)
	writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this path answers "+allow)
}
