//go:build fault

package cluster

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	down = time.Second     // from kill -9 to the start
	calm = 3 * time.Second // from everything's recovery to the next kill; at most a sixtieth of the run
)

// leaves is what happens to each server in a rollout.
const leaves = "the leader, asked to leave,"

// kill is one process killed and started again.
type kill struct {
	what     string
	at, well time.Time     // well: everything was as before
	led      time.Duration // until the log had another leader, where that was killed
}

// link is a sidecar's way to everything.
type link struct{ nats, http *harness.Relay }

func (w *world) link() link {
	w.Helper()
	var servers []string
	for _, n := range w.nats {
		servers = append(servers, n.client)
	}
	nats := harness.NewRelay(w, servers...)
	face := harness.Advertise(w, w.service, "nats://"+nats.Address)
	return link{nats, harness.NewRelay(w, strings.TrimPrefix(face, "http://"))}
}

// cut is a network that is gone for a while, from one moment to the next.
func (l link) cut() {
	l.nats.Blackhole()
	l.http.Blackhole()
	time.Sleep(2 * down)
	l.nats.Heal()
	l.http.Heal()
}

// TestNoRevocationIsLostWhateverDies: under load either authority, the NATS server that
// leads the log, another one and a sidecar are killed and a sidecar's network is cut, one
// after the other. No acknowledged revocation is lost, none is taken back, and no sidecar
// calls its list complete as of an instant by which it misses one.
func TestNoRevocationIsLostWhateverDies(t *testing.T) {
	w := newWorld(t)
	var watches []*watch
	far := w.link()
	sidecars := []*harness.Process{w.sidecar(w.service), w.sidecar(w.service), w.sidecar("http://" + far.http.Address)}
	for _, p := range sidecars {
		p.WaitReady()
	}
	good := make([]string, 20)
	for i := range good {
		good[i] = w.token()
	}
	began := time.Now()
	load := startLoad(w)
	for _, p := range sidecars {
		watches = append(watches, watchSidecar(w, p, load, good))
	}

	var kills []kill
	restarted := false
	victims := []string{"the leader", "an authority", "the other authority", "a follower"}
	if *during >= time.Minute { // it takes its time
		victims = append(victims, leaves)
	}
	for time.Since(began) < *during || len(kills) < len(victims) {
		kills = append(kills, w.kill(victims[len(kills)%len(victims)]))
		if len(kills)%len(victims) == 2 {
			far.cut()
		}
		w.waitUntil("revocations are stored", func() bool {
			acked := load.all()
			return len(acked) > 0 && acked[len(acked)-1].at.After(kills[len(kills)-1].at)
		})
		if !restarted && time.Since(began) > *during/2 {
			watches[0].restart()
			restarted = true
		}
		time.Sleep(min(calm, *during/60))
	}
	load.end()
	ended := time.Now()
	for _, o := range watches {
		o.end()
	}
	acked := load.all()
	report(t, acked, kills, began, ended)
	t.Logf("%d calls were repeated", load.retries.Load())
	for i, o := range watches {
		t.Logf("sidecar %d: %d looks, its list never older than %s; %d revocations that it was to have, %d that it had refused, %d good tokens; %d calls without an answer; %d violations",
			i, o.looks, o.oldest.Round(time.Millisecond), o.fresh, o.final, o.goods, o.unknown, o.violations)
		if o.fresh == 0 || o.final == 0 {
			t.Error("nothing was checked")
		}
	}

	all, missing := append(sidecars, w.sidecar(w.service)), 0
	for i, p := range all {
		w.waitUntil("a sidecar's list is complete as of the last acknowledgement", func() bool {
			asOf, err := w.asOf(p)
			return err == nil && !asOf.Before(acked[len(acked)-1].at)
		})
		missing += w.wrong(p, acked)
		for _, token := range good {
			if status, err := w.call(p, token); status != http.StatusOK {
				t.Errorf("sidecar %d answers %d to a good token: %v", i, status, err)
			}
		}
	}
	t.Logf("%d of %d acknowledged revocations are missing at %d sidecars, the last of which began with nothing", missing, len(acked), len(all))
	for _, p := range slices.Concat(w.authorities, all) {
		if !p.Running() {
			t.Errorf("%s has ended", p.Name)
		}
		if strings.Contains(p.Output(), "ALARM") {
			t.Errorf("%s raised an alarm", p.Name)
		}
	}
}

// kill kills one process, starts it again, and waits until all are well.
func (w *world) kill(what string) kill {
	w.Helper()
	var leader *node
	w.waitUntil("the log has a leader", func() bool { leader = w.leader(); return leader != nil })
	var victim *harness.Process
	switch what {
	case "an authority":
		victim = w.authorities[0]
	case "the other authority":
		victim = w.authorities[1]
	case "the leader", leaves:
		victim = leader.Process
	default:
		others := slices.DeleteFunc(slices.Clone(w.nats), func(n *node) bool { return n == leader })
		victim = slices.MaxFunc(others, func(a, b *node) int { return w.listeners(a) - w.listeners(b) }).Process
	}
	if !victim.Running() {
		w.Fatalf("%s has ended by itself", victim.Name)
	}
	k := kill{what: what, at: time.Now()}
	if what == leaves {
		victim.Signal(syscall.SIGUSR2) // lame duck mode, as the StatefulSet's preStop has it
		w.waitUntil("it has left", func() bool { return !victim.Running() })
	} else {
		victim.Kill()
	}
	started := false
	w.waitUntil("all is well again", func() bool {
		if !started && time.Since(k.at) > down {
			victim.Start()
			started = true
		}
		return started && w.leader() != nil && !slices.ContainsFunc(w.nats, func(n *node) bool { return !w.healthy(n) }) &&
			!slices.ContainsFunc(w.authorities, func(p *harness.Process) bool { return !p.Ready() })
	})
	k.well = time.Now()
	if victim == leader.Process {
		k.led = w.elected(k.at).Sub(k.at)
	}
	return k
}

// elected is when the servers say that one of them became the log's leader, after an instant.
func (w *world) elected(after time.Time) (first time.Time) {
	w.Helper()
	for _, n := range w.nats {
		for line := range strings.Lines(n.Output()) {
			_, rest, _ := strings.Cut(line, "] ")
			text, what, _ := strings.Cut(rest, " [INF] ")
			if !strings.HasPrefix(what, "JetStream cluster new stream leader") {
				continue
			}
			at, err := time.ParseInLocation("2006/01/02 15:04:05.000000", text, time.Local)
			if err != nil {
				w.Fatalf("%s logs %q: %v", n.Name, line, err)
			}
			if at.After(after) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	if first.IsZero() {
		w.Fatal("no server says that it leads the log")
	}
	return first
}

// report says how long callers waited.
func report(t *testing.T, acked []ack, kills []kill, began, ended time.Time) {
	t.Helper()
	var took, whole []time.Duration
	for _, a := range acked {
		took, whole = append(took, a.took), append(whole, a.all)
	}
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	p50, p99, most := quantiles(took)
	t.Logf("%d revocations acknowledged in %s; calls took p50 %s, p99 %s, max %s", len(acked), ended.Sub(began).Round(time.Second), ms(p50), ms(p99), ms(most))
	p50, p99, most = quantiles(whole)
	t.Logf("with those before them that failed: p50 %s, p99 %s, max %s; the longest time without one: %s", ms(p50), ms(p99), ms(most), ms(gap(acked, began, ended)))
	gaps, wells, leds := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}
	for _, k := range kills {
		gaps[k.what] = append(gaps[k.what], gap(acked, k.at, k.well))
		wells[k.what] = append(wells[k.what], k.well.Sub(k.at))
		leds[k.what] = append(leds[k.what], k.led)
	}
	for _, what := range slices.Sorted(maps.Keys(gaps)) {
		typical, _, longest := quantiles(gaps[what])
		line := fmt.Sprintf("%s went %d times: longest time without an acknowledgement, median %s, max %s", what, len(gaps[what]), ms(typical), ms(longest))
		if what == "the leader" {
			typical, _, longest = quantiles(leds[what])
			line += fmt.Sprintf("; the log had a leader after %s, max %s", ms(typical), ms(longest))
		}
		typical, _, longest = quantiles(wells[what])
		t.Logf("%s; all was well after %s, max %s", line, ms(typical), ms(longest))
	}
}
