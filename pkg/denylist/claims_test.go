package denylist

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// A library's claims and this project's own reading of the token revoke alike.
func TestCheckOfVerifiedClaims(t *testing.T) {
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
		want     Status
	}{
		{map[string]string{"jti": "a"}, Revoked}, {map[string]string{"jti": "b"}, Clear},
		{map[string]string{"sub": "alice"}, Revoked}, {map[string]string{"groups": "y"}, Revoked},
		{map[string]string{KeyID: "k1"}, Revoked}, {map[string]string{KeyID: "k2"}, Clear},
		{map[string]string{Fingerprint: FingerprintOf(strings.TrimSuffix(raw, ".sig"))}, Revoked},
	} {
		l := New()
		l.Advance(now)
		selector, err := NewSelector(c.selector)
		if err != nil {
			t.Fatal(err)
		}
		l.Add(Entry{
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

func TestLifetimeCountsFromIssuance(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := Claims{Expires: now.Add(time.Hour)}
	if got := c.Lifetime(now); got != time.Hour {
		t.Errorf("without iat: %s", got)
	}
	c.IssuedAt = now.Add(-time.Hour)
	if got := c.Lifetime(now); got != 2*time.Hour {
		t.Errorf("with iat: %s", got)
	}
	c.IssuedAt, c.Expires = now.Add(1000*time.Hour), now.Add(1001*time.Hour)
	if got := c.Lifetime(now); got != 1001*time.Hour {
		t.Errorf("with an iat to come: %s", got)
	}
}

func TestCheckOfClaimsThatCantBeChecked(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := New()
	l.Advance(now)
	for name, c := range map[string]Claims{
		"nothing": {}, "no issuer": {Expires: now}, "no expiry": {Issuer: "i"},
	} {
		if v := l.Check(c, now); v.Status != Unknown || v.Why != Uncheckable {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := New().Check(Claims{Issuer: "i", Expires: now}, now); v.Status != Unknown || v.Why != Loading {
		t.Errorf("loading: %+v", v)
	}
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
		// Two values of one claim: the library might have read the other.
		"two jti": unsigned(header, `{"iss":"i","exp":1000000000,"jti":"a","jti":"b"}`),
	} {
		if claims, err := ClaimsOf(raw); err == nil {
			t.Errorf("%s: %+v", name, claims)
		}
	}
}

func TestNotifyTellsOfEveryChange(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l, told := New(), make(chan struct{}, 1)
	entry := func(i byte) Entry {
		return Entry{Digest: Digest{i}, Shape: JTI, Cutoff: NoCutoff, Expires: now.Unix() + 60}
	}
	stop := l.Notify(told)
	expect := func(act string, want bool, version uint64) {
		t.Helper()
		select {
		case <-told:
			if !want {
				t.Errorf("%s: told", act)
			}
		default:
			if want {
				t.Errorf("%s: not told", act)
			}
		}
		if l.Version() != version {
			t.Errorf("%s: version %d, want %d", act, l.Version(), version)
		}
	}
	l.Add(entry(1))
	expect("added", true, 1)
	l.Add(entry(1))
	expect("added again", false, 1)
	l.Add(entry(2))
	l.Add(entry(3))
	expect("added two, nobody looking", true, 3)
	expect("looked twice", false, 3)
	l.AddSection(Section{Shape: JTI, Window: WindowEnd(now.Unix()), Digests: []Digest{{4}}})
	expect("added a section", true, 4)
	other := New()
	other.Add(entry(5))
	l.Join(other)
	expect("joined", true, 5)
	l.Join(other)
	expect("joined nothing", false, 5)
	l.Prune(now.Add(time.Hour))
	l.Advance(now)
	expect("pruned and advanced", false, 5)
	stop()
	stop()
	l.Add(Entry{Digest: Digest{9}, Shape: JTI, Cutoff: NoCutoff, Expires: now.Unix() + 7200})
	expect("stopped", false, 6)
}
