package token

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxSize bounds a token, in bytes.
const MaxSize = 8 << 10

// Compact is a token cut at its dots: three non-empty parts of base64url letters,
// not decoded yet.
type Compact struct {
	Header, Payload, Signature string
	// SigningInput is the exact "header.payload".
	SigningInput string
}

// Split cuts a compact JWS (RFC 7515 section 7.1) at its dots. It allocates
// nothing and errs with [ErrTooLarge] or [ErrNotCompact], so that an opaque token
// can be told from a bad JWT.
func Split(raw string) (Compact, error) {
	if len(raw) > MaxSize {
		return Compact{}, ErrTooLarge
	}
	var dots [2]int
	n := 0
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '.':
			if n == len(dots) {
				return Compact{}, ErrNotCompact
			}
			dots[n] = i
			n++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return Compact{}, ErrNotCompact
		}
	}
	if n != len(dots) || dots[0] == 0 || dots[1] == dots[0]+1 || dots[1] == len(raw)-1 {
		return Compact{}, ErrNotCompact
	}
	return Compact{
		Header: raw[:dots[0]], Payload: raw[dots[0]+1 : dots[1]], Signature: raw[dots[1]+1:],
		SigningInput: raw[:dots[1]],
	}, nil
}

// decodeSegment accepts the one spelling of its bytes. The decoder skips CR and
// LF even when strict; [Split] has refused them.
func decodeSegment(name, s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not canonical base64url", ErrMalformed, name)
	}
	return b, nil
}

// IsOpaque reports whether raw, which is no compact JWS, can be a token that only its
// issuer can read: visible ASCII, and not the part of a JWT that its signature covers,
// by which such a JWT could be revoked without having it.
func IsOpaque(raw string) bool {
	if raw == "" || len(raw) > MaxSize || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	head, _, dotted := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	return !dotted || err != nil || jsontext.Value(b).Kind() != jsontext.KindBeginObject
}

// PeekIssuer returns the iss of a JWT that nobody has verified: for asking the right
// one about it, and for nothing else.
func PeekIssuer(raw string) (issuer string, ok bool) {
	payload, err := peekPayload(raw)
	if err != nil {
		return "", false
	}
	issuer, err = peekIssuer(payload)
	return issuer, err == nil
}

// PeekAssertion returns iss and sub of an assertion that somebody else has verified.
func PeekAssertion(raw string) (issuer, subject string, ok bool) {
	payload, err := peekPayload(raw)
	if err != nil {
		return "", "", false
	}
	var said struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
	}
	err = decodeObject("claims", payload, &said)
	return said.Issuer, said.Subject, err == nil
}

func peekPayload(raw string) ([]byte, error) {
	parts, err := Split(raw)
	if err != nil {
		return nil, err
	}
	return decodeSegment("payload", parts.Payload)
}
