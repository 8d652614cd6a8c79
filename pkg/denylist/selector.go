package denylist

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Names with a meaning of their own in a selector. Every other name is the claim
// of that name.
const (
	JTI         = "jti"
	SID         = "sid"
	Sub         = "sub"
	ClientID    = "client_id"
	KeyID       = "kid"         // the header parameter, never a claim
	Fingerprint = "fingerprint" // see [FingerprintOf], never a claim
)

// Bounds of a selector. A value can be as long as the longest token.
const (
	MaxPairs     = 8
	MaxNameSize  = 256
	MaxValueSize = 8 << 10
	maxIssuer    = 2 << 10
)

// Digest identifies an issuer and a selector. It is the first 16 bytes of SHA-256
// over "revcast/digest/v1", then the issuer, then each pair's claim and value in
// the order of claim names, each preceded by its length in bytes as a big-endian
// uint32.
type Digest [16]byte

const digestDomain = "revcast/digest/v1"

// Pair is a claim's name and the canonical text of its value.
type Pair struct{ Claim, Value string }

// Selector is a set of pairs that must all match. The zero Selector has none and
// matches every token of the issuer. Selectors are immutable.
//
// Values are compared as canonical text: a string as it is, an integer in
// decimal, a boolean as true or false. So "42" selects both "42" and 42.
type Selector struct{ pairs []Pair } // sorted by Claim, names unique

// Shape is the tuple of claim names of a selector, in order. Verifiers probe only
// the shapes that have live entries.
type Shape string

const shapeSep = "\x00"

// NewSelector makes a selector from claim names and canonical values.
func NewSelector(pairs map[string]string) (Selector, error) {
	if len(pairs) > MaxPairs {
		return Selector{}, fmt.Errorf("a selector has at most %d claims", MaxPairs)
	}
	s := Selector{pairs: make([]Pair, 0, len(pairs))}
	for name, value := range pairs {
		if err := checkName(name); err != nil {
			return Selector{}, err
		}
		if value == "" || len(value) > MaxValueSize || !utf8.ValidString(value) {
			return Selector{}, fmt.Errorf("the value of claim %q must be 1 to %d bytes of UTF-8", name, MaxValueSize)
		}
		s.pairs = append(s.pairs, Pair{name, value})
	}
	slices.SortFunc(s.pairs, func(a, b Pair) int { return strings.Compare(a.Claim, b.Claim) })
	return s, nil
}

func checkName(name string) error {
	switch {
	case name == "" || len(name) > MaxNameSize || !utf8.ValidString(name) || strings.Contains(name, shapeSep):
		return fmt.Errorf("a claim name must be 1 to %d bytes of UTF-8 without NUL", MaxNameSize)
	case name == "iss" || name == "exp" || name == "nbf" || name == "iat":
		return fmt.Errorf("claim %q can't be selected by value", name)
	}
	return nil
}

// One is the selector of a single claim. It panics where NewSelector errs, so it
// is for constant names and values already checked.
func One(claim, value string) Selector {
	s, err := NewSelector(map[string]string{claim: value})
	if err != nil {
		panic(err)
	}
	return s
}

// Pairs returns the pairs in order. The caller must not change them.
func (s Selector) Pairs() []Pair { return s.pairs }

// Shape returns the selector's claim names.
func (s Selector) Shape() Shape {
	names := make([]string, len(s.pairs))
	for i, p := range s.pairs {
		names[i] = p.Claim
	}
	return Shape(strings.Join(names, shapeSep))
}

// Digest identifies the selector within an issuer.
func (s Selector) Digest(issuer string) Digest { return digest(issuer, s.pairs) }

func digest(issuer string, pairs []Pair) (d Digest) {
	var stack [512]byte
	b := append(stack[:0], digestDomain...)
	b = appendSized(b, issuer)
	for _, p := range pairs {
		b = appendSized(appendSized(b, p.Claim), p.Value)
	}
	sum := sha256.Sum256(b)
	return Digest(sum[:len(d)])
}

func appendSized(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// String names the selector for people: {sub=alice client_id=web}.
func (s Selector) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range s.pairs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Claim + "=" + strconv.Quote(p.Value))
	}
	b.WriteByte('}')
	return b.String()
}

// MarshalJSON writes an object of claim names and canonical values, in order.
func (s Selector) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := jsontext.NewEncoder(&b, jsontext.Multiline(false))
	err := e.WriteToken(jsontext.BeginObject)
	for _, p := range s.pairs {
		err = cmp.Or(err, e.WriteToken(jsontext.String(p.Claim)), e.WriteToken(jsontext.String(p.Value)))
	}
	err = cmp.Or(err, e.WriteToken(jsontext.EndObject))
	return bytes.TrimSpace(b.Bytes()), err
}

// UnmarshalJSON reads an object whose values are strings, integers or booleans.
func (s *Selector) UnmarshalJSON(b []byte) error {
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	if object == nil {
		return errors.New("a selector is an object of claims and values")
	}
	pairs := make(map[string]string, len(object))
	for name, v := range object {
		text, ok := canonical(v)
		if !ok {
			return fmt.Errorf("the value of claim %q must be a string, an integer or a boolean", name)
		}
		pairs[name] = text
	}
	made, err := NewSelector(pairs)
	if err != nil {
		return err
	}
	*s = made
	return nil
}

const maxExactInt = 1<<53 - 1 // beyond it two integers share one float64

// canonical returns the text by which a claim's value is compared, and whether it
// has one: objects, null, fractions and integers beyond 2^53 have none.
func canonical(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > maxExactInt {
			return "", false
		}
		return strconv.FormatInt(int64(v), 10), true
	case int64:
		return strconv.FormatInt(v, 10), -maxExactInt <= v && v <= maxExactInt
	case int:
		return canonical(int64(v))
	case interface{ Float64() (float64, error) }: // json.Number
		f, err := v.Float64()
		if err != nil {
			return "", false
		}
		return canonical(f)
	}
	return "", false
}

// Names returns the claim names of the shape, in order; none for a whole issuer.
func (s Shape) Names() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), shapeSep)
}

// String joins the names with commas; "issuer" is the empty shape.
func (s Shape) String() string {
	if s == "" {
		return "issuer"
	}
	return strings.ReplaceAll(string(s), shapeSep, ",")
}

// ShapeOf makes the shape of the given claim names.
func ShapeOf(names ...string) (Shape, error) {
	if len(names) > MaxPairs {
		return "", fmt.Errorf("a shape has at most %d claims", MaxPairs)
	}
	unique := make(map[string]bool, len(names))
	for _, n := range names {
		if err := checkName(n); err != nil {
			return "", err
		}
		unique[n] = true
	}
	if len(unique) != len(names) {
		return "", errors.New("a shape names each claim once")
	}
	return Shape(strings.Join(slices.Sorted(maps.Keys(unique)), shapeSep)), nil
}

// FingerprintOf identifies a JWT that has no jti: base64url of SHA-256 over the
// exact "header.payload" of its compact form. The signature is left out because
// it is malleable: one token has many valid spellings of it.
func FingerprintOf(signingInput string) string {
	sum := sha256.Sum256([]byte(signingInput))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
