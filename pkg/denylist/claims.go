package denylist

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// ClaimsOf reads the claims for [List.Check] from a compact JWS that another library has
// verified. It reads them as strictly as the authority does, in place of taking them from
// that library: a token that is read in two ways is a way around its revocation. It
// doesn't verify anything, and errs where raw is not one strict JWS, in its one spelling,
// with issuer and expiry.
//
// KeyID is what the token's header says. Where the library may have verified with another
// key, set it to that key's kid, or revocations by kid can be dodged.
func ClaimsOf(raw string) (Claims, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || parts[2] == "" {
		return Claims{}, errors.New("a token that is no compact JWS can't be checked")
	}
	// The decoder passes over line breaks, even where it is strict.
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' }) {
		return Claims{}, errors.New("a token with spaces or line breaks can't be checked")
	}
	header, err := object(parts[0])
	if err != nil {
		return Claims{}, fmt.Errorf("read a token's header: %w", err)
	}
	values, err := object(parts[1])
	if err != nil {
		return Claims{}, fmt.Errorf("read a token's claims: %w", err)
	}
	c := Claims{Fingerprint: FingerprintOf(parts[0] + "." + parts[1]), Values: values}
	c.KeyID, _ = header["kid"].(string)
	if c.Issuer, _ = values["iss"].(string); c.Issuer == "" {
		return Claims{}, errors.New("a token without iss can't be checked")
	}
	if c.Expires, err = numericDate(values, "exp"); err == nil && c.Expires.IsZero() {
		err = errors.New("a token without exp can't be checked")
	}
	if err == nil {
		c.IssuedAt, err = numericDate(values, "iat")
	}
	if err != nil {
		return Claims{}, err
	}
	return c, nil
}

// Lifetime is how long the token lives, from iat to exp; from now where it has no iat, or
// one that is still to come. The authority keeps revocations for its issuer's
// max_token_lifetime, so a token that lives longer outlives its revocation. [List.Check]
// can't tell: who calls it refuses such tokens.
func (c Claims) Lifetime(now time.Time) time.Duration {
	if c.IssuedAt.IsZero() || c.IssuedAt.After(now) {
		return c.Expires.Sub(now)
	}
	return c.Expires.Sub(c.IssuedAt)
}

// object decodes a part of a token. It is a map, since fields of a struct are found in
// any case.
func object(part string) (decoded map[string]any, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, err
	}
	if err = json.Unmarshal(b, &decoded); err == nil && decoded == nil {
		err = errors.New("not an object")
	}
	return decoded, err
}

// numericDate reads a time of RFC 7519 section 2; zero where there is none.
func numericDate(values map[string]any, name string) (time.Time, error) {
	v, there := values[name]
	if !there {
		return time.Time{}, nil
	}
	seconds, ok := v.(float64)
	if !ok || !(1 <= seconds && seconds <= maxUnix) {
		return time.Time{}, fmt.Errorf("%s is not a time between 1970 and 9999", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
