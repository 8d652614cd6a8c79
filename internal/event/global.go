package event

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/revcast/revcast/internal/token"
)

const (
	maxGlobal     = 64 << 10 // bytes of a request
	maxBearerLife = 5 * time.Minute
)

// GlobalRevocation returns what is over by the body of a Global Token Revocation
// request (draft-parecki-oauth-global-token-revocation): {"sub_id": subject}. A
// subject means what it does for an event about an account, and the cut-off is now.
// Members beside sub_id are passed over: the draft has none, and later ones may.
//
// It errs with an [Error]: one that is Unmappable is answered 422, one with
// AccessDenied 403 and any other 400. Nobody here knows all users, so none is ever not
// found.
func GlobalRevocation(body []byte, rules Rules, now time.Time) ([]Over, error) {
	if len(body) > maxGlobal {
		return nil, malformed("the body is larger than %d KiB", maxGlobal>>10)
	}
	var request map[string]any
	if jsontext.Value(body).Kind() != jsontext.KindBeginObject || json.Unmarshal(body, &request) != nil {
		return nil, malformed("the body is not one strict JSON object")
	}
	subject, err := object(request, "sub_id")
	if err != nil {
		return nil, err
	}
	targets, err := rules.targets(subject, false)
	if err != nil {
		return nil, err
	}
	return overs(targets, now, "global token revocation"), nil
}

// Bearer checks the JWT that authorizes a Global Token Revocation request at a URL. It
// errs with an [Error].
//
// The JWT is good for once: its jti is to be reserved in a [token.Replay] until
// [BearerUntil].
func Bearer(v *token.Verified, url string, now time.Time) error {
	if err := addressed(v, []string{url}, now); err != nil {
		return err
	}
	switch {
	case len(v.Audience) != 1:
		return refuse(InvalidAudience, "aud names more than this URL")
	case v.Text("sub") == "":
		return malformed("sub is missing or empty")
	case !now.Before(BearerUntil(v)):
		return malformed("the JWT has expired")
	case v.NotBefore.After(now.Add(v.Leeway())):
		return malformed("the JWT is not valid yet")
	case v.Expires.Sub(v.IssuedAt) > maxBearerLife:
		return malformed("the JWT lives longer than %s", maxBearerLife)
	}
	return nil
}

// BearerUntil returns from when on [Bearer] refuses a JWT for its age: its jti need be
// remembered no longer.
func BearerUntil(v *token.Verified) time.Time { return v.Expires.Add(v.Leeway()) }
