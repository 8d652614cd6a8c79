package authority

import (
	"net/http"

	"github.com/revcast/revcast/internal/client"
)

// asgardeo is Asgardeo's token revocation, with the paths that its organizations
// have. The documented jQuery code says token_type for token_type_hint.
var asgardeo = dialect{
	name:   "asgardeo",
	revoke: []string{"/t/{org}/oauth2/revoke"}, introspect: []string{"/t/{org}/oauth2/introspect"},
	token: "token", hints: []string{"token_type_hint", "token_type"},
	headers: []string{"Authorization"}, parameters: credentialParameters,
	caller: asgardeoCaller,
	answer: answerJSON(struct{}{}),
}

// asgardeoCaller is oauthCaller for SDKs that put a secret into the form without
// encoding it.
func asgardeoCaller(r *http.Request, f form) (caller, string) {
	c, why := oauthCaller(r, f)
	if raw, differs := f.unescaped("client_secret"); why == "" && differs && raw != "" && c[0].Method == client.SecretPost {
		c[0].Logins = append(c[0].Logins, client.Login{ID: c[0].Logins[0].ID, Secret: raw})
	}
	return c, why
}
