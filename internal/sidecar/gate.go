package sidecar

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/revcast/revcast/pkg/verifier"
)

// asked is a request as a door was told of it.
type asked struct {
	method string
	// path is escaped, as the upstream gets it; "" where the door does not know it.
	path     string
	rawQuery string
	header   http.Header
}

// answer is what the doors render.
type answer struct {
	verifier.Decision
	by     Decider // who decided; nil where nobody had to, or a request was at fault
	public bool    // it passes, whoever sent it
	path   string  // to pass on: normal where there are routes
}

// Reasons of the gate's own, beside the verifier's.
const (
	public    verifier.Reason = "public"
	preflight verifier.Reason = "preflight"
	badPath   verifier.Reason = "bad_path"
	noPath    verifier.Reason = "no_path"
)

// passes reports whether the request may go on.
func (a *answer) passes() bool { return a.public || a.Outcome == verifier.Allowed }

// refusal is the answer to a request that does not pass.
func (a *answer) refusal() verifier.Refusal {
	switch a.Reason {
	case badPath:
		return verifier.Refusal{Status: http.StatusBadRequest, Code: "invalid_request", Text: "the path of the request can be read in more than one way"}
	case noPath:
		return verifier.Refusal{Status: http.StatusForbidden, Code: "invalid_request", Text: "the check was not told which path it is about"}
	}
	return verifier.RefusalOf(a.Decision)
}

// checkRefusal is the refusal for other proxies: where nobody knows it is 403, since some
// take a 5xx for a check that failed, and let through.
func (a *answer) checkRefusal() verifier.Refusal {
	r := a.refusal()
	if a.Outcome == verifier.Unavailable {
		r.Status = http.StatusForbidden
	}
	return r
}

// gate is the one decision behind all doors: route first, then token.
type gate struct {
	decider    Decider // where no route has another
	routes     routes
	preflights bool // pass
	logger     *slog.Logger
	counts     map[verifier.Reason]*atomic.Uint64 // of the gate's own reasons; the map never changes
}

// decide is everything about a request that does not depend on how it came.
func (g *gate) decide(ctx context.Context, r asked) answer {
	a := answer{by: g.decider, path: r.path}
	if len(g.routes) > 0 {
		if r.path == "" {
			return g.own(ctx, noPath, false)
		}
		path, ok := normalPath(r.path)
		if !ok {
			return g.own(ctx, badPath, false)
		}
		route, ok := g.routes.find(path)
		if !ok {
			return g.own(ctx, badPath, false)
		}
		if a.path = path; route != nil {
			if route.Public {
				a := g.own(ctx, public, true)
				a.path = path
				return a
			}
			a.by = route.Decider
		}
	}
	if g.preflights && isPreflight(&r) {
		passed := g.own(ctx, preflight, true)
		passed.path = a.path
		return passed
	}
	a.Decision = a.by.DecideRequest(ctx, r.header, r.rawQuery)
	return a
}

// own makes an answer that no Decider gave.
func (g *gate) own(ctx context.Context, why verifier.Reason, passes bool) answer {
	g.counts[why].Add(1)
	if !passes {
		g.logger.LogAttrs(ctx, slog.LevelInfo, "request not accepted", slog.String("outcome", "refused"), slog.String("reason", string(why)))
	}
	return answer{Decision: verifier.Decision{Reason: why}, public: passes}
}

// isPreflight reports whether a browser asks whether it may send a request (the Fetch
// standard's CORS-preflight): it never has credentials. Nor does a browser send what might
// make another request of it.
func isPreflight(r *asked) bool {
	if r.method != http.MethodOptions || len(r.header["Origin"]) != 1 || len(r.header["Access-Control-Request-Method"]) != 1 {
		return false
	}
	for name := range r.header {
		if isOneOf(name, neverPreflight) {
			return false
		}
	}
	return true
}

var neverPreflight = []string{
	"authorization", "cookie", "upgrade", "x-http-method", "x-http-method-override", "x-method-override",
}

// anonymous takes the credentials of a request that passes whoever sent it: the
// upstream must not take for checked what nobody looked at. Those of a client that asks
// for a token, say, stay, unless there is more behind them, which might be one.
func anonymous(h http.Header) {
	if v := h["Authorization"]; len(v) == 1 {
		scheme, credentials, _ := strings.Cut(v[0], " ")
		if strings.EqualFold(scheme, "Basic") && !strings.ContainsAny(strings.Trim(credentials, " "), " \t,") {
			return
		}
	}
	delete(h, "Authorization")
}
