package sidecar

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestCheckSaysWhatIsPublic: /check alone says whose token nobody has looked at, and the
// client's word for it counts nothing.
func TestCheckSaysWhatIsPublic(t *testing.T) {
	good := "Bearer " + tokenWith(nil)
	preflight := http.Header{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}}
	for _, c := range []struct {
		method, path, authorization string
		more                        http.Header
		status                      int
		public, remove              string
	}{
		{"GET", "/orders", good, nil, 200, "", ""},
		{"GET", "/orders", "", nil, 401, "", ""},
		{"GET", "/public/a", good, nil, 200, "1", "authorization"},
		{"GET", "/public/a", "", nil, 200, "1", "authorization"},
		{"GET", "/public/a", "Basic dTpw", nil, 200, "1", ""},
		{"GET", "/public/a", "Basic dTpw, " + good, nil, 200, "1", "authorization"},
		{"OPTIONS", "/orders", "", preflight, 200, "1", "authorization"},
		{"OPTIONS", "/orders", good, preflight, 200, "", ""},
	} {
		g := guard(t, func(c *Config) { c.Preflights = true })
		r := httptest.NewRequest("GET", "/check", nil)
		r.Header = http.Header{"X-Forwarded-Uri": {c.path}, "X-Forwarded-Method": {c.method}, "X-Revcast-Public": {"1"}}
		for name, values := range c.more {
			r.Header[name] = values
		}
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		w := httptest.NewRecorder()
		g.check().ServeHTTP(w, r)
		public, remove := w.Header().Get("X-Revcast-Public"), w.Header().Get("X-Envoy-Auth-Headers-To-Remove")
		if w.Code != c.status || public != c.public || remove != c.remove || w.Header().Get("Authorization") != "" {
			t.Errorf("%s %s, %q: %d, public %q, remove %q, want %v", c.method, c.path, c.authorization, w.Code, public, remove, c)
		}
	}
	if _, err := newIdentities([]Identity{{"sub", "X-Revcast-Public"}}); err == nil {
		t.Error("a claim is told in X-Revcast-Public")
	}
}
