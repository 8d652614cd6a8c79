package authority

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

type values = map[string]any

// issued makes a token of the issuer by when it was issued, from now, and how long it
// has left. An iat of 0 is now; noIAT leaves it out.
func issued(typ string, iat, left time.Duration, v values) *token.Verified {
	made := &token.Verified{
		Issuer: issuer, Type: typ, KeyID: "k1", IssuedAt: now.Add(iat).Truncate(time.Second), Expires: now.Add(left).Truncate(time.Second),
		Values: v, Fingerprint: denylist.FingerprintOf(fmt.Sprint("header.", typ, iat, left, v)),
	}
	if iat == noIAT {
		made.IssuedAt = time.Time{}
	}
	return made
}

const noIAT = time.Duration(-1 << 63)

// told spells a revocation, its times from now.
func told(r denylist.Revocation) string {
	at := func(t time.Time) string { return fmt.Sprint(t.Sub(now.Truncate(time.Second))) }
	s := r.Selector.String()
	if !r.IssuedBefore.IsZero() {
		s += " before " + at(r.IssuedBefore)
	}
	s += " until " + at(r.Expires)
	if r.ExactExpiry {
		s += " exactly"
	}
	return s
}

// listOf is a list as a feed would make it, complete as of now.
func listOf(rs ...denylist.Revocation) *denylist.List {
	list := denylist.New()
	for _, r := range rs {
		list.Add(r.Entry())
	}
	list.Advance(now)
	return list
}

func denies(t *testing.T, list *denylist.List, v *token.Verified) bool {
	t.Helper()
	prepared, err := v.DenylistToken()
	if err != nil {
		t.Fatal(err)
	}
	return list.CheckToken(prepared, now).Status == denylist.Revoked
}

// What is over when a token is presented, and that verifiers find just that.
func TestOver(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	const skew = 90 * time.Second
	alices := func(more values) values {
		v := values{"sub": "alice", "client_id": "c"}
		for name, value := range more {
			if v[name] = value; value == nil {
				delete(v, name)
			}
		}
		return v
	}
	access := func(iat time.Duration, more values) *token.Verified { return issued("at+jwt", iat, hour, alices(more)) }
	refresh := func(left time.Duration, more values) *token.Verified {
		return issued("rt+jwt", -time.Minute, left, alices(more))
	}
	cases := []struct {
		name   string
		issuer Issuer
		grant  string // "": own
		user   bool
		hint   string
		v      *token.Verified
		want   kind     // of a refusal
		stored []string // otherwise
		dies   []*token.Verified
		lives  []*token.Verified
	}{
		// EdgeTag: a token stands for its user.
		{name: "user: all that the client has of the user so far", user: true, v: access(0, values{"jti": "j"}),
			stored: []string{`{client_id="c" sub="alice"} before 0s until 1h0m0s`},
			dies:   []*token.Verified{access(-hour, nil), access(0, values{"jti": "another"}), access(noIAT, nil), refresh(30*day, nil)},
			lives: []*token.Verified{access(time.Second, nil), access(0, values{"sub": "bob"}), access(0, values{"client_id": "d"}),
				access(0, values{"client_id": nil, "azp": "c"})}},
		{name: "user: by azp", user: true, v: access(0, values{"client_id": nil, "azp": "c"}),
			stored: []string{`{azp="c" sub="alice"} before 0s until 1h0m0s`},
			lives:  []*token.Verified{access(0, nil)}},
		{name: "user: by a claim of the issuer's own", issuer: Issuer{ClientClaims: []string{"app"}}, user: true, v: access(0, values{"client_id": "other", "app": "c"}),
			stored: []string{`{app="c" sub="alice"} before 0s until 1h0m0s`},
			lives:  []*token.Verified{access(0, nil)}},
		{name: "user: nobody's token, and the caller may revoke any", grant: client.GrantAny, user: true, v: access(0, values{"client_id": nil}),
			stored: []string{`{sub="alice"} before 0s until 1h0m0s`},
			dies:   []*token.Verified{access(0, values{"client_id": "d"}), access(0, nil)}},
		{name: "user: another client's, and the caller may revoke any: not the caller's own", grant: client.GrantAny, user: true, v: access(0, values{"client_id": "d"}),
			stored: []string{`{client_id="d" sub="alice"} before 0s until 1h0m0s`},
			lives:  []*token.Verified{access(0, nil)}},
		{name: "user: nobody's token", user: true, v: access(0, values{"client_id": nil}), want: notOwner},
		{name: "user: another client's", user: true, v: access(0, values{"client_id": "d"}), want: notOwner},
		{name: "user: another client's by its first claim", user: true, v: access(0, values{"client_id": "d", "azp": "c"}), want: notOwner},
		{name: "user: no sub", user: true, v: access(0, values{"sub": nil, "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`},
			lives:  []*token.Verified{access(0, nil)}},
		{name: "user: an empty sub", user: true, v: access(0, values{"sub": "", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`}},
		{name: "user: the issuer's clock is ahead", user: true, v: access(30*time.Second, values{"jti": "j"}),
			stored: []string{`{client_id="c" sub="alice"} before 30s until 1h0m30s`},
			dies:   []*token.Verified{access(10*time.Second, nil)},
			lives:  []*token.Verified{access(31*time.Second, nil)}},
		{name: "user: as far ahead as any verifier's leeway", user: true, v: access(denylist.MaxLeeway, values{"jti": "j"}),
			stored: []string{`{client_id="c" sub="alice"} before 2m0s until 1h2m0s`},
			dies:   []*token.Verified{access(0, nil)}},
		{name: "user: further ahead than any verifier accepts", user: true, v: issued("at+jwt", 30*time.Minute, hour, alices(values{"jti": "j"})),
			stored: []string{`{client_id="c" sub="alice"} before 0s until 1h0m0s`, `{jti="j"} until 1h0m0s exactly`},
			dies:   []*token.Verified{access(0, nil)},
			lives:  []*token.Verified{access(10*time.Second, nil)}},
		{name: "user: ahead by more than the skew", issuer: Issuer{ClockSkew: skew}, user: true, v: access(skew+30*time.Second, nil),
			stored: []string{`{client_id="c" sub="alice"} before 2m0s until 1h2m0s`}},
		{name: "user: almost expired", user: true, v: issued("at+jwt", -hour, -denylist.Grace+2*time.Second, alices(nil)),
			stored: []string{`{client_id="c" sub="alice"} before 0s until 1h0m0s`}},
		{name: "user: expired", user: true, v: issued("at+jwt", -hour, -denylist.Grace, alices(nil)), want: nothing},
		{name: "user: by the user's refresh token", user: true, v: refresh(30*day, nil),
			stored: []string{`{client_id="c" sub="alice"} before 0s until 1h0m0s`}},

		// What a hint or a type makes of a token.
		{name: "an access token says so: the hint is wrong", hint: "refresh_token", v: access(0, values{"jti": "j", "sid": "s"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`},
			lives:  []*token.Verified{access(0, values{"sid": "s"})}},
		{name: "rt+jwt needs no hint", v: refresh(hour, values{"jti": "j", "sid": "s"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`},
			dies:   []*token.Verified{access(0, values{"sid": "s"}), access(-hour, values{"sid": "s", "sub": "bob"})},
			lives:  []*token.Verified{access(0, nil), access(0, values{"sid": "s", "client_id": "d"}), access(time.Second, values{"sid": "s"})}},
		{name: "rt+jwt, whatever the hint says", hint: "access_token", v: refresh(hour, values{"sid": "s", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "refresh+jwt", v: issued("refresh+jwt", 0, hour, alices(values{"sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "typ Refresh among the claims", v: issued("jwt", 0, hour, alices(values{"typ": "Refresh", "sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "typ Bearer among the claims", v: issued("jwt", 0, hour, alices(values{"typ": "Bearer", "sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`}},
		{name: "of any type, and hinted", hint: "refresh_token", v: issued("", 0, hour, alices(values{"sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "of any type, and another hint", hint: "refresh", v: issued("", 0, hour, alices(values{"sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`}},

		// What links a refresh token to its access tokens.
		{name: "refresh: another client's", v: refresh(hour, values{"client_id": "d", "sid": "s"}), want: notOwner},
		{name: "refresh: nobody's, and the caller may revoke any", grant: client.GrantAny, v: refresh(hour, values{"client_id": nil, "sid": "s", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{sid="s"} before 0s until 1h0m0s`}},
		{name: "refresh: the first claim that it has", issuer: Issuer{GrantClaims: []string{"grant_id", "sid"}}, v: refresh(hour, values{"grant_id": "g", "sid": "s", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" grant_id="g"} before 0s until 1h0m0s`},
			lives:  []*token.Verified{access(0, values{"sid": "s"})}},
		{name: "refresh: the second, where it lacks the first", issuer: Issuer{GrantClaims: []string{"grant_id", "sid"}}, v: refresh(hour, values{"sid": "s", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "refresh: a number", issuer: Issuer{GrantClaims: []string{"grant_id"}}, v: refresh(hour, values{"grant_id": 7.0, "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" grant_id="7"} before 0s until 1h0m0s`},
			dies:   []*token.Verified{access(0, values{"grant_id": 7.0})}},
		{name: "refresh: longer than access tokens live", v: refresh(30*day, values{"sid": "s", "jti": "j"}),
			stored: []string{`{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "refresh: longer, without a link", v: refresh(30*day, values{"jti": "j"}), want: unsupported},
		{name: "refresh: longer, with an empty link", v: refresh(30*day, values{"sid": ""}), want: unsupported},
		{name: "refresh: longer, with a link that is no one value", issuer: Issuer{GrantClaims: []string{"g"}}, v: refresh(30*day, values{"g": []any{"a", "b"}}), want: unsupported},
		{name: "refresh: no link, but it may be taken itself", v: refresh(hour, values{"jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`}},
		{name: "refresh: the issuer's clock is ahead", v: issued("rt+jwt", 100*time.Second, hour, alices(values{"sid": "s", "jti": "j"})),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 1m40s until 1h1m40s`}},
		{name: "refresh: skewed", issuer: Issuer{ClockSkew: skew}, v: refresh(hour, values{"sid": "s", "jti": "j"}),
			stored: []string{`{jti="j"} until 1h0m0s exactly`, `{client_id="c" sid="s"} before 1m30s until 1h1m30s`},
			dies:   []*token.Verified{access(skew, values{"sid": "s"})}},

		// What is no more than called a refresh token may be taken for an access token, now
		// or later: then it must not be left out.
		{name: "hinted: lives longer by its own account", hint: "refresh_token", v: issued("jwt", 0, 30*day, alices(values{"sid": "s"})),
			stored: []string{`{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "hinted: without iat it gets younger", hint: "refresh_token", v: issued("jwt", noIAT, 30*day, alices(values{"sid": "s"})), want: badRequest},
		{name: "hinted: issued in the future", hint: "refresh_token", v: issued("", 30*day, 30*day+hour, alices(values{"sid": "s"})), want: badRequest},
		{name: "typ Refresh among the claims, without iat", v: issued("jwt", noIAT, 30*day, alices(values{"typ": "Refresh", "sid": "s"})), want: badRequest},
		{name: "rt+jwt without iat", v: issued("rt+jwt", noIAT, 30*day, alices(values{"sid": "s"})),
			stored: []string{`{client_id="c" sid="s"} before 0s until 1h0m0s`}},
		{name: "an access token that lives longer", v: issued("at+jwt", 0, 30*day, alices(values{"sid": "s"})), want: badRequest},
		{name: "hinted, an access token that lives longer", hint: "refresh_token", v: issued("at+jwt", 0, 30*day, alices(values{"sid": "s"})), want: badRequest},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.issuer.Issuer, c.issuer.MaxTokenLifetime = issuer, hour
			all, err := checkIssuers([]Issuer{c.issuer})
			if err != nil {
				t.Fatal(err)
			}
			rs, o, ok := all[issuer].over(someone(t, cmp.Or(c.grant, client.GrantOwn)), command{user: c.user, hint: c.hint}, c.v, now)
			if ok != (c.want == 0) || o.kind != c.want {
				t.Fatalf("%v, %+v", rs, o)
			}
			var stored []string
			for _, r := range rs {
				stored = append(stored, told(r))
				if err := r.Validate(); err != nil {
					t.Error(err)
				}
				if latest := max(hour+denylist.MaxLeeway+c.issuer.ClockSkew, 0); r.Expires.Sub(now) > latest {
					t.Errorf("lives until %s", r.Expires)
				}
			}
			if !slices.Equal(stored, c.stored) {
				t.Fatalf("stored %q\n  want %q", stored, c.stored)
			}
			if !ok {
				return
			}
			list := listOf(rs...)
			acceptable := c.v.Type != "rt+jwt" && c.v.Expires.Sub(now) <= hour+2*denylist.MaxLeeway
			if acceptable && !denies(t, list, c.v) {
				t.Error("the presented token is not denied")
			}
			for _, v := range c.dies {
				if !denies(t, list, v) {
					t.Errorf("not denied: %v issued %s", v.Values, v.IssuedAt)
				}
			}
			for _, v := range c.lives {
				if denies(t, list, v) {
					t.Errorf("denied: %v issued %s", v.Values, v.IssuedAt)
				}
			}
		})
	}
}

// A claim that no selector finds tokens by would make a revocation that denies nothing.
func TestDurableClaimsOfIssuersCanBeSelected(t *testing.T) {
	for _, name := range []string{"", "iss", "exp", "iat", "nbf", "kid", "fingerprint", "a\x00b", strings.Repeat("x", denylist.MaxNameSize+1)} {
		if _, err := checkIssuers([]Issuer{{Issuer: issuer, ClientClaims: []string{"azp", name}}}); err == nil || !strings.HasPrefix(err.Error(), "issuers[0].client_claims") {
			t.Errorf("client_claims %.20q: %v", name, err)
		}
		if _, err := checkIssuers([]Issuer{{Issuer: issuer, GrantClaims: []string{"sid", name}}}); err == nil || !strings.HasPrefix(err.Error(), "issuers[0].grant_claims") {
			t.Errorf("grant_claims %.20q: %v", name, err)
		}
	}
	if _, err := checkIssuers([]Issuer{{Issuer: issuer, ClockSkew: denylist.MaxLeeway + 1}}); err == nil || !strings.HasPrefix(err.Error(), "issuers[0].clock_skew") {
		t.Error(err)
	}
}

// With a skew of what the issuer's clock is ahead, none of the tokens issued so far
// escapes; the price is that those of a sign-in within the skew fall too. Without it,
// it is the other way round. What a caller says itself is taken as it is.
func TestFinalWithClockSkew(t *testing.T) {
	const ahead = 45 * time.Second // the issuer's clock
	at := func(d time.Duration) *token.Verified {
		return issued("at+jwt", d, lifetime, values{"sub": "alice", "client_id": "web", "jti": fmt.Sprint(d), "sid": "s"})
	}
	before, after := at(ahead-time.Second), at(ahead+10*time.Second) // signed in again ten seconds later
	for _, c := range []struct {
		name         string
		skew         time.Duration
		request      *http.Request
		before       bool // denied
		after        bool
		issuedBefore time.Duration // of the answer, where it has one
	}{
		{"no skew, by selector", 0, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{"sub":"alice"}}`), false, false, 0},
		{"skew, by selector", ahead, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{"sub":"alice"}}`), true, false, ahead},
		{"more skew, by selector", denylist.MaxLeeway, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{"sub":"alice"}}`), true, true, denylist.MaxLeeway},
		{"said by the caller", denylist.MaxLeeway, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{"sub":"alice"},"issued_before":"2026-09-01T12:00:44Z"}`), true, false, 44 * time.Second},
		{"ahead of us by minute and skew", ahead, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{"sub":"alice"},"issued_before":"2026-09-01T12:01:45Z"}`), true, true, ahead + maxAhead},
		{"the whole issuer", ahead, postSelector(client.GrantAny, `{"issuer":"`+issuer+`","selector":{},"confirm":true}`), true, false, ahead},
		{"no skew, a user's old token", 0, speakers["edgetag"].request("web", webSecret, "old"), false, false, 0},
		{"no skew, a user's latest token", 0, speakers["edgetag"].request("web", webSecret, "latest"), true, false, 0},
		{"skew, a user's old token", ahead, speakers["edgetag"].request("web", webSecret, "old"), true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			a := newAuthority(t, log, func(config *Config) {
				config.Issuers[0].ClockSkew = c.skew
				config.Tokens = fakeTokens{
					"old":    func() (*token.Verified, error) { return at(-time.Minute), nil },
					"latest": func() (*token.Verified, error) { return before, nil },
				}
			})
			w := do(a, c.request)
			if w.Code != http.StatusOK {
				t.Fatal(w.Code, w.Body)
			}
			list := listOf(log.all()...)
			if got := denies(t, list, before); got != c.before {
				t.Errorf("issued before: denied %v, want %v", got, c.before)
			}
			if got := denies(t, list, after); got != c.after {
				t.Errorf("signed in again: denied %v, want %v", got, c.after)
			}
			if c.request.URL.Path != "/v1/revocations" {
				return
			}
			var answer struct {
				IssuedBefore time.Time `json:"issued_before"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.IssuedBefore.Sub(now.Truncate(time.Second)) != c.issuedBefore {
				t.Errorf("answer %s: %v", w.Body, err)
			}
		})
	}
}

// listed has a fakeLog tell the authority's list, as its own follower does.
func listed(log *fakeLog) func(*Config) {
	return func(c *Config) {
		c.List.Advance(now)
		log.append = func(_ context.Context, rs []denylist.Revocation) (uint64, error) {
			log.mu.Lock()
			defer log.mu.Unlock()
			if log.err != nil {
				return 0, log.err
			}
			log.stored = append(log.stored, rs...)
			for _, r := range rs {
				c.List.Add(r.Entry())
			}
			return uint64(len(log.stored)), nil
		}
	}
}

func TestOpaqueTokens(t *testing.T) {
	const secret = "mF_9.B5f-4.1JqM.x"
	on := func(o Opaque) func(*Config) {
		return func(c *Config) { c.Opaque, c.Tokens = o, unreadable{token.ErrNotCompact} }
	}
	revoke := speakers["rfc7009"]
	log := &fakeLog{}
	revoke.check(t, do(newAuthority(t, log, on(Opaque{})), revoke.request("web", webSecret, secret)), unsupported)
	if len(log.all()) != 0 {
		t.Error("stored though they are refused")
	}
	for want, o := range map[time.Duration]Opaque{lifetime: {Issuer: issuer}, time.Minute: {Issuer: issuer, Lifetime: time.Minute}} {
		log = &fakeLog{}
		a := newAuthority(t, log, on(o), listed(log))
		first := do(a, speakers["voucherify"].request("web", webSecret, secret))
		speakers["voucherify"].check(t, first, revoked)
		if again := do(a, speakers["voucherify"].request("spa", "", secret)); again.Code != http.StatusUnauthorized {
			t.Errorf("a client without a secret: %d", again.Code)
		}
		// Again: Voucherify says that it was over, and what is stored says the same.
		if again := do(a, speakers["voucherify"].request("web", webSecret, secret)); again.Code != http.StatusNotFound {
			t.Errorf("again: %d", again.Code)
		}
		revoke.check(t, do(a, revoke.request("web", webSecret, secret)), revoked)
		all := log.all()
		if len(all) != 3 || all[0].Entry() != all[2].Entry() {
			t.Fatalf("stored %v", all)
		}
		r := all[0]
		if r.Selector.String() != denylist.One(denylist.Fingerprint, denylist.FingerprintOf(secret)).String() || r.Issuer != issuer ||
			!r.Expires.Equal(now.Add(want).Truncate(time.Second)) || r.ExactExpiry || r.Validate() != nil {
			t.Errorf("stored %+v", r)
		}
	}
	for _, o := range []Opaque{{Issuer: "https://elsewhere.example"}, {Issuer: issuer, Lifetime: -1}, {Issuer: issuer, Lifetime: lifetime + 1}} {
		_, err := New(Config{
			Log: &fakeLog{}, List: denylist.New(), Tokens: testTokens, Clients: registry(t), Issuers: []Issuer{{Issuer: issuer, MaxTokenLifetime: lifetime}}, Opaque: o,
		})
		if err == nil || !strings.HasPrefix(err.Error(), "opaque_tokens.") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// unreadable finds every token wrong in one way.
type unreadable struct{ err error }

func (u unreadable) ReadAs(context.Context, token.Kind, string) (*token.Verified, error) {
	return nil, fmt.Errorf("read a token: %w", u.err)
}

// opaqueInputs are parts of JWTs, and what comes close: opaque tokens are revoked by
// what would also be the fingerprint of a JWT.
var opaqueInputs = map[string]bool{
	"mF_9.B5f-4.1JqM":             true,
	"0123456789abcdef":            true,
	"v4.local.AAAA":               true,
	"a.b":                         true,
	".":                           true,
	"e30":                         true, // {} without a dot: no JWT's signature covers that
	"e30.e30":                     false,
	"e30.":                        false,
	"eyJhbGciOiJFUzI1NiJ9.e30":    false,
	"ICB7fQ.e30":                  false, // white space before the object
	"eyJhbGciOiJFUzI1NiJ9.e30.==": false,
	"eyJh.x.y.z.w":                false, // JWE
	"":                            false,
	"a b":                         false,
	"a\nb":                        false,
	"a\x7f":                       false,
	"\u00fc":                      false,
}

func TestOpaqueTokensAreNoPartOfJWTs(t *testing.T) {
	for raw, want := range opaqueInputs {
		if got := token.IsOpaque(raw); got != want {
			t.Errorf("IsOpaque(%q) is %v", raw, got)
		}
		log := &fakeLog{}
		a := newAuthority(t, log, func(c *Config) { c.Opaque, c.Tokens = Opaque{Issuer: issuer}, unreadable{token.ErrNotCompact} })
		o := a.revokeToken(t.Context(), provider{"idp"}, command{token: raw}, now)
		if accepted := o.kind == revoked; accepted != want || accepted != (len(log.all()) == 1) || !accepted && o.kind != unsupported {
			t.Errorf("%q is %s", raw, o.kind)
		}
	}
}

// FuzzOpaque holds that what is revoked as an opaque token is no JWT's signing input.
func FuzzOpaque(f *testing.F) {
	for raw := range opaqueInputs {
		f.Add(raw)
	}
	key := tokentest.NewKey("k1", "EdDSA")
	jwt := key.Token(values{"iss": issuer, "jti": "j", "exp": now.Add(lifetime).Unix()})
	f.Add(jwt[:strings.LastIndexByte(jwt, '.')])
	reader := realReader(f, key)
	log := &fakeLog{}
	a := newAuthority(f, log, func(c *Config) { c.Opaque, c.Tokens = Opaque{Issuer: issuer}, reader })
	f.Fuzz(func(t *testing.T, raw string) {
		log.stored = nil
		o := a.revokeToken(t.Context(), provider{"idp"}, command{token: raw}, now)
		all := log.all()
		if (o.kind == revoked) != (len(all) == 1) {
			t.Fatalf("%s, and stored %v", o.kind, all)
		}
		if o.kind != revoked {
			return
		}
		if _, err := token.Split(raw); !errors.Is(err, token.ErrNotCompact) {
			t.Fatal("a compact JWS")
		}
		// Whatever has this fingerprint and is read as a JWT would be denied by it.
		if _, err := token.Split(raw + ".c2ln"); err == nil {
			if _, err := reader.ReadAs(t.Context(), token.Revocable, key.SignInput(raw)); !errors.Is(err, token.ErrMalformed) {
				t.Fatalf("it is the signing input of a JWT: %v", err)
			}
		}
	})
}

// Quotas: what a client has outstanding, whichever way it revokes.
func TestBoundedQuotas(t *testing.T) {
	small := func(limit func(*client.Config)) func(*Config) {
		return func(c *Config) {
			list := testClients()
			for i := range list {
				limit(&list[i])
			}
			c.Clients = registry(t, list...)
		}
	}
	two := small(func(c *client.Config) { c.MaxEntries = 2 })
	named := func(names ...string) func(*Config) {
		return func(c *Config) {
			tokens := fakeTokens{}
			for _, name := range names {
				tokens[name] = claims(lifetime, values{"jti": name, "client_id": "web", "sub": "of " + name})
			}
			c.Tokens = tokens
		}
	}
	checkLimited := func(t *testing.T, w *httptest.ResponseRecorder, retry string) {
		t.Helper()
		checkJSON429(t, w)
		if got := w.Header().Get("Retry-After"); got != retry {
			t.Errorf("Retry-After %q, want %q", got, retry)
		}
	}
	// The first of what is outstanding ends with the bucket of now + lifetime, 13:10.
	const untilFirst = "4200"
	for name, s := range speakers {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			a := newAuthority(t, log, two, named("a", "b", "c"), listed(log))
			s.check(t, do(a, s.request("web", webSecret, "a")), revoked)
			s.check(t, do(a, s.request("web", webSecret, "b")), revoked)
			checkLimited(t, do(a, s.request("web", webSecret, "c")), untilFirst)
			// To say the same again costs nothing, where the log doesn't store it again.
			stores := name == "edgetag"
			if w := do(a, s.request("web", webSecret, "a")); (w.Code == http.StatusTooManyRequests) != stores {
				t.Errorf("a repetition: %d", w.Code)
			}
			// Others are not touched.
			if w := do(a, s.request(client.GrantAny, adminSecret, "c")); w.Code >= 300 {
				t.Error(w.Code, w.Body)
			}
			if n := len(log.all()); n != map[bool]int{false: 4, true: 3}[stores] {
				t.Errorf("stored %d", n)
			}
		})
		t.Run(name+"/the log fails", func(t *testing.T) {
			log := &fakeLog{err: errors.New("disk full")}
			a := newAuthority(t, log, two, named("a", "b", "c"), listed(log))
			for range 3 { // what was not stored is given back
				s.check(t, do(a, s.request("web", webSecret, "a")), unavailable)
			}
			log.err = nil
			s.check(t, do(a, s.request("web", webSecret, "b")), revoked)
			s.check(t, do(a, s.request("web", webSecret, "c")), revoked)
			checkLimited(t, do(a, s.request("web", webSecret, "a")), untilFirst)
		})
		t.Run(name+"/the rate", func(t *testing.T) {
			a := newAuthority(t, &fakeLog{}, small(func(c *client.Config) { c.Rate = 0.25 }), named("a"))
			s.check(t, do(a, s.request("web", webSecret, "a")), revoked) // a burst of one
			checkLimited(t, do(a, s.request("web", webSecret, "a")), "4")
			// Strangers don't spend it.
			if w := do(a, s.request("web", "wrong", "a")); w.Code != http.StatusUnauthorized {
				t.Error(w.Code)
			}
		})
	}
	body := func(jti string) string {
		return fmt.Sprintf(`{"issuer":%q,"selector":{"jti":%q}}`, issuer, jti)
	}
	t.Run("selectors", func(t *testing.T) {
		log := &fakeLog{}
		a := newAuthority(t, log, two, listed(log))
		log.err = errors.New("disk full")
		checkJSON(t, do(a, postSelector(client.GrantAny, body("a"))), 503, "temporarily_unavailable")
		log.err = nil
		for _, jti := range []string{"a", "a"} { // the log stores it again, and so it counts
			checkJSON(t, do(a, postSelector(client.GrantAny, body(jti))), 200, "")
		}
		checkLimited(t, do(a, postSelector(client.GrantAny, body("c"))), untilFirst)
	})
	t.Run("selectors, the rate", func(t *testing.T) {
		a := newAuthority(t, &fakeLog{}, small(func(c *client.Config) { c.Rate = 1 }))
		for range 2 {
			checkJSON(t, do(a, postSelector(client.GrantAny, body("a"))), 200, "")
		}
		checkLimited(t, do(a, postSelector(client.GrantAny, body("a"))), "1")
		r := httptest.NewRequest(http.MethodGet, "/v1/revocations?issuer="+issuer+"&jti=a", nil)
		r.Header.Set("Authorization", basic(client.GrantAny, adminSecret))
		checkLimited(t, do(a, r), "1") // a question is a request
	})
	t.Run("lines", func(t *testing.T) {
		log := &fakeLog{}
		a := newAuthority(t, log, two, listed(log))
		s := serve(t, a)
		var lines strings.Builder
		for _, sub := range []string{"a", "b", "c", "d"} {
			lines.WriteString(lineFor(sub) + "\n")
		}
		resp := streamTo(t, s, strings.NewReader(lines.String()))
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		stored, limited := 0, 0
		decoder := json.NewDecoder(resp.Body)
		for decoder.More() {
			var line struct {
				Position uint64 `json:"position"`
				Error    string `json:"error"`
			}
			if err := decoder.Decode(&line); err != nil {
				t.Fatal(err)
			}
			switch {
			case line.Position > 0 && line.Error == "":
				stored++
			case line.Error == "too_many_requests":
				limited++
			default:
				t.Errorf("%+v", line)
			}
		}
		if stored != 2 || limited != 2 || len(log.all()) != 2 {
			t.Errorf("%d answered as stored, %d as too many, %d in the log", stored, limited, len(log.all()))
		}
	})
	t.Run("a user's tokens and a grant's count as what is stored", func(t *testing.T) {
		log := &fakeLog{}
		a := newAuthority(t, log, two, listed(log), func(c *Config) {
			c.Tokens = fakeTokens{"refresh": func() (*token.Verified, error) {
				return issued("rt+jwt", 0, lifetime, values{"jti": "r", "sid": "s", "client_id": "web"}), nil
			}, "other": claims(lifetime, values{"jti": "o", "client_id": "web"})}
		})
		s := speakers["rfc7009"]
		s.check(t, do(a, s.request("web", webSecret, "refresh")), revoked)
		if len(log.all()) != 2 {
			t.Errorf("stored %v", log.all())
		}
		checkJSON429(t, do(a, s.request("web", webSecret, "other")))
	})
	t.Run("what does not fit whole is not begun", func(t *testing.T) {
		log := &fakeLog{}
		a := newAuthority(t, log, small(func(c *client.Config) { c.MaxEntries = 1 }), listed(log), func(c *Config) {
			c.Tokens = fakeTokens{"refresh": func() (*token.Verified, error) {
				return issued("rt+jwt", 0, lifetime, values{"jti": "r", "sid": "s", "client_id": "web"}), nil
			}, "other": claims(lifetime, values{"jti": "o", "client_id": "web"})}
		})
		s := speakers["rfc7009"]
		checkJSON429(t, do(a, s.request("web", webSecret, "refresh")))
		s.check(t, do(a, s.request("web", webSecret, "other")), revoked)
	})
}

// checkJSON429 is checkJSON for the one status besides 503 that has Retry-After.
func checkJSON429(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusTooManyRequests || body.Error != "too_many_requests" || body.Description == "" {
		t.Errorf("%d %s: %v", w.Code, w.Body, err)
	}
	if w.Header().Get("Retry-After") == "" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
}

// A reserve is given back once, however long the log takes to fail.
func TestBoundedQuotaOfAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := true
		log := &fakeLog{append: func(ctx context.Context, rs []denylist.Revocation) (uint64, error) {
			if !hang {
				return 1, nil
			}
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}}
		a := newAuthority(t, log, func(c *Config) {
			list := testClients()
			list[0].MaxEntries = 1
			c.Clients = registry(t, list...)
		})
		s := speakers["rfc7009"]
		var all sync.WaitGroup
		all.Go(func() { s.check(t, do(a, s.request("web", webSecret, "own")), unavailable) })
		synctest.Wait()
		checkJSON429(t, do(a, s.request("web", webSecret, "own.azp"))) // the one that may be is under way
		all.Wait()
		hang = false
		s.check(t, do(a, s.request("web", webSecret, "own.azp")), revoked)
	})
}

// Who revokes widely is asked first, and told what that was.
func TestWideSelectorsSayWhatTheyMatch(t *testing.T) {
	for selector, want := range map[string]string{
		`{}`:                             "every token of https://idp.example",
		`{"kid":"k1"}`:                   "every token of https://idp.example with kid k1",
		`{"client_id":"web"}`:            "every token of https://idp.example with client_id web",
		`{"client_id":"web","tenant":7}`: "every token of https://idp.example with client_id web and tenant 7",
		`{"x":"` + strings.Repeat("y", 1000) + `"}`: "every token of https://idp.example with x " + strings.Repeat("y", 200) + "...",
	} {
		log := &fakeLog{}
		a := newAuthority(t, log, func(c *Config) { c.Issuers[0].ClockSkew = time.Minute })
		body := checkJSON(t, do(a, postSelector(client.GrantAny, fmt.Sprintf(`{"issuer":%q,"selector":%s}`, issuer, selector))), 400, "invalid_request")
		if got, ask := fmt.Sprint(body["error_description"]), "this selector matches "+want+`: say "confirm": true if that is meant`; got != ask {
			t.Errorf("%s: %s", selector, got)
		}
		if len(log.all()) != 0 {
			t.Error("stored unconfirmed")
		}
		body = checkJSON(t, do(a, postSelector(client.GrantAny, fmt.Sprintf(`{"issuer":%q,"selector":%s,"confirm":true}`, issuer, selector))), 200, "")
		if got, says := fmt.Sprint(body["matches"]), want+" that was issued at or before 2026-09-01T12:01:00Z"; got != says {
			t.Errorf("%s: %s", selector, got)
		}
	}
}
