//go:build interop

package interop

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/revcast/revcast/test/harness"
)

// portal is the client of idp.mjs that users sign in to.
var portal = harness.Client{ID: "portal", Secret: "secret-portal"}

// user is somebody's browser, signed in to the portal.
type user struct {
	idp                               harness.Trust
	browser                           *http.Client
	accessToken, refreshToken, idHint string
}

// signIn signs in at the provider by the authorization code flow.
func signIn(t *testing.T, idp harness.Trust, name string) user {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u := user{idp: idp, browser: &http.Client{
		Jar: jar, CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if next.URL.Host == "portal.example" || len(before) > 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
	got := u.open(t, http.MethodGet, idp.Issuer+"/auth?"+url.Values{
		"client_id": {portal.ID}, "response_type": {"code"}, "scope": {"openid read"},
		"redirect_uri": {"https://portal.example/callback"}, "login_hint": {name},
	}.Encode(), nil)
	callback, err := url.Parse(got.header.Get("Location"))
	if err != nil || callback.Host != "portal.example" {
		t.Fatalf("sign in: %d %v %s", got.status, callback, got.body)
	}
	said := postForm(t, portal, idp.Issuer+"/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {callback.Query().Get("code")},
		"redirect_uri": {"https://portal.example/callback"},
	}).object(t)
	u.accessToken, _ = said["access_token"].(string)
	u.refreshToken, _ = said["refresh_token"].(string)
	u.idHint, _ = said["id_token"].(string)
	if claims := claimsOf(t, u.accessToken); claims["sub"] != name || claims["sid"] != nil {
		t.Fatalf("the provider's access token says %v: the test wants one of %s's, without sid", claims, name)
	}
	return u
}

// open goes to an address as the user's browser does.
func (u user) open(t *testing.T, method, address string, form url.Values) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return doBy(t, u.browser, request)
}

func claimsOf(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is not a JWT", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}
