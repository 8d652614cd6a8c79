package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Over says that an issuer's tokens are over: those that a selector matches.
type Over struct {
	Issuer   string // of the tokens
	Selector denylist.Selector
	// Before is the cut-off, by the clock of whoever said so; zero where the selector
	// needs none.
	Before time.Time
	// Since is when they were over, by the same clock: what Before is, or would be. One
	// lifetime later none of them can be valid, however late or often it is said.
	Since  time.Time
	Reason string // for the audit, at most [denylist.MaxNote] bytes
}

// The codes of RFC 8935 section 2.4.
const (
	InvalidRequest       = "invalid_request"
	InvalidKey           = "invalid_key"
	InvalidIssuer        = "invalid_issuer"
	InvalidAudience      = "invalid_audience"
	AuthenticationFailed = "authentication_failed"
	AccessDenied         = "access_denied"
)

// Error says why something is refused for good: to send it again changes nothing.
type Error struct {
	Code    string // by RFC 8935
	Problem string // one line; nothing of what was sent
	// Unmappable says that nothing is wrong but that no token shows whether it
	// belongs to the subject.
	Unmappable bool
}

func (e *Error) Error() string { return e.Problem }

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Problem: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) *Error { return refuse(InvalidRequest, format, args...) }

func unmappable(format string, args ...any) *Error {
	e := malformed(format, args...)
	e.Unmappable = true
	return e
}

// onlySession refuses what would be stored and match nothing.
func onlySession() *Error {
	return unmappable("it names only a session (no user that tokens show), and tokens_carry_sid says that access tokens don't carry it")
}

// Refused returns the [Error] that an error of a [token.Reader] amounts to. Any other
// error is returned as it is, and so is one that a later look at the issuer's keys may
// turn out otherwise: both are no refusal.
func Refused(err error) error {
	if err == nil || errors.Is(err, token.ErrKeysUnavailable) {
		return err
	}
	for _, row := range [...]struct {
		is            error
		code, problem string
	}{
		{token.ErrUnknownIssuer, InvalidIssuer, "the issuer is not configured here"},
		{token.ErrUnknownKey, InvalidKey, "the signing key is not among the issuer's"},
		{token.ErrAlgorithm, InvalidKey, "the signing algorithm is not accepted from the issuer"},
		{token.ErrSignature, InvalidKey, "the signature is wrong"},
		{token.ErrType, InvalidRequest, "typ is not that of the JWT that is expected here"},
		{token.ErrTooLarge, InvalidRequest, "the JWT is too large"},
		{token.ErrNotCompact, InvalidRequest, "the body is not a compact JWS"},
		{token.ErrMalformed, InvalidRequest, "the JWT breaks the strict format"},
	} {
		if errors.Is(err, row.is) {
			return refuse(row.code, "%s", row.problem)
		}
	}
	return err
}

// addressed checks what all kinds of JWT have in common here: key, audience, jti and
// that iat is there and has come.
func addressed(v *token.Verified, audiences []string, now time.Time) error {
	switch {
	case v.KeyRetired():
		return refuse(InvalidKey, "the issuer has withdrawn the signing key")
	case !slices.ContainsFunc(v.Audience, func(a string) bool { return slices.Contains(audiences, a) }):
		return refuse(InvalidAudience, "aud names none of the audiences that are configured here")
	case v.Text("jti") == "":
		return malformed("jti is missing or empty")
	case v.IssuedAt.IsZero():
		return malformed("iat is missing")
	case v.IssuedAt.After(now.Add(v.Leeway())):
		return malformed("iat lies in the future")
	}
	return nil
}

// object returns a member that must be a JSON object.
func object(in map[string]any, name string) (map[string]any, error) {
	v, ok := in[name]
	if !ok {
		return nil, malformed("%s is missing", name)
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, malformed("%s is not an object", name)
	}
	return o, nil
}

// selector is [denylist.NewSelector] for what others have sent.
func selector(pairs map[string]string) (denylist.Selector, error) {
	s, err := denylist.NewSelector(pairs)
	if err != nil {
		return denylist.Selector{}, malformed("an identifier is empty or too long")
	}
	return s, nil
}

// note makes a reason for the audit of a label and, where there is one, a text of
// somebody else's: on one line, and cut to fit.
func note(label, text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "")))
	if text == "" {
		return label
	}
	s := label + ": " + text
	if len(s) > denylist.MaxNote {
		s = strings.ToValidUTF8(s[:denylist.MaxNote], "")
	}
	return s
}
