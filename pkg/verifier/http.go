package verifier

import (
	"io"
	"net/http"
	"strings"
)

// BearerToken returns the token of the Authorization header (RFC 6750 section
// 2.1), or "" and why there is none to decide on: [Missing] or [Ambiguous]. Tokens
// in a query or a form are not looked for.
func BearerToken(h http.Header) (token string, why Reason) {
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
	case strings.ContainsAny(token, " \t,"):
		return "", Ambiguous
	}
	return token, ""
}

// Middleware lets requests through whose bearer token is accepted, with its claims
// in the context ([FromContext]), and answers all others with [WriteRefusal].
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := v.DecideHeader(r.Context(), r.Header)
		if d.Outcome != Allowed {
			WriteRefusal(w, d)
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), d.Claims)))
	})
}

// WriteRefusal answers a request that was not allowed, by RFC 6750 section 3: 401,
// in the same words whether its token is bad, expired or revoked; 401 without an
// error code where it has none; 400 where it is ambiguous; 503 with Retry-After
// where nobody knows.
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
	default:
		body = `{"error":"invalid_token","error_description":"the access token is invalid, expired or revoked"}`
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	w.WriteHeader(status)
	io.WriteString(w, body+"\n")
}
