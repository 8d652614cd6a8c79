//go:build fault

package cluster

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// TestAuthoritiesAndSidecarWorkWithTheManifestsNATS as it is: it fsyncs before it
// acknowledges, keeps the log three times, and carries the live feed to a sidecar.
func TestAuthoritiesAndSidecarWorkWithTheManifestsNATS(t *testing.T) {
	w := newWorld(t)
	sidecar := w.sidecar(w.service)
	sidecar.WaitReady()
	for _, n := range w.nats {
		var varz server.Varz
		if err := w.ask(n, "/varz", &varz); err != nil {
			t.Fatal(err)
		}
		if !varz.JetStream.Config.SyncAlways {
			t.Errorf("%s acknowledges before it fsyncs", n.Name)
		}
	}
	var js server.JSInfo
	if err := w.ask(w.leader(), "/jsz?acc=REVCAST&streams=true&config=true", &js); err != nil {
		t.Fatal(err)
	}
	if replicas := js.AccountDetails[0].Streams[0].Config.Replicas; replicas != 3 {
		t.Errorf("the log is kept %d times", replicas)
	}
	heard := sidecar.Metric(t, "revcast_feed_heartbeats_total")
	w.waitUntil("heartbeats come over NATS", func() bool { return sidecar.Metric(t, "revcast_feed_heartbeats_total") >= heard+3 })
	for _, p := range w.authorities {
		token := w.token()
		if status, err := w.call(sidecar, token); status != http.StatusOK {
			t.Fatalf("a good token: %d, %v", status, err)
		}
		if status, err := w.revoke(p.URL, token); status != http.StatusOK {
			t.Fatalf("revoke: %d, %v", status, err)
		}
		w.waitUntil("a revoked token is refused", func() bool {
			status, _ := w.call(sidecar, token)
			return status == http.StatusUnauthorized
		})
	}
	for _, p := range w.authorities {
		for _, complaint := range []string{"fsync", "ermissions", "ALARM"} {
			if strings.Contains(p.Output(), complaint) {
				t.Errorf("an authority logs of %q:\n%s", complaint, p.Output())
			}
		}
	}
}
