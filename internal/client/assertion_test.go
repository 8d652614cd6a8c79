package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
)

func TestAssertionMustSayWhatTheStandardsWant(t *testing.T) {
	r := registry(t, Options{}, withKeys("svc", es256()), withKeys("svc2", es256()), Config{ID: "web", SecretSHA256: hash("x")})
	start(t, r)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	header := func(h string) string { return es256().Sign(h, marshal(claims(nil))) }
	good := assertion(es256(), nil)
	for name, c := range map[string]struct {
		assertion string
		logins    []Login
		ok        bool
	}{
		"as it should be":               {good, nil, true},
		"its id beside it":              {good, []Login{{ID: "svc"}}, true},
		"another's id beside it":        {good, []Login{{ID: "svc2"}}, false},
		"nobody's id beside it":         {good, []Login{{ID: ""}}, false},
		"two ids beside it":             {good, []Login{{ID: "svc"}, {ID: "svc2"}}, false},
		"no assertion":                  {"", nil, false},
		"an id and no assertion":        {"", []Login{{ID: "svc"}}, false},
		"for others too":                {assertion(es256(), map[string]any{"aud": []string{"x", audience}}), nil, false},
		"for us twice":                  {assertion(es256(), map[string]any{"aud": []string{audience, audience}}), nil, true},
		"the other name":                {assertion(es256(), map[string]any{"aud": "https://revcast.example"}), nil, true},
		"another audience":              {assertion(es256(), map[string]any{"aud": audience + "/"}), nil, false},
		"no audience":                   {assertion(es256(), map[string]any{"aud": nil}), nil, false},
		"no audiences":                  {assertion(es256(), map[string]any{"aud": []string{}}), nil, false},
		"no sub":                        {assertion(es256(), map[string]any{"sub": nil}), nil, false},
		"another's sub":                 {assertion(es256(), map[string]any{"sub": "svc2"}), nil, false},
		"no iss":                        {assertion(es256(), map[string]any{"iss": nil}), nil, false},
		"another's iss":                 {assertion(es256(), map[string]any{"iss": "svc2"}), nil, false},
		"nobody's iss":                  {assertion(es256(), map[string]any{"iss": "who", "sub": "who"}), nil, false},
		"of a client with a secret":     {assertion(es256(), map[string]any{"iss": "web", "sub": "web"}), nil, false},
		"no jti":                        {assertion(es256(), map[string]any{"jti": nil}), nil, false},
		"an empty jti":                  {assertion(es256(), map[string]any{"jti": ""}), nil, false},
		"no exp":                        {assertion(es256(), map[string]any{"exp": nil}), nil, false},
		"expired, by the leeway":        {assertion(es256(), map[string]any{"exp": at(-29 * time.Second)}), nil, true},
		"expired":                       {assertion(es256(), map[string]any{"exp": at(-31 * time.Second)}), nil, false},
		"ten minutes":                   {assertion(es256(), map[string]any{"exp": at(10 * time.Minute)}), nil, true},
		"too long":                      {assertion(es256(), map[string]any{"exp": at(10*time.Minute + 31*time.Second)}), nil, false},
		"no iat":                        {assertion(es256(), map[string]any{"iat": nil}), nil, true},
		"an old iat":                    {assertion(es256(), map[string]any{"iat": at(-time.Hour)}), nil, true},
		"iat to come, by the leeway":    {assertion(es256(), map[string]any{"iat": at(29 * time.Second)}), nil, true},
		"iat to come":                   {assertion(es256(), map[string]any{"iat": at(32 * time.Second)}), nil, false},
		"nbf to come, by the leeway":    {assertion(es256(), map[string]any{"nbf": at(29 * time.Second)}), nil, true},
		"nbf to come":                   {assertion(es256(), map[string]any{"nbf": at(32 * time.Second)}), nil, false},
		"another key":                   {assertion(other(), nil), nil, false},
		"another key of that name":      {(&tokentest.Key{KID: "e1", Alg: "ES256", Private: other().Private}).Sign(`{"alg":"ES256","kid":"e1"}`, marshal(claims(nil))), nil, false},
		"no kid":                        {header(`{"alg":"ES256"}`), nil, true},
		"typed":                         {header(`{"alg":"ES256","kid":"e1","typ":"client-authentication+jwt"}`), nil, true},
		"an access token":               {header(`{"alg":"ES256","kid":"e1","typ":"at+jwt"}`), nil, false},
		"a security event":              {header(`{"alg":"ES256","kid":"e1","typ":"secevent+jwt"}`), nil, false},
		"alg none":                      {header(`{"alg":"none"}`), nil, false},
		"a shared secret":               {header(`{"alg":"HS256","kid":"e1"}`), nil, false},
		"an extension":                  {header(`{"alg":"ES256","kid":"e1","crit":["x"]}`), nil, false},
		"another algorithm of that key": {header(`{"alg":"RS256","kid":"e1"}`), nil, false},
		"something behind it":           {good + ".", nil, false},
		"iss twice":                     {es256().Sign(`{"alg":"ES256","kid":"e1"}`, `{"iss":"svc",`+marshal(claims(nil))[1:]), nil, false},
	} {
		r.current.Load().byID["svc"].account.replays = token.NewReplay(maxReplays)
		got, err := r.Authenticate(t.Context(), Credentials{Method: PrivateKeyJWT, Assertion: c.assertion, Logins: c.logins}, now)
		if c.ok && (err != nil || got.ID() != "svc") {
			t.Errorf("%s: %v", name, err)
		}
		if !c.ok && (err != ErrFailed || got != nil) { // the very same error for every reason
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestAssertionAlgorithms(t *testing.T) {
	rs512 := tokentest.NewKey("r5", "RS512")
	rsa := withKeys("svc", rs256(), rs512)
	chosen := rsa
	chosen.ID, chosen.Algorithms = "chosen", []string{"RS512"}
	r := registry(t, Options{}, rsa, chosen, withKeys("ec", es256()), withKeys("pss", ps256()), withKeys("ed", eddsa()))
	start(t, r)
	for _, c := range []struct {
		id  string
		key *tokentest.Key
		ok  bool
	}{
		{"svc", rs256(), true}, {"ec", es256(), true}, {"pss", ps256(), true}, {"ed", eddsa(), true},
		{"svc", rs512, false}, {"chosen", rs512, true}, {"chosen", rs256(), false},
	} {
		_, err := r.Authenticate(t.Context(), byAssertion(assertion(c.key, map[string]any{"iss": c.id, "sub": c.id})), now)
		if c.ok != (err == nil) {
			t.Errorf("%s of %s: %v", c.key.Alg, c.id, err)
		}
	}
}

func TestAssertionIsTakenOnce(t *testing.T) {
	r := registry(t, Options{}, withKeys("svc", es256()), withKeys("svc2", es256()))
	start(t, r)
	try := func(changes map[string]any, now time.Time) error {
		_, err := r.Authenticate(t.Context(), byAssertion(assertion(es256(), changes)), now)
		return err
	}
	// What is refused uses nothing up.
	if err := try(map[string]any{"aud": "x"}, now); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if err := try(nil, now); err != nil {
		t.Fatalf("after one for another audience: %v", err)
	}
	if err := try(nil, now); !errors.Is(err, ErrFailed) {
		t.Errorf("again: %v", err)
	}
	if err := try(map[string]any{"exp": now.Add(5 * time.Minute).Unix()}, now); !errors.Is(err, ErrFailed) {
		t.Errorf("another with the same jti: %v", err)
	}
	// To its last moment.
	if err := try(nil, now.Add(89*time.Second)); !errors.Is(err, ErrFailed) {
		t.Errorf("again, just before it expires: %v", err)
	}
	if err := try(map[string]any{"jti": "j-2"}, now); err != nil {
		t.Errorf("another jti: %v", err)
	}
	if err := try(map[string]any{"iss": "svc2", "sub": "svc2"}, now); err != nil {
		t.Errorf("the same jti of another client: %v", err)
	}
	later := now.Add(10 * time.Minute)
	if err := try(map[string]any{"exp": later.Unix()}, later); err != nil {
		t.Errorf("the same jti when the first has expired: %v", err)
	}
	// Nothing is forgotten to make room.
	r.current.Load().byID["svc"].account.replays = token.NewReplay(1)
	for _, c := range []struct {
		jti  string
		want error
	}{{"j-2", nil}, {"j-3", ErrUnavailable}, {"j-2", ErrFailed}} {
		if err := try(map[string]any{"jti": c.jti, "exp": later.Unix()}, later); !errors.Is(err, c.want) {
			t.Errorf("%s, with too many: %v", c.jti, err)
		}
	}
}

// Of many at once that are the same, one is taken.
func TestAssertionIsTakenOnceAtOnce(t *testing.T) {
	r := registry(t, Options{}, withKeys("svc", es256()))
	start(t, r)
	a := byAssertion(assertion(es256(), nil))
	var taken sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := r.Authenticate(t.Context(), a, now); err == nil {
				taken.Store(i, true)
			}
		})
	}
	all.Wait()
	n := 0
	taken.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("taken %d times", n)
	}
}

func TestKeysThatCanNotBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idp := tokentest.NewIdP(es256())
		idp.Answer(http.StatusServiceUnavailable, "")
		r := registry(t, Options{HTTPClient: idp.Client()}, withURI("svc"))
		stop := tokentest.Run(t, r.Run)
		synctest.Wait()
		n := 0
		sign := func(k *tokentest.Key, kid string) error {
			n++
			header := `{"alg":"ES256","kid":"` + kid + `"}`
			if kid == "" {
				header = `{"alg":"ES256"}`
			}
			_, err := r.Authenticate(t.Context(), byAssertion(k.Sign(header, marshal(claims(map[string]any{"jti": fmt.Sprint("j-", n)})))), now)
			return err
		}
		if err := sign(es256(), "e1"); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrFailed) {
			t.Errorf("never loaded: %v", err)
		}
		idp.Serve(es256())
		time.Sleep(10 * time.Second) // of the bubble: the reader tries again by itself
		if err := sign(es256(), "e1"); err != nil {
			t.Errorf("loaded: %v", err)
		}
		// A new key is fetched when it is first named.
		time.Sleep(10 * time.Second)
		idp.Serve(es256(), other())
		if err := sign(other(), "e2"); err != nil {
			t.Errorf("a new key: %v", err)
		}
		// Too soon after that, whether there is another new one can't be known, and that
		// must not tell that there is a client.
		if err := sign(es256(), "e3"); !errors.Is(err, ErrFailed) || errors.Is(err, ErrUnavailable) {
			t.Errorf("an unknown key, too soon: %v", err)
		}
		if err := sign(other(), "e1"); !errors.Is(err, ErrFailed) {
			t.Errorf("a wrong signature: %v", err)
		}
		idp.Serve(es256())
		time.Sleep(10 * time.Second)
		if err := sign(other(), "e4"); !errors.Is(err, ErrFailed) {
			t.Errorf("a key that there is not: %v", err)
		}
		if err := sign(other(), ""); !errors.Is(err, ErrFailed) {
			t.Errorf("a wrong signature without a kid, too soon: %v", err)
		}
		stop()
	})
}

// Keys at hand don't change: what they can't verify is wrong, however soon after.
func TestKeysAtHandAreAllThereAre(t *testing.T) {
	r := registry(t, Options{}, withKeys("svc", es256()))
	unstarted := byAssertion(assertion(es256(), nil))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Authenticate(ended, unstarted, now); !errors.Is(err, ErrUnavailable) {
		t.Errorf("before Run: %v", err)
	}
	start(t, r)
	for range 3 {
		if _, err := r.Authenticate(t.Context(), byAssertion(assertion(other(), nil)), now); !errors.Is(err, ErrFailed) || errors.Is(err, ErrUnavailable) {
			t.Errorf("an unknown key: %v", err)
		}
	}
	if _, err := r.Authenticate(t.Context(), unstarted, now); err != nil {
		t.Error(err)
	}
}

// FuzzAssertion says what must hold of every assertion that is taken: the claims are
// signed as they are.
func FuzzAssertion(f *testing.F) {
	r := registry(f, Options{}, withKeys("svc", eddsa()), withKeys("svc2", es256()))
	start(f, r)
	const header = `{"alg":"EdDSA","kid":"d1"}`
	for _, changes := range []map[string]any{
		nil, {"iss": "svc2"}, {"sub": nil}, {"aud": []any{audience, 1}}, {"aud": []string{audience}}, {"exp": 9.2e18}, {"exp": "4102444800"},
		{"jti": 7}, {"jti": ""}, {"nbf": 1}, {"iat": 1}, {"JTI": "x"}, {"iss": "who", "sub": "who"},
	} {
		f.Add(header, marshal(claims(changes)))
	}
	f.Add(`{"alg":"EdDSA"}`, `{"iss":"svc","iss":"svc2"}`)
	f.Add(`{"alg":"none"}`, `null`)
	f.Add(`null`, `{}{}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		a := eddsa().Sign(header, payload)
		c := byAssertion(a)
		_ = r.Claimed(c)
		for _, changed := range []string{a[:len(a)-1], a[1:], a + "A"} {
			if _, err := r.Authenticate(t.Context(), byAssertion(changed), now); !errors.Is(err, ErrFailed) {
				t.Errorf("%q: %v", changed, err)
			}
		}
		got, err := r.Authenticate(t.Context(), c, now)
		if err != nil {
			if !errors.Is(err, ErrFailed) {
				t.Errorf("%q %q: %v", header, payload, err)
			}
			return
		}
		iss, _ := token.PeekIssuer(a)
		if alg := algorithmOf(a); got.ID() != "svc" || iss != "svc" || alg != "EdDSA" || r.Claimed(c) != "svc" {
			t.Errorf("%q %q: taken as %q's, and read as %q's by %q", header, payload, got.ID(), iss, alg)
		}
		if _, err := r.Authenticate(t.Context(), c, now); !errors.Is(err, ErrFailed) {
			t.Errorf("%q %q: taken twice: %v", header, payload, err)
		}
	})
}
