package streams

import (
	"slices"
	"testing"
	"time"
)

// TestRevokedTokenEndsItsRequest: within a second at both ends, and no other's.
func TestRevokedTokenEndsItsRequest(t *testing.T) {
	w := newWorld(t, nil)
	token := func() string { return w.token("alice", time.Hour) }
	others := w.opened(kinds, token)
	for _, s := range w.opened(kinds, token) {
		answered := w.revoke(s.token)
		client, upstream := s.ends(t, answered, within)
		t.Logf("%-50s client: %-5d ms, API: %-5d ms after the answer", s.name, client.Milliseconds(), upstream.Milliseconds())
	}
	allWork(t, others)
}

// TestRevokedUserEndsAllRequests that he has open.
func TestRevokedUserEndsAllRequests(t *testing.T) {
	w := newWorld(t, nil)
	bobs := w.opened(kinds, func() string { return w.token("bob", time.Hour) })
	alices := w.opened(kinds, func() string { return w.token("alice", time.Hour) })
	endTogether(t, bobs, w.revokeSubject("bob"), within)
	allWork(t, alices)
}

// endTogether wants all to end, and prints who was last.
func endTogether(t *testing.T, all []*stream, since time.Time, limit time.Duration) {
	t.Helper()
	var clients, upstreams []time.Duration
	for _, s := range all {
		client, upstream := s.ends(t, since, limit)
		clients, upstreams = append(clients, client), append(upstreams, upstream)
	}
	t.Logf("%d requests: the last client after %s, the API after %s", len(all), slices.Max(clients).Round(time.Millisecond), slices.Max(upstreams).Round(time.Millisecond))
}

// TestExpiredTokenEndsItsRequest: with a second of leeway, and no more than another.
func TestExpiredTokenEndsItsRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	good := 2 * time.Second
	began := time.Now()
	all := w.opened(kinds, func() string { return w.token("alice", good) })
	lasting := w.opened(kinds, func() string { return w.token("alice", time.Hour) })
	// exp counts in whole seconds.
	endTogether(t, all, began, good+3*time.Second)
	for _, s := range all {
		if s.at.Before(began.Add(good - time.Second)) {
			t.Errorf("%s: ended %s after its token was made", s.name, s.at.Sub(began))
		}
	}
	allWork(t, lasting)
}

// throughSidecar are the kinds that a sidecar's configuration is about.
var throughSidecar = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.door == middleware })

func TestRequestsOutliveTheirExpiryWhereAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(config map[string]any) { config["outlive_expiry"] = true })
	all := w.opened(throughSidecar, func() string { return w.token("alice", time.Second) })
	time.Sleep(3 * time.Second)
	allWork(t, all)
}

// TestStaleListEndsRequests under deny, when the authority is gone for longer than the
// list may be old; under allow they go on.
func TestStaleListEndsRequests(t *testing.T) {
	t.Parallel()
	const age = 2 * time.Second
	for _, onStale := range []string{"deny", "allow"} {
		t.Run(onStale, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(config map[string]any) {
				config["freshness"] = map[string]any{"max_staleness": age.String(), "on_stale": onStale}
			})
			var stale []kind
			for _, k := range throughSidecar {
				switch k.want { // nobody knows whether the token is good
				case refused:
					k.want = "503"
				case closing:
					k.want = "closed with 1013 the access token is not accepted any more"
				case "Unauthenticated":
					k.want = "Unavailable"
				}
				stale = append(stale, k)
			}
			all := w.opened(stale, func() string { return w.token("alice", time.Hour) })
			w.authority.Kill()
			if onStale == "deny" {
				endTogether(t, all, time.Now(), age+within)
				return
			}
			time.Sleep(age + within)
			allWork(t, all)
		})
	}
}

// TestNothingIsLeftOfEndedRequests in a sidecar.
func TestNothingIsLeftOfEndedRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	before := w.goroutines()
	all := w.opened(throughSidecar, func() string { return w.token("alice", time.Hour) })
	if n := w.openRequests(); n != len(all) {
		t.Errorf("%d open requests, want %d", n, len(all))
	}
	answered := w.revokeSubject("alice")
	endTogether(t, all, answered, within)
	w.await("no request is open", 2*time.Second, func() bool { return w.openRequests() == 0 })
	// Idle connections to the API and of clients stay for a while, some ten; had each request
	// left one goroutine, there would be as many more as there were requests.
	w.await("the goroutines are gone", 5*time.Second, func() bool { return w.goroutines() < before+len(all) })
	t.Logf("%v after the answer: %d goroutines, %d before", time.Since(answered).Round(time.Millisecond), w.goroutines(), before)
}
