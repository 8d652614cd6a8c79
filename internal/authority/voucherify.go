package authority

import (
	"net/http"

	"github.com/revcast/revcast/internal/client"
)

// voucherify is Voucherify's "Revoke OAuth 2.0 Token". Its client calls itself an
// application and sends id and secret as headers.
var voucherify = dialect{
	name:       "voucherify",
	revoke:     []string{"/v1/oauth/token/revoke"},
	token:      "access_token",
	asksBefore: true,
	headers:    []string{"X-App-Id", "X-App-Token"},
	caller:     voucherifyCaller,
	answer:     answerVoucherify,
}

// voucherifyCaller is any client that has a secret.
func voucherifyCaller(r *http.Request, _ form) (caller, string) {
	id, secret := r.Header.Values("X-App-Id"), r.Header.Values("X-App-Token")
	switch {
	case len(id) > 1 || len(secret) > 1:
		return nil, "X-App-Id and X-App-Token may be there once"
	case len(id) == 0 || len(secret) == 0 || secret[0] == "":
		return as(client.Credentials{}), ""
	}
	sent := []client.Login{{ID: id[0], Secret: secret[0]}}
	return as(client.Credentials{Method: client.SecretBasic, Logins: sent}, client.Credentials{Method: client.SecretPost, Logins: sent}), ""
}

// answerVoucherify tells a token that was over before, or that the application can't
// have, from one that ends now: 404, with an empty body.
func answerVoucherify(w http.ResponseWriter, o outcome) {
	switch {
	case o.kind == revoked && !o.before:
		w.WriteHeader(http.StatusNoContent)
	case o.kind.done() || o.kind == notOwner || o.kind == unsupported:
		w.WriteHeader(http.StatusNotFound)
	default:
		writeRefusal(w, o)
	}
}
