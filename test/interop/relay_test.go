//go:build interop

package interop

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// TestRelayRevokesAtTheProviderToo: the portal has credentials at its provider only,
// and revokes there by way of the authority. No provider ends the life of a JWT that it
// issued: oidc-provider 8 answers that it did, and 9 that it can't.
func TestRelayRevokesAtTheProviderToo(t *testing.T) {
	for version, status := range map[string]int{"8": http.StatusOK, "9": http.StatusBadRequest} {
		t.Run("oidc-provider "+version, func(t *testing.T) { testRelay(t, version, status) })
	}
}

// testRelay tests with a version of oidc-provider, which answers with a status when it
// is itself asked to revoke a JWT.
func testRelay(t *testing.T, version string, status int) {
	idp := newProvider(t)
	idp.start(version)
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{idp.Trust},
		Edit: func(config map[string]any) {
			part(config, "issuers", 0)["relay"] = map[string]any{
				"revocation_endpoint": idp.Issuer + "/token/revocation", "overrule_unsupported": true,
			}
		},
	})
	sidecars := startSidecars(t, authority, idp.Trust, 1)
	alice, bob := signIn(t, idp.Trust, "alice"), signIn(t, idp.Trust, "bob")
	wrong := harness.Client{ID: portal.ID, Secret: "wrong"}
	passes := func(token string) {
		t.Helper()
		if got := call(t, sidecars[0], token); !accepts(got) {
			t.Fatalf("%d %v %s", got.status, got.header, got.body)
		}
	}
	passes(alice.accessToken)
	passes(bob.accessToken)

	// The provider judges the credentials.
	for _, token := range []string{alice.accessToken, alice.refreshToken} {
		if got := tryRevoke(t, wrong, authority.URL+"/oauth2/revoke", token); got.status != http.StatusUnauthorized || got.object(t)["error"] != "invalid_client" {
			t.Errorf("with a wrong secret: %d %s", got.status, got.body)
		}
	}
	passes(alice.accessToken)

	// It can't revoke its own JWTs, and is overruled where it says so.
	got := tryRevoke(t, portal, idp.Issuer+"/token/revocation", alice.accessToken)
	if got.status != status || status != http.StatusOK && got.object(t)["error"] != "unsupported_token_type" {
		t.Fatalf("the provider, asked itself: %d %s", got.status, got.body)
	}
	passes(alice.accessToken)
	if got := tryRevoke(t, portal, authority.URL+"/oauth2/revoke", alice.accessToken); got.status != http.StatusOK {
		t.Fatalf("an access token: %d %s", got.status, got.body)
	}
	refusedByAll(t, sidecars, alice.accessToken, time.Now())
	passes(bob.accessToken)

	// A refresh token is the provider's alone.
	if strings.Count(alice.refreshToken, ".") == 2 {
		t.Fatal("the provider's refresh token is a JWT, and the test wants an opaque one")
	}
	if got := refresh(t, idp, alice.refreshToken); got.status != http.StatusOK {
		t.Fatalf("refresh, after a revocation with a wrong secret: %d %s", got.status, got.body)
	}
	if got := tryRevoke(t, portal, authority.URL+"/oauth2/revoke", alice.refreshToken); got.status != http.StatusOK {
		t.Fatalf("a refresh token: %d %s", got.status, got.body)
	}
	if got := refresh(t, idp, alice.refreshToken); got.status != http.StatusBadRequest || got.object(t)["error"] != "invalid_grant" {
		t.Errorf("refresh, after its revocation: %d %s", got.status, got.body)
	}
	if got := refresh(t, idp, bob.refreshToken); got.status != http.StatusOK {
		t.Errorf("refresh of another user: %d %s", got.status, got.body)
	}

	// Nobody to judge: nothing is done.
	idp.end()
	for _, token := range []string{bob.accessToken, bob.refreshToken} {
		if got := tryRevoke(t, portal, authority.URL+"/oauth2/revoke", token); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("without the provider: %d %v %s", got.status, got.header, got.body)
		}
	}
	passes(bob.accessToken)
}

// tryRevoke asks for a revocation (RFC 7009).
func tryRevoke(t *testing.T, client harness.Client, address, token string) answer {
	t.Helper()
	return tryPost(t, client, address, "application/x-www-form-urlencoded", url.Values{"token": {token}}.Encode())
}

// refresh uses a refresh token at the provider.
func refresh(t *testing.T, idp *provider, token string) answer {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	return tryPost(t, portal, idp.Issuer+"/token", "application/x-www-form-urlencoded", form.Encode())
}
