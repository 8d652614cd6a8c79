//go:build fault

package fault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	followers = 3
	// chunk is how many revocations go out between two pauses; every fifth chunk is
	// tokens at the RFC 7009 endpoint, the others are streams of selectors.
	chunk = 100
	pause = 300 * time.Millisecond
)

// TestNoneMissedThroughRandomCuts disturbs the ways of several sidecars at random
// while revocations come in. In the end, all lists are the authority's.
func TestNoneMissedThroughRandomCuts(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	t.Logf("repeat with -seed %d", start)
	random := rand.New(rand.NewPCG(start, 0))
	w := newWorld(t, nil)
	links := make([]link, followers)
	sidecars := make([]*harness.Process, followers)
	for i := range sidecars {
		nats := harness.NewRelay(t, strings.TrimPrefix(w.authority.NATSURL, "nats://"))
		face := harness.Advertise(t, w.authority.URL, "nats://"+nats.Address)
		links[i] = link{nats, harness.NewRelay(t, strings.TrimPrefix(face, "http://"))}
		sidecars[i] = w.sidecar(links[i].url(), freshness{})
	}
	for _, p := range sidecars {
		p.WaitReady()
	}

	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	var disturbing sync.WaitGroup
	t.Cleanup(func() { end(); disturbing.Wait() })
	cuts := make([]map[string]int, followers)
	for i, l := range links {
		disturbing.Go(func() { cuts[i] = l.disturb(rand.New(rand.NewPCG(start, uint64(i+1))), stop) })
	}

	began := time.Now()
	good := w.tokens(20)
	sent, samples := 0, []token(nil)
	for n := 0; sent < *revocations; n++ {
		if n%5 == 0 {
			tokens := w.tokens(chunk)
			w.revokeAll(tokens)
			samples = append(samples, tokens...)
			sent += chunk
		} else {
			lines, one := w.lines(random, chunk)
			stored, refusal, err := w.stream(lines)
			if stored != chunk {
				t.Fatalf("%d of %d lines were stored: %s, %v", stored, chunk, refusal, err)
			}
			samples = append(samples, one)
			sent += stored
		}
		time.Sleep(pause)
	}
	took := time.Since(began)
	end()
	disturbing.Wait()
	for _, l := range links {
		l.both((*harness.Relay).Heal)
	}
	healed := time.Now()
	last := w.authority.Metric(w, "revcast_log_position")
	t.Logf("%d revocations in %s, %d messages in the log", sent, took.Round(time.Millisecond), int(last))
	for i, p := range sidecars {
		inStep := w.waitSince(healed, "a sidecar is in step", func() bool {
			return p.Metric(w, "revcast_feed_confirmed_position") >= last && w.staleness(p) < healthy
		})
		t.Logf("sidecar %d: %v; in step %s after the last heal; asked %.0f times, %.0f failed; %.0f snapshots", i, cuts[i],
			inStep.Round(time.Millisecond), p.Metric(w, "revcast_feed_asks_total"),
			p.Metric(w, "revcast_feed_ask_errors_total"), p.Metric(w, "revcast_feed_snapshots_total"))
		if n := w.accepted(p, samples); n > 0 {
			t.Errorf("sidecar %d accepts %d of %d revoked tokens", i, n, len(samples))
		}
		for _, g := range good {
			w.mustServe(p, g)
		}
	}

	a := w.fromStart()
	if n := missing(a.list, samples); n > 0 {
		t.Errorf("the log misses %d of %d revoked tokens", n, len(samples))
	}
	want := encoded(t, a.entries)
	if entries := a.list.Stats().Entries; entries != sent {
		t.Errorf("the log holds %d entries of %d", entries, sent)
	}
	if !bytes.Equal(encoded(t, w.fromSnapshot().entries), want) {
		t.Error("the authority's snapshot is not its log")
	}
	for i, p := range sidecars {
		if exit := p.Terminate(5 * time.Second); exit.Code != 0 {
			t.Errorf("sidecar %d: exit code %d", i, exit.Code)
		}
		list, entries := a.stateOf(p)
		if n := missing(list, samples); n > 0 {
			t.Errorf("sidecar %d misses %d of %d revoked tokens", i, n, len(samples))
		}
		if held := list.Stats().Entries; held != sent || !bytes.Equal(encoded(t, entries), want) {
			t.Errorf("sidecar %d holds %d entries, and not those of the authority, %d", i, held, sent)
		}
	}
	t.Logf("0 missed; the authority's list and %d sidecars' are the same %d bytes", followers, len(want))
}

// disturb does one thing after another to a link until stop is closed, and counts.
func (l link) disturb(random *rand.Rand, stop <-chan struct{}) map[string]int {
	counts := map[string]int{}
	for {
		relays := []*harness.Relay{l.nats, l.http}[random.IntN(2):]
		if random.IntN(3) == 0 {
			relays = []*harness.Relay{l.nats}
		}
		what := []string{"blackhole", "reset", "delay", "heal", "heal"}[random.IntN(5)]
		delay := time.Duration(random.IntN(1500)) * time.Millisecond
		for _, r := range relays {
			switch what {
			case "blackhole":
				r.Blackhole()
			case "reset":
				r.Reset()
			case "delay":
				r.Delay(delay)
			case "heal":
				r.Heal()
			}
		}
		counts[what]++
		select {
		case <-stop:
			return counts
		case <-time.After(time.Duration(50+random.IntN(2500)) * time.Millisecond):
		}
	}
}

// lines makes revocations by all kinds of selectors, all different, the last of
// them for a token that it returns.
func (w *world) lines(random *rand.Rand, n int) (lines []string, last token) {
	w.Helper()
	last = w.token(map[string]any{"sid": fmt.Sprintf("session-%d", w.serial.Add(1))})
	for i := range n {
		id := fmt.Sprintf("user-%d", w.serial.Add(1))
		selector := []map[string]string{
			{"jti": id}, {"sid": id}, {"sub": id}, {"sub": id, "client_id": "web"}, {"tenant": id, "region": "eu"},
		}[random.IntN(5)]
		if i == n-1 {
			selector = map[string]string{"sid": last.checked.Values("sid")[0]}
		}
		line, err := json.Marshal(map[string]any{"issuer": w.issuer.Issuer, "selector": selector, "confirm": true, "reason": "a test"})
		if err != nil {
			w.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return lines, last
}

// revokeAll revokes tokens, several at once.
func (w *world) revokeAll(tokens []token) {
	w.Helper()
	answers := make([]answer, len(tokens))
	const at = 10
	parallel(at, func(first int) {
		for i := first; i < len(tokens); i += at {
			answers[i] = w.revoke(tokens[i])
		}
	})
	for _, a := range answers {
		if a.status != http.StatusOK {
			w.Fatalf("revoke: %+v", a)
		}
	}
}
