package verifier

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// TestClaimsOf: what another library has verified is revoked by every selector that
// revokes it for a Verifier.
func TestClaimsOf(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	raw := unsigned(`{"alg":"RS256","kid":"k1","KID":"other"}`, `{"iss":"https://idp.example","exp":1800000060,"iat":1799999990,
		"jti":"a","sub":"alice","groups":["x","y"],"kid":"k2"}`)
	claims, err := ClaimsOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	if claims.KeyID != "k1" || !claims.Expires.Equal(now.Add(time.Minute)) || !claims.IssuedAt.Equal(now.Add(-10*time.Second)) {
		t.Errorf("%+v", claims)
	}
	for _, c := range []struct {
		selector map[string]string
		want     denylist.Status
	}{
		{map[string]string{"jti": "a"}, denylist.Revoked}, {map[string]string{"jti": "b"}, denylist.Clear},
		{map[string]string{"sub": "alice"}, denylist.Revoked}, {map[string]string{"groups": "y"}, denylist.Revoked},
		{map[string]string{denylist.KeyID: "k1"}, denylist.Revoked}, {map[string]string{denylist.KeyID: "k2"}, denylist.Clear},
		{map[string]string{denylist.Fingerprint: denylist.FingerprintOf(strings.TrimSuffix(raw, ".sig"))}, denylist.Revoked},
	} {
		l := denylist.New()
		l.Advance(now)
		selector, err := denylist.NewSelector(c.selector)
		if err != nil {
			t.Fatal(err)
		}
		l.Add(denylist.Entry{
			Digest: selector.Digest("https://idp.example"), Shape: selector.Shape(),
			Cutoff: now.Unix(), Expires: now.Unix() + 3600,
		})
		if got := l.Check(claims, now).Status; got != c.want {
			t.Errorf("%v: %v, want %v", c.selector, got, c.want)
		}
	}
}

// unsigned is a JWS of a header and claims.
func unsigned(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + ".sig"
}

// TestClaimsOfIsStrict: what the authority would not read is not looked up.
func TestClaimsOfIsStrict(t *testing.T) {
	const good, header = `{"iss":"i","exp":1000000000}`, `{"alg":"ES256"}`
	if _, err := ClaimsOf(unsigned(header, good)); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"nothing": "", "one part": "e30", "two parts": "e30.e30", "four parts": unsigned(header, good) + ".x", "no signature": "e30.e30.",
		"a line before": "\n" + unsigned(header, good), "a line behind": unsigned(header, good) + "\r\n", "a line within": "e3\n0" + unsigned(header, good)[3:],
		"padding": strings.Replace(unsigned(`{"a":1}`, good), ".", "=.", 1), "trailing bits": "e31" + unsigned("{}", good)[3:],
		"no base64": "!" + unsigned(header, good), "header null": unsigned("null", good), "header an array": unsigned("[]", good), "claims null": unsigned(header, "null"),
		"no issuer": unsigned(header, `{"exp":1000000000}`), "no expiry": unsigned(header, `{"iss":"i"}`), "issuer a number": unsigned(header, `{"iss":1,"exp":1000000000}`),
		"expiry a text": unsigned(header, `{"iss":"i","exp":"1000000000"}`), "expiry far away": unsigned(header, `{"iss":"i","exp":9.2e18}`),
		"issued a text": unsigned(header, `{"iss":"i","exp":1000000000,"iat":"x"}`),
		"jti a number":  unsigned(header, `{"iss":"i","exp":1000000000,"jti":42}`), "an extension": unsigned(`{"alg":"ES256","crit":["x"]}`, good),
		"an ID token's type": unsigned(`{"alg":"ES256","typ":"id+jwt"}`, good), "no alg": unsigned("{}", good),
		// Two values of one claim: the library might have read the other.
		"two jti": unsigned(header, `{"iss":"i","exp":1000000000,"jti":"a","jti":"b"}`),
	} {
		if claims, err := ClaimsOf(raw); err == nil {
			t.Errorf("%s: %+v", name, claims)
		}
	}
}
