package sidecar

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

type stats struct{}

func (stats) Stats() verifier.Stats {
	return verifier.Stats{
		Decisions: []verifier.DecisionCount{{Outcome: verifier.Refused, Reason: verifier.Revoked, Count: 7}},
		CacheHits: 2, CacheMisses: 1,
		Keys: []verifier.KeyStatus{
			{Issuer: "https://idp.example", Keys: 3, Loaded: time.UnixMilli(1_799_999_999_500), Err: errors.New("503")},
			{Issuer: "https://new.example", Err: errors.New("503")},
		},
	}
}

func TestCheckListener(t *testing.T) {
	var notReady error
	now := time.Now()
	list := denylist.New()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&Collector{List: list, Verifier: stats{}, Now: func() time.Time { return now }})
	s, err := New(Config{
		Decider: fake{}, Upstream: &url.URL{Scheme: "http", Host: "a"},
		Ready: func() error { return notReady }, Gatherer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := s.Handler(CheckListener)
	get := func(method, path string, status int) string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != status {
			t.Errorf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
		}
		return w.Body.String()
	}
	if got := get("GET", "/healthz", 200); got != `{"status":"ok"}`+"\n" {
		t.Error(got)
	}
	if got := get("GET", "/readyz", 200); got != `{"status":"ready"}`+"\n" {
		t.Error(got)
	}
	notReady = errors.New("the list is loading")
	if got := get("GET", "/readyz", 503); got != `{"status":"unavailable","reason":"the list is loading"}`+"\n" {
		t.Error(got)
	}
	for _, path := range []string{"/", "/nope", "/metrics/x"} {
		if got := get("GET", path, 404); !strings.Contains(got, `"error":"not_found"`) {
			t.Error(got)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" || !strings.Contains(w.Body.String(), `"error":"invalid_request"`) {
			t.Errorf("POST %s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	get("HEAD", "/healthz", 200)

	shows := func(lines ...string) {
		t.Helper()
		got := get("GET", "/metrics", 200)
		for _, line := range lines {
			if !strings.Contains(got, line+"\n") {
				t.Errorf("no %s in\n%s", line, got)
			}
		}
	}
	shows("revcast_list_staleness_seconds +Inf",
		`revcast_decisions_total{outcome="refused",reason="revoked"} 7`,
		`revcast_signature_cache_lookups_total{result="hit"} 2`,
		`revcast_issuer_keys{issuer="https://idp.example"} 3`,
		`revcast_issuer_keys_timestamp_seconds{issuer="https://idp.example"} 1.7999999995e+09`,
		`revcast_issuer_keys_timestamp_seconds{issuer="https://new.example"} 0`,
		`revcast_issuer_keys_fetch_failed{issuer="https://idp.example"} 1`)
	list.Advance(now.Add(-90 * time.Second))
	shows("revcast_list_staleness_seconds 90")
	now = now.Add(30 * time.Second) // computed at the scrape
	shows("revcast_list_staleness_seconds 120")
}
