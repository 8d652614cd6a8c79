package verifier

import "github.com/revcast/revcast/pkg/denylist"

// Outcome is what is to be done with a request. The zero Outcome refuses.
type Outcome uint8

const (
	Refused     Outcome = iota // the request is at fault: 401, 403 for its scope, 400 where ambiguous
	Unavailable                // nobody knows: 503, or 403 where a 5xx would let through
	Allowed
)

func (o Outcome) String() string { return [...]string{"refused", "unavailable", "allowed"}[o] }

// Reason is a short stable label of why a decision is as it is, for metrics and
// logs. It is not for clients.
type Reason string

const (
	Clear        Reason = "clear"
	StaleAllowed Reason = "stale_allowed" // clear on a stale list, and OnStale is Allow

	Missing   Reason = "missing"   // no bearer token
	Ambiguous Reason = "ambiguous" // more than one, or credentials that can't be read
	Revoked   Reason = "revoked"

	TooLarge      Reason = "too_large"
	NotCompact    Reason = "not_compact"
	Malformed     Reason = "malformed"
	WrongType     Reason = "wrong_type"
	UnknownIssuer Reason = "unknown_issuer"
	BadAlgorithm  Reason = "bad_algorithm"
	BadSignature  Reason = "bad_signature"
	UnknownKey    Reason = "unknown_key"
	Expired       Reason = "expired"
	NotYetValid   Reason = "not_yet_valid"
	WrongAudience Reason = "wrong_audience"
	TooLongLived  Reason = "too_long_lived"

	InsufficientScope Reason = "insufficient_scope" // the token is good, and not for this request

	Loading         Reason = "loading"          // the list has never been complete
	Stale           Reason = "stale"            // the list was complete too long ago
	Uncheckable     Reason = "uncheckable"      // the token's arrays are too many to check
	KeysUnavailable Reason = "keys_unavailable" // the issuer's keys were never loaded
)

// outcomes has every reason there is.
var outcomes = map[Reason]Outcome{
	Clear: Allowed, StaleAllowed: Allowed,

	Missing: Refused, Ambiguous: Refused, Revoked: Refused,
	TooLarge: Refused, NotCompact: Refused, Malformed: Refused, WrongType: Refused,
	UnknownIssuer: Refused, BadAlgorithm: Refused, BadSignature: Refused, UnknownKey: Refused,
	Expired: Refused, NotYetValid: Refused, WrongAudience: Refused, TooLongLived: Refused,
	InsufficientScope: Refused,

	Loading: Unavailable, Stale: Unavailable, Uncheckable: Unavailable, KeysUnavailable: Unavailable,
}

// Decision is the answer to "may this request pass?". The zero Decision refuses.
type Decision struct {
	Outcome Outcome
	Reason  Reason
	Claims  *Claims          // where Allowed; shared and read-only
	Issuer  string           // of a token whose signature is right
	Verdict denylist.Verdict // where the denylist was asked
	Err     error            // what is wrong with a token, for logs; never for clients

	entry   *entry // where Allowed
	version uint64 // the list's, before it was asked
}

func decide(why Reason) Decision {
	if why == Clear { // most are, and the map takes its time
		return Decision{Outcome: Allowed, Reason: Clear}
	}
	return Decision{Outcome: outcomes[why], Reason: why}
}

// of says whose token was decided on, once its signature was found right.
func (d Decision) of(e *entry) Decision {
	d.Issuer = e.claims.Issuer
	return d
}

// judge turns the denylist's verdict on a valid token into a reason.
func judge(verdict denylist.Verdict, onStale StalePolicy) Reason {
	switch verdict.Status {
	case denylist.Clear:
		return Clear
	case denylist.Revoked:
		return Revoked
	}
	switch verdict.Why {
	case denylist.Stale:
		if onStale == Allow {
			return StaleAllowed
		}
		return Stale
	case denylist.Uncheckable:
		return Uncheckable
	}
	return Loading
}
