package authority

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Callers that are refused write a bounded number of lines to the log, what was left
// out is told, and no flood of one kind hides another.
func TestBoundedLogOfRefusals(t *testing.T) {
	var lines bytes.Buffer
	clock := now
	a := newAuthority(t, &fakeLog{}, logged(&lines), func(c *Config) { c.Now = func() time.Time { return clock } })
	ask := func(secret, token string) {
		r := httptest.NewRequest(http.MethodPost, "/oauth2/revoke", strings.NewReader("token="+token))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", basic("web", secret))
		do(a, r)
	}
	count := func() int { return strings.Count(lines.String(), "\n") }
	const more = 50
	for range complaintsAtOnce + more {
		ask("wrong", "own")
	}
	if got := count(); got != complaintsAtOnce {
		t.Errorf("%d lines of %d refusals, want %d", got, complaintsAtOnce+more, complaintsAtOnce)
	}
	lines.Reset()
	ask(webSecret, "other")
	if got := count(); got != 1 || !strings.Contains(lines.String(), "not_owner") {
		t.Errorf("a refusal of another kind is not told: %s", lines.String())
	}
	lines.Reset()
	clock = clock.Add(time.Second)
	for range more {
		ask("wrong", "own")
	}
	if got := count(); got != complaintsASecond {
		t.Errorf("%d lines a second later, want %d", got, complaintsASecond)
	}
	if got := strings.Count(lines.String(), fmt.Sprintf(`"left_out":%d`, more)); got != 1 {
		t.Errorf("%d lines say that %d were left out", got, more)
	}
	lines.Reset()
	for range 2 * complaintsAtOnce { // what is stored is always told
		a.record(t.Context(), selectorDialect, outcome{kind: revoked, stored: denylist.Revocation{Selector: denylist.One(denylist.JTI, "j")}})
	}
	if got := count(); got != 2*complaintsAtOnce {
		t.Errorf("%d lines of %d revocations", got, 2*complaintsAtOnce)
	}
}
