package denylist

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// A library's claims and this project's own reading of the token revoke alike.
func TestCheckOfVerifiedClaims(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	encode := base64.RawURLEncoding.EncodeToString
	raw := encode([]byte(`{"alg":"RS256","kid":"k1","KID":"other"}`)) + "." + encode([]byte(`{}`)) + ".sig"
	values := map[string]any{
		"iss": "https://idp.example", "exp": float64(now.Unix() + 60), "iat": json.Number("1799999990"),
		"jti": "a", "sub": "alice", "groups": []any{"x", "y"}, "kid": "k2",
	}
	claims, err := ClaimsOf(raw, values)
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
		{map[string]string{Fingerprint: FingerprintOf(raw[:len(raw)-len(".sig")])}, Revoked},
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

// Where the library keeps the claims to itself, the token is read once more, alike.
func TestClaimsOfTheTokenItself(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	payload := `{"iss":"https://idp.example","exp":1800000060,"iat":1799999990,"jti":"a","groups":["x",7]}`
	raw := encode([]byte(`{"alg":"RS256","kid":"k1"}`)) + "." + encode([]byte(payload)) + ".sig"
	var values map[string]any
	if err := json.Unmarshal([]byte(payload), &values); err != nil {
		t.Fatal(err)
	}
	want, err := ClaimsOf(raw, values)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ClaimsOf(raw, nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
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
	good := map[string]any{"iss": "i", "exp": 1e9}
	for _, c := range []struct {
		raw    string
		values map[string]any
	}{
		{"", good}, {"e30", good}, {"e30.e30", good}, {"e30.e30.x.y", good}, {"e30..x", good}, {"!.e30.x", good}, {"W10.e30.x", good},
		{"e30.e30.x", nil}, {"e30.e30.x", map[string]any{"iss": "i"}}, {"e30.e30.x", map[string]any{"exp": 1e9}},
		{"e30.e30.x", map[string]any{"iss": "i", "exp": "1e9"}}, {"e30.e30.x", map[string]any{"iss": "i", "exp": 9.2e18}},
		{"e30.e30.x", map[string]any{"iss": "i", "exp": 1e9, "iat": json.Number("x")}},
		{"bnVsbA.e30.x", good}, {"e30.bnVsbA.x", nil}, {"e30.!.x", nil},
		// Two values of one claim: the library might have read the other.
		{"e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"i","exp":1000000000,"jti":"a","jti":"b"}`)) + ".x", nil},
	} {
		if claims, err := ClaimsOf(c.raw, c.values); err == nil {
			t.Errorf("%q %v: %+v", c.raw, c.values, claims)
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
