package authority

import (
	"net/http"
	"strconv"
	"time"

	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/pkg/denylist"
)

// kind is what became of a command.
type kind uint8

const (
	revoked         kind = iota + 1
	nothing              // the token can't be used anyway: expired, forged
	unknownIssuer        // as nothing, unless the authority's issuers are fewer than a verifier's
	badAlgorithm         // as nothing, unless its algorithms are
	ignored              // an event that says nothing of tokens, as far as is known here
	badRequest           // the request breaks a rule
	tooLarge             // its body does
	badClient            // the caller is not a client
	notOwner             // the token belongs to another client
	denied               // the client has no grant for the selector
	unsupported          // not the kind of token that can be revoked here
	limited              // more than the client may
	refusedUpstream      // by the token's provider, which was asked
	active               // an introspected token that a verifier would accept
	unavailable          // can't be known or stored now: "assume it still exists" (RFC 7009)
)

// kinds are how an outcome is counted, and how RFC 6749 section 5.2 spells it.
var kinds = [...]struct {
	label  string
	status int
	code   string
}{
	revoked:       {"revoked", http.StatusOK, ""},
	nothing:       {"nothing", http.StatusOK, ""},
	unknownIssuer: {"unknown_issuer", http.StatusOK, ""},
	badAlgorithm:  {"bad_algorithm", http.StatusOK, ""},
	ignored:       {"ignored", http.StatusOK, ""},
	badRequest:    {"bad_request", http.StatusBadRequest, "invalid_request"},
	tooLarge:      {"too_large", http.StatusRequestEntityTooLarge, "invalid_request"},
	badClient:     {"bad_client", http.StatusUnauthorized, "invalid_client"},
	notOwner:      {"not_owner", http.StatusBadRequest, "invalid_grant"},
	denied:        {"denied", http.StatusForbidden, "access_denied"},
	unsupported:   {"unsupported", http.StatusBadRequest, "unsupported_token_type"},
	limited:       {"limited", http.StatusTooManyRequests, "too_many_requests"},
	// The provider's own answer takes the place of these.
	refusedUpstream: {"refused_upstream", http.StatusBadRequest, "invalid_request"},
	active:          {"active", http.StatusOK, ""},
	unavailable:     {"unavailable", http.StatusServiceUnavailable, "temporarily_unavailable"},
}

func (k kind) String() string { return kinds[k].label }

// done reports whether the caller has nothing left to do.
func (k kind) done() bool { return kinds[k].status == http.StatusOK }

// outcome is what a dialect renders.
type outcome struct {
	kind     kind
	why      string // of a refusal, for the caller: names no token and no secret
	cause    error  // what the log says instead: more than the caller may read, or less than it sent
	client   string // the authenticated client; else the known one that was named
	position uint64 // of what was stored
	stored   denylist.Revocation
	before   bool          // the token was denied before it was stored once more
	matches  string        // what a wide selector matches, in words
	retry    time.Duration // after which a limited client may come again
	// challenge: see [client.Credentials].
	challenge bool
	// event is why an identity provider's token was refused, where it was.
	event *event.Error
	// relayed is a provider's own answer, to be given as it is.
	relayed *relayedAnswer
}

func refuse(k kind, why string) outcome { return outcome{kind: k, why: why} }

const challenge = `Basic realm="revcast", charset="UTF-8"`

// writeRefusal answers an outcome that is not done as RFC 6749 has it.
func writeRefusal(w http.ResponseWriter, o outcome) {
	if o.kind == badClient && o.challenge {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	if o.kind == limited {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int((o.retry+time.Second-1)/time.Second))))
	}
	writeError(w, kinds[o.kind].status, kinds[o.kind].code, o.why)
}
