package authority

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"

	"github.com/revcast/revcast/internal/client"
)

// rfc7009 is OAuth 2.0 Token Revocation. Its answers are 200 with a JSON body,
// though the RFC asks for none: there are clients that parse what they get.
var rfc7009 = dialect{
	name:   "rfc7009",
	paths:  []string{"/oauth2/revoke"},
	read:   readRFC7009,
	answer: answerRFC7009,
}

func readRFC7009(w http.ResponseWriter, r *http.Request) (command, outcome, bool) {
	form, o, ok := readForm(w, r)
	if !ok {
		return command{}, o, false
	}
	return rfc7009Command(r, form)
}

// formParameters are those with a meaning here. The others are passed over (RFC
// 6749 section 3.1).
var formParameters = []string{"token", "token_type_hint", "client_id", "client_secret"}

func rfc7009Command(r *http.Request, form url.Values) (c command, o outcome, ok bool) {
	bad := func(why string) (command, outcome, bool) { return command{}, refuse(badRequest, why), false }
	for _, name := range formParameters {
		if len(form[name]) > 1 {
			return bad(name + " is there more than once")
		}
	}
	// A parameter without a value counts as left out (RFC 6749 section 3.1).
	c = command{token: form.Get("token"), hint: form.Get("token_type_hint")}
	if c.token == "" {
		return bad("token is missing")
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	basic, sent, why := basicCredentials(r)
	switch {
	case why != "":
		return bad(why)
	case sent && secret != "":
		return bad("there are credentials in the Authorization header and in the body")
	case sent:
		// A client_id in the body picks among the readings of the header, and can't
		// contradict them all.
		c.credentials = basic
		if id != "" && len(basic.Logins) > 0 {
			c.credentials.Logins = slices.DeleteFunc(basic.Logins, func(l client.Login) bool { return l.ID != id })
			if len(c.credentials.Logins) == 0 {
				return bad("client_id is not the client of the Authorization header")
			}
		}
	case secret != "" && id == "":
		return bad("client_id is missing")
	case secret != "":
		c.credentials = client.Credentials{Method: client.SecretPost, Logins: []client.Login{{ID: id, Secret: secret}}}
	case id != "":
		c.credentials = client.Credentials{Method: client.None, Logins: []client.Login{{ID: id}}}
	default:
		c.credentials = client.Credentials{Challenge: true}
	}
	return c, outcome{}, true
}

func answerRFC7009(w http.ResponseWriter, o outcome) {
	if o.kind.done() {
		writeJSON(w, http.StatusOK, struct{}{})
		return
	}
	writeRefusal(w, o)
}

// readForm reads a form that was posted. What belongs into it must not be in the
// URL, where it would end up in logs.
func readForm(w http.ResponseWriter, r *http.Request) (form url.Values, o outcome, ok bool) {
	if !hasType(r, "application/x-www-form-urlencoded") {
		return nil, refuse(badRequest, "the content type must be application/x-www-form-urlencoded"), false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(badRequest, "the query can't be read"), false
	}
	for _, name := range formParameters {
		if query.Has(name) {
			return nil, refuse(badRequest, name+" belongs into the body, not into the URL"), false
		}
	}
	body, err := readBody(w, r)
	switch {
	case errors.Is(err, errBodyTooLarge):
		return nil, refuse(tooLarge, err.Error()), false
	case err != nil:
		return nil, refuse(badRequest, "the body could not be read to its end"), false
	}
	if form, err = url.ParseQuery(string(body)); err != nil { // the error would quote the body
		return nil, refuse(badRequest, "the body is not a form"), false
	}
	return form, outcome{}, true
}

// hasType reports whether the request says, once, that its body is of a type.
func hasType(r *http.Request, want string) bool {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return false
	}
	got, _, err := mime.ParseMediaType(types[0])
	return err == nil && got == want
}
