//go:build interop

package interop

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// endsWithin is how long access may outlive a session at the provider.
const endsWithin = time.Second

// TestBackChannelLogoutEndsAccess: the provider's logout token names a session, of
// which its access tokens know nothing.
func TestBackChannelLogoutEndsAccess(t *testing.T) {
	idp := newProvider(t)
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{idp.Trust},
		Edit: func(config map[string]any) {
			part(config, "issuers", 0)["logout_audiences"] = []string{portal.ID}
			idp.start("8", "http://"+config["listen"].(string)+"/backchannel-logout")
		},
	})
	sidecars := startSidecars(t, authority, idp.Trust, 1)
	wants := func(what, token string, want func(answer) bool) {
		t.Helper()
		if got := call(t, sidecars[0], token); !want(got) {
			t.Fatalf("%s: %d %v %s", what, got.status, got.header, got.body)
		}
	}

	alice, bob := signIn(t, idp.Trust, "alice"), signIn(t, idp.Trust, "bob")
	wants("before", alice.accessToken, accepts)
	wants("before", bob.accessToken, accepts)
	took := refusedByAll(t, sidecars, alice.accessToken, alice.signOut(t))
	t.Logf("the sidecar refused %v after the provider had answered", took)
	if took > endsWithin {
		t.Errorf("access outlived the session by %v", took)
	}
	wants("another user's token", bob.accessToken, accepts)

	// Signing in again. Cut-offs and iat count in whole seconds.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		again := signIn(t, idp.Trust, "alice")
		if got := call(t, sidecars[0], again.accessToken); accepts(got) {
			break
		} else if !refuses(got) || time.Now().After(deadline) {
			t.Fatalf("after a new sign-in: %d %s", got.status, got.body)
		}
	}
	wants("the token of the session that ended", alice.accessToken, refuses)
}

// signOut ends the user's session at the provider, which tells the portal's
// backchannel_logout_uri, and returns when the provider had answered.
func (u user) signOut(t *testing.T) time.Time {
	t.Helper()
	page := u.open(t, http.MethodGet, u.idp.Issuer+"/session/end?id_token_hint="+u.idHint, nil)
	secret := regexp.MustCompile(`name="xsrf" value="(\w+)"`).FindStringSubmatch(page.body)
	if secret == nil {
		t.Fatalf("the provider doesn't ask whether to sign out: %s", page.body)
	}
	got := u.open(t, http.MethodPost, u.idp.Issuer+"/session/end/confirm", url.Values{"xsrf": {secret[1]}, "logout": {"yes"}})
	if got.status != http.StatusOK {
		t.Fatalf("sign out: %d %s", got.status, got.body)
	}
	return time.Now()
}
