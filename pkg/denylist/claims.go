package denylist

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ClaimsOf makes the claims for [List.Check] of a compact JWS that another library has
// verified, and of its claims as that library decoded them: a golang-jwt MapClaims, or
// anything that JSON was decoded into. It believes the library. It errs where issuer or
// expiry is missing, or where raw is not what it is said to be.
func ClaimsOf(raw string, values map[string]any) (Claims, error) {
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, three := strings.Cut(rest, ".")
	if !three || payload == "" || strings.Contains(signature, ".") {
		return Claims{}, errors.New("a token that is no compact JWS can't be checked")
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "="))
	var decoded map[string]any // a map: fields of a struct are found in any case
	if err != nil || json.Unmarshal(b, &decoded) != nil {
		return Claims{}, errors.New("a token whose header is no JSON object can't be checked")
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
