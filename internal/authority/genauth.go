package authority

import (
	"net/http"
	"slices"
	"strings"

	"github.com/revcast/revcast/internal/client"
)

// genauth is GenAuth's (formerly Authing's) token revocation and introspection, at
// the paths of its OpenID Connect and its OAuth 2.0 applications.
var genauth = dialect{
	name:       "genauth",
	revoke:     []string{"/oidc/token/revocation", "/oauth/token/revocation"},
	introspect: []string{"/oidc/token/introspection", "/oauth/token/introspection"},
	token:      "token", hints: []string{"token_type_hint"},
	headers: []string{"Authorization"}, parameters: credentialParameters,
	caller: genauthCaller,
	answer: answerJSON(true),
}

// genauthCaller is oauthCaller for SDKs that send credentials twice, or an
// Authorization header beside them that has nothing to do with them. What is said
// twice must agree.
func genauthCaller(r *http.Request, f form) (caller, string) {
	headers := slices.DeleteFunc(slices.Clone(r.Header.Values("Authorization")), func(h string) bool {
		scheme, _, _ := strings.Cut(h, " ")
		return !strings.EqualFold(scheme, "Basic")
	})
	headers = slices.Compact(headers)
	id, secret := f.Get("client_id"), f.Get("client_secret")
	if len(headers) == 0 && id == "" { // nothing but a foreign header, which authenticates no one
		return oauthCaller(r, f)
	}
	only := &http.Request{Header: http.Header{"Authorization": headers}, TLS: r.TLS}
	if len(headers) == 0 || id == "" || secret == "" {
		return oauthCaller(only, f)
	}
	basic, _, why := basicCredentials(only)
	if why != "" {
		return nil, why
	}
	if !slices.Contains(basic.Logins, client.Login{ID: id, Secret: secret}) {
		return nil, "the credentials in the Authorization header and in the body are not the same"
	}
	post, why := oauthCaller(&http.Request{TLS: r.TLS}, f)
	return append(post, basic), why
}
