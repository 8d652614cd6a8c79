package token

import (
	"encoding/base64"
	"fmt"
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
