package authority

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// inactive is all that is said of a token that is not active (RFC 7662 section 2.2).
var inactive = map[string]any{"active": false}

// passedOn are the claims of an active token that its introspection repeats.
var passedOn = []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "username", "sid", "azp", "cnf", "act"}

// serveIntrospection answers RFC 7662 in the words of a dialect. A token is active if
// a verifier would accept it now, as far as one here can tell.
func (a *Authority) serveIntrospection(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, o, ok := d.read(w, r)
		var who *client.Client
		now := a.now()
		if ok {
			who, o, ok = a.authenticate(r.Context(), c.caller, now)
		}
		var answer any
		if ok {
			answer, o = a.introspect(r, who, c.token, now)
			o.client = who.ID()
		}
		a.metrics.introspections.WithLabelValues(d.name, o.kind.String()).Inc()
		if answer == nil {
			if o.cause != nil {
				a.complain(r.Context(), slog.LevelWarn, "introspection refused", o, slog.String("dialect", d.name))
			}
			writeRefusal(w, o)
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// introspect returns what there is to say of a token, or nil where that can't be
// known now.
func (a *Authority) introspect(r *http.Request, who *client.Client, raw string, now time.Time) (answer any, o outcome) {
	v, err := a.tokens.ReadAs(r.Context(), token.AccessToken, raw)
	if err != nil {
		if o = unread(err); o.kind == unavailable {
			return nil, o
		}
		return inactive, outcome{kind: nothing}
	}
	a.metrics.sawIssued(v, now)
	owner, _ := a.issuers[v.Issuer].owner(v)
	switch t, err := v.DenylistToken(); {
	case err != nil, v.ValidAt(now) != nil, v.KeyRetired():
		return inactive, outcome{kind: nothing}
	case who.Public() && owner.Value != who.ID(): // its id is no secret
		return inactive, outcome{kind: notOwner}
	default:
		a.log.Settle(r.Context()) // who was just told that it is revoked must not hear otherwise
		switch a.list.CheckToken(t, now).Status {
		case denylist.Revoked:
			return inactive, outcome{kind: revoked}
		case denylist.Unknown:
			return nil, refuse(unavailable, "whether the token is revoked can't be known now")
		}
	}
	said := map[string]any{"active": true}
	if _, bound := v.Values["cnf"]; !bound { // RFC 7800: to a key, and so not to its bearer
		said["token_type"] = "Bearer"
	}
	for _, name := range passedOn {
		if value, ok := v.Values[name]; ok {
			said[name] = value
		}
	}
	if _, ok := said["client_id"]; !ok && owner.Value != "" {
		said["client_id"] = owner.Value
	}
	return said, outcome{kind: active}
}
