package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

func TestReplaceIsAllOrNothing(t *testing.T) {
	spa := Config{ID: "spa", Auth: []string{None}, AllowedOrigins: []string{"https://app.example"}}
	r := registry(t, Options{}, web(0, 0), spa)
	err := r.Replace([]Config{withKeys("svc", es256()), {ID: "web"}})
	if err == nil || !strings.HasPrefix(err.Error(), "clients[1].secret_sha256") {
		t.Errorf("error %v", err)
	}
	one(t, r, "web")
	if !r.AllowsOrigin("https://app.example") || !slices.Equal(r.Methods(), []string{SecretPost, None}) || len(r.accounts) != 2 {
		t.Error("a list that was refused changed something")
	}
	held := one(t, r, "web")
	if err := r.Replace([]Config{withKeys("svc", es256())}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authenticate(t.Context(), byName(SecretPost, "web", "x"), now); !errors.Is(err, ErrFailed) {
		t.Errorf("a client that is gone: %v", err)
	}
	if r.AllowsOrigin("https://app.example") || !slices.Equal(r.Methods(), []string{PrivateKeyJWT}) {
		t.Error("something of the old list is left")
	}
	// Its request goes on.
	if _, ok := held.Admit(now); !ok || held.ID() != "web" || !held.May(GrantOwn) {
		t.Error("a client that was held is of no use")
	}
	if release, _, ok := held.Reserve([]time.Time{now.Add(time.Hour)}, now); !ok {
		t.Error("a client that was held can't revoke")
	} else {
		release()
	}
	if err := r.Replace(nil); err != nil {
		t.Fatal(err)
	}
	if len(r.Methods()) != 0 {
		t.Errorf("methods %v of nobody", r.Methods())
	}
}

func TestReplaceKeepsWhatIsUsed(t *testing.T) {
	r := registry(t, Options{}, web(1, 2))
	who := one(t, r, "web")
	for range 2 {
		who.Admit(now)
	}
	release, _, _ := who.Reserve([]time.Time{now.Add(time.Hour), now.Add(2 * time.Hour)}, now)
	full := func(when string) {
		t.Helper()
		c := one(t, r, "web")
		if _, ok := c.Admit(now); ok {
			t.Errorf("%s: the rate is not kept", when)
		}
		if _, _, ok := c.Reserve([]time.Time{now.Add(time.Hour)}, now); ok {
			t.Errorf("%s: the count is not kept", when)
		}
	}
	for when, list := range map[string][]Config{
		"unchanged": {web(1, 2)}, "another rate": {web(0.5, 2)}, "fewer entries": {web(1, 1)}, "beside another": {{ID: "a", Auth: []string{None}}, web(1, 2)},
	} {
		if err := r.Replace(list); err != nil {
			t.Fatal(err)
		}
		full(when)
	}
	// Being away for a moment rids nobody of anything.
	if err := errors.Join(r.Replace(nil), r.Replace([]Config{web(1, 2)})); err != nil {
		t.Fatal(err)
	}
	full("back again")
	// Limits that were raised hold at once.
	if err := r.Replace([]Config{web(1000, 3)}); err != nil {
		t.Fatal(err)
	}
	c := one(t, r, "web")
	if _, ok := c.Admit(now.Add(10 * time.Millisecond)); !ok {
		t.Error("a higher rate doesn't hold")
	}
	if _, _, ok := c.Reserve([]time.Time{now.Add(time.Hour)}, now); !ok {
		t.Error("a higher quota doesn't hold")
	}
	release() // from before: the account is the same
	if got := c.account.outstanding(now); got != 1 {
		t.Errorf("%d outstanding after the release", got)
	}
}

func TestReplaceKeepsLoadedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idp := tokentest.NewIdP(es256())
		r := registry(t, Options{HTTPClient: idp.Client()}, withURI("svc"))
		stop := tokentest.Run(t, r.Run)
		synctest.Wait()
		n := 0
		try := func(k *tokentest.Key, id string) error {
			n++
			_, err := r.Authenticate(t.Context(), byAssertion(assertion(k, map[string]any{"iss": id, "sub": id, "jti": fmt.Sprint(n)})), now)
			return err
		}
		if err := try(es256(), "svc"); err != nil {
			t.Fatal(err)
		}
		replay := byAssertion(assertion(es256(), nil))
		if _, err := r.Authenticate(t.Context(), replay, now); err != nil {
			t.Fatal(err)
		}
		idp.Answer(http.StatusServiceUnavailable, "")
		// Grants, algorithms, a secret: none of them is where keys come from.
		changed := withURI("svc")
		changed.Auth, changed.SecretSHA256 = append(changed.Auth, SecretPost), hash("x")
		changed.Revoke, changed.Algorithms = []string{GrantAny}, []string{"ES256", "ES512"}
		if err := r.Replace([]Config{changed, withKeys("new", other())}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := try(es256(), "svc"); err != nil {
			t.Errorf("loaded keys are gone: %v", err)
		}
		if _, err := r.Authenticate(t.Context(), replay, now); !errors.Is(err, ErrFailed) {
			t.Errorf("replayed after the list was replaced: %v", err)
		}
		if err := try(other(), "new"); err != nil {
			t.Errorf("keys of a client that came: %v", err)
		}
		if err := r.Replace([]Config{withURI("svc")}); err != nil {
			t.Fatal(err)
		}
		if err := try(other(), "new"); !errors.Is(err, ErrFailed) {
			t.Errorf("a client that is gone: %v", err)
		}
		changed.Algorithms = []string{"RS256"}
		if err := r.Replace([]Config{changed}); err != nil {
			t.Fatal(err)
		}
		if err := try(es256(), "svc"); !errors.Is(err, ErrFailed) {
			t.Errorf("an algorithm that it no longer has: %v", err)
		}
		// Another place is another source, and what the old one said counts no more.
		if err := r.Replace([]Config{withKeys("svc", other())}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := try(es256(), "svc"); !errors.Is(err, ErrFailed) {
			t.Errorf("a key from where it was: %v", err)
		}
		if err := try(other(), "svc"); err != nil {
			t.Errorf("a key from where it is: %v", err)
		}
		// So are other keys at hand.
		if err := r.Replace([]Config{withKeys("svc", eddsa())}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := try(other(), "svc"); !errors.Is(err, ErrFailed) {
			t.Errorf("a key that was at hand: %v", err)
		}
		if err := try(eddsa(), "svc"); err != nil {
			t.Errorf("a key at hand: %v", err)
		}
		fetches := idp.Fetches.Load()
		time.Sleep(time.Hour)
		if got := idp.Fetches.Load(); got != fetches {
			t.Errorf("%d fetches from where nobody's keys are", got-fetches)
		}
		stop()
		if err := r.Replace([]Config{withKeys("late", es256())}); err != nil { // starts nothing
			t.Fatal(err)
		}
	})
}

func TestReplaceUnderRequests(t *testing.T) {
	r := registry(t, Options{}, web(1e6, 0), withKeys("svc", eddsa()))
	start(t, r)
	var all sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				who, err := r.Authenticate(t.Context(), byName(SecretPost, "web", "x"), now)
				if err != nil {
					t.Errorf("a client that stays: %v", err)
					return
				}
				who.Admit(now)
				release, _, ok := who.Reserve([]time.Time{now.Add(time.Duration(n) * time.Second)}, now)
				if !ok {
					t.Error("refused")
					return
				}
				release()
				a := assertion(eddsa(), map[string]any{"jti": fmt.Sprint(i, n)})
				if _, err := r.Authenticate(t.Context(), byAssertion(a), now); err != nil {
					t.Errorf("an assertion of a client that stays: %v", err)
					return
				}
				_, _ = r.Authenticate(t.Context(), byName(None, "spa", ""), now)
				r.AllowsOrigin("https://app.example")
				r.Methods()
				r.Claimed(byAssertion(a))
				for range r.Outstanding {
				}
			}
		})
	}
	for i := range 200 {
		list := []Config{web(1e6-float64(i%2), 0), withKeys("svc", eddsa())}
		if i%3 == 0 {
			list = append(list, Config{ID: "spa", Auth: []string{None}, AllowedOrigins: []string{"https://app.example"}}, withKeys("other", es256()))
		}
		if err := r.Replace(list); err != nil {
			t.Error(err)
		}
		if err := r.SaveOutstanding(io.Discard); err != nil {
			t.Error(err)
		}
	}
	close(done)
	all.Wait()
	for id, n := range r.Outstanding {
		if n != 0 {
			t.Errorf("%d outstanding of %s when all is given back", n, id)
		}
	}
}

func TestOutstandingStopsWhereAsked(t *testing.T) {
	r := registry(t, Options{}, Config{ID: "b", Auth: []string{None}}, Config{ID: "a", Auth: []string{None}}, Config{ID: "c", Auth: []string{None}})
	var got []string
	for id := range r.Outstanding {
		if got = append(got, id); id == "b" {
			break
		}
	}
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v", got)
	}
}

// Who goes on with one request is asked for again.
func TestStill(t *testing.T) {
	web := Config{ID: "web", SecretSHA256: hash("x"), Revoke: []string{GrantSubject}}
	r := registry(t, Options{}, web)
	who, err := r.Authenticate(t.Context(), Credentials{Method: SecretBasic, Logins: []Login{{"web", "x"}}}, now)
	if err != nil {
		t.Fatal(err)
	}
	other := Config{ID: "other", SecretSHA256: hash("x")}
	for _, c := range []struct {
		list []Config
		want bool
	}{
		{[]Config{web}, true},
		{[]Config{other, web}, true},
		{[]Config{{ID: "web", SecretSHA256: hash("x"), Revoke: []string{GrantSubject}, Rate: 7}}, true},
		{[]Config{other}, false},
		{nil, false},
		{[]Config{{ID: "web", SecretSHA256: hash("y"), Revoke: []string{GrantSubject}}}, false},
		{[]Config{{ID: "web", SecretSHA256: hash("x")}}, false},
		{[]Config{{ID: "web", SecretSHA256: hash("x"), Revoke: []string{GrantSubject}, Auth: []string{SecretPost}}}, false},
	} {
		if err := r.Replace(c.list); err != nil {
			t.Fatal(err)
		}
		if got := r.Still(who); got != c.want {
			t.Errorf("%+v: %v", c.list, got)
		}
	}
}
