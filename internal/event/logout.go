package event

import (
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// maxLogoutAge is how old a logout token may be: providers let them live two minutes
// (section 2.4 recommends that), and send again soon or never.
const maxLogoutAge = 5 * time.Minute

// LogoutRules say whose logout tokens are taken, and what a session is.
type LogoutRules struct {
	Audiences []string // our client ids at the provider
	// TokensCarrySID: the provider's access tokens have sid. Without it, to end a
	// session is to end all of its user's, and one that names no user is refused.
	TokensCarrySID bool
}

// Logout returns what is over by a logout token (OpenID Connect Back-Channel Logout
// 1.0 section 2.6). The cut-off is the token's iat: it is the provider's clock, as the
// iat of its access tokens is. It errs with an [Error].
//
// A logout token is good for once: its jti is to be reserved in a [token.Replay] until
// [LogoutUntil] before the revocation is stored, and released where that fails.
func Logout(v *token.Verified, rules LogoutRules, now time.Time) ([]Over, error) {
	if err := addressed(v, rules.Audiences, now); err != nil {
		return nil, err
	}
	switch {
	case !now.Before(v.Expires.Add(v.Leeway())):
		return nil, malformed("the logout token has expired")
	case !now.Before(LogoutUntil(v)):
		return nil, malformed("iat is too long ago")
	}
	if _, ok := v.Values["nonce"]; ok {
		return nil, malformed("a logout token has no nonce: this may be an ID token")
	}
	events, err := object(v.Values, "events")
	if err != nil {
		return nil, err
	}
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return nil, malformed("events does not hold the logout event as an object")
	}
	_, hasSID := v.Values[denylist.SID]
	_, hasSub := v.Values[denylist.Sub]
	if !hasSID && !hasSub {
		return nil, malformed("sub and sid are missing")
	}
	const reason = "back-channel logout"
	var over []Over
	if hasSID {
		s, err := selector(map[string]string{denylist.SID: v.Text(denylist.SID)})
		if err != nil {
			return nil, err
		}
		if !hasSub && !rules.TokensCarrySID {
			return nil, onlySession()
		}
		over = append(over, Over{Issuer: v.Issuer, Selector: s, Since: v.IssuedAt, Reason: reason})
	}
	if hasSub {
		s, err := selector(map[string]string{denylist.Sub: v.Text(denylist.Sub)})
		if err != nil {
			return nil, err
		}
		if !hasSID || !rules.TokensCarrySID {
			over = append(over, Over{Issuer: v.Issuer, Selector: s, Before: v.IssuedAt, Since: v.IssuedAt, Reason: reason})
		}
	}
	return over, nil
}

// LogoutUntil returns from when on [Logout] refuses a logout token for its age: its
// jti need be remembered no longer.
func LogoutUntil(v *token.Verified) time.Time {
	until := v.IssuedAt.Add(maxLogoutAge)
	if v.Expires.Before(until) {
		until = v.Expires
	}
	return until.Add(v.Leeway())
}
