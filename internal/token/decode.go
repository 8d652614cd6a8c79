package token

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// header is what is read of a JOSE header (RFC 7515 section 4). Whatever else it
// holds is held to the same syntax and not looked at.
type header struct {
	alg, kid, typ string
	hasKID        bool
}

// kinds say what a JWT of each kind must look like, so that none is taken for one of
// another kind (RFC 8725 section 3.11).
var kinds = [...]struct {
	// types are the accepted values of typ in lower case, without "application/".
	types   []string
	untyped bool // whether typ may be missing
	timed   bool // whether exp may not
}{
	AccessToken:   {[]string{"jwt", "at+jwt"}, true, true},
	Revocable:     {[]string{"jwt", "at+jwt", RefreshType, "refresh+jwt"}, true, true},
	LogoutToken:   {[]string{"jwt", "logout+jwt"}, true, true},
	SecurityEvent: {[]string{"secevent+jwt"}, false, false},
	Assertion:     {[]string{"jwt", "client-authentication+jwt"}, true, true},
}

func decodeHeader(b []byte, kind Kind) (header, error) {
	// Raw values, so that null and a wrong type are told from absence.
	var raw struct {
		Alg  jsontext.Value `json:"alg"`
		KID  jsontext.Value `json:"kid"`
		Typ  jsontext.Value `json:"typ"`
		Crit jsontext.Value `json:"crit"`
		B64  jsontext.Value `json:"b64"`
	}
	if err := decodeObject("header", b, &raw); err != nil {
		return header{}, err
	}
	var h header
	var typ string
	var ok bool
	if h.alg, ok = text(raw.Alg); !ok || h.alg == "" {
		return header{}, fmt.Errorf("%w: header has no alg", ErrMalformed)
	}
	if h.hasKID = raw.KID != nil; h.hasKID {
		if h.kid, ok = text(raw.KID); !ok || h.kid == "" {
			return header{}, fmt.Errorf("%w: kid is not a string with something in it", ErrMalformed)
		}
	}
	if raw.Crit != nil || raw.B64 != nil {
		return header{}, fmt.Errorf("%w: header asks for an extension (crit, b64)", ErrMalformed)
	}
	if raw.Typ == nil {
		if !kinds[kind].untyped {
			return header{}, fmt.Errorf("%w: typ is missing", ErrType)
		}
		return h, nil
	}
	if typ, ok = text(raw.Typ); !ok {
		return header{}, fmt.Errorf("%w: typ is not a string", ErrMalformed)
	}
	if h.typ = strings.TrimPrefix(strings.ToLower(typ), "application/"); !slices.Contains(kinds[kind].types, h.typ) {
		return header{}, fmt.Errorf("%w: typ %.64q", ErrType, typ)
	}
	return h, nil
}

// peekIssuer reads iss of a payload whose signature has not been checked, and
// keeps nothing else of it: what a stranger sends allocates little.
func peekIssuer(b []byte) (string, error) {
	var raw struct {
		Iss jsontext.Value `json:"iss"`
	}
	if err := decodeObject("claims", b, &raw); err != nil {
		return "", err
	}
	iss, ok := text(raw.Iss)
	if !ok || iss == "" {
		return "", fmt.Errorf("%w: claims have no iss", ErrMalformed)
	}
	return iss, nil
}

// peekIssued reads iat of a payload whose signature has not been found right: zero
// where there is none that can be read.
func peekIssued(b []byte) time.Time {
	var raw struct {
		IAT jsontext.Value `json:"iat"`
	}
	var iat float64
	if decodeObject("claims", b, &raw) != nil || raw.IAT.Kind() != jsontext.KindNumber || json.Unmarshal(raw.IAT, &iat) != nil {
		return time.Time{}
	}
	issued, _ := numericDate(map[string]any{"iat": iat}, "iat")
	return issued
}

// claims are the registered claims by their types, and all of them as JSON
// decodes them.
type claims struct {
	issuer                     string
	audience                   []string
	expires, issued, notBefore time.Time // zero where absent
	values                     map[string]any
}

func decodeClaims(b []byte, kind Kind) (claims, error) {
	var c claims
	if err := decodeObject("claims", b, &c.values); err != nil {
		return claims{}, err
	}
	if c.issuer, _ = c.values["iss"].(string); c.issuer == "" {
		return claims{}, fmt.Errorf("%w: claims have no iss", ErrMalformed)
	}
	for _, name := range [...]string{"sub", "jti", "sid", "client_id", "azp"} {
		if v, ok := c.values[name]; ok {
			if _, ok := v.(string); !ok {
				return claims{}, fmt.Errorf("%w: %s is not a string", ErrMalformed, name)
			}
		}
	}
	var err error
	if c.audience, err = audience(c.values); err != nil {
		return claims{}, err
	}
	for _, t := range [...]struct {
		name string
		into *time.Time
	}{{"exp", &c.expires}, {"iat", &c.issued}, {"nbf", &c.notBefore}} {
		if *t.into, err = numericDate(c.values, t.name); err != nil {
			return claims{}, err
		}
	}
	if c.expires.IsZero() && kinds[kind].timed {
		return claims{}, fmt.Errorf("%w: claims have no exp", ErrMalformed)
	}
	return c, nil
}

func audience(values map[string]any) ([]string, error) {
	v, ok := values["aud"]
	if !ok {
		return nil, nil
	}
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		all := make([]string, len(v))
		for i, e := range v {
			if all[i], ok = e.(string); !ok {
				return nil, fmt.Errorf("%w: aud holds something that is not a string", ErrMalformed)
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("%w: aud is neither a string nor an array", ErrMalformed)
}

const yearTenThousand = 253402300800 // in Unix seconds: RFC 3339 ends before it

// numericDate reads a NumericDate (RFC 7519 section 2); zero where it is absent.
func numericDate(values map[string]any, name string) (time.Time, error) {
	v, ok := values[name]
	if !ok {
		return time.Time{}, nil
	}
	seconds, ok := v.(float64)
	if !ok || !(1 <= seconds && seconds < yearTenThousand) {
		return time.Time{}, fmt.Errorf("%w: %s is not a time between 1970 and 9999", ErrMalformed, name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// decodeObject decodes exactly one JSON object: RFC 8259 with unique names, valid
// UTF-8 and nothing behind it. The decoder's own error would quote the input.
func decodeObject(what string, b []byte, into any) error {
	if jsontext.Value(b).Kind() != jsontext.KindBeginObject || json.Unmarshal(b, into) != nil {
		return fmt.Errorf("%w: %s is not one strict JSON object", ErrMalformed, what)
	}
	return nil
}

func text(v jsontext.Value) (string, bool) {
	if v.Kind() != jsontext.KindString {
		return "", false
	}
	var s string
	err := json.Unmarshal(v, &s)
	return s, err == nil
}
