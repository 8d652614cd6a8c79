package verifier

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// BearerToken returns the token of the Authorization header (RFC 6750 section
// 2.1), or "" and why there is none to decide on: [Missing] or [Ambiguous]. Tokens
// in a query or a form are not looked for; one in the query beside that of the header
// is Ambiguous, since who reads the other one would read what nobody decided on.
func BearerToken(h http.Header, rawQuery string) (token string, why Reason) {
	values := h["Authorization"]
	if len(values) > 1 {
		return "", Ambiguous
	}
	const scheme = "Bearer"
	if len(values) == 0 || len(values[0]) <= len(scheme) ||
		!strings.EqualFold(values[0][:len(scheme)], scheme) || values[0][len(scheme)] != ' ' {
		return "", Missing
	}
	token = strings.Trim(values[0][len(scheme):], " ")
	switch {
	case token == "":
		return "", Missing
	case strings.ContainsAny(token, " \t,"), rawQuery != "" && queryHasToken(rawQuery):
		return "", Ambiguous
	}
	return token, ""
}

// queryHasToken reports whether a query has the parameter access_token (RFC 6750
// section 2.3), in any spelling that a server might take for it.
func queryHasToken(rawQuery string) bool {
	for pair := range strings.FieldsFuncSeq(rawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if strings.ContainsAny(name, "%+") {
			var err error
			if name, err = url.QueryUnescape(name); err != nil {
				continue
			}
		}
		if IsTokenParameter(name) {
			return true
		}
	}
	return false
}

// IsTokenParameter reports whether a server might take a parameter of this name for
// access_token: some ignore case, others (PHP) read dots, spaces and brackets as
// underscores.
func IsTokenParameter(name string) bool {
	const want = "access_token"
	if len(name) > len(want) && name[len(want)] == '[' { // access_token[]
		name = name[:len(want)]
	}
	if len(name) != len(want) {
		return false
	}
	i := strings.IndexByte(want, '_')
	return strings.IndexByte("_. [", name[i]) >= 0 && strings.EqualFold(name[:i], want[:i]) && strings.EqualFold(name[i+1:], want[i+1:])
}

// Middleware lets requests through whose bearer token is accepted, with its claims
// in the context ([FromContext]), and answers all others with [WriteRefusal].
//
// The context ends when the token stops being accepted: see [Verifier.Hold]. From then
// on the handler can't read or write any more, and what it had not finished is cut, so
// that a client never takes it for whole. (Where another middleware in between hides the
// connection, it is cut when the handler returns.)
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := v.DecideRequest(r.Context(), r.Header, r.URL.RawQuery)
		if d.Outcome != Allowed {
			WriteRefusal(w, d)
			return
		}
		held := v.hold(r.Context(), d, w)
		defer held.release()
		next.ServeHTTP(w, r.WithContext(held))
		if EndedBy(held) != nil {
			panic(http.ErrAbortHandler)
		}
	})
}

// WriteRefusal answers a request that was not allowed, by RFC 6750 section 3: 401,
// in the same words whether its token is bad, expired or revoked; 401 without an
// error code where it has none; 403 where a good one lacks a scope; 400 where it is
// ambiguous; 503 with Retry-After where nobody knows.
func WriteRefusal(w http.ResponseWriter, d Decision) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	status, body := http.StatusUnauthorized, ""
	switch {
	case d.Outcome != Refused:
		status, body = http.StatusServiceUnavailable,
			`{"error":"temporarily_unavailable","error_description":"the access token can't be checked now"}`
		h.Set("Retry-After", "5")
	case d.Reason == Missing:
		body = `{"error":"missing_token","error_description":"a bearer access token is needed"}`
		h.Set("WWW-Authenticate", `Bearer`)
	case d.Reason == Ambiguous:
		status = http.StatusBadRequest
		body = `{"error":"invalid_request","error_description":"the request must carry one bearer access token"}`
		h.Set("WWW-Authenticate", `Bearer error="invalid_request"`)
	case d.Reason == InsufficientScope:
		status = http.StatusForbidden
		body = `{"error":"insufficient_scope","error_description":"the access token is not for this request"}`
		h.Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
	default:
		body = `{"error":"invalid_token","error_description":"the access token is invalid, expired or revoked"}`
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	w.WriteHeader(status)
	io.WriteString(w, body+"\n")
}
