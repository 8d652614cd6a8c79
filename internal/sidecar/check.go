package sidecar

import (
	"net/http"
	"net/url"
	"strings"
)

const checkPath = "/check"

// check is the door for other proxies (nginx auth_request, Caddy forward_auth, Traefik
// ForwardAuth, HAProxy, Envoy's ext_authz over HTTP). 200 lets the request through, with
// the identity headers to pass on; anything else refuses it. X-Revcast-Public says that
// nobody looked at a token, so that none is to be passed on.
func (s *Sidecar) check() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := s.decideForwarded(r)
		s.count(CheckDoor, &a)
		switch {
		case !ok:
			writeError(w, http.StatusBadRequest, "invalid_request", "what the check is about is said in more than one way")
		case a.passes():
			h := w.Header()
			h["Cache-Control"] = []string{"no-store"}
			if a.Claims != nil {
				s.identities.set(h, a.Claims)
			}
			if a.public {
				h["X-Revcast-Public"] = []string{"1"}
				if anonymous(r.Header); len(r.Header["Authorization"]) == 0 {
					h["X-Envoy-Auth-Headers-To-Remove"] = []string{"authorization"} // Envoy does so
				}
			}
			w.WriteHeader(http.StatusOK)
		default:
			a.checkRefusal().Write(w)
		}
	})
}

// decideForwarded decides on the request that a check is about, or returns false where
// its headers disagree about which that is.
func (s *Sidecar) decideForwarded(r *http.Request) (answer, bool) {
	below, inside := strings.CutPrefix(r.URL.EscapedPath(), checkPath)
	said := ""
	if below != "" { // Envoy puts the path behind that of the check
		if said = below; r.URL.RawQuery != "" {
			said += "?" + r.URL.RawQuery
		}
	}
	target, ok := agreed(r.Header, said, "X-Forwarded-Uri", "X-Original-Uri")
	target, whole := originalURL(r.Header, target)
	method, sure := agreed(r.Header, "", "X-Forwarded-Method", "X-Original-Method")
	if !inside || !whole || !ok || !sure {
		return s.gate.own(r.Context(), badPath, false), false
	}
	if method == "" {
		method = r.Method
	}
	about := asked{method: method, header: r.Header}
	if target != "" {
		if about.path, about.rawQuery, ok = splitTarget(target); !ok {
			return s.gate.own(r.Context(), badPath, false), false
		}
	} else {
		about.rawQuery = r.URL.RawQuery
	}
	return s.gate.decide(r.Context(), about), true
}

// agreed returns what the headers say, and whether all that are there say the same.
func agreed(h http.Header, said string, names ...string) (string, bool) {
	for _, name := range names {
		for _, v := range h[name] {
			if said == "" {
				said = v
			}
			if v != said || v == "" {
				return "", false
			}
		}
	}
	return said, true
}

// originalURL is agreed for X-Original-URL, where ingress-nginx puts the whole URL, with
// the client's own Host in it. A path alone, as others say, may repeat what is known.
func originalURL(h http.Header, said string) (string, bool) {
	for _, v := range h["X-Original-Url"] {
		if v == said && v != "" {
			continue
		}
		scheme, rest, _ := strings.Cut(v, "://")
		at := strings.IndexByte(rest, '/')
		if scheme != "http" && scheme != "https" || at < 1 {
			return "", false
		}
		host, target := rest[:at], rest[at:]
		if u, err := url.Parse("//" + host); err != nil || u.Host != host || u.User != nil || strings.HasSuffix(host, ":") {
			return "", false
		}
		if said == "" {
			said = target
		}
		if target != said {
			return "", false
		}
	}
	return said, true
}
