package event

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// TestSays has every rule in a file: what is said, and what it means.
func TestSays(t *testing.T) {
	p := newProvider(t)
	for kind, read := range readers {
		for _, f := range files(t, kind) {
			t.Run(kind+"/"+f.name, func(t *testing.T) {
				s, err := read(p, t.Context(), f.payload)
				if f.good == (err != nil) {
					t.Errorf("error %v", err)
				}
				if got := render(s, err); got != f.want {
					t.Errorf("got\n%s\nwant\n%s", got, f.want)
				}
			})
		}
	}
}

// check asserts what must hold whatever is said, and reports whether it was understood.
func check(t testing.TB, s said, err error) bool {
	t.Helper()
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok || len(s.over)+len(s.more) > 0 {
			t.Fatalf("got %v beside error %v", s, err)
		}
		switch e.Code {
		case InvalidRequest, InvalidKey, InvalidIssuer, InvalidAudience, AuthenticationFailed, AccessDenied:
		default:
			t.Fatalf("code %q", e.Code)
		}
		if e.Problem == "" || len(e.Problem) > 120 || strings.ContainsAny(e.Problem, "\r\n") {
			t.Fatalf("problem %q", e.Problem)
		}
		return false
	}
	if len(s.over) > maxEvents*(maxIdentifiers*2+2) { // each of two client claims, and a session of each issuer
		t.Fatalf("%d revocations", len(s.over))
	}
	for _, o := range s.over {
		r := denylist.Revocation{Issuer: o.Issuer, Selector: o.Selector, IssuedBefore: o.Before, Expires: now.Add(time.Hour), Reason: o.Reason}
		if err := r.Validate(); err != nil {
			t.Fatalf("%v can't be stored: %v", o, err)
		}
		if o.Issuer != issuerA && o.Issuer != issuerB {
			t.Fatalf("of issuer %q", o.Issuer)
		}
		if o.Before.IsZero() == denylist.NeedsCutoff(o.Selector) || o.Before.After(now.Add(token.DefaultLeeway)) {
			t.Fatalf("%v has cut-off %v", o.Selector, o.Before)
		}
		if o.Since.IsZero() || !o.Before.IsZero() && !o.Since.Equal(o.Before) || o.Since.After(now.Add(token.DefaultLeeway)) {
			t.Fatalf("%v is over since %v, with cut-off %v", o.Selector, o.Since, o.Before)
		}
		switch o.Selector.Shape().String() {
		case "jti", "sid", "sub", "client_id,sub", "azp,sub":
		default:
			t.Fatalf("nobody can mean %v", o.Selector)
		}
	}
	return true
}

func fuzz(f *testing.F, kind string) {
	p := newProvider(f)
	read := readers[kind]
	for _, seed := range files(f, kind) {
		f.Add(seed.payload)
		s, err := read(p, f.Context(), seed.payload)
		if check(f, s, err) != seed.good {
			f.Fatalf("seed %s: %v", seed.name, err)
		}
	}
	f.Fuzz(func(t *testing.T, payload string) {
		s, err := read(p, t.Context(), payload)
		check(t, s, err)
		again, err2 := read(p, t.Context(), payload)
		if render(s, err) != render(again, err2) {
			t.Fatal("the same says something else the second time")
		}
	})
}

func FuzzLogout(f *testing.F)           { fuzz(f, "logout") }
func FuzzEvents(f *testing.F)           { fuzz(f, "events") }
func FuzzGlobalRevocation(f *testing.F) { fuzz(f, "global") }

func first(t *testing.T, kind, name string) string {
	t.Helper()
	for _, f := range files(t, kind) {
		if f.name == name {
			return f.payload
		}
	}
	t.Fatalf("no %s in %s", name, kind)
	return ""
}

// Where tokens carry sid, to end a session is to end no other.
func TestLogoutOfASessionThatTokensCarry(t *testing.T) {
	p := newProvider(t)
	for name, want := range map[string]string{
		"good-both":           `https://a.example {sid="s-1"} since 1799999990 "back-channel logout"`,
		"bad-sid-not-carried": `https://a.example {sid="s-1"} since 1799999990 "back-channel logout"`,
		"good-sub":            `https://a.example {sub="alice"} before 1799999990 "back-channel logout"`,
	} {
		v, err := p.read(t.Context(), token.LogoutToken, first(t, "logout", name))
		if err != nil {
			t.Fatal(err)
		}
		over, err := Logout(v, LogoutRules{Audiences: logoutRules.Audiences, TokensCarrySID: true}, now)
		if got := render(said{over: over}, err); got != want {
			t.Errorf("%s: got %s; want %s", name, got, want)
		}
	}
}

// TestLogoutUntil: a jti is remembered for exactly as long as the token is taken.
func TestLogoutUntil(t *testing.T) {
	p := newProvider(t)
	for _, name := range []string{"good-both", "good-exp-far", "good-exp-past-within-leeway", "good-iat-five-minutes-ago"} {
		v, err := p.read(t.Context(), token.LogoutToken, first(t, "logout", name))
		if err != nil {
			t.Fatal(err)
		}
		until := LogoutUntil(v)
		if _, err := Logout(v, logoutRules, until.Add(-1)); err != nil {
			t.Errorf("%s: forgotten later than refused: %v", name, err)
		}
		if _, err := Logout(v, logoutRules, until); err == nil {
			t.Errorf("%s: forgotten while it is still taken", name)
		}
		if until.Sub(now) > maxLogoutAge+2*token.DefaultLeeway {
			t.Errorf("%s: remembered until %v", name, until)
		}
	}
}

// TestDefaultIssuer: a subject without an issuer is of the first that the transmitter
// may speak about, and of none where there is none.
func TestDefaultIssuer(t *testing.T) {
	body := []byte(`{"sub_id":{"format":"opaque","id":"x"}}`)
	for _, c := range []struct {
		issuers []string
		want    string
	}{
		{[]string{issuerA}, issuerA},
		{[]string{issuerA, issuerB}, issuerA},
		{[]string{issuerB, issuerA}, issuerB},
		{nil, ""},
	} {
		over, err := GlobalRevocation(body, Rules{Issuers: c.issuers}, now)
		if c.want == "" {
			if e, ok := errors.AsType[*Error](err); !ok || !e.Unmappable {
				t.Errorf("%v: got %v, %v; want it refused", c, over, err)
			}
			continue
		}
		if err != nil || len(over) != 1 || over[0].Issuer != c.want {
			t.Errorf("%v: got %v, %v", c, over, err)
		}
	}
	over, err := GlobalRevocation([]byte(`{"sub_id":{"format":"iss_sub","iss":"","sub":"x"}}`), Rules{Issuers: []string{issuerA}}, now)
	if err == nil {
		t.Errorf("an empty issuer is the default one: %v", over)
	}
}

// TestSessionOfAForeignUser: that the default issuer's tokens carry sid makes a session
// of somebody else's user none of its sessions.
func TestSessionOfAForeignUser(t *testing.T) {
	p := newProvider(t)
	carried := rules
	carried.Issuers = []string{issuerB, issuerA}
	for name, want := range map[string]string{
		"bad-session-complex-user-foreign-session":   "access_denied the subject is of an issuer that the transmitter may not speak about",
		"bad-session-complex-user-aliases-malformed": "invalid_request id of a subject of format opaque must be a string with something in it",
		"bad-session-complex-user-email-session":     `https://b.example {sid="s-1"} since 1799999995 "session-revoked"`, // the session says all
		"bad-account-complex-user-email-session":     "invalid_request unmappable no token shows whether it belongs to a user of this format",
		"bad-session-complex-session":                `https://b.example {sid="s-1"} since 1799999995 "session-revoked"`,
		"bad-account-complex-session":                `https://b.example {sid="s-1"} since 1799999995 "account-disabled"`,
	} {
		v, err := p.read(t.Context(), token.SecurityEvent, first(t, "events", name))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Events(v, carried, now)
		if got := render(said{over: s.Over}, err); got != want {
			t.Errorf("%s: got %s; want %s", name, got, want)
		}
	}
}

// TestUserAtAClient: an application is looked for by every claim that may name it, and
// by none that names the user.
func TestUserAtAClient(t *testing.T) {
	body := []byte(`{"sub_id":{"format":"complex","user":{"format":"opaque","id":"alice"},"application":{"format":"opaque","id":"web"}}}`)
	const ends = ` before 1800000000 "global token revocation"`
	for _, c := range []struct {
		claims []string
		want   []string
	}{
		{nil, []string{`{client_id="web" sub="alice"}`}},
		{[]string{"azp"}, []string{`{azp="web" sub="alice"}`}},
		{[]string{"client_id", "azp"}, []string{`{client_id="web" sub="alice"}`, `{azp="web" sub="alice"}`}},
		{[]string{"sub", "azp"}, []string{`{azp="web" sub="alice"}`}},
		{[]string{"sub"}, []string{`{sub="alice"}`}}, // never less than was said
	} {
		over, err := GlobalRevocation(body, Rules{Issuers: []string{issuerA}, ClientClaims: map[string][]string{issuerA: c.claims, issuerB: {"cid"}}}, now)
		var want []string
		for _, s := range c.want {
			want = append(want, issuerA+" "+s+ends)
		}
		if got := render(said{over: over}, err); got != strings.Join(want, "\n") {
			t.Errorf("%q: got %s; want %q", c.claims, got, want)
		}
	}
}

// What no token could hold is refused, not cut, and not passed over either.
func TestIdentifierTooLong(t *testing.T) {
	long := strings.Repeat("x", denylist.MaxValueSize+1)
	for _, subject := range []string{
		`{"format":"opaque","id":"LONG"}`,
		`{"format":"iss_sub","iss":"https://a.example","sub":"LONG"}`,
		`{"format":"jwt_id","iss":"https://a.example","jti":"LONG"}`,
		`{"format":"complex","session":{"format":"opaque","id":"LONG"}}`,
		`{"format":"complex","session":{"format":"opaque","id":"LONG"},"user":{"format":"opaque","id":"x"}}`,
		`{"format":"complex","session":{"format":"opaque","id":"x"},"user":{"format":"opaque","id":"LONG"}}`,
		`{"format":"complex","user":{"format":"opaque","id":"x"},"application":{"format":"opaque","id":"LONG"}}`,
		`{"format":"aliases","identifiers":[{"format":"opaque","id":"x"},{"format":"opaque","id":"LONG"}]}`,
	} {
		over, err := GlobalRevocation([]byte(`{"sub_id":`+strings.ReplaceAll(subject, "LONG", long)+`}`), rules, now)
		if e, ok := errors.AsType[*Error](err); !ok || e.Unmappable || over != nil {
			t.Errorf("%s: got %v, %v", subject, over, err)
		}
	}
}

func TestGlobalRevocationBounded(t *testing.T) {
	body := first(t, "global", "good-iss_sub")
	for _, c := range []struct {
		size int
		ok   bool
	}{{maxGlobal, true}, {maxGlobal + 1, false}} {
		over, err := GlobalRevocation([]byte(body+strings.Repeat(" ", c.size-len(body))), rules, now)
		if c.ok != (err == nil) {
			t.Errorf("%d bytes: %v, %v", c.size, over, err)
		}
	}
}

func TestBearer(t *testing.T) {
	p := newProvider(t)
	const good = `"iss":"https://a.example","sub":"idp","aud":"` + here + `","jti":"b-1","iat":1799999990,"exp":1800000290`
	without := func(member string) string {
		var kept []string
		for _, m := range strings.Split(good, ",") {
			if !strings.HasPrefix(m, `"`+member+`"`) {
				kept = append(kept, m)
			}
		}
		return strings.Join(kept, ",")
	}
	for _, c := range []struct{ name, claims, want string }{
		{"good", good, ""},
		{"aud array of one", without("aud") + `,"aud":["` + here + `"]`, ""},
		{"just expired", without("exp") + `,"exp":1799999971`, ""},
		{"aud missing", without("aud"), "invalid_audience"},
		{"aud of more", without("aud") + `,"aud":["` + here + `","web"]`, "invalid_audience"},
		{"aud twice the same", without("aud") + `,"aud":["` + here + `","` + here + `"]`, "invalid_audience"},
		{"aud with query", without("aud") + `,"aud":"` + here + `?x"`, "invalid_audience"},
		{"aud with slash", without("aud") + `,"aud":"` + here + `/"`, "invalid_audience"},
		{"aud of the host", without("aud") + `,"aud":"https://authority.example"`, "invalid_audience"},
		{"exp missing", without("exp"), "invalid_request"},
		{"exp passed", without("exp") + `,"exp":1799999970`, "invalid_request"},
		{"iat missing", without("iat"), "invalid_request"},
		{"iat in the future", without("iat") + `,"iat":1800000031`, "invalid_request"},
		{"lives five minutes and a second", without("exp") + `,"exp":1800000291`, "invalid_request"},
		{"not valid yet", good + `,"nbf":1800000031`, "invalid_request"},
		{"jti missing", without("jti"), "invalid_request"},
		{"jti empty", without("jti") + `,"jti":""`, "invalid_request"},
		{"sub missing", without("sub"), "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := p.read(t.Context(), token.Assertion, "{"+c.claims+"}")
			if err == nil {
				err = Bearer(v, here, now)
			}
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if Bearer(v, here, BearerUntil(v).Add(-1)) != nil || Bearer(v, here, BearerUntil(v)) == nil {
					t.Error("it is not refused from when it is forgotten")
				}
				return
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != c.want {
				t.Errorf("got %v; want %s", err, c.want)
			}
		})
	}
}

// TestRefused: what may turn out otherwise is no refusal, or a transmitter would
// strike out an event that nobody has carried out.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{token.ErrUnknownIssuer, InvalidIssuer}, {token.ErrUnknownKey, InvalidKey}, {token.ErrAlgorithm, InvalidKey},
		{token.ErrSignature, InvalidKey}, {token.ErrType, InvalidRequest}, {token.ErrTooLarge, InvalidRequest},
		{token.ErrNotCompact, InvalidRequest}, {token.ErrMalformed, InvalidRequest},
		{token.ErrKeysUnavailable, ""}, {fmt.Errorf("%w (%w)", token.ErrUnknownKey, token.ErrKeysUnavailable), ""},
		{fmt.Errorf("%w (%w)", token.ErrSignature, token.ErrKeysUnavailable), ""},
		{errors.New("disk full"), ""}, {token.ErrReplayFull, ""},
	} {
		got := Refused(fmt.Errorf("couldn't read: %w", c.err))
		e, ok := errors.AsType[*Error](got)
		if ok != (c.want != "") || ok && e.Code != c.want || !ok && !errors.Is(got, c.err) {
			t.Errorf("%v is %v; want %q", c.err, got, c.want)
		}
	}
	if Refused(nil) != nil {
		t.Error("nothing is something")
	}
}

// TestWithdrawnKeySaysNothing: an authority still reads tokens of keys that the issuer
// has withdrawn, and must not do what they say.
func TestWithdrawnKeySaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := tokentest.NewKey("old", "EdDSA")
		idp := tokentest.NewIdP(old)
		r, err := token.NewReader([]token.Issuer{{Issuer: issuerA, JWKSURI: issuerA + "/jwks", Algorithms: []string{"EdDSA"}}},
			idp.Client(), slog.New(slog.DiscardHandler), token.ForRevoking())
		if err != nil {
			t.Fatal(err)
		}
		tokentest.Run(t, r.Run)
		synctest.Wait()

		sign := func(kind token.Kind, claims string) *token.Verified {
			v, err := r.ReadAs(t.Context(), kind, old.Sign(`{"alg":"EdDSA","kid":"old","typ":"`+typOf[kind]+`"}`, claims))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		refusals := func() []error {
			_, byLogout := Logout(sign(token.LogoutToken, first(t, "logout", "good-both")), logoutRules, now)
			_, byEvents := Events(sign(token.SecurityEvent, first(t, "events", "good-session-iss_sub")), rules, now)
			return []error{byLogout, byEvents, Bearer(sign(token.Assertion,
				`{"iss":"https://a.example","sub":"idp","aud":"`+here+`","jti":"b","iat":1799999990,"exp":1800000100}`), here, now)}
		}
		for n, err := range refusals() {
			if err != nil {
				t.Errorf("%d, before: %v", n, err)
			}
		}
		idp.Serve(tokentest.NewKey("new", "EdDSA"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for n, err := range refusals() {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != InvalidKey {
				t.Errorf("%d, after: %v", n, err)
			}
		}
	})
}
