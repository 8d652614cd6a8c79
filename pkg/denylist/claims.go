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

// ClaimsOf makes the claims for [List.Check] of a compact JWS that another library has
// verified, and of its claims as that library decoded them: a golang-jwt MapClaims, or
// anything that JSON was decoded into. Where values is nil (the library decodes into a
// type of its own) they are read from raw. It believes the library. It errs where issuer
// or expiry is missing, or where raw is not what it is said to be.
func ClaimsOf(raw string, values map[string]any) (Claims, error) {
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, three := strings.Cut(rest, ".")
	if !three || payload == "" || strings.Contains(signature, ".") {
		return Claims{}, errors.New("a token that is no compact JWS can't be checked")
	}
	decoded, err := object(header)
	if err != nil {
		return Claims{}, fmt.Errorf("read a token's header: %w", err)
	}
	if values == nil {
		if values, err = object(payload); err != nil {
			return Claims{}, fmt.Errorf("read a token's claims: %w", err)
		}
	}
	c := Claims{Fingerprint: FingerprintOf(raw[:len(header)+1+len(payload)]), Values: values}
	c.KeyID, _ = decoded["kid"].(string)
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

// Lifetime is how long the token lives, from iat to exp; from now where it has no iat.
// The authority keeps revocations for its issuer's max_token_lifetime, so a token that
// lives longer outlives its revocation. [List.Check] can't tell: who calls it refuses
// such tokens.
func (c Claims) Lifetime(now time.Time) time.Duration {
	if c.IssuedAt.IsZero() {
		return c.Expires.Sub(now)
	}
	return c.Expires.Sub(c.IssuedAt)
}

// object decodes a part of a token. It is a map, since fields of a struct are found in
// any case.
func object(part string) (decoded map[string]any, err error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
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
	seconds := math.NaN()
	switch v := v.(type) {
	case float64:
		seconds = v
	case int64:
		seconds = float64(v)
	case interface{ Float64() (float64, error) }: // json.Number
		if f, err := v.Float64(); err == nil {
			seconds = f
		}
	}
	if !(1 <= seconds && seconds <= maxUnix) {
		return time.Time{}, fmt.Errorf("%s is not a time between 1970 and 9999", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
