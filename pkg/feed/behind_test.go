package feed

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
)

// TestFinalALogIsRolledBackWhereAnAuthorityProvesIt, and not where the authority that is
// asked lags behind another one, as long as that may take: a cluster without a leader
// tells it nothing.
func TestFinalALogIsRolledBackWhereAnAuthorityProvesIt(t *testing.T) {
	for _, lags := range []bool{true, false} {
		s := script(t, "01JEPOCHEPOCHEPOCHEPOCHEPO")
		s.revoke(t, "one")
		s.revoke(t, "two")
		f := starts(t, s.URL, filepath.Join(t.TempDir(), "state"))
		mustAsk(t, f)
		began, elapsed := time.Now(), time.Duration(0)
		f.cfg.Now = func() time.Time { return began.Add(elapsed) }
		s.change(func() {
			s.messages, s.entries = s.messages[:1], s.entries[:1]
			s.says = func(h *wire.Heartbeat) {
				h.IssuedAt = began.Add(elapsed)
				if h.AsOf = h.IssuedAt; lags {
					h.AsOf = began
				}
			}
		})
		for ; elapsed < time.Minute && len(f.status.Alarms) == 0; elapsed += time.Second {
			var behind *behindError
			if err := f.ask(t.Context(), 0); err != nil && !errors.As(err, &behind) {
				t.Fatal(err)
			}
		}
		switch alarms := f.status.Alarms["rolled_back"]; {
		case lags && alarms > 0:
			t.Errorf("an alarm after %s, since an authority lags", elapsed)
		case !lags && alarms != 1:
			t.Errorf("%d alarms of a log that was rolled back", alarms)
		case !lags && elapsed > 5*time.Second:
			t.Errorf("the alarm came after %s", elapsed)
		}
	}
}

// TestFinalALogIsNotRolledBackWhereOneAuthorityAlwaysLagsALittle behind what another has
// confirmed, however often it is asked.
func TestFinalALogIsNotRolledBackWhereOneAuthorityAlwaysLagsALittle(t *testing.T) {
	s := script(t, "01JEPOCHEPOCHEPOCHEPOCHEPO")
	s.revoke(t, "one")
	f := starts(t, s.URL, filepath.Join(t.TempDir(), "state"))
	mustAsk(t, f)
	began, elapsed := time.Now(), time.Duration(0)
	f.cfg.Now = func() time.Time { return began.Add(elapsed) }
	lag := time.Duration(0)
	s.change(func() {
		s.says = func(h *wire.Heartbeat) { h.IssuedAt = began.Add(elapsed); h.AsOf = h.IssuedAt.Add(-lag) }
	})
	for i := range 5 {
		elapsed += time.Minute
		s.revoke(t, fmt.Sprint("more", i))
		s.live(t, f, len(s.messages))
		s.beat(f)
		all, entries := s.messages, s.entries
		lag = 500 * time.Millisecond
		s.change(func() { s.messages, s.entries = all[:len(all)-1], entries[:len(all)-1] })
		var behind *behindError
		if err := f.ask(t.Context(), 0); !errors.As(err, &behind) {
			t.Fatal("it does not lag:", err)
		}
		lag = 0
		s.change(func() { s.messages, s.entries = all, entries })
	}
	if n := f.status.Alarms["rolled_back"]; n != 0 {
		t.Errorf("%d alarms", n)
	}
}
