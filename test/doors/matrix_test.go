//go:build doors

package doors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/test/harness"
)

// matrix is what every door said of every case.
type matrix struct {
	*testing.T
	rows []string
	asks int
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{T: t}
	head := fmt.Sprintf("%-46s", "")
	for _, d := range doors {
		head += fmt.Sprintf(" %-13s", d.name)
	}
	m.rows = append(m.rows, head)
	t.Cleanup(func() {
		t.Logf("%d cases, %d doors, %d answers compared\n%s", len(m.rows)-1, len(doors), m.asks, strings.Join(m.rows, "\n"))
	})
	return m
}

// agree asks every door the same and compares what it says with what it should.
func (m *matrix) agree(s *site, name string, r request, want decision, own bool) {
	m.Helper()
	row := fmt.Sprintf("%-46s", name)
	for i, d := range doors {
		if !d.fits(r) {
			row += fmt.Sprintf(" %-13s", "-")
			continue
		}
		m.asks++
		said := s.ask[i](r)
		cell := string(want)
		switch {
		case said == d.words[want]:
		case own && d.own && want != allowed && strings.HasPrefix(said, "4"):
			cell = said[:3] // the proxy's own
		default:
			m.Errorf("%s at %s: got %q, want %q", name, d.name, said, d.words[want])
			cell = "WRONG"
		}
		row += fmt.Sprintf(" %-13s", cell)
	}
	m.rows = append(m.rows, row)
}

// TestEveryDoorDecidesAlike sends tokens good and bad through every door.
func TestEveryDoorDecidesAlike(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w.trusted(), w.authority.URL, freshness{time.Minute, verifier.Deny}, true)
	m := newMatrix(t)
	for _, c := range forged {
		m.agree(s, c.name, c.make(w), c.want, c.own)
	}
}

// TestEveryDoorHearsOfRevocations: what was allowed at every door is refused at every door,
// whatever revoked it.
func TestEveryDoorHearsOfRevocations(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w.trusted(), w.authority.URL, freshness{time.Minute, verifier.Deny}, true)
	m := newMatrix(t)
	requests := make([]request, len(revoked))
	for i, c := range revoked {
		requests[i] = c.make(w)
		m.agree(s, c.name+" (before)", requests[i], allowed, false)
	}
	for i, c := range revoked {
		c.revoke(w, requests[i])
	}
	w.heard(s)
	for i, c := range revoked {
		m.agree(s, c.name, requests[i], c.want, false)
	}
}

// heard waits until a site has applied all that was revoked so far.
func (w *world) heard(s *site) {
	w.Helper()
	last := bearer(w.token(nil))
	w.revoke(last.token)
	for i, d := range doors {
		s.soon(d.name+" refuses what was revoked last", func() bool { return s.ask[i](last) == d.words[refused] })
	}
}

// TestEveryDoorKnowsHowOldItsListIs: when nothing has been heard for too long, good tokens
// are as the configuration says, and revoked ones are refused either way.
func TestEveryDoorKnowsHowOldItsListIs(t *testing.T) {
	const stale = 3 * time.Second
	for name, one := range map[string]struct {
		policy verifier.StalePolicy
		good   decision
	}{"deny": {verifier.Deny, unavailable}, "allow": {verifier.Allow, allowed}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := newSite(t, w.trusted(), w.authority.URL, freshness{stale, one.policy}, true)
			m := newMatrix(t)
			gone, good := bearer(w.token(nil)), bearer(w.token(nil))
			m.agree(s, "good (before)", good, allowed, false)
			w.revoke(gone.token)
			w.heard(s)
			w.authority.Kill()
			s.soon("the lists are stale", func() bool {
				age, _ := s.list.Age(time.Now())
				return age > stale && s.sidecar.Metric(t, "revcast_list_staleness_seconds") > stale.Seconds()
			})
			m.agree(s, "good, list stale", good, one.good, false)
			m.agree(s, "revoked, list stale", gone, refused, false)
			m.agree(s, "no token, list stale", headers(), missing, false)
			m.agree(s, "garbage, list stale", bearer("garbage"), refused, false)
		})
	}
}

// TestNoDoorOpensOnAnEmptyList: what has never loaded a list allows nothing, whatever
// the configuration says about old ones.
func TestNoDoorOpensOnAnEmptyList(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w.trusted(), "http://"+harness.FreeAddress(t), freshness{time.Minute, verifier.Allow}, false)
	m := newMatrix(t)
	// The sidecar fetches the issuers' keys first: without them, a token is unknown, too.
	s.soon("the sidecar answers", func() bool {
		return s.ask[0](headers()) == spoken[missing] && s.ask[0](bearer(w.forged())) == spoken[refused]
	})
	m.agree(s, "good, list never loaded", bearer(w.token(nil)), unavailable, false)
	m.agree(s, "no token, list never loaded", headers(), missing, false)
	m.agree(s, "forged, list never loaded", bearer(w.forged()), refused, false)
}
