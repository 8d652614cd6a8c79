package authority

import (
	"errors"
	"net/http"
	"time"
)

// selectorDialect is how commands by selector are counted and logged.
const selectorDialect = "selector"

// serveRevocations answers POST /v1/revocations, to clients that authenticate with
// Basic and to no others.
func (a *Authority) serveRevocations(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	c, _, why := basicCredentials(r)
	c.Challenge = true // there is no other way in
	refused := func(o outcome) {
		a.record(r.Context(), selectorDialect, o)
		writeRefusal(w, o)
	}
	if why != "" {
		refused(refuse(badRequest, why))
		return
	}
	who, err := a.clients.Authenticate(r.Context(), c, a.now())
	if err != nil {
		refused(a.stranger(c, err))
		return
	}
	switch {
	case hasType(r, "application/x-ndjson"):
		a.streamRevocations(w, r, who)
		return
	case !hasType(r, jsonType):
		o := refuse(badRequest, "the content type must be application/json or application/x-ndjson")
		o.client = who.ID()
		refused(o)
		return
	}

	var o outcome
	body, err := readBody(w, r)
	switch {
	case errors.Is(err, errBodyTooLarge):
		o = refuse(tooLarge, err.Error())
	case err != nil:
		o = refuse(badRequest, errBodyCut.Error())
	default:
		revocation, refusal, ok := a.plan(who, body, a.now())
		if o = refusal; ok {
			o = a.append(r.Context(), revocation)
		}
	}
	o.client = who.ID()
	a.record(r.Context(), selectorDialect, o)
	a.metrics.duration.WithLabelValues(selectorDialect).Observe(time.Since(started).Seconds())
	if o.kind == revoked {
		writeJSON(w, http.StatusOK, answerOf(o))
		return
	}
	writeRefusal(w, o)
}
