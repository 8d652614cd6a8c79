package authority

import (
	"context"
	"net/http"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// selectorDialect is how commands by selector are counted and logged.
const selectorDialect = "selector"

// serveRevocations answers POST /v1/revocations.
func (a *Authority) serveRevocations(w http.ResponseWriter, r *http.Request) {
	who, o, ok := a.administrator(r)
	if !ok {
		a.record(r.Context(), selectorDialect, o)
		writeRefusal(w, o)
		return
	}
	if hasType(r, ndjsonType) {
		a.streamRevocations(w, r, who)
		return
	}
	defer a.timed(selectorDialect)()
	body, o, ok := readBody(w, r, jsonType, ndjsonType)
	if ok {
		now := a.now()
		var revocation denylist.Revocation
		if revocation, o, ok = a.plan(who, body, now); ok {
			o = a.carryOut(r.Context(), who, revocation, o, now)
		}
	}
	o.client = who.ID()
	a.record(r.Context(), selectorDialect, o)
	if o.kind == revoked {
		writeJSON(w, http.StatusOK, answerOf(o))
		return
	}
	writeRefusal(w, o)
}

// carryOut stores what was planned.
func (a *Authority) carryOut(ctx context.Context, who revoker, r denylist.Revocation, planned outcome, now time.Time) outcome {
	o := a.store(ctx, who, now, r)
	o.client, o.matches = planned.client, planned.matches
	return o
}

// administrator authenticates whoever calls /v1/revocations: with Basic, and in no
// other way.
func (a *Authority) administrator(r *http.Request) (*client.Client, outcome, bool) {
	c, _, why := basicCredentials(r)
	if why != "" {
		return nil, refuse(badRequest, why), false
	}
	c.Challenge = true
	return a.authenticate(r.Context(), as(c), a.now())
}
