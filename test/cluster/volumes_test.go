//go:build fault

package cluster

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// store revokes fresh tokens, as a client that tries again does.
func (w *world) store(acked []ack, n int) []ack {
	w.Helper()
	for range n {
		token := w.token()
		w.waitUntil("a revocation is stored", func() bool {
			status, err := w.revoke(w.service, token)
			return err == nil && status == http.StatusOK
		})
		acked = append(acked, ack{token: token, at: time.Now()})
	}
	return acked
}

// well waits until servers that were started and both authorities are ready.
func (w *world) well(servers ...*node) {
	w.Helper()
	w.waitUntil("all is well", func() bool {
		return w.leader() != nil && !slices.ContainsFunc(servers, func(n *node) bool { return !w.healthy(n) }) &&
			!slices.ContainsFunc(w.authorities, func(p *harness.Process) bool { return !p.Ready() })
	})
}

// complete holds sidecars, old and new, against all that was acknowledged.
func (w *world) complete(acked []ack, sidecars ...*harness.Process) {
	w.Helper()
	for i, p := range append(sidecars, w.sidecar(w.service)) {
		w.waitUntil("a sidecar's list is complete as of the last acknowledgement", func() bool {
			asOf, err := w.asOf(p)
			return err == nil && !asOf.Before(acked[len(acked)-1].at)
		})
		if n := w.wrong(p, acked); n > 0 {
			w.Errorf("sidecar %d accepts %d of %d revoked tokens", i, n, len(acked))
		}
	}
}

func (n *node) loseVolume(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(n.Dir, "data")); err != nil {
		t.Fatal(err)
	}
}

// TestALostVolumeIsFilledByTheOthers, whole: what it holds then counts where another
// server is away.
func TestALostVolumeIsFilledByTheOthers(t *testing.T) {
	w := newWorld(t)
	acked := w.store(nil, 20)
	var victim *node
	w.waitUntil("the log has a leader", func() bool { victim = w.leader(); return victim != nil })
	victim.Kill()
	victim.loseVolume(t)
	acked = w.store(acked, 20)
	victim.Start()
	w.well(w.nats...)

	others := slices.DeleteFunc(slices.Clone(w.nats), func(n *node) bool { return n == victim })
	others[0].Kill()
	acked = w.store(acked, 20)
	w.well(victim, others[1])
	w.complete(acked)
	for _, p := range w.authorities {
		if strings.Contains(p.Output(), "ALARM") {
			t.Errorf("%s raised an alarm", p.Name)
		}
	}
}

// TestWhatTheLogHasLostAuthoritiesStillTell, to sidecars old and new, and everybody says
// that something is wrong.
func TestWhatTheLogHasLostAuthoritiesStillTell(t *testing.T) {
	w := newWorld(t)
	sidecar := w.sidecar(w.service)
	sidecar.WaitReady()
	acked := w.store(nil, 20)
	w.complete(acked, sidecar)
	for _, n := range w.nats {
		n.Kill()
	}
	for _, n := range w.nats {
		n.loseVolume(t)
		n.Start()
	}
	acked = w.store(acked, 20)
	w.well(w.nats...)
	w.complete(acked, sidecar)
	for _, p := range w.authorities {
		if p.Metric(t, "revcast_log_alarms_total") == 0 {
			t.Error("an authority that has lost its log says nothing")
		}
	}
	if !strings.Contains(sidecar.Output(), "ALARM") || !strings.Contains(sidecar.Output(), "epoch_changed") {
		t.Errorf("the sidecar doesn't say that the log is another:\n%s", sidecar.Output())
	}
}
