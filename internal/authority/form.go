package authority

import (
	"net/http"
	"net/url"
	"strings"
)

// form is a form that was posted. A parameter without a value counts as left out
// (RFC 6749 section 3.1).
type form struct {
	url.Values
	raw string // as it came
}

// secretParameters must not be in the URL, where they would end up in logs.
var secretParameters = []string{
	"token", "access_token", "logout_token", "client_secret", "client_assertion", "client_assertion_type", "client_id",
	"token_type_hint", "token_type",
}

// readForm reads a form in which none of the named parameters comes twice. Others
// are passed over (RFC 6749 section 3.1).
func readForm(w http.ResponseWriter, r *http.Request, once ...string) (form, outcome, bool) {
	bad := func(why string) (form, outcome, bool) { return form{}, refuse(badRequest, why), false }
	body, o, ok := readBody(w, r, "application/x-www-form-urlencoded")
	if !ok {
		return form{}, o, false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return bad("the query can't be read")
	}
	for _, name := range secretParameters {
		if query.Has(name) {
			return bad(name + " belongs into the body, not into the URL")
		}
	}
	f := form{raw: string(body)}
	if f.Values, err = url.ParseQuery(f.raw); err != nil { // the error would quote the body
		return bad("the body is not a form")
	}
	for _, name := range once {
		if len(f.Values[name]) > 1 {
			return bad(name + " is there more than once")
		}
	}
	return f, outcome{}, true
}

// unescaped returns a parameter as it would read had the sender forgotten to encode
// it, and whether that makes a difference.
func (f form) unescaped(name string) (string, bool) {
	at := strings.Index("&"+f.raw, "&"+name+"=")
	if at < 0 {
		return "", false
	}
	value, _, _ := strings.Cut(f.raw[at+len(name)+1:], "&")
	return value, value != f.Get(name)
}
