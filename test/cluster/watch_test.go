//go:build fault

package cluster

import (
	"bufio"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	look   = 50 * time.Millisecond // between two looks at a sidecar
	sample = 8                     // tokens of each kind at each look
	shown  = 10                    // violations of a sidecar in the test's log
)

// watch holds a sidecar against what was acknowledged, while everything goes on.
type watch struct {
	w       *world
	sidecar *harness.Process
	load    *load
	good    []string // never revoked
	running sync.WaitGroup
	stopped atomic.Bool
	// restarts is odd while the sidecar is being restarted.
	restarts atomic.Int64

	// Counts, to be read when it has ended.
	looks, fresh, final, goods, unknown, violations int
	oldest                                          time.Duration
	refused                                         []string // seen refused: to be refused ever after
	known                                           map[string]bool
}

func watchSidecar(w *world, p *harness.Process, l *load, good []string) *watch {
	o := &watch{w: w, sidecar: p, load: l, good: good, known: map[string]bool{}}
	o.running.Go(func() {
		for !o.stopped.Load() {
			o.look()
			time.Sleep(look)
		}
	})
	w.Cleanup(o.end)
	return o
}

func (o *watch) end() {
	o.stopped.Store(true)
	o.running.Wait()
}

// restart kills the sidecar and starts it again on its state file.
func (o *watch) restart() {
	o.restarts.Add(1)
	o.sidecar.Restart()
	o.restarts.Add(1)
}

// look is one round. What the list says of its age, it says before it is asked about the
// tokens.
func (o *watch) look() {
	o.looks++
	asOf, err := o.w.asOf(o.sidecar)
	if err == nil {
		o.oldest = max(o.oldest, time.Since(asOf))
		due := before(o.load.all(), asOf)
		for i := range min(sample, len(due)) {
			for _, a := range []ack{due[len(due)-1-i], due[rand.N(len(due))]} {
				o.fresh++
				if o.ask(a.token) == http.StatusOK {
					o.violation("a sidecar whose list is complete as of %s accepts a token that was revoked at %s",
						asOf.Format(time.StampMicro), a.at.Format(time.StampMicro))
				}
			}
		}
	}
	acked := o.load.all()
	for _, a := range acked[max(0, len(acked)-sample):] { // which it may not have heard of yet
		o.ask(a.token)
	}
	for range min(sample, len(o.refused)) {
		o.final++
		if o.ask(o.refused[rand.N(len(o.refused))]) == http.StatusOK {
			o.violation("a sidecar accepts what it had refused")
		}
	}
	o.goods++
	before := o.restarts.Load()
	if status := o.ask(o.good[rand.N(len(o.good))]); status != http.StatusOK &&
		(status == http.StatusUnauthorized || before%2 == 0 && before == o.restarts.Load()) {
		o.violation("a sidecar answers %d to a token that was never revoked", status)
	}
}

// ask returns the sidecar's answer, 0 where there is none, and notes refusals.
func (o *watch) ask(token string) (status int) {
	status, err := o.w.call(o.sidecar, token)
	if err != nil {
		status = 0
	}
	switch {
	case status != http.StatusOK && status != http.StatusUnauthorized:
		o.unknown++
	case status == http.StatusUnauthorized && !o.known[token]:
		o.known[token] = true
		o.refused = append(o.refused, token)
	}
	return status
}

func (o *watch) violation(format string, args ...any) {
	if o.violations++; o.violations <= shown {
		o.w.Errorf(format, args...)
	}
}

// asOf is the instant up to which a sidecar calls its list complete, or a little before.
func (w *world) asOf(p *harness.Process) (time.Time, error) {
	asked := time.Now()
	resp, err := w.client.Get(p.OpsURL + "/metrics")
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "revcast_list_staleness_seconds "); ok {
			age, err := strconv.ParseFloat(value, 64)
			if err == nil && math.IsInf(age, 1) {
				err = errors.New("the list was never complete")
			}
			return asked.Add(-time.Duration(age * float64(time.Second))), err
		}
	}
	return time.Time{}, errors.Join(errors.New("the age of the list is not there"), lines.Err())
}

// wrong counts the acknowledged revocations that a sidecar doesn't refuse.
func (w *world) wrong(p *harness.Process, acks []ack) int {
	var n atomic.Int64
	next := make(chan ack)
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for a := range next {
				if status, err := w.call(p, a.token); status != http.StatusUnauthorized {
					if n.Add(1) <= shown {
						w.Errorf("revoked at %s, and answered %d, %v", a.at.Format(time.StampMicro), status, err)
					}
				}
			}
		})
	}
	for _, a := range acks {
		next <- a
	}
	close(next)
	asking.Wait()
	return int(n.Load())
}
