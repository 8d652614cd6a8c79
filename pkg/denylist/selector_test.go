package denylist

import (
	"bytes"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

func TestSelectorReadsCanonicalValues(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                   `{}`,
		`{"jti":"a"}`:                          `{"jti":"a"}`,
		`{"sub":"b","client_id":"a"}`:          `{"client_id":"a","sub":"b"}`,
		`{"n":42}`:                             `{"n":"42"}`,
		`{"n":"42"}`:                           `{"n":"42"}`,
		`{"n":4.2e1}`:                          `{"n":"42"}`,
		`{"n":1.0}`:                            `{"n":"1"}`,
		`{"n":-0}`:                             `{"n":"0"}`,
		`{"n":-7}`:                             `{"n":"-7"}`,
		`{"n":9007199254740991}`:               `{"n":"9007199254740991"}`,
		`{"n":-9007199254740991}`:              `{"n":"-9007199254740991"}`,
		`{"b":true,"c":false}`:                 `{"b":"true","c":"false"}`,
		`{"e":"\u00e9\ud83d\udd11"}`:           `{"e":"é🔑"}`,
		` {"jti" : "a"} `:                      `{"jti":"a"}`,
		`{"JTI":"a","jti":"b"}`:                `{"JTI":"a","jti":"b"}`,
		`{"jti":"` + long(MaxValueSize) + `"}`: `{"jti":"` + long(MaxValueSize) + `"}`,
		`{"` + long(MaxNameSize) + `":"x"}`:    `{"` + long(MaxNameSize) + `":"x"}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1}`: `{"a":"1","b":"1","c":"1","d":"1","e":"1","f":"1","g":"1","h":"1"}`,
	} {
		var s Selector
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Errorf("%.80s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(s); err != nil || string(got) != want {
			t.Errorf("%.80s is written as %.80s, %v", text, got, err)
		}
	}
}

func TestSelectorRefusesWhatHasNoCanonicalValue(t *testing.T) {
	for _, text := range []string{
		``, `null`, `[]`, `"jti"`, `1`, `true`, `{`, `{}{}`, `{"jti":"a"}x`,
		`{"n":1.5}`, `{"n":0.1}`, `{"n":1e-1}`, `{"n":9007199254740992}`, `{"n":-9007199254740992}`, `{"n":9007199254740993}`, `{"n":1e300}`, `{"n":1e400}`,
		`{"n":null}`, `{"n":{}}`, `{"n":{"a":"b"}}`, `{"n":[]}`, `{"n":["a"]}`, `{"n":""}`,
		`{"jti":"a","jti":"b"}`, `{"jti":"a","jti":"a"}`, `{"jti":"a","\u006ati":"a"}`,
		`{"":"a"}`, `{"a\u0000b":"c"}`, `{"iss":"a"}`, `{"exp":1}`, `{"nbf":1}`, `{"iat":1}`,
		"{\"jti\":\"\xff\"}", `{"jti":"\ud800"}`, `{"\udc00":"a"}`,
		`{"jti":"` + long(MaxValueSize+1) + `"}`, `{"` + long(MaxNameSize+1) + `":"x"}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`,
	} {
		s := One(JTI, "before")
		if err := s.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%.80s reads as %s", text, s)
		} else if s.String() != `{jti="before"}` {
			t.Errorf("%.80s is refused, and yet changed the selector to %s", text, s)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestCanonicalOfEveryTypeThatJSONDecodesTo(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string // "": none
	}{
		{"a", "a"}, {true, "true"}, {false, "false"}, {1.0, "1"}, {math.Copysign(0, -1), "0"}, {1e15, "1000000000000000"},
		{math.NaN(), ""}, {math.Inf(1), ""}, {math.Inf(-1), ""}, {0.5, ""}, {1e300, ""}, {float64(maxExactInt), "9007199254740991"}, {float64(maxExactInt + 1), ""},
		{int64(7), "7"}, {int(-7), "-7"}, {int64(maxExactInt), "9007199254740991"}, {int64(maxExactInt + 1), ""}, {int64(math.MinInt64), ""},
		{number("12"), "12"}, {number("1.5"), ""}, {nil, ""}, {[]any{"a"}, ""}, {map[string]any{}, ""}, {uint8(1), ""},
	} {
		if got, ok := canonical(c.v); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("canonical(%#v) = %q, %v", c.v, got, ok)
		}
	}
}

// number is what other decoders make of a number.
type number string

func (n number) Float64() (f float64, err error) { return f, json.Unmarshal([]byte(n), &f) }

func TestShapes(t *testing.T) {
	for _, names := range [][]string{{}, {"jti"}, {"client_id", "sub"}, {"a", "b", "c", "d", "e", "f", "g", "h"}} {
		pairs := map[string]string{}
		for _, n := range names {
			pairs[n] = "x"
		}
		backwards := slices.Clone(names)
		slices.Reverse(backwards)
		shape, err := ShapeOf(backwards...)
		if s := mustSelect(t, pairs); err != nil || s.Shape() != shape || !slices.Equal(shape.Names(), names) {
			t.Errorf("%v: %q, %q, %v", names, shape, s.Shape(), err)
		}
	}
	for _, names := range [][]string{{""}, {"a", "a"}, {"iss"}, {"a\x00b"}, {"\xff"}, {long(MaxNameSize + 1)}, {"a", "b", "c", "d", "e", "f", "g", "h", "i"}} {
		if s, err := ShapeOf(names...); err == nil {
			t.Errorf("%.80q makes shape %q", names, s)
		}
	}
	if got := mustSelect(t, map[string]string{"sub": "a\"", "client_id": "b"}).Shape().String(); got != "client_id,sub" || Shape("").String() != "issuer" {
		t.Errorf("named %s", got)
	}
}

func TestValidateHoldsEveryRule(t *testing.T) {
	now := time.Unix(start, 0)
	token := Revocation{Issuer: "i", Selector: One(JTI, "x"), Expires: now, ExactExpiry: true}
	everyone := Revocation{Issuer: "i", IssuedBefore: now, Expires: now, By: long(MaxNote), Reason: long(MaxNote)}
	for _, r := range []Revocation{token, everyone} {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for name, broken := range map[string]func() Revocation{
		"no issuer":              func() Revocation { r := token; r.Issuer = ""; return r },
		"long issuer":            func() Revocation { r := token; r.Issuer = long(maxIssuer + 1); return r },
		"issuer not UTF-8":       func() Revocation { r := token; r.Issuer = "\xff"; return r },
		"no expiry":              func() Revocation { r := token; r.Expires = time.Time{}; return r },
		"expiry of 1970":         func() Revocation { r := token; r.Expires = time.Unix(0, 0); return r },
		"expiry of 10000":        func() Revocation { r := token; r.Expires = time.Unix(maxUnix+1, 0); return r },
		"issuer without cut-off": func() Revocation { r := everyone; r.IssuedBefore = time.Time{}; return r },
		"sub without cut-off":    func() Revocation { r := token; r.Selector, r.ExactExpiry = One(Sub, "x"), false; return r },
		"kid without cut-off":    func() Revocation { r := token; r.Selector, r.ExactExpiry = One(KeyID, "x"), false; return r },
		"jti and sub without cut-off": func() Revocation {
			r := token
			r.Selector, r.ExactExpiry = mustSelect(t, map[string]string{JTI: "x", Sub: "y"}), false
			return r
		},
		"cut-off of 1970":         func() Revocation { r := everyone; r.IssuedBefore = time.Unix(0, 0); return r },
		"cut-off of 10000":        func() Revocation { r := everyone; r.IssuedBefore = time.Unix(maxUnix+1, 0); return r },
		"one token, with cut-off": func() Revocation { r := token; r.IssuedBefore = now; return r },
		"one token, by sid":       func() Revocation { r := token; r.Selector = One(SID, "x"); return r },
		"long by":                 func() Revocation { r := everyone; r.By += "x"; return r },
		"long reason":             func() Revocation { r := everyone; r.Reason += "x"; return r },
		"reason not UTF-8":        func() Revocation { r := everyone; r.Reason = "\xff"; return r },
	} {
		if err := broken().Validate(); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// fuzzTargets are the fuzz targets of this package; see the test of their seeds.
var fuzzTargets = map[string]struct {
	seeds []string
	check func(t testing.TB, b []byte) bool // whether it was read
}{
	"FuzzSelectorJSON": {[]string{
		`{}`, `{"jti":"a"}`, `{"sub":"b","client_id":"a"}`, `{"n":42,"m":-0,"b":true,"e":"\u00e9\ud83d\udd11\"\\"}`, `{"n":1.5}`, `{"n":1e400}`,
		`{"jti":"a","\u006ati":"a"}`, `{"iss":"a"}`, `{"a":{"b":1}}`, `null`, "{\"jti\":\"\xff\"}",
	}, checkSelectorJSON},
	"FuzzNewToken": {[]string{
		`{"jti":"a","sub":"b","aud":["x","y",1,true,null,["z"]],"n":42,"f":1.5,"kid":"k","fingerprint":"f"}`,
		`{"":"a","iss":"x","exp":1,"a\u0000b":"c"}`, `{"n":-0,"m":9007199254740993,"o":1e15,"p":-9007199254740991}`, `{}`, `[]`, `{"a":"b","a":"c"}`, ``,
	}, checkNewToken},
}

func fuzz(f *testing.F, name string) {
	for _, s := range fuzzTargets[name].seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzTargets[name].check(t, b) })
}

func FuzzSelectorJSON(f *testing.F) { fuzz(f, "FuzzSelectorJSON") }
func FuzzNewToken(f *testing.F)     { fuzz(f, "FuzzNewToken") }

// Seeds that nobody can read any more test nothing, and nobody would notice.
func TestEveryFuzzTargetHasSeedsThatLoad(t *testing.T) {
	source, err := os.ReadFile("selector_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte("\nfunc Fuzz")); n != len(fuzzTargets) {
		t.Errorf("%d targets in the file, %d in fuzzTargets", n, len(fuzzTargets))
	}
	for name, target := range fuzzTargets {
		read, refused := 0, 0
		for _, s := range target.seeds {
			if target.check(t, []byte(s)) {
				read++
			} else {
				refused++
			}
		}
		if read < 2 || refused < 2 {
			t.Errorf("%s: %d seeds are read and %d are refused", name, read, refused)
		}
	}
}

func checkSelectorJSON(t testing.TB, b []byte) bool {
	var s Selector
	if err := json.Unmarshal(b, &s); err != nil {
		return false
	}
	written, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	var again Selector
	if err := json.Unmarshal(written, &again); err != nil || !slices.Equal(again.Pairs(), s.Pairs()) || again.Digest("i") != s.Digest("i") {
		t.Fatalf("%s is written as %s and read as %s, %v", s, written, again, err)
	}
	if twice, err := json.Marshal(again); err != nil || string(twice) != string(written) {
		t.Fatalf("%s is written as %s too", written, twice)
	}
	shape, err := ShapeOf(s.Shape().Names()...)
	if err != nil || shape != s.Shape() {
		t.Fatalf("%s has a shape that is none: %v", s, err)
	}
	values := map[string]any{}
	claims := Claims{Issuer: "i", Expires: time.Unix(start, 0), Values: values}
	for _, p := range s.Pairs() {
		values[p.Claim] = p.Value
		switch p.Claim {
		case KeyID:
			claims.KeyID = p.Value
		case Fingerprint:
			claims.Fingerprint = p.Value
		}
	}
	token, err := NewToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	l := New()
	l.Add(Entry{Shape: s.Shape(), Digest: s.Digest("i"), Cutoff: NoCutoff, Expires: start})
	if v := l.CheckToken(token, time.Unix(start, 0)); v.Status != Revoked || v.Shape != s.Shape() {
		t.Fatalf("%s does not match its own claims: %+v", s, v)
	}
	return true
}

func checkNewToken(t testing.TB, b []byte) bool {
	var claims map[string]any
	if json.Unmarshal(b, &claims) != nil || len(claims) == 0 {
		return false
	}
	now := time.Unix(start, 0)
	token, err := NewToken(Claims{Issuer: "i", Expires: now, Values: claims, KeyID: "real", Fingerprint: "real"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{KeyID, Fingerprint} {
		if !slices.Equal(token.Values(name), []string{"real"}) {
			t.Fatalf("a claim poses as %s: %q", name, token.Values(name))
		}
	}
	delete(claims, KeyID)
	delete(claims, Fingerprint)
	for name := range maps.Keys(claims) {
		for _, text := range token.Values(name) {
			for _, c := range []struct {
				text string
				want Status
			}{{text, Revoked}, {text + "\x01", Clear}} {
				s, err := NewSelector(map[string]string{name: c.text})
				if err != nil || c.want == Clear && slices.Contains(token.Values(name), c.text) {
					continue
				}
				l := New()
				l.Advance(now)
				l.Add(Entry{Shape: s.Shape(), Digest: s.Digest("i"), Cutoff: NoCutoff, Expires: start})
				if v := l.CheckToken(token, now); v.Status != c.want && v.Why != Uncheckable {
					t.Fatalf("%s: %+v, want %s", s, v, c.want)
				}
			}
		}
	}
	return true
}
