//go:build fault

package cluster

import (
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestPasswordsChangeWithoutARestart, as docs/operations.md tells: the files of both
// Secrets first, then each NATS server reads its own again. Nothing acknowledged is lost,
// no alarm is raised, and the old passwords are good for nothing.
func TestPasswordsChangeWithoutARestart(t *testing.T) {
	w := newWorld(t)
	sidecar := w.sidecar(w.service)
	sidecar.WaitReady()
	acked := w.store(nil, 20)

	fresh, old := newSecrets(t), maps.Clone(w.secrets["authority"])
	conf := w.secrets["nats-passwords"]["passwords.conf"]
	for _, user := range []string{"authority", "verifier"} {
		conf = strings.ReplaceAll(conf, old["nats-"+user], fresh["authority"]["nats-"+user])
		w.secrets["authority"]["nats-"+user] = fresh["authority"]["nats-"+user]
	}
	w.secrets["nats-passwords"]["passwords.conf"] = conf
	w.secrets.write(t, "authority", w.files, names(w.nats))
	w.secrets.write(t, "nats-passwords", filepath.Join(w.etc, "passwords"), names(w.nats))
	for _, n := range w.nats {
		n.Signal(syscall.SIGHUP) // nats-server --signal reload
		w.waitUntil("the old passwords are refused", func() bool {
			for _, user := range []string{"authority", "verifier"} {
				if w.admits(n, user, old["nats-"+user]) || !w.admits(n, user, fresh["authority"]["nats-"+user]) {
					return false
				}
			}
			return true
		})
		acked = w.store(acked, 5)
	}
	w.well(w.nats...)
	w.waitUntil("the sidecar is connected again", func() bool { return sidecar.Metric(t, "revcast_feed_connected") == 1 })
	acked = w.store(acked, 5)
	w.complete(acked, sidecar)
	for _, p := range append(w.authorities, sidecar) {
		if strings.Contains(p.Output(), "ALARM") {
			t.Errorf("%s raised an alarm", p.Name)
		}
	}
}

// admits says whether a server takes a user and password.
func (w *world) admits(n *node, user, password string) bool {
	u, err := w.connect(n, nats.UserInfo(user, password))
	if err == nil {
		u.Close()
	}
	return err == nil
}
