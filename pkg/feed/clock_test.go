package feed

import (
	"testing"
	"time"
)

// world is two machines: true time passes, and each clock reads it in its own way.
type world struct {
	elapsed time.Duration // true time
	asleep  time.Duration // of it, how long the verifier's machine slept
	wallOff time.Duration // the verifier's wall clock, off by
	authOff time.Duration // the authority's clock, off by
	rate    float64       // the verifier's monotonic clock against true time
}

var era = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) local() reading {
	mono := time.Duration(float64(w.elapsed-w.asleep) * (1 + w.rate))
	return reading{mono, era.Add(w.elapsed + w.wallOff)}
}
func (w *world) authority() time.Time { return era.Add(w.elapsed + w.authOff) }
func (w *world) pass(d time.Duration) { w.elapsed += d }

// exchange asks the authority for the time, with a delay each way.
func (w *world) exchange(c *clock, there, back time.Duration) {
	asked := w.local()
	w.pass(there)
	issued := w.authority()
	w.pass(back)
	c.answer(asked, w.local(), issued)
}

// notYounger fails where the clock makes something younger than it is.
func (w *world) notYounger(t *testing.T, c *clock, issued time.Time, trueAge, slack time.Duration) {
	t.Helper()
	got, ok := c.age(w.local(), issued)
	if !ok {
		return // "can't say" is never too young
	}
	if got < trueAge {
		t.Errorf("age %s, truly %s", got, trueAge)
	}
	if slack > 0 && got > trueAge+slack {
		t.Errorf("age %s, truly %s: more than %s too old", got, trueAge, slack)
	}
}

func TestFreshAgeIsRightWhereClocksAreTenMinutesOff(t *testing.T) {
	for _, wall := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		for _, auth := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
			w, c := &world{wallOff: wall, authOff: auth}, &clock{}
			w.exchange(c, 3*time.Millisecond, 40*time.Millisecond)
			issued := w.authority()
			for range 100 {
				w.pass(500 * time.Millisecond)
				trueAge := w.authority().Sub(issued)
				w.notYounger(t, c, issued, trueAge, 100*time.Millisecond)
				if _, ok := c.age(w.local(), issued); !ok {
					t.Fatalf("wall %s, authority %s: no answer", wall, auth)
				}
			}
		}
	}
}

func TestFreshReplayedAndDelayedHeartbeatsAreAsOldAsTheyAre(t *testing.T) {
	w, c := &world{wallOff: -10 * time.Minute}, &clock{}
	w.exchange(c, time.Millisecond, time.Millisecond)
	old := w.authority()
	w.pass(7 * time.Minute)
	w.notYounger(t, c, old, 7*time.Minute, time.Second) // replayed, or delayed all the while
	w.notYounger(t, c, w.authority().Add(-time.Hour), time.Hour, time.Second)
}

func TestFreshDelayedAnswersOnlyMakeTheListOlder(t *testing.T) {
	w, c := &world{authOff: time.Hour}, &clock{}
	w.exchange(c, 30*time.Second, 0) // an attacker holds the question back
	w.notYounger(t, c, w.authority(), 0, 31*time.Second)
	w.exchange(c, 0, 30*time.Second) // and the next answer
	w.notYounger(t, c, w.authority(), 0, time.Second)
}

func TestFreshDriftingClocks(t *testing.T) {
	for _, rate := range []float64{-200e-6, 200e-6} {
		w, c := &world{rate: rate}, &clock{}
		w.exchange(c, time.Millisecond, time.Millisecond)
		for range 24 {
			w.pass(time.Hour) // the authority's HTTP stays away, NATS goes on
			issued := w.authority()
			w.pass(time.Second)
			w.notYounger(t, c, issued, 999*time.Millisecond, 0)
		}
	}
}

func TestFreshAMachineThatSleptAsksAgain(t *testing.T) {
	w, c := &world{}, &clock{}
	w.exchange(c, time.Millisecond, time.Millisecond)
	queued := w.authority() // lies in the socket's buffer
	w.pass(time.Hour)
	w.asleep = time.Hour
	if age, ok := c.age(w.local(), queued); ok {
		t.Fatalf("an hour asleep, and a queued heartbeat counts as %s old", age)
	}
	w.exchange(c, time.Millisecond, time.Millisecond)
	w.notYounger(t, c, queued, time.Hour, time.Second)
}

func TestFreshAWallClockThatJumpsIsNoticed(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, time.Hour} {
		w, c := &world{}, &clock{}
		w.exchange(c, time.Millisecond, time.Millisecond)
		w.wallOff = jump
		if _, ok := c.age(w.local(), w.authority()); ok {
			t.Fatalf("jump of %s passed over", jump)
		}
		w.exchange(c, time.Millisecond, time.Millisecond)
		w.notYounger(t, c, w.authority(), 0, time.Second)
	}
}

func TestFreshAnAuthorityClockThatIsSet(t *testing.T) {
	w, c := &world{}, &clock{}
	w.exchange(c, time.Millisecond, time.Millisecond)
	w.authOff = 10 * time.Minute // forward: heartbeats come from the future
	if _, ok := c.age(w.local(), w.authority()); ok {
		t.Fatal("a heartbeat from the future is believed")
	}
	w.exchange(c, time.Millisecond, time.Millisecond)
	w.notYounger(t, c, w.authority().Add(-time.Minute), time.Minute, time.Second)
	w.authOff = -10 * time.Minute // back: everything looks old until the next answer
	if age, ok := c.age(w.local(), w.authority()); ok && age < 19*time.Minute {
		t.Fatalf("age %s", age)
	}
	w.exchange(c, time.Millisecond, time.Millisecond)
	w.notYounger(t, c, w.authority(), 0, time.Second)
}

func TestFreshNoAgeBeforeTheFirstAnswer(t *testing.T) {
	if _, ok := (&clock{}).age((&world{}).local(), era); ok {
		t.Fatal("an age without any answer")
	}
}
