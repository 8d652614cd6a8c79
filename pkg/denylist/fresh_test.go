package denylist

import (
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func TestFreshOrUnknown(t *testing.T) {
	const most = time.Minute
	revoked, other := token(t, JTI, "x"), token(t, JTI, "y")
	l := New(MaxStaleness(most))
	l.Add(byJTI("x", true))
	for name, c := range map[string]struct {
		at   time.Duration // after the list was complete; negative: not yet
		want Verdict
	}{
		"fresh":                  {0, Verdict{Status: Clear}},
		"as old as it may be":    {most, Verdict{Status: Clear, Age: most}},
		"older":                  {most + 1, Verdict{Status: Unknown, Why: Stale, Age: most + 1}},
		"much older":             {100 * most, Verdict{Status: Unknown, Why: Stale, Age: 100 * most}},
		"a clock that went back": {-most, Verdict{Status: Clear}},
	} {
		before := New(MaxStaleness(most))
		before.Add(byJTI("x", true))
		if v := before.CheckToken(other, now); v != (Verdict{Status: Unknown, Why: Loading}) {
			t.Errorf("before Advance: %+v", v)
		}
		if v := before.CheckToken(revoked, now); v.Status != Revoked {
			t.Errorf("revoked before Advance: %+v", v)
		}
		before.Advance(now)
		if v := before.CheckToken(other, now.Add(c.at)); v != c.want {
			t.Errorf("%s: %+v, want %+v", name, v, c.want)
		}
		if v := before.CheckToken(revoked, now.Add(c.at)); v.Status != Revoked || v.Shape != JTI {
			t.Errorf("%s, revoked: %+v", name, v)
		}
	}
	if _, loaded := l.Age(now); loaded {
		t.Error("a list that was never complete has an age")
	}
	if New().MaxStaleness() != DefaultMaxStaleness || l.MaxStaleness() != most {
		t.Error("another MaxStaleness")
	}
	if v := (Verdict{}); v.Status == Clear {
		t.Error("a verdict that nobody gave is clear")
	}
}

func TestFreshOrUnknownNeverGoesBack(t *testing.T) {
	l := New()
	l.Advance(now)
	l.Advance(now.Add(-time.Hour))
	if age, _ := l.Age(now); age != 0 {
		t.Errorf("an earlier instant made the list %v old", age)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				l.Advance(now.Add(time.Duration(8*j+i) * time.Millisecond))
			}
		})
	}
	all.Wait()
	if age, _ := l.Age(now.Add(8 * time.Second)); age != time.Millisecond {
		t.Errorf("age %v after the latest of many", age)
	}
}

// drifted returns a time as far from t as wall says by the wall clock and as mono
// says by the monotonic one, which no public function makes.
func drifted(t *testing.T, from time.Time, wall, mono time.Duration) time.Time {
	t.Helper()
	later := from.Add(wall) // moves both
	ext := (*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&later))
	ext.ext += int64(mono - wall)
	if later.Sub(from) != mono || later.Round(0).Sub(from.Round(0)) != wall {
		t.Fatalf("%v is not %v and %v from %v", later, wall, mono, from)
	}
	return later
}

func TestFreshOrUnknownByTheLongerOfTwoClocks(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour
	from := time.Now()
	for _, c := range []struct{ wall, mono, want time.Duration }{
		{time.Minute, time.Minute, time.Minute},
		{time.Hour, time.Minute, time.Hour},    // the machine slept
		{-time.Hour, time.Minute, time.Minute}, // the clock was set back
		{time.Minute, time.Hour, time.Hour},    // the clock was set back while it ran
		{-time.Hour, -time.Minute, 0},
		{century, time.Hour, century}, // the clock was set to nonsense
		{-century, time.Hour, time.Hour},
		{time.Hour, century, century},
		{-century, -time.Hour, 0},
	} {
		l := New(MaxStaleness(c.want))
		l.Advance(from)
		at := drifted(t, from, c.wall, c.mono)
		if age, ok := l.Age(at); !ok || age != c.want {
			t.Errorf("wall %v, monotonic %v: %v", c.wall, c.mono, age)
		}
		if v := l.CheckToken(token(t), at); v.Status != Clear {
			t.Errorf("wall %v, monotonic %v: %+v", c.wall, c.mono, v)
		}
		if c.want > 0 {
			l = New(MaxStaleness(c.want - 1))
			l.Advance(from)
			if v := l.CheckToken(token(t), at); v.Status != Unknown || v.Why != Stale {
				t.Errorf("wall %v, monotonic %v: %+v", c.wall, c.mono, v)
			}
		}
	}
}

// instants are some that a clock may show, from the sane to the absurd.
func instants() map[string]time.Time {
	year := func(y int) time.Time { return time.Date(y, 6, 15, 12, 0, 0, 999_999_999, time.UTC) }
	return map[string]time.Time{
		"now": time.Now(), "in an hour": time.Now().Add(time.Hour), "the same, by the wall": time.Now().Add(time.Hour).Round(0),
		"zero": {}, "year 1": year(1), "year 1677": year(1677), "1970": time.Unix(0, 0), "before 1970": time.Unix(-1, 1),
		"year 2262": year(2262), "year 2300": year(2300), "year 9999": year(9999), "year 292277": year(292277),
		"ages ahead": time.Unix(1<<60, 0), "ages ago": time.Unix(-1<<60, 0),
	}
}

func TestFreshOrUnknownWhateverTheClocksShow(t *testing.T) {
	tok := token(t, JTI, "x")
	for nameFrom, from := range instants() {
		for nameTo, to := range instants() {
			l := New(MaxStaleness(time.Minute))
			l.Advance(from)
			age, loaded := l.Age(to)
			if !loaded || age < 0 {
				t.Errorf("from %s to %s: age %v, %v", nameFrom, nameTo, age, loaded)
			}
			wall := new(big.Int).Sub(big.NewInt(to.Unix()), big.NewInt(from.Unix())) // seconds, and part of one
			switch v := l.CheckToken(tok, to); {
			case v.Age != age:
				t.Errorf("from %s to %s: age %v, but %v with a verdict", nameFrom, nameTo, age, v.Age)
			case wall.Cmp(big.NewInt(61)) > 0 && (v.Status != Unknown || v.Why != Stale):
				t.Errorf("from %s to %s, %v s: %+v", nameFrom, nameTo, wall, v)
			case wall.Cmp(big.NewInt(-1)) < 0 && to.Sub(from) <= 0 && (v.Status != Clear || age != 0):
				t.Errorf("from %s back to %s: %+v", nameFrom, nameTo, v)
			}
			if most := big.NewInt(250 * 365 * 24 * 3600); wall.Cmp(most) > 0 && age < 250*365*24*time.Hour {
				t.Errorf("from %s to %s: only %v", nameFrom, nameTo, age)
			}
		}
	}
}

func TestFreshOrUnknownAfterAnAbsurdInstant(t *testing.T) {
	tok := token(t, JTI, "x")
	for name, at := range instants() {
		if !at.Before(now.Add(-time.Hour)) {
			continue
		}
		l := New(MaxStaleness(time.Minute))
		l.Advance(at)
		if v := l.CheckToken(tok, now); v.Status != Unknown || v.Why != Stale {
			t.Errorf("complete as of %s: %+v", name, v)
		}
		l.Advance(now)
		if v := l.CheckToken(tok, now); v.Status != Clear || v.Age != 0 {
			t.Errorf("complete as of %s, then now: %+v", name, v)
		}
		l.Advance(at)
		if v := l.CheckToken(tok, now.Add(time.Second)); v.Status != Clear || v.Age != time.Second {
			t.Errorf("complete as of now, then %s: %+v", name, v)
		}
	}
}

// A list that was too old is given an entry and then an age: at no time is the
// token clear.
func TestFreshOrUnknownWhileTheListCatchesUp(t *testing.T) {
	tok, e := token(t, JTI, "x"), byJTI("x", true)
	for range 1000 / slowly {
		l := New(MaxStaleness(time.Minute))
		l.Advance(now.Add(-time.Hour))
		var writer sync.WaitGroup
		var begun, done atomic.Bool
		writer.Go(func() {
			for !begun.Load() {
			}
			l.Add(e)
			l.Advance(now)
			done.Store(true)
		})
		for last := false; !last; {
			last = done.Load()
			begun.Store(true)
			if v := l.CheckToken(tok, now); v.Status == Clear {
				t.Fatalf("%+v", v)
			}
		}
		writer.Wait()
	}
}
