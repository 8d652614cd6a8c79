package authority

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// selectorCommand asks to revoke every token that a selector matches.
type selectorCommand struct {
	Issuer       string             `json:"issuer"`
	Selector     *denylist.Selector `json:"selector"` // a missing one must not read as {}, the whole issuer
	IssuedBefore *time.Time         `json:"issued_before"`
	Expires      *time.Time         `json:"expires"`
	Reason       string             `json:"reason"`
	Confirm      bool               `json:"confirm"`
}

// selectorAnswer is the answer to a selectorCommand that was carried out.
type selectorAnswer struct {
	Position     uint64            `json:"position"`
	Selector     denylist.Selector `json:"selector"`
	IssuedBefore time.Time         `json:"issued_before,omitzero"`
	Expires      time.Time         `json:"expires"`
	Matches      string            `json:"matches,omitzero"` // what a wide selector matches
}

func answerOf(o outcome) selectorAnswer {
	a := selectorAnswer{Position: o.position, Selector: o.stored.Selector, Expires: o.stored.Expires.UTC(), Matches: o.matches}
	if !o.stored.IssuedBefore.IsZero() {
		a.IssuedBefore = o.stored.IssuedBefore.UTC()
	}
	return a
}

// maxAhead is how far a cut-off may lie in the future, for the caller's clock.
const maxAhead = time.Minute

// decodeSelectorCommand reads one JSON object, strictly. Where it can't, why says
// so without a value of the input.
func decodeSelectorCommand(b []byte) (c selectorCommand, why string) {
	if err := json.Unmarshal(b, &c, json.RejectUnknownMembers(true)); err != nil {
		return selectorCommand{}, describe(err)
	}
	if c.Selector == nil {
		return selectorCommand{}, "selector is missing"
	}
	return c, ""
}

// describe says what is wrong with a body for the one who sent it. The decoder's
// own words would quote values and name Go types.
func describe(err error) string {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(e, jsontext.ErrDuplicateName) {
			return fmt.Sprintf("member %s is there twice", shorten(e.JSONPointer.LastToken()))
		}
		return fmt.Sprintf("not one JSON object: it breaks off or goes wrong at byte %d", e.ByteOffset)
	}
	e, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return "not one JSON object"
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(string(e.JSONPointer), "/"), "/")
	switch {
	case errors.Is(e, json.ErrUnknownName):
		return fmt.Sprintf("member %s is not known", shorten(e.JSONPointer.LastToken()))
	case name == "":
		return "the body must be one JSON object"
	case name == "selector":
		if e.Err != nil {
			if _, nested := errors.AsType[*json.SemanticError](e.Err); !nested {
				return "selector: " + shorten(e.Err.Error())
			}
		}
		return "selector must be an object of claims and their values"
	case name == "issued_before" || name == "expires":
		return name + " must be a time in RFC 3339"
	case name == "confirm":
		return "confirm must be true or false"
	}
	return shorten(name) + " must be a string"
}

// shorten bounds what is repeated of a caller's names.
func shorten(s string) string {
	const most = 200 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// plan reads a request or a line and decides on it. What is left to do where it is
// ok is to store the revocation.
func (a *Authority) plan(who revoker, body []byte, now time.Time) (denylist.Revocation, outcome, bool) {
	c, why := decodeSelectorCommand(body)
	if why != "" {
		o := refuse(badRequest, why)
		o.client, o.cause = who.ID(), errBody
		return denylist.Revocation{}, o, false
	}
	r, o, ok := decide(who, c, a.issuers, now)
	o.client = who.ID()
	return r, o, ok
}

var errUnconfirmed = errors.New("a wide selector without confirm")

var errBody = errors.New("the body is not one revocation")

// decide turns a command into the revocation to store, or into a refusal. It is
// pure.
func decide(who revoker, c selectorCommand, issuers map[string]Issuer, now time.Time) (r denylist.Revocation, o outcome, ok bool) {
	no := func(k kind, format string, args ...any) (denylist.Revocation, outcome, bool) {
		return denylist.Revocation{}, refuse(k, fmt.Sprintf(format, args...)), false
	}
	grant, wide := grantFor(c.Selector.Shape())
	if !who.May(append(grant, client.GrantAny)...) {
		return no(denied, "the client has no grant for a selector by %s", c.Selector.Shape())
	}
	issuer, known := issuers[c.Issuer]
	switch {
	case c.Issuer == "":
		return no(badRequest, "issuer is missing")
	case !known:
		return no(badRequest, "issuer is not configured here")
	case len(c.Reason) > denylist.MaxNote:
		return no(badRequest, "reason is at most %d bytes", denylist.MaxNote)
	case wide && !c.Confirm:
		_, o, _ = no(badRequest, "this selector matches %s: say \"confirm\": true if that is meant", matchedBy(*c.Selector, c.Issuer))
		o.cause = errUnconfirmed
		return r, o, false
	}

	// Whole seconds, as iat and exp count. What falls off the end is within
	// denylist.Grace.
	from := issuer.cutoff(now)
	r = denylist.Revocation{Issuer: c.Issuer, Selector: *c.Selector, At: now, By: who.ID(), Reason: c.Reason}
	switch {
	case c.IssuedBefore != nil:
		r.IssuedBefore = c.IssuedBefore.Truncate(time.Second)
		from = r.IssuedBefore
	case denylist.NeedsCutoff(r.Selector):
		r.IssuedBefore = from
	}
	latest := from.Add(issuer.MaxTokenLifetime)
	switch {
	case from.After(now.Add(maxAhead + issuer.ClockSkew)):
		return no(badRequest, "issued_before may lie at most %s in the future", maxAhead+issuer.ClockSkew)
	case !latest.After(now):
		return no(badRequest, "issued_before is longer ago than max_token_lifetime of the issuer, %s: no such token can be valid any more", issuer.MaxTokenLifetime)
	}
	r.Expires = latest
	if c.Expires != nil {
		r.Expires = c.Expires.Truncate(time.Second)
	}
	switch {
	case r.Expires.After(latest):
		return no(badRequest, "expires may be at most max_token_lifetime of the issuer, %s, after issued_before or now", issuer.MaxTokenLifetime)
	case !r.Expires.After(now):
		return no(badRequest, "expires must lie in the future")
	}
	if err := r.Validate(); err != nil {
		return no(badRequest, "%s", err)
	}
	if wide {
		o.matches = matchedBy(r.Selector, r.Issuer) + " that was issued at or before " + r.IssuedBefore.UTC().Format(time.RFC3339)
	}
	return r, o, true
}

// matchedBy says what a wide selector matches, with no more of its values than the
// caller sent.
func matchedBy(s denylist.Selector, issuer string) string {
	what := "every token of " + shorten(issuer)
	for i, p := range s.Pairs() {
		what += map[bool]string{true: " with ", false: " and "}[i == 0] + p.Claim + " " + shorten(p.Value)
	}
	return what
}

// grantFor returns the grants, beside GrantAny, that cover a shape, and whether it
// is so wide that it takes a confirmation: it names neither a token nor a session nor
// a user.
func grantFor(shape denylist.Shape) (covering []string, wide bool) {
	names := shape.Names()
	wide = !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(narrow, name) })
	for _, row := range selectorGrants {
		if slices.Equal(row.claims, names) {
			return row.grants, wide
		}
	}
	return nil, wide
}

var narrow = []string{denylist.JTI, denylist.Fingerprint, denylist.SID, denylist.Sub}

// selectorGrants names the claims of each shape in order. A shape that is not here
// takes GrantAny.
var selectorGrants = []struct{ claims, grants []string }{
	{[]string{"sub"}, []string{client.GrantSubject, client.GrantIssuer}},
	{[]string{"client_id", "sub"}, []string{client.GrantSubject, client.GrantIssuer}},
	{[]string{"azp", "sub"}, []string{client.GrantSubject, client.GrantIssuer}},
	{[]string{"sid"}, []string{client.GrantSession, client.GrantIssuer}},
	{[]string{"client_id"}, []string{client.GrantClient, client.GrantIssuer}},
	{[]string{"azp"}, []string{client.GrantClient, client.GrantIssuer}},
	{nil, []string{client.GrantIssuer}},
	{[]string{"kid"}, []string{client.GrantIssuer}},
}
