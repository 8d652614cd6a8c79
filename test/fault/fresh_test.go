//go:build fault

package fault

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	// healthy is more than the list's age ever is while heartbeats arrive.
	healthy = 1500 * time.Millisecond
	// within is how soon a cut must show, and how soon after its end all is as it was.
	within = 2 * time.Second
)

// link is a sidecar's way to the authority.
type link struct{ nats, http *harness.Relay }

func (l link) both(disturb func(*harness.Relay)) {
	disturb(l.nats)
	disturb(l.http)
}

// TestFreshOrUnknown disturbs the way between an authority and a sidecar.
func TestFreshOrUnknown(t *testing.T) {
	var l link
	w := newWorld(t, func(config map[string]any) {
		nats := config["nats"].(map[string]any)
		l = link{harness.NewRelay(t, nats["listen"].(string)), harness.NewRelay(t, config["listen"].(string))}
		nats["advertise"] = l.nats.Address
	})
	for _, c := range []struct {
		name string
		test func(*world, link)
	}{
		{"AuthorityAway", authorityAway},
		{"StateFile", stateFile},
		{"BothCut", bothCut},
		{"NATSCut", natsCut},
		{"LateHeartbeats", lateHeartbeats},
		{"Healed", healed},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			l.both((*harness.Relay).Heal)
			c.test(w.in(t), l)
		})
		if !ok && !w.authority.Running() {
			t.Fatal("the authority is gone")
		}
	}
}

func (l link) url() string { return "http://" + l.http.Address }

// eachCut runs a test for each way to lose the authority.
func (w *world) eachCut(l link, test func(w *world, cut func(*harness.Relay))) {
	for _, c := range []struct {
		name string
		cut  func(*harness.Relay)
	}{{"Blackhole", (*harness.Relay).Blackhole}, {"Reset", (*harness.Relay).Reset}} {
		w.Run(c.name, func(t *testing.T) {
			l.both((*harness.Relay).Heal)
			test(w.in(t), c.cut)
		})
	}
}

// steady starts a sidecar and waits until it lives on what comes over NATS.
func (w *world) steady(l link, f freshness) *harness.Process {
	w.Helper()
	sidecar := w.sidecar(l.url(), f)
	sidecar.WaitReady()
	w.waitSince(time.Now(), "live heartbeats arrive", func() bool {
		return sidecar.Metric(w, "revcast_feed_connected") == 1 && sidecar.Metric(w, "revcast_feed_heartbeats_total") >= 2
	})
	return sidecar
}

// A sidecar that starts while the authority is away serves nothing until it is back.
func authorityAway(w *world, l link) {
	good, bad := w.token(nil), w.token(nil)
	w.mustRevoke(bad)
	w.eachCut(l, func(w *world, cut func(*harness.Relay)) {
		l.both(cut)
		sidecar := w.sidecar(l.url(), freshness{"5m", "allow"}) // allow: a list that was never loaded allows nothing either
		w.waitSince(time.Now(), "it answers", func() bool { return w.call(sidecar, good).status != 0 })
		for range 15 {
			w.mustNotKnow(sidecar, good)
			w.mustNotKnow(sidecar, bad)
			if why := w.readyz(sidecar); !strings.Contains(why, "loading") {
				w.Errorf("/readyz says %q", why)
			}
			time.Sleep(200 * time.Millisecond)
		}
		w.Logf("/readyz says %q", w.readyz(sidecar))
		l.both((*harness.Relay).Heal)
		took := w.waitSince(time.Now(), "it is ready", sidecar.Ready)
		w.mustServe(sidecar, good)
		w.mustRefuse(sidecar, bad)
		w.Logf("ready %s after the authority was back", took.Round(time.Millisecond))
	})
}

// A sidecar that restarts with a state file while the authority is away is as
// fresh as it was, and then too old.
func stateFile(w *world, l link) {
	const maxStaleness = 3 * time.Second
	for _, c := range []struct {
		name    string
		onStale string
		end     func(*harness.Process)
	}{
		{"Deny", "deny", func(p *harness.Process) { p.Terminate(5 * time.Second) }},
		{"Allow", "allow", func(p *harness.Process) { p.Terminate(5 * time.Second) }},
		{"DenyAfterKill", "deny", (*harness.Process).Kill},
		{"AllowAfterKill", "allow", (*harness.Process).Kill},
	} {
		w.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			l.both((*harness.Relay).Heal)
			good, bad := w.token(nil), w.tokens(20)
			sidecar := w.sidecar(l.url(), freshness{maxStaleness.String(), c.onStale})
			sidecar.WaitReady()
			w.mustRevoke(bad...)
			// Ended as soon as it refuses, with no time left to put anything right.
			w.refusedSince(time.Now(), sidecar, bad...)
			c.end(sidecar)
			ended := time.Now()
			l.both((*harness.Relay).Reset)

			sidecar.Start()
			w.waitSince(ended, "it serves as before", func() bool { return w.call(sidecar, good).status == http.StatusOK })
			w.mustRefuseAll(sidecar, bad)
			was := time.Since(ended)
			if age := w.staleness(sidecar); age < was || age > was+healthy {
				t.Errorf("the list is %s old %s after the end of the process that knew", age, was)
			}
			if c.onStale == "deny" {
				stale := w.waitSince(ended, "it is too old", func() bool {
					return w.call(sidecar, good).status == http.StatusServiceUnavailable
				})
				t.Logf("serves nothing from %s after the end of the process that knew on", stale.Round(time.Millisecond))
				if stale > maxStaleness+50*time.Millisecond {
					t.Errorf("it serves for %s, with %s allowed", stale, maxStaleness)
				}
			}
			w.waitSince(ended, "it is older than allowed", func() bool { return w.staleness(sidecar) > maxStaleness })
			tooOld := func() {
				t.Helper()
				if c.onStale == "deny" {
					w.mustNotKnow(sidecar, good)
					if why := w.readyz(sidecar); !strings.Contains(why, "old") {
						t.Errorf("/readyz says %q", why)
					}
				} else {
					w.mustServe(sidecar, good)
				}
				w.mustRefuseAll(sidecar, bad)
			}
			tooOld()
			sidecar.Kill() // and it is too old after another restart
			sidecar.Start()
			w.waitSince(ended, "it answers with its keys", func() bool {
				return w.call(sidecar, bad[0]).status == http.StatusUnauthorized
			})
			tooOld()

			l.both((*harness.Relay).Heal)
			took := w.waitSince(time.Now(), "it is fresh again", func() bool { return sidecar.Ready() && w.staleness(sidecar) < healthy })
			w.mustServe(sidecar, good)
			t.Logf("fresh %s after the authority was back", took.Round(time.Millisecond))
		})
	}
}

func (w *world) mustRefuseAll(p *harness.Process, tokens []token) {
	w.Helper()
	if n := w.accepted(p, tokens); n > 0 {
		w.Errorf("%d of %d revoked tokens are not refused", n, len(tokens))
	}
}

// Cutting both ways shows at once.
func bothCut(w *world, l link) {
	w.eachCut(l, func(w *world, cut func(*harness.Relay)) {
		sidecar := w.steady(l, freshness{"4s", "deny"})
		good := w.token(nil)
		for range 20 {
			if age := w.staleness(sidecar); age > healthy {
				w.Errorf("the list is %s old, with nothing in its way", age)
			}
			time.Sleep(100 * time.Millisecond)
		}
		l.both(cut)
		began := time.Now()
		shown := w.waitSince(began, "the metric shows the cut", func() bool {
			elapsed := time.Since(began)
			age := w.staleness(sidecar)
			if age < elapsed {
				w.Errorf("the list calls itself %s old, %s after it was cut off", age, elapsed)
			}
			return age > healthy
		})
		if shown > within {
			w.Errorf("the cut shows after %s", shown)
		}
		w.mustServe(sidecar, good) // younger than allowed
		unknown := w.waitSince(began, "it is too old", func() bool {
			return w.call(sidecar, good).status == http.StatusServiceUnavailable
		})
		if unknown > 4*time.Second+50*time.Millisecond {
			w.Errorf("it serves for %s after the cut, with 4s allowed", unknown)
		}
		w.mustNotKnow(sidecar, good)
		w.Logf("the cut shows after %s, and nothing is served after %s", shown.Round(time.Millisecond), unknown.Round(time.Millisecond))
	})
}

// With NATS cut and HTTP open, revocations still arrive, and the list stays fresh.
func natsCut(w *world, l link) {
	w.eachCut(l, func(w *world, cut func(*harness.Relay)) {
		sidecar := w.steady(l, freshness{"4s", "deny"})
		good := w.token(nil)
		cut(l.nats)
		bad := w.token(nil)
		w.mustRevoke(bad)
		began := time.Now()
		oldest := time.Duration(0)
		first := w.waitSince(began, "a revocation arrives over HTTP", func() bool { // once the silence was noticed
			oldest = max(oldest, w.staleness(sidecar))
			return w.call(sidecar, bad).status == http.StatusUnauthorized
		})
		if first > 4*time.Second || oldest > 4*time.Second {
			w.Errorf("the first revocation took %s, and the list was up to %s old", first, oldest)
		}
		w.Logf("the first revocation over HTTP is refused after %s, and the list was up to %s old",
			first.Round(time.Millisecond), oldest.Round(time.Millisecond))
		n, slowest := 0, time.Duration(0)
		oldest = 0
		for began = time.Now(); time.Since(began) < 8*time.Second; n++ {
			bad := w.token(nil)
			w.mustRevoke(bad)
			slowest = max(slowest, w.refusedSince(time.Now(), sidecar, bad))
			w.mustServe(sidecar, good)
			for wait := time.Now(); time.Since(wait) < time.Duration(n%4)*500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
				oldest = max(oldest, w.staleness(sidecar))
			}
		}
		if slowest > within || oldest > within {
			w.Errorf("over HTTP, a revocation took %s, and the list was up to %s old", slowest, oldest)
		}
		w.Logf("%d more refused after at most %s; the list never older than %s",
			n, slowest.Round(time.Millisecond), oldest.Round(time.Millisecond))
		l.nats.Heal()
		w.waitSince(time.Now(), "it is connected again", func() bool { return sidecar.Metric(w, "revcast_feed_connected") == 1 })
	})
}

// Heartbeats that arrive late make the list no younger than they are.
func lateHeartbeats(w *world, l link) {
	for _, late := range []time.Duration{time.Second, 3 * time.Second} { // the second is longer than a question may take
		w.Run(late.String(), func(t *testing.T) {
			w := w.in(t)
			l.both((*harness.Relay).Heal)
			sidecar := w.steady(l, freshness{"1m", "deny"})
			l.both(func(r *harness.Relay) { r.Delay(late) })
			began := time.Now()
			youngest := time.Hour
			for elapsed := time.Duration(0); elapsed < 3*late+2*time.Second; elapsed = time.Since(began) {
				age := w.staleness(sidecar)
				if elapsed > late { // what was under way has arrived
					youngest = min(youngest, age)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if youngest < late {
				t.Errorf("the list called itself %s old, and everything is %s late", youngest, late)
			}
			t.Logf("never younger than %s", youngest.Round(time.Millisecond))
		})
	}
}

// TestFinalNewLog takes the authority's log away, for a new one. A sidecar that
// comes by what is new through a snapshot keeps both over a restart of its own.
func TestFinalNewLog(t *testing.T) {
	var l link
	w := newWorld(t, func(config map[string]any) {
		nats := config["nats"].(map[string]any)
		l = link{harness.NewRelay(t, nats["listen"].(string)), harness.NewRelay(t, config["listen"].(string))}
		nats["advertise"] = l.nats.Address
	})
	sidecar := w.sidecar(l.url(), freshness{})
	sidecar.WaitReady()
	good, old, late := w.token(nil), w.tokens(20), w.tokens(20)
	w.mustRevoke(old...)
	w.refusedSince(time.Now(), sidecar, old...)
	l.both((*harness.Relay).Reset)
	w.authority.Kill()
	if err := os.RemoveAll(filepath.Join(w.authority.Dir, "data", "jetstream")); err != nil {
		t.Fatal(err)
	}
	w.authority.Start()
	w.authority.WaitReady()
	w.mustRevoke(late...)
	l.both((*harness.Relay).Heal)
	took := w.refusedSince(time.Now(), sidecar, late...)
	w.mustRefuseAll(sidecar, old)
	w.waitSince(time.Now(), "the list is fresh", func() bool { return w.staleness(sidecar) < healthy })
	if n := sidecar.Metric(w, "revcast_feed_snapshots_total"); n < 2 {
		t.Errorf("%.0f snapshots: the second log was not taken up by one", n)
	}
	time.Sleep(time.Second) // to write a new state file
	for _, end := range []func(){sidecar.Kill, func() { sidecar.Terminate(5 * time.Second) }} {
		end()
		l.both((*harness.Relay).Reset)
		sidecar.Start()
		w.waitSince(time.Now(), "it serves from its state file", func() bool { return w.call(sidecar, good).status == http.StatusOK })
		w.mustRefuseAll(sidecar, old)
		w.mustRefuseAll(sidecar, late)
		l.both((*harness.Relay).Heal)
		w.waitSince(time.Now(), "it has asked", func() bool {
			return sidecar.Metric(w, "revcast_feed_connected") == 1 && w.staleness(sidecar) < healthy
		})
		w.mustRefuseAll(sidecar, old)
		w.mustRefuseAll(sidecar, late)
	}
	t.Logf("what the new log holds is refused after %s, and both logs' after restarts", took.Round(time.Millisecond))
}

// After a cut, all that was revoked meanwhile is refused soon.
func healed(w *world, l link) {
	delay := func(r *harness.Relay) { r.Delay(1500 * time.Millisecond) }
	reset := (*harness.Relay).Reset
	for _, c := range []struct {
		name    string
		disturb func(*harness.Relay)
		during  time.Duration
	}{
		// Over before the silence is noticed.
		{"Reset100ms", reset, 100 * time.Millisecond},
		{"ResetAgain100ms", reset, 100 * time.Millisecond},
		{"Reset300ms", reset, 300 * time.Millisecond},
		{"ResetAgain300ms", reset, 300 * time.Millisecond},
		{"Blackhole1s", (*harness.Relay).Blackhole, time.Second},
		{"Blackhole5s", (*harness.Relay).Blackhole, 5 * time.Second}, // every timeout has passed
		{"Reset1s", reset, time.Second},
		{"Reset5s", reset, 5 * time.Second},
		{"Delay", delay, 3 * time.Second},
	} {
		w.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			l.both((*harness.Relay).Heal)
			sidecar := w.steady(l, freshness{"1m", "deny"})
			good, bad := w.token(nil), w.tokens(200)
			l.both(c.disturb)
			for i := 0; i < len(bad); i += 20 {
				w.mustRevoke(bad[i : i+20]...)
				time.Sleep(c.during / 10)
			}
			l.both((*harness.Relay).Heal)
			began := time.Now()
			took := w.refusedSince(began, sidecar, bad...)
			fresh := w.waitSince(began, "the list is fresh", func() bool { return w.staleness(sidecar) < healthy })
			if took > within || fresh > within {
				t.Errorf("%d revocations are refused %s after the heal, and the list is fresh after %s", len(bad), took, fresh)
			}
			w.mustServe(sidecar, good)
			t.Logf("%d revocations refused %s after the heal, the list fresh after %s",
				len(bad), took.Round(time.Millisecond), fresh.Round(time.Millisecond))
		})
	}
}
