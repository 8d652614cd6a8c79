package token

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

var kindNames = [...]string{AccessToken: "access token", Revocable: "revocable token", LogoutToken: "logout token", SecurityEvent: "security event", Assertion: "assertion"}

// TestKindsAreToldApart: a JWT made for one purpose is never read for another, unless
// it has no typ of its own and both allow that.
func TestKindsAreToldApart(t *testing.T) {
	if len(kindNames) != len(kinds) {
		t.Fatalf("%d kinds, and %d of them are tested", len(kinds), len(kindNames))
	}
	k := es256()
	r := newReader(t, tokentest.NewIdP(k), "ES256")
	start(t, r)
	const untyped = "none"
	for _, c := range []struct {
		typ  string // as JSON
		read []Kind
	}{
		{untyped, []Kind{AccessToken, Revocable, LogoutToken, Assertion}},
		{`"JWT"`, []Kind{AccessToken, Revocable, LogoutToken, Assertion}},
		{`"jwt"`, []Kind{AccessToken, Revocable, LogoutToken, Assertion}},
		{`"application/jwt"`, []Kind{AccessToken, Revocable, LogoutToken, Assertion}},
		{`"at+jwt"`, []Kind{AccessToken, Revocable}},
		{`"AT+JWT"`, []Kind{AccessToken, Revocable}},
		{`"application/at+jwt"`, []Kind{AccessToken, Revocable}},
		{`"rt+jwt"`, []Kind{Revocable}},
		{`"Refresh+JWT"`, []Kind{Revocable}},
		{`"logout+jwt"`, []Kind{LogoutToken}},
		{`"Logout+JWT"`, []Kind{LogoutToken}},
		{`"application/logout+jwt"`, []Kind{LogoutToken}},
		{`"secevent+jwt"`, []Kind{SecurityEvent}},
		{`"application/secevent+jwt"`, []Kind{SecurityEvent}},
		{`"client-authentication+jwt"`, []Kind{Assertion}},
		{`""`, nil},
		{`"application/"`, nil},
		{`"application/application/jwt"`, nil},
		{`"text/jwt"`, nil},
		{`" jwt"`, nil},
		{`"id+jwt"`, nil},
		{`"dpop+jwt"`, nil},
		{`"\u017fecevent+jwt"`, nil}, // a long s, which is an s to some
	} {
		head := `{"alg":"ES256","kid":"e1","typ":` + c.typ + `}`
		if c.typ == untyped {
			head = `{"alg":"ES256","kid":"e1"}`
		}
		for kind, name := range kindNames {
			v, err := r.ReadAs(t.Context(), Kind(kind), k.Sign(head, toJSON(goodClaims(nil))))
			switch {
			case slices.Contains(c.read, Kind(kind)):
				if err != nil || v.Text("jti") != "t-1" {
					t.Errorf("typ %s as %s: %v", c.typ, name, err)
				}
			case v != nil || !errors.Is(err, ErrType):
				t.Errorf("typ %s as %s: got %v; want it refused for its type", c.typ, name, err)
			}
		}
		for _, odd := range []string{`null`, `1`, `["jwt"]`} {
			for kind, name := range kindNames {
				if _, err := r.ReadAs(t.Context(), Kind(kind), k.Sign(`{"alg":"ES256","kid":"e1","typ":`+odd+`}`, toJSON(goodClaims(nil)))); !errors.Is(err, ErrMalformed) {
					t.Errorf("typ %s as %s: %v", odd, name, err)
				}
			}
		}
	}
}

// TestKindsExpire: only a security event does without exp, and what is not a time is
// one for none.
func TestKindsExpire(t *testing.T) {
	k := es256()
	r := newReader(t, tokentest.NewIdP(k), "ES256")
	start(t, r)
	typ := map[Kind]string{AccessToken: "at+jwt", Revocable: "rt+jwt", LogoutToken: "logout+jwt", SecurityEvent: "secevent+jwt", Assertion: "jwt"}
	for kind, name := range kindNames {
		read := func(payload string) (*Verified, error) {
			return r.ReadAs(t.Context(), Kind(kind), k.Sign(`{"alg":"ES256","kid":"e1","typ":"`+typ[Kind(kind)]+`"}`, payload))
		}
		good := toJSON(goodClaims(map[string]any{"exp": nil}))
		v, err := read(good)
		if Kind(kind) != SecurityEvent {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s without exp: %v", name, err)
			}
		} else if err != nil || !v.Expires.IsZero() || v.ValidAt(time.Now()) == nil {
			t.Errorf("%s without exp: %v; it must be read, and be no access token", name, err)
		}
		for _, exp := range []string{`null`, `0`, `-1`, `"4102444800"`, `true`, `253402300800`} {
			if _, err := read(strings.TrimSuffix(good, "}") + `,"exp":` + exp + `}`); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s with exp %s: %v", name, exp, err)
			}
		}
		if v, err := read(toJSON(goodClaims(nil))); err != nil || v.Expires.IsZero() {
			t.Errorf("%s with exp: %v", name, err)
		}
	}
}

// TestReadIsForAccessTokens: the short name is never the lenient one.
func TestReadIsForAccessTokens(t *testing.T) {
	k := es256()
	r := newReader(t, tokentest.NewIdP(k), "ES256")
	start(t, r)
	for _, typ := range []string{"logout+jwt", "secevent+jwt", "client-authentication+jwt"} {
		if _, err := r.Read(t.Context(), k.Sign(`{"alg":"ES256","kid":"e1","typ":"`+typ+`"}`, toJSON(goodClaims(nil)))); !errors.Is(err, ErrType) {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
}

// TestKeysAtHand: a document that is given is never fetched, and its keys never leave.
func TestKeysAtHand(t *testing.T) {
	idp := tokentest.NewIdP()
	idp.AnswerFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("nobody was to ask") })
	k := es256()
	r, err := NewReader([]Issuer{{Issuer: issuerA, JWKS: tokentest.Document(k), Algorithms: []string{"ES256"}}}, idp.Client(), silent)
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, r, func(t *testing.T) {
		var last *Verified
		for range 3 {
			v, err := r.Read(t.Context(), k.Token(goodClaims(nil)))
			if err != nil || v.KeyRetired() {
				t.Fatalf("got %v", err)
			}
			if last != nil && last.KeyRetired() {
				t.Fatal("a key that is still in the document was withdrawn")
			}
			if _, err := r.Read(t.Context(), es256New().Token(goodClaims(nil))); !errors.Is(err, ErrUnknownKey) {
				t.Fatalf("another key: %v", err)
			}
			last = v
			time.Sleep(2 * refreshEvery)
			synctest.Wait()
		}
		if err := r.Ready(); err != nil {
			t.Error(err)
		}
	})
	if n := idp.Fetches.Load(); n != 0 {
		t.Errorf("%d fetches", n)
	}
}

func TestKeysAtHandAreChecked(t *testing.T) {
	document := tokentest.Document(es256())
	for name, c := range map[string]struct {
		uri   string
		jwks  []byte
		field string
	}{
		"beside a URI":  {jwksURI, document, "JWKS"},
		"neither":       {"", nil, "JWKSURI"},
		"empty":         {"", []byte{}, "JWKS"},
		"no keys":       {"", []byte(`{"keys":[]}`), "JWKS"},
		"not JSON":      {"", []byte(`keys`), "JWKS"},
		"trailing":      {"", append(slices.Clone(document), "{}"...), "JWKS"},
		"a secret":      {"", []byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldA"}]}`), "JWKS"},
		"keys as a map": {"", []byte(`{"keys":{}}`), "JWKS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: c.uri, JWKS: c.jwks, Algorithms: []string{"ES256"}}}, nil, silent)
			if e, ok := errors.AsType[*ConfigError](err); !ok || e.Field != c.field {
				t.Fatalf("got %v; want a mistake in %s", err, c.field)
			}
			if strings.ContainsAny(fmt.Sprint(err), "\r\n") || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("got %v", err)
			}
		})
	}
}
