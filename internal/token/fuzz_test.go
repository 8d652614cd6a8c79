package token

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/token/tokentest"
)

var claimSeeds = []string{
	`{"iss":"https://a.example","exp":4102444800}`,
	`{"iss":"https://a.example","exp":4102444800.5,"iat":1700000000,"nbf":1700000000,"sub":"a","jti":"t","sid":"s","client_id":"c","azp":"c","aud":["a","b"]}`,
	`{"iss":"https://a.example","exp":4102444800,"aud":"api","groups":["x",1,true,null],"deep":{"a":[{"b":{}}]}}`,
	`{"iss":"https://a.example","exp":4102444800,"jti":"a","JTI":"b","i\u017f\u017f":"x"}`,
	`{"iss":"https://a.example","exp":4102444800,"jti":"a","\u006ati":"b"}`,
	`{"iss":"https://a.example","exp":0}`,
	`{"iss":"https://a.example","exp":"4102444800"}`,
	`{"iss":"https://a.example","exp":9.2e18}`,
	`{"iss":"https://a.example","exp":1e400}`,
	`{"iss":"\ud800","exp":4102444800}`,
	"{\"iss\":\"\xff\",\"exp\":4102444800}",
	`null`, `[]`, `"x"`, `{}{}`, ``,
}

// checkClaims says what must hold of claims that were accepted.
func checkClaims(payload []byte, c claims) error {
	iss, err := peekIssuer(payload)
	if err != nil || iss != c.issuer || c.values["iss"] != iss {
		return fmt.Errorf("iss reads as %q, %q and %v (%v)", iss, c.issuer, c.values["iss"], err)
	}
	if exp, ok := c.values["exp"].(float64); !ok || c.expires.Unix() != int64(math.Floor(exp)) || c.expires.Year() > 9999 || c.expires.Unix() < 1 {
		return fmt.Errorf("exp %v reads as %v", c.values["exp"], c.expires)
	}
	for _, name := range []string{"sub", "jti", "sid", "client_id", "azp"} {
		if v, ok := c.values[name]; ok {
			if _, ok := v.(string); !ok {
				return fmt.Errorf("%s is a %T", name, v)
			}
		}
	}
	_, hasAud := c.values["aud"]
	if !hasAud && c.audience != nil {
		return fmt.Errorf("audience out of nowhere")
	}
	// One reading: a second name, in whatever spelling, makes it no object at all,
	// and a name that differs only in case changes nothing.
	text := strings.TrimRight(string(payload), " \t\r\n")
	open := strings.TrimSuffix(text, "}")
	for _, twice := range []string{`,"iss":"x"}`, `,"\u0069ss":"x"}`, `,"exp":1}`} {
		if _, err := decodeClaims([]byte(open+twice), AccessToken); err == nil {
			return fmt.Errorf("accepted with %s", twice)
		}
	}
	if _, taken := c.values["ISS"]; !taken {
		again, err := decodeClaims([]byte(open+`,"ISS":7}`), AccessToken)
		if err != nil {
			return fmt.Errorf("refused with another claim: %w", err)
		}
		delete(again.values, "ISS")
		if again.issuer != c.issuer || !maps.EqualFunc(again.values, c.values, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			return fmt.Errorf("a claim that differs in case changed another")
		}
	}
	for _, trailing := range []string{"{}", "x", ",", "\x00"} {
		if _, err := decodeClaims([]byte(text+trailing), AccessToken); err == nil {
			return fmt.Errorf("accepted with %q behind it", trailing)
		}
	}
	return nil
}

func FuzzDecodeClaims(f *testing.F) {
	accepted := 0
	for _, s := range claimSeeds {
		f.Add([]byte(s))
		if c, err := decodeClaims([]byte(s), AccessToken); err == nil {
			accepted++
			if err := checkClaims([]byte(s), c); err != nil {
				f.Fatal(err)
			}
		}
	}
	if accepted != 4 { // a fuzz target whose seeds are all refused tests nothing
		f.Fatalf("%d seeds accepted", accepted)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := decodeClaims(payload, AccessToken)
		if err != nil {
			if Reason(err) != "malformed" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if err := checkClaims(payload, c); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRead(f *testing.F) {
	k := es256()
	r := newReader(f, tokentest.NewIdP(k), "ES256")
	start(f, r)
	const head = `{"alg":"ES256","kid":"e1"}`
	seeds := []string{"", ".", "..", "a.b.c", b64(head) + "." + b64(`{}`) + ".AAAA"}
	for _, h := range []string{head, `{"alg":"ES256"}`, `{"alg":"ES256","kid":"e1","typ":"JWT"}`, `{"alg":"none"}`, `{"alg":"ES256","crit":[]}`} {
		for _, c := range claimSeeds {
			seeds = append(seeds, k.Sign(h, c))
		}
	}
	accepted := 0
	for _, s := range seeds {
		f.Add(s)
		if _, err := r.Read(f.Context(), s); err == nil {
			accepted++
		}
	}
	if accepted != 12 {
		f.Fatalf("%d seeds accepted", accepted)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := r.Read(t.Context(), raw)
		if err != nil {
			if v != nil || Reason(err) == "other" {
				t.Fatalf("got %v, %v", v, err)
			}
			return
		}
		if len(raw) > MaxSize {
			t.Fatal("too large")
		}
		parts := strings.Split(raw, ".")
		for _, p := range parts {
			b, err := base64.RawURLEncoding.DecodeString(p)
			if err != nil || base64.RawURLEncoding.EncodeToString(b) != p {
				t.Fatalf("%q is not the one spelling of its bytes", p)
			}
		}
		// Signed input spelt otherwise has another signature: nothing may be added.
		for _, other := range []string{raw + "=", raw + "\n", " " + raw, parts[0] + "=." + parts[1] + "." + parts[2],
			parts[0] + "." + parts[1] + "A." + parts[2], parts[0] + "A." + parts[1] + "." + parts[2]} {
			if _, err := r.Read(t.Context(), other); err == nil {
				t.Fatalf("accepted %q too", other)
			}
		}
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		c, err := decodeClaims(payload, AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkClaims(payload, c); err != nil {
			t.Fatal(err)
		}
	})
}
