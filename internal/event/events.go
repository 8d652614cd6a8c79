package event

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	caep  = "https://schemas.openid.net/secevent/caep/event-type/"
	risc  = "https://schemas.openid.net/secevent/risc/event-type/"
	oauth = "https://schemas.openid.net/secevent/oauth/event-type/"

	verification = "https://schemas.openid.net/secevent/ssf/event-type/verification"
)

// revoking has the events after which tokens are over.
var revoking = map[string]struct {
	// session: it is a session that ends.
	session bool
	// untilSaid: the tokens issued after the event are over too, up to when it was said.
	// They may be those that somebody got with what is compromised.
	untilSaid bool
}{
	caep + "session-revoked":       {session: true},
	caep + "credential-change":     {}, // what came after it came by the new credential
	risc + "sessions-revoked":      {},
	oauth + "tokens-revoked":       {},
	risc + "account-disabled":      {untilSaid: true},
	risc + "account-purged":        {untilSaid: true},
	risc + "credential-compromise": {untilSaid: true},
}

// maxEvents bounds the events of one token. Shared Signals has one in each.
const maxEvents = 8

// Said is what a Security Event Token says.
type Said struct {
	Over []Over
	// Ignored counts the events of types that are not known here.
	Ignored int
	// Verification: the transmitter tests the stream, and State is what it was asked
	// to repeat, if anything.
	Verification bool
	State        string
}

// Events returns what a Security Event Token says (RFC 8417 as Shared Signals
// Framework 1.0 profiles it). It errs with an [Error]. A token that comes again says
// the same again.
func Events(v *token.Verified, rules Rules, now time.Time) (Said, error) {
	if err := addressed(v, rules.Audiences, now); err != nil {
		return Said{}, err
	}
	for _, name := range [...]string{"sub", "exp"} {
		if _, ok := v.Values[name]; ok {
			return Said{}, malformed("%s has no place in a security event token", name)
		}
	}
	events, err := object(v.Values, "events")
	switch {
	case err != nil:
		return Said{}, err
	case len(events) == 0:
		return Said{}, malformed("events is empty")
	case len(events) > maxEvents:
		return Said{}, malformed("events has more than %d members", maxEvents)
	}
	toe, err := eventTime(v.Values, "toe", v.IssuedAt)
	if err != nil {
		return Said{}, err
	}
	var said Said
	for _, kind := range slices.Sorted(maps.Keys(events)) {
		e, ok := events[kind].(map[string]any)
		if !ok {
			return Said{}, malformed("an event is not an object")
		}
		how, known := revoking[kind]
		switch {
		case kind == verification:
			if state, ok := e["state"]; ok {
				if said.State, ok = state.(string); !ok {
					return Said{}, malformed("state is not a string")
				}
			}
			said.Verification = true
			continue
		case !known:
			said.Ignored++
			continue
		}
		subject, err := object(v.Values, "sub_id")
		if err != nil {
			return Said{}, err
		}
		targets, err := rules.targets(subject, how.session)
		if err != nil {
			return Said{}, err
		}
		before, err := eventTime(e, "event_timestamp", toe)
		if err != nil {
			return Said{}, err
		}
		if how.untilSaid || before.After(v.IssuedAt) {
			before = v.IssuedAt
		}
		said.Over = append(said.Over, overs(targets, before, note(kind[strings.LastIndexByte(kind, '/')+1:], adminReason(e)))...)
	}
	return said, nil
}

// overs adds time and reason to what a subject means.
func overs(targets []target, before time.Time, reason string) []Over {
	all := make([]Over, len(targets))
	for i, t := range targets {
		all[i] = Over{Issuer: t.issuer, Selector: t.selector, Since: before, Reason: reason}
		if denylist.NeedsCutoff(t.selector) {
			all[i].Before = before
		}
	}
	return all
}

// eventTime reads a time that may be absent, and then is otherwise. One that is too
// large to be a time lies in the future, whatever it is: it may be in milliseconds.
func eventTime(in map[string]any, name string, otherwise time.Time) (time.Time, error) {
	v, ok := in[name]
	if !ok {
		return otherwise, nil
	}
	const tooLarge = 1 << 40
	seconds, ok := v.(float64)
	if !ok || !(seconds >= 1) {
		return time.Time{}, malformed("%s is not a time since 1970", name)
	}
	return time.Unix(int64(min(seconds, tooLarge)), 0), nil
}

// adminReason returns the text of reason_admin that a reader of the audit is most
// likely to understand. It is no more than a note: a strange one spoils nothing.
func adminReason(e map[string]any) string {
	switch texts := e["reason_admin"].(type) {
	case string: // as early drafts had it
		return texts
	case map[string]any:
		for _, language := range append([]string{"en"}, slices.Sorted(maps.Keys(texts))...) {
			if s, ok := texts[language].(string); ok {
				return s
			}
		}
	}
	return ""
}
