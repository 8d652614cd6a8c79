package event

import (
	"errors"
	"maps"
	"slices"

	"github.com/revcast/revcast/pkg/denylist"
)

// Rules say about whose tokens a transmitter may speak.
type Rules struct {
	Audiences []string // what aud must hold one of; of no meaning for a [GlobalRevocation]
	Issuers   []string // of the tokens that the transmitter may speak about; a subject that names none is of the first
	// TokensCarrySID has the issuers whose access tokens have sid.
	TokensCarrySID map[string]bool
	// ClientClaims has, by issuer, the claims that name a token's client. None: client_id.
	ClientClaims map[string][]string
}

// maxIdentifiers bounds what one subject can stand for.
const maxIdentifiers = 16

// target is what a subject means: an Over without its time and reason.
type target struct {
	issuer   string
	selector denylist.Selector
}

// identity is a subject of an issuer.
type identity struct{ issuer, sub string }

// issuer returns the issuer that a subject names, if the transmitter may speak about
// it; for "", the first.
func (r Rules) issuer(named string) (string, error) {
	switch {
	case named != "" && !slices.Contains(r.Issuers, named):
		return "", refuse(AccessDenied, "the subject is of an issuer that the transmitter may not speak about")
	case named != "":
		return named, nil
	case len(r.Issuers) > 0:
		return r.Issuers[0], nil
	}
	return "", unmappable("the subject names no issuer")
}

// formats has the members of each format that is mapped, all of them required. RFC
// 9493 section 3 allows no others.
var formats = map[string][]string{
	"iss_sub": {"iss", "sub"},
	"opaque":  {"id"},
	"jwt_id":  {"iss", "jti"},
}

// identifier reads a Subject Identifier: its format and, for those in formats, its
// members.
func identifier(v any) (format string, members map[string]string, err error) {
	o, ok := v.(map[string]any)
	if !ok {
		return "", nil, malformed("a subject is not an object")
	}
	if format, ok = o["format"].(string); !ok || format == "" {
		return "", nil, malformed("a subject has no format")
	}
	names, ok := formats[format]
	if !ok {
		return format, nil, nil
	}
	members = make(map[string]string, len(names))
	for _, name := range names {
		if members[name], ok = o[name].(string); !ok || members[name] == "" {
			return "", nil, malformed("%s of a subject of format %s must be a string with something in it", name, format)
		}
	}
	if len(o) != 1+len(names) {
		return "", nil, malformed("a subject of format %s has members that the format does not", format)
	}
	return format, members, nil
}

// targets returns what a subject means, as the package's table has it. session tells
// an event about a session from one about an account.
func (r Rules) targets(subject any, session bool) ([]target, error) {
	format, members, err := identifier(subject)
	if err != nil {
		return nil, err
	}
	switch format {
	case "complex":
		return r.complex(subject.(map[string]any), session)
	case "aliases":
		return aliases(subject.(map[string]any), func(one any) ([]target, error) {
			format, members, err := identifier(one)
			if err != nil {
				return nil, err
			}
			return r.simple(format, members, session)
		})
	}
	return r.simple(format, members, session)
}

// simple returns what a subject of one of formats means.
func (r Rules) simple(format string, members map[string]string, session bool) ([]target, error) {
	if members == nil {
		return nil, unmappable("no token shows whether it belongs to a subject of this format")
	}
	issuer, err := r.issuer(members["iss"])
	if err != nil {
		return nil, err
	}
	switch format {
	case "iss_sub":
		return one(issuer, denylist.Sub, members["sub"])
	case "jwt_id":
		return one(issuer, denylist.JTI, members["jti"])
	}
	sub, err := one(issuer, denylist.Sub, members["id"])
	if err != nil || !session {
		return sub, err
	}
	sid, err := one(issuer, denylist.SID, members["id"])
	return append(sid, sub...), err
}

func one(issuer, claim, value string) ([]target, error) {
	s, err := selector(map[string]string{claim: value})
	if err != nil {
		return nil, err
	}
	return []target{{issuer, s}}, nil
}

// aliases returns what the identifiers mean that can be mapped. They are one principal
// by several names, so one that can't is no loss; a malformed one spoils them all.
func aliases[T any](subject map[string]any, each func(any) ([]T, error)) ([]T, error) {
	all, ok := subject["identifiers"].([]any)
	switch {
	case !ok || len(all) == 0:
		return nil, malformed("identifiers of a subject of format aliases must be an array with something in it")
	case len(subject) != 2:
		return nil, malformed("a subject of format aliases has members that the format does not")
	case len(all) > maxIdentifiers:
		return nil, malformed("a subject has more than %d identifiers", maxIdentifiers)
	}
	var found []T
	var first error
	for _, v := range all {
		if o, ok := v.(map[string]any); ok && o["format"] == "aliases" {
			return nil, malformed("aliases among the identifiers of aliases")
		}
		t, err := each(v)
		if isMalformed(err) {
			return nil, err
		}
		if err != nil && first == nil {
			first = err
		}
		found = append(found, t...)
	}
	if len(found) == 0 {
		return nil, first
	}
	return found, nil
}

func isMalformed(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == InvalidRequest && !e.Unmappable
}

func isDenied(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == AccessDenied
}

// complex returns what a complex subject of Shared Signals means.
func (r Rules) complex(subject map[string]any, session bool) ([]target, error) {
	for _, name := range slices.Sorted(maps.Keys(subject)) { // the same error each time
		if name == "format" {
			continue
		}
		if _, _, err := identifier(subject[name]); err != nil {
			return nil, err
		}
	}
	users, userErr := r.users(subject)
	if isMalformed(userErr) || isDenied(userErr) { // whose session would it be?
		return nil, userErr
	}
	var homes []string // the session is the user's, so its issuer is one of the user's
	for _, u := range users {
		if !slices.Contains(homes, u.issuer) {
			homes = append(homes, u.issuer)
		}
	}
	sessions, whole, sessionErr := r.session(subject, homes)
	if isMalformed(sessionErr) {
		return nil, sessionErr
	}
	_, hasUser := subject["user"]
	switch {
	case session && len(sessions) > 0 && whole:
		return sessions, nil
	case sessionErr != nil && len(users) == 0 && (session || !hasUser):
		return nil, sessionErr
	case hasUser && userErr != nil:
		return nil, userErr
	case !hasUser && len(sessions) > 0:
		return sessions, nil
	case !hasUser:
		return nil, unmappable("a complex subject without user and session: no token shows whether it belongs to it")
	}
	client := ""
	if v, ok := subject["application"]; ok {
		if format, members, _ := identifier(v); format == "opaque" {
			client = members["id"]
		}
	}
	all := sessions
	for _, u := range users {
		found, err := r.user(u, client)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// user returns what a user means, at one client where that is not "". Which of the
// issuer's client claims a token has is not known, so it is looked for by each.
func (r Rules) user(u identity, client string) (found []target, err error) {
	claims := r.ClientClaims[u.issuer]
	if len(claims) == 0 {
		claims = []string{denylist.ClientID}
	}
	for _, claim := range claims {
		if client == "" || claim == denylist.Sub { // sub names the user here, and so no client
			continue
		}
		s, err := selector(map[string]string{denylist.Sub: u.sub, claim: client})
		if err != nil {
			return nil, err
		}
		found = append(found, target{u.issuer, s})
	}
	if len(found) == 0 {
		return one(u.issuer, denylist.Sub, u.sub)
	}
	return found, nil
}

// users returns who the user of a complex subject is.
func (r Rules) users(subject map[string]any) ([]identity, error) {
	v, ok := subject["user"]
	if !ok {
		return nil, nil
	}
	each := func(v any) ([]identity, error) {
		format, members, err := identifier(v)
		if err != nil {
			return nil, err
		}
		if format != "iss_sub" && format != "opaque" {
			return nil, unmappable("no token shows whether it belongs to a user of this format")
		}
		issuer, err := r.issuer(members["iss"])
		if err != nil {
			return nil, err
		}
		return []identity{{issuer, members["sub"] + members["id"]}}, nil // the format has one of them
	}
	if o := v.(map[string]any); o["format"] == "aliases" {
		return aliases(o, each)
	}
	return each(v)
}

// session returns what the session of a complex subject is, and whether that covers
// all of its tokens. An opaque one is of any of homes, or else of the default issuer,
// and then there is nothing but its sid to find tokens by.
func (r Rules) session(subject map[string]any, homes []string) (found []target, whole bool, err error) {
	v, ok := subject["session"]
	if !ok {
		return nil, false, nil
	}
	format, members, err := identifier(v)
	if err != nil {
		return nil, false, err
	}
	switch format {
	case "opaque":
		alone := len(homes) == 0
		if alone {
			issuer, err := r.issuer("")
			if err != nil {
				return nil, false, err
			}
			homes = []string{issuer}
		}
		whole = true
		for _, issuer := range homes {
			sid, err := one(issuer, denylist.SID, members["id"])
			if err != nil {
				return nil, false, err
			}
			found = append(found, sid...)
			whole = whole && r.TokensCarrySID[issuer]
		}
		if alone && !whole {
			return nil, false, onlySession()
		}
		return found, whole, nil
	case "jwt_id":
		issuer, err := r.issuer(members["iss"])
		if err != nil {
			return nil, false, err
		}
		found, err = one(issuer, denylist.JTI, members["jti"])
		return found, false, err
	}
	return nil, false, unmappable("no token shows whether it belongs to a session of this format")
}
