package verifier

import (
	"io"
	"net/http"
	"strconv"
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
	case strings.IndexByte(token, ' ') >= 0, strings.IndexByte(token, '\t') >= 0, strings.IndexByte(token, ',') >= 0, // a tenth of ContainsAny's time
		rawQuery != "" && queryHasToken(rawQuery):
		return "", Ambiguous
	}
	return token, ""
}

// queryHasToken reports whether a query has the parameter access_token (RFC 6750
// section 2.3), in any spelling that a server might take for it.
func queryHasToken(rawQuery string) bool {
	for pair := range strings.FieldsFuncSeq(rawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		if name, _, _ := strings.Cut(pair, "="); IsTokenParameter(name) {
			return true
		}
	}
	return false
}

// IsTokenParameter reports whether a server might take a parameter of this name, as it
// stands in a query or form, for access_token: some ignore case, others (PHP) read dots,
// spaces and brackets as underscores, pass over spaces before it, end it at NUL, and leave
// escapes that are none as they are.
func IsTokenParameter(name string) bool {
	const want = "access_token"
	if strings.ContainsAny(name, "%+") {
		name = unescapeName(name)
	}
	name, _, _ = strings.Cut(strings.TrimLeft(name, " "), "\x00")
	if len(name) > len(want) && name[len(want)] == '[' { // access_token[]
		name = name[:len(want)]
	}
	if len(name) != len(want) {
		return false
	}
	i := strings.IndexByte(want, '_')
	return strings.IndexByte("_. [", name[i]) >= 0 && strings.EqualFold(name[:i], want[:i]) && strings.EqualFold(name[i+1:], want[i+1:])
}

func unescapeName(name string) string {
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		switch c := name[i]; c {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 < len(name) {
				if n, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
					b = append(b, byte(n))
					i += 2
					continue
				}
			}
			b = append(b, c)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// Middleware lets requests through whose bearer token is accepted, with its claims
// in the context ([FromContext]), and answers all others with [WriteRefusal].
//
// The context ends when the token stops being accepted: see [Verifier.Hold]. From then
// on the handler can't read or write any more, whatever deadlines it sets, and what it
// had not finished is cut, so that a client never takes it for whole. (Where another
// middleware in between hides the connection, it is cut when the handler returns.) A
// connection that was hijacked is watched until it is closed, and can't be read or
// written after the end either.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := v.DecideRequest(r.Context(), r.Header, r.URL.RawQuery)
		if d.Outcome != Allowed {
			WriteRefusal(w, d)
			return
		}
		v.serve(w, r, d, next)
	})
}

// serve has an allowed request handled.
func (v *Verifier) serve(w http.ResponseWriter, r *http.Request, d Decision, next http.Handler) {
	held := v.hold(r.Context(), d, w, 0)
	defer held.returned()
	if by := held.by.Load(); by == nil {
		next.ServeHTTP((*response)(held), r.WithContext(held))
		held.returned()
	} else if !held.wasCut() { // revoked since the decision
		WriteRefusal(w, by.Decision)
		return
	}
	if held.by.Load() != nil {
		panic(http.ErrAbortHandler)
	}
}

// Refusal is the answer to a request that was not allowed.
type Refusal struct {
	Status    int    // of HTTP
	Challenge string // for WWW-Authenticate; "" for none
	Code      string // RFC 6750 section 3.1, or one of our own
	Text      string // for people
}

// RefusalOf returns the answer to a decision that does not allow, by RFC 6750 section 3:
// 401, in the same words whether the token is bad, expired or revoked; 401 without an
// error code where there is none; 403 where a good one lacks a scope; 400 where it is
// ambiguous; 503 where nobody knows.
func RefusalOf(d Decision) Refusal {
	switch {
	case d.Outcome != Refused:
		return Refusal{http.StatusServiceUnavailable, "", "temporarily_unavailable", "the access token can't be checked now"}
	case d.Reason == Missing:
		return Refusal{http.StatusUnauthorized, `Bearer`, "missing_token", "a bearer access token is needed"}
	case d.Reason == Ambiguous:
		return Refusal{http.StatusBadRequest, `Bearer error="invalid_request"`, "invalid_request", "the request must carry one bearer access token"}
	case d.Reason == InsufficientScope:
		return Refusal{http.StatusForbidden, `Bearer error="insufficient_scope"`, "insufficient_scope", "the access token is not for this request"}
	}
	return Refusal{http.StatusUnauthorized, `Bearer error="invalid_token"`, "invalid_token", "the access token is invalid, expired or revoked"}
}

// Body is the refusal as a JSON object.
func (r Refusal) Body() string {
	return `{"error":"` + r.Code + `","error_description":"` + r.Text + "\"}\n"
}

// Header sets the fields of the answer's header.
func (r Refusal) Header(h http.Header) {
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if r.Challenge != "" {
		h.Set("WWW-Authenticate", r.Challenge)
	}
	if r.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
}

// Write answers with the refusal.
func (r Refusal) Write(w http.ResponseWriter) {
	r.Header(w.Header())
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, r.Body()) // a client that is gone needs no answer
}

// WriteRefusal answers a request that was not allowed: see [RefusalOf].
func WriteRefusal(w http.ResponseWriter, d Decision) { RefusalOf(d).Write(w) }
