package feed

import (
	"errors"
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
