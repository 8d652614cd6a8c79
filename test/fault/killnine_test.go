//go:build fault

package fault

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	callers     = 48 // at once
	reportEvery = 5
	// followLimit is how long after a restart a sidecar may take to be in step again.
	followLimit = 15 * time.Second
)

// TestDurableKillNine kills the authority under load, again and again: what it
// answered with 200 is refused ever after, by a sidecar that follows and by the log.
func TestDurableKillNine(t *testing.T) {
	w := newWorld(t, nil)
	sidecar := w.sidecar(w.authority.URL, freshness{})
	sidecar.WaitReady()
	good := w.tokens(5)
	fromStart := w.fromStart()
	watch := watchRefusals(w, sidecar)
	var all load
	began := time.Now()
	for round := 1; round <= *rounds; round++ {
		var this load
		stop := this.begin(w)
		after := 50 + rand.N(600)
		w.waitSince(time.Now(), "revocations are answered", func() bool { return this.count() >= after })
		w.authority.Kill()
		down := time.Now()
		stop()
		w.authority.Start()
		w.authority.WaitReady()
		up := time.Since(down)
		this.wait() // for those that retry

		all.add(&this)
		fromStart.follow()
		if n := missing(fromStart.list, all.acked); n > 0 {
			t.Fatalf("round %d: the log lost %d of %d answered with 200", round, n, len(all.acked))
		}
		if n := missing(w.fromSnapshot().list, all.acked); n > 0 {
			t.Fatalf("round %d: snapshot and log lost %d of %d answered with 200", round, n, len(all.acked))
		}
		watch.expect(this.acked, time.Now().Add(followLimit))
		if round%reportEvery == 0 || round == *rounds {
			t.Logf("round %d after %s: %d answered with 200, %d of them after retries, %d unanswered; 0 lost; back in %s",
				round, time.Since(began).Round(time.Millisecond), len(all.acked), all.retried, len(all.unanswered), up.Round(time.Millisecond))
		}
	}
	watch.end()
	if n := w.accepted(sidecar, all.acked); n > 0 {
		t.Errorf("the sidecar accepts %d of %d answered with 200", n, len(all.acked))
	}
	for _, g := range good {
		w.mustServe(sidecar, g)
	}
	stored := len(all.unanswered) - missing(fromStart.list, all.unanswered)
	t.Logf("%d rounds, %d answered with 200 (%d after retries), 0 lost; of %d unanswered %d were stored; the sidecar asked %.0f times and was behind for at most %s; %d probes of what it had refused",
		*rounds, len(all.acked), all.retried, len(all.unanswered), stored,
		sidecar.Metric(w, "revcast_feed_asks_total"), watch.slowest.Round(time.Millisecond), watch.probes)
	for _, p := range []*harness.Process{sidecar, w.authority} {
		if exit := p.Terminate(5 * time.Second); exit.Code != 0 {
			t.Errorf("%s: exit code %d", p.Name, exit.Code)
		}
	}
}

// load is what callers were told.
type load struct {
	mu         sync.Mutex
	acked      []token // answered with 200
	unanswered []token // answered with anything else, or not at all
	retried    int     // of acked
	running    sync.WaitGroup
}

// begin lets callers revoke, one token after the other, until stop is called.
// Every other caller goes on after that until its last token is stored.
func (l *load) begin(w *world) (stop func()) {
	var stopped atomic.Bool
	for i := range callers {
		retries := i%2 == 0
		l.running.Go(func() {
			for !stopped.Load() {
				l.one(w, retries)
			}
		})
	}
	return func() { stopped.Store(true) }
}

func (l *load) one(w *world, retries bool) {
	t := w.token(nil)
	tries := 0
	for limit := time.Now().Add(patience); ; {
		tries++
		if w.revoke(t).status == http.StatusOK {
			break
		}
		time.Sleep(10 * time.Millisecond) // nobody may be there
		if !retries || time.Now().After(limit) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.unanswered = append(l.unanswered, t)
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, t)
	if tries > 1 {
		l.retried++
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *load) wait() { l.running.Wait() }

func (l *load) add(o *load) {
	l.acked = append(l.acked, o.acked...)
	l.unanswered = append(l.unanswered, o.unanswered...)
	l.retried += o.retried
}

// watch checks, beside the test, that a sidecar comes to refuse what was revoked,
// and goes on to refuse it.
type watch struct {
	w       *world
	sidecar *harness.Process
	queue   chan expected
	stop    chan struct{}
	running sync.WaitGroup
	end     func() // waits until all that was expected has been seen

	mu      sync.Mutex // guards the rest
	refused []token
	slowest time.Duration
	probes  int
}

type expected struct {
	tokens []token
	since  time.Time
	limit  time.Time
}

func watchRefusals(w *world, sidecar *harness.Process) *watch {
	o := &watch{w: w, sidecar: sidecar, queue: make(chan expected, *rounds), stop: make(chan struct{})}
	o.end = sync.OnceFunc(func() {
		close(o.queue)
		close(o.stop)
		o.running.Wait()
	})
	w.Cleanup(o.end)
	o.running.Go(o.follow)
	o.running.Go(o.probe)
	return o
}

// expect wants tokens refused before limit.
func (o *watch) expect(tokens []token, limit time.Time) {
	o.queue <- expected{slices.Clone(tokens), time.Now(), limit}
}

func (o *watch) follow() {
	for e := range o.queue {
		for _, t := range e.tokens {
			for o.w.call(o.sidecar, t).status != http.StatusUnauthorized {
				if time.Now().After(e.limit) {
					o.w.Errorf("the sidecar is behind: a token revoked before a restart is accepted after %s", followLimit)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		o.mu.Lock()
		o.refused = append(o.refused, e.tokens...)
		o.slowest = max(o.slowest, time.Since(e.since))
		o.mu.Unlock()
	}
}

func (o *watch) probe() {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-o.stop:
			return
		case <-ticker.C:
		}
		o.mu.Lock()
		n := len(o.refused)
		var t token
		if n > 0 {
			t = o.refused[rand.N(n)]
			o.probes++
		}
		o.mu.Unlock()
		if n == 0 {
			continue
		}
		if a := o.w.call(o.sidecar, t); a.status != http.StatusUnauthorized {
			o.w.Errorf("the sidecar had refused a token, and then: %+v", a)
			return
		}
	}
}
