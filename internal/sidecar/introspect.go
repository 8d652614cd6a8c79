package sidecar

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"

	"github.com/revcast/revcast/pkg/verifier"
)

// maxForm bounds an introspection request: a token is 8 KiB at most, and each of its
// characters may be escaped.
const maxForm = 32 << 10

// introspect is the door for callers in any language that hold a token (RFC 7662). They
// are not authenticated: the listener is for local ones.
func (s *Sidecar) introspect() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this path answers POST")
			return
		}
		token, status, problem := tokenOf(r, w)
		if problem != "" {
			writeError(w, status, "invalid_request", problem)
			return
		}
		a := answer{Decision: s.Decider.Decide(r.Context(), token)}
		s.count(IntrospectDoor, &a)
		switch a.Outcome {
		case verifier.Allowed:
			all := maps.Clone(a.Claims.Raw())
			all["active"] = true // whatever a claim of that name says
			writeJSON(w, http.StatusOK, all)
		case verifier.Unavailable:
			a.refusal().Write(w)
		default:
			writeJSON(w, http.StatusOK, map[string]bool{"active": false})
		}
	})
}

func tokenOf(r *http.Request, w http.ResponseWriter) (token string, status int, problem string) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return "", http.StatusBadRequest, "the content type must be application/x-www-form-urlencoded"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return "", http.StatusRequestEntityTooLarge, "the request is too large"
	}
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || len(form["token"]) != 1 || form.Get("token") == "" {
		return "", http.StatusBadRequest, "the form must hold one token"
	}
	return form.Get("token"), 0, ""
}
