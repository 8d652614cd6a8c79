package denylist

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// maxDigests bounds the combinations of array elements that one shape may ask of
// one token.
const maxDigests = 1024

// Claims is what a verifier knows of a token whose signature it has checked.
type Claims struct {
	Issuer      string
	Expires     time.Time
	IssuedAt    time.Time // zero where the token has no iat
	KeyID       string    // the header's kid
	Fingerprint string    // see [FingerprintOf]
	// Values are the claims as JSON decodes them: strings, float64, bool, []any.
	Values map[string]any
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

// Token is a verified token prepared for [List.CheckToken]: it remembers its digests,
// so that checking it again computes none. Safe for concurrent use.
type Token struct {
	issuer string
	window int64                 // the end of the expiry window that its exp lies in
	iat    int64                 // where the token has none, the zero time's: before every cut-off
	pairs  []Pair                // of all claims
	probes atomic.Pointer[probe] // a chain
}

// probe holds a token's digests for one shape: none where it lacks a claim of it.
// Immutable.
type probe struct {
	shape    Shape
	next     *probe
	keys     []key
	one      [1]key // keys is often this
	tooLarge bool
	digests  []Digest // by index of keys
}

// NewToken prepares a token. It errs where issuer or exp is missing.
func NewToken(c Claims) (*Token, error) {
	t, err := prepare(c)
	if err == nil {
		t.pack()
	}
	return t, err
}

func prepare(c Claims) (*Token, error) {
	if c.Issuer == "" {
		return nil, errors.New("a token without iss can't be checked")
	}
	if c.Expires.Unix() <= 0 || c.Expires.Unix() > maxUnix {
		return nil, fmt.Errorf("a token needs an exp between 1970 and 9999")
	}
	t := &Token{
		issuer: c.Issuer, window: WindowEnd(c.Expires.Unix()), iat: c.IssuedAt.Unix(),
		pairs: make([]Pair, 0, len(c.Values)+2),
	}
	for name, v := range c.Values {
		if name == KeyID || name == Fingerprint {
			continue // reserved: a claim of that name must not pose as the real thing
		}
		t.add(name, v)
	}
	t.add(KeyID, c.KeyID)
	t.add(Fingerprint, c.Fingerprint)
	return t, nil
}

// pack puts the text of all pairs into one string: a verifier may hold many tokens, and
// each object of theirs is work for the garbage collector. A claim's name is there once,
// however many values it has: they follow each other.
func (t *Token) pack() {
	named := func(i int) bool { return i == 0 || t.pairs[i].Claim != t.pairs[i-1].Claim }
	size := 0
	for i, p := range t.pairs {
		if size += len(p.Value); named(i) {
			size += len(p.Claim)
		}
	}
	var b strings.Builder
	b.Grow(size)
	for i, p := range t.pairs {
		if named(i) {
			b.WriteString(p.Claim)
		}
		b.WriteString(p.Value)
	}
	text, claim := b.String(), ""
	for i, p := range t.pairs {
		if p.Claim != claim {
			claim, text = text[:len(p.Claim)], text[len(p.Claim):]
		}
		t.pairs[i], text = Pair{claim, text[:len(p.Value)]}, text[len(p.Value):]
	}
}

// add notes the texts that a claim's value matches: its own, or those of an array's
// elements. Empty strings match nothing, as no selector can name them.
func (t *Token) add(name string, v any) {
	add := func(v any) {
		if text, ok := canonical(v); ok && text != "" {
			t.pairs = append(t.pairs, Pair{name, text})
		}
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			add(e)
		}
	case []string:
		for _, e := range v {
			add(e)
		}
	default:
		add(v)
	}
}

// Issuer returns the token's iss.
func (t *Token) Issuer() string { return t.issuer }

// Values returns the canonical values of a claim; none where the token lacks it.
func (t *Token) Values(claim string) (values []string) {
	for _, p := range t.pairs {
		if p.Claim == claim {
			values = append(values, p.Value)
		}
	}
	return values
}

// probe returns the token's digests for a shape, computing them once.
func (t *Token) probe(shape Shape) *probe {
	for p := t.probes.Load(); p != nil; p = p.next {
		if p.shape == shape {
			return p
		}
	}
	return t.remember(shape)
}

func (t *Token) remember(shape Shape) *probe {
	p := t.compute(shape)
	p.next = t.probes.Load()
	t.probes.CompareAndSwap(p.next, p) // losing a race costs computing them again
	return p
}

func (t *Token) compute(shape Shape) *probe {
	names := shape.Names()
	values := make([][]string, len(names))
	for i, n := range names {
		if values[i] = t.Values(n); len(values[i]) == 0 {
			return &probe{shape: shape} // it lacks the claim, so no selector of the shape matches
		}
	}
	total := 1
	for i := range names {
		if total *= len(values[i]); total > maxDigests {
			return &probe{shape: shape, tooLarge: true}
		}
	}
	digests := make([]Digest, 0, total)
	pairs := make([]Pair, len(names))
	var fill func(i int)
	fill = func(i int) {
		if i == len(names) {
			digests = append(digests, digest(t.issuer, pairs))
			return
		}
		for _, v := range values[i] {
			pairs[i] = Pair{names[i], v}
			fill(i + 1)
		}
	}
	fill(0)
	p := &probe{shape: shape, digests: digests}
	p.keys = p.one[:0]
	for _, d := range digests {
		p.keys = append(p.keys, keyOf(&d))
	}
	return p
}
