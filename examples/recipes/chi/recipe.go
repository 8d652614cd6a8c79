// Package recipe puts Revcast's middleware into chi, which takes it as it is. Mind that
// each group has one of its own: a verifier that requires more is in place of the plain
// one, not behind it. middleware.Recoverer may stand anywhere: it lets cuts through.
package recipe

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/revcast/revcast/pkg/verifier"
)

// Router is an API with a route for anyone, some for good tokens, and one for those that
// have a scope.
func Router(v *verifier.Verifier) *chi.Mux {
	router := chi.NewRouter()
	router.Use(middleware.Recoverer)
	router.Get("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "fine") })

	router.Group(func(api chi.Router) {
		api.Use(v.Middleware)
		api.Get("/hello", hello)
		api.Get("/events", events)
	})
	router.Route("/admin", func(admin chi.Router) {
		admin.Use(v.Requiring(verifier.Requirement{Scopes: []string{"admin"}}).Middleware)
		admin.Get("/hello", hello)
	})
	return router
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "hello,", verifier.FromContext(r.Context()).Subject)
}

func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		fmt.Fprintf(w, "data: %s\n\n", time.Now().Format(time.RFC3339))
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}
