package verifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

func (r *rig) want(t *testing.T, raw string, why Reason) Decision {
	t.Helper()
	d := r.Decide(t.Context(), raw)
	if d.Reason != why || d.Outcome != outcomes[why] || (d.Claims != nil) != (d.Outcome == Allowed) {
		t.Fatalf("got %s, %s, claims %v, %v; want %s", d.Outcome, d.Reason, d.Claims, d.Err, why)
	}
	return d
}

// TestCacheSafe: a token verified a thousand times from the cache is refused on
// the first request after its revocation, by whatever selector.
func TestCacheSafe(t *testing.T) {
	raw := es256().Token(claims(map[string]any{"sid": "s-1", "tenant": "acme"}))
	fingerprint := denylist.FingerprintOf(raw[:strings.LastIndexByte(raw, '.')])
	for claim, value := range map[string]string{
		denylist.JTI: "t-1", denylist.SID: "s-1", denylist.Sub: "alice", denylist.ClientID: "web",
		denylist.KeyID: "e1", denylist.Fingerprint: fingerprint, "tenant": "acme",
	} {
		t.Run(claim, func(t *testing.T) {
			r := newRig(t, nil).fresh()
			r.want(t, raw, Clear)
			for range 1000 {
				r.want(t, raw, Clear)
			}
			if st := r.Stats(); st.CacheHits != 1000 || st.CacheMisses != 1 {
				t.Fatalf("%d hits, %d misses", st.CacheHits, st.CacheMisses)
			}
			r.list.Add(revocation(claim, value))
			d := r.want(t, raw, Revoked)
			if st := r.Stats(); st.CacheHits != 1001 {
				t.Error("the refusal did not come from the cached token")
			}
			if d.Verdict.Shape.String() != claim || d.Issuer != issuer {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// TestCacheSafeKeyWithdrawn: a cached token dies with its key.
func TestCacheSafeKeyWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil).fresh()
		raw := es256().Token(claims(nil))
		r.want(t, raw, Clear)
		r.want(t, raw, Clear)
		r.idp.Answer(503, "")
		time.Sleep(10 * time.Minute)
		r.fresh().want(t, raw, Clear) // the last good keys stay
		if st := r.Stats(); st.CacheMisses != 1 || st.Keys[0].Err == nil {
			t.Fatalf("got %+v", st)
		}
		r.idp.Serve(other())
		time.Sleep(10 * time.Second)
		r.fresh().want(t, raw, UnknownKey)
		r.want(t, other().Token(claims(nil)), Clear)
	})
}

// TestCacheSafeTime: time, lifetime and audience are asked at every request.
func TestCacheSafeTime(t *testing.T) {
	r := newRig(t, func(c *Config) { c.OnStale = Allow }).fresh()
	raw := es256().Token(claims(nil))
	r.want(t, raw, Clear)
	r.clock.forward(time.Hour + token.DefaultLeeway - time.Second)
	r.want(t, raw, StaleAllowed)
	r.clock.forward(2 * time.Second)
	r.want(t, raw, Expired)
	r.clock.forward(-3 * time.Hour)
	r.want(t, raw, NotYetValid)
	if r.Stats().CacheMisses != 1 {
		t.Error("not answered from the cache")
	}
}

// TestCacheSafeWholeToken: what shares a token's hash, or all but its last letter,
// is another token.
func TestCacheSafeWholeToken(t *testing.T) {
	r := newRig(t, nil).fresh()
	raw := es256().Token(claims(nil))
	r.want(t, raw, Clear)
	if r.cache.get(raw) == nil {
		t.Fatal("not cached")
	}
	forged := es256().Token(claims(map[string]any{"sub": "admin"}))
	forged = forged[:strings.LastIndexByte(forged, '.')] + raw[strings.LastIndexByte(raw, '.'):]
	if at, tag := r.cache.place(raw); at == nil || tag == 0 {
		t.Fatal("it has no place")
	} else if beside, same := r.cache.place(forged); beside != at || same != tag {
		t.Fatal("it has another place: there is nothing to mistake")
	}
	r.want(t, forged, BadSignature)
}

// TestCacheSafeMiss: a cache that keeps nothing changes no answer.
func TestCacheSafeMiss(t *testing.T) {
	r := newRig(t, nil).fresh()
	raw := es256().Token(claims(nil))
	for range 3 {
		r.cache.clear()
		r.want(t, raw, Clear)
	}
	r.list.Add(revocation(denylist.JTI, "t-1"))
	r.cache.clear()
	r.want(t, raw, Revoked)
}

// TestFreshOrUnknown: the list's age decides, and Revoked is Revoked on any list.
func TestFreshOrUnknown(t *testing.T) {
	clear, revoked := es256().Token(claims(nil)), es256().Token(claims(map[string]any{"jti": "t-2"}))
	wide := es256().Token(claims(map[string]any{"a": many(64), "b": many(64)}))
	for _, c := range []struct {
		policy                        StalePolicy
		loading, fresh, stale, wide   Reason
		readyLoading, ready, notReady bool
	}{
		{Deny, Loading, Clear, Stale, Uncheckable, false, true, false},
		{Allow, Loading, Clear, StaleAllowed, Uncheckable, false, true, true},
	} {
		t.Run(fmt.Sprint(c.policy), func(t *testing.T) {
			r := newRig(t, func(x *Config) { x.OnStale = c.policy })
			ready := func(want bool) {
				t.Helper()
				if err := r.Ready(); (err == nil) != want {
					t.Errorf("ready: %v", err)
				}
			}
			two, err := denylist.NewSelector(map[string]string{"a": "x", "b": "y"})
			if err != nil {
				t.Fatal(err)
			}
			r.list.Add(revocation(denylist.JTI, "t-2"), denylist.Revocation{
				Issuer: issuer, Selector: two, Expires: time.Now().Add(time.Hour), IssuedBefore: time.Now(),
			}.Entry())
			for range 2 { // first from the signature, then from the cache
				r.want(t, clear, c.loading)
				r.want(t, revoked, Revoked)
				r.want(t, wide, Loading)
			}
			ready(c.readyLoading)
			r.fresh()
			r.want(t, clear, c.fresh)
			r.want(t, revoked, Revoked)
			r.want(t, wide, c.wide)
			ready(c.ready)
			r.clock.forward(denylist.DefaultMaxStaleness - time.Second)
			r.want(t, clear, c.fresh)
			r.clock.forward(2 * time.Second)
			r.want(t, clear, c.stale)
			r.want(t, revoked, Revoked)
			r.want(t, wide, c.wide)
			ready(c.notReady)
			r.fresh()
			r.want(t, clear, c.fresh)
			ready(true)
		})
	}
}

func many(n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprint(i))
	}
	return values
}

// TestKeysUnavailable: before the keys are loaded nobody knows; an unknown key of
// a loaded set is a bad token.
func TestKeysUnavailable(t *testing.T) {
	idp := tokentest.NewIdP()
	idp.Answer(503, "")
	r := newRig(t, func(c *Config) { c.HTTPClient = idp.Client() }).fresh()
	r.want(t, es256().Token(claims(nil)), KeysUnavailable)
	err := r.Ready()
	if err == nil || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "\n") {
		t.Errorf("ready: %v", err)
	}

	r = newRig(t, nil).fresh()
	r.want(t, other().Token(claims(nil)), UnknownKey)
}

// TestReasons: every error of the reader has a reason of its own.
func TestReasons(t *testing.T) {
	for _, err := range []error{
		token.ErrTooLarge, token.ErrNotCompact, token.ErrMalformed, token.ErrType, token.ErrUnknownIssuer,
		token.ErrAlgorithm, token.ErrSignature, token.ErrUnknownKey, token.ErrKeysUnavailable,
		token.ErrExpired, token.ErrNotYetValid, token.ErrAudience, token.ErrLifetime,
	} {
		d := refuse(fmt.Errorf("couldn't: %w", err))
		if string(d.Reason) != token.Reason(err) || d.Outcome == Allowed || !errors.Is(d.Err, err) {
			t.Errorf("%v: got %+v", err, d)
		}
		if (d.Outcome == Unavailable) != (err == token.ErrKeysUnavailable) {
			t.Errorf("%v: %s", err, d.Outcome)
		}
	}
	if d := (Decision{}); d.Outcome != Refused {
		t.Error("the zero Decision does not refuse")
	}
	if judge(denylist.Verdict{}, Allow) != Loading {
		t.Error("the zero Verdict lets through")
	}
}

// TestRawClaims: whoever asks gets all claims of the token, the same for all.
func TestRawClaims(t *testing.T) {
	r := newRig(t, nil).fresh()
	want := claims(map[string]any{"groups": []any{"a", "b"}, "n": 1.5, "deep": map[string]any{"x": true}, "empty": ""})
	raw := es256().Token(want)
	c := r.want(t, raw, Clear).Claims
	var running sync.WaitGroup
	maps := make([]map[string]any, 8)
	for i := range maps {
		running.Go(func() { maps[i] = c.Raw() })
	}
	running.Wait()
	text, err := json.Marshal(maps[0])
	wanted, _ := json.Marshal(want)
	if err != nil || string(text) != string(wanted) {
		t.Errorf("%s %v, want %s", text, err, wanted)
	}
	for _, m := range append(maps, r.want(t, raw, Clear).Claims.Raw()) {
		if reflect.ValueOf(m).Pointer() != reflect.ValueOf(maps[0]).Pointer() {
			t.Error("decoded more than once")
		}
	}
	printed := fmt.Sprintf("%v %+v %#v %+v %+v", c, c, c, *c, r.want(t, raw, Clear))
	if strings.Contains(printed, raw[len(raw)-20:]) || !strings.Contains(printed, "alice") {
		t.Errorf("prints %s", printed)
	}
	if made := NewClaims(maps[0]); made.Subject != c.Subject || made.ClientID != c.ClientID || made.ID != c.ID ||
		made.Issuer != c.Issuer || !slices.Equal(made.Scopes(), c.Scopes()) || made.Raw()["n"] != 1.5 {
		t.Errorf("%+v", made)
	}
	if new(Claims).Raw() != nil {
		t.Error("claims of no token")
	}
}

func TestDecideClaims(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(map[string]any{"client_id": nil, "azp": "spa"})), Clear)
	c := d.Claims
	if c.Issuer != issuer || c.Subject != "alice" || c.ClientID != "spa" || c.ID != "t-1" || c.KeyID != "e1" ||
		fmt.Sprint(c.Audience, c.Scopes()) != "[api] [read write]" || c.Raw()["azp"] != "spa" || c.Expires.Before(c.IssuedAt) {
		t.Errorf("got %+v", c)
	}
	for _, s := range []struct {
		claims map[string]any
		want   string
	}{
		{map[string]any{"scope": []string{"a", "b"}}, "[a b]"},
		{map[string]any{"scope": nil, "scp": []any{"a", 1}}, "[a]"},
		{map[string]any{"scope": nil}, "[]"},
	} {
		if got := fmt.Sprint(r.want(t, es256().Token(claims(s.claims)), Clear).Claims.Scopes()); got != s.want {
			t.Errorf("%v: %s", s.claims, got)
		}
	}
}

// TestNothingLogged: a line for each refusal, and never the token.
func TestNothingLogged(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	good := es256().Token(claims(nil))
	r.want(t, good, Loading)
	r.fresh()
	r.list.Add(revocation(denylist.JTI, "t-1"))
	lines := []string{good, good[:len(good)-9], "secret-opaque-token", other().Token(claims(nil)),
		es256().Token(claims(map[string]any{"exp": 1_000_000_000, "iat": nil}))}
	for _, raw := range lines {
		r.Decide(t.Context(), raw)
	}
	r.want(t, es256().Token(claims(map[string]any{"jti": "t-9"})), Clear)
	text := log.String()
	if n := strings.Count(text, "token not accepted"); n != len(lines)+1 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	for _, raw := range lines {
		for _, part := range strings.Split(raw, ".") {
			if strings.Contains(text, part) {
				t.Errorf("the log holds %q", part)
			}
		}
	}
	for _, want := range []string{"level=WARN msg=\"token not accepted\" outcome=unavailable reason=loading issuer=" + issuer,
		"level=INFO msg=\"token not accepted\" outcome=refused reason=revoked issuer=" + issuer + " shape=jti list_age="} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// TestPromptUnderConcurrency: from the return of Add, no goroutine is allowed any
// more; and Close may come at any time.
func TestPromptUnderConcurrency(t *testing.T) {
	const tokens, workers = 50, 8
	r := newRig(t, func(c *Config) { c.CacheSize = tokens / 2 }).fresh()
	raws := make([]string, tokens)
	var revoked [tokens]atomic.Bool
	for i := range raws {
		raws[i] = es256().Token(claims(map[string]any{"jti": fmt.Sprint("c-", i)}))
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for n := w; ctx.Err() == nil; n++ {
				i := n % tokens
				before := revoked[i].Load()
				d := r.Decide(context.Background(), raws[i])
				if before && d.Reason != Revoked || !before && d.Reason != Revoked && d.Reason != Clear {
					t.Errorf("token %d, revoked before: %v, got %s (%v)", i, before, d.Reason, d.Err)
					return
				}
			}
		})
	}
	for i := range tokens {
		r.list.Add(revocation(denylist.JTI, fmt.Sprint("c-", i)))
		revoked[i].Store(true)
		r.fresh()
		if i == tokens/2 {
			r.Close()
		}
		r.want(t, raws[i], Revoked)
	}
	stop()
	running.Wait()
	r.Close()
	r.want(t, raws[0], Revoked)
}

func TestConfig(t *testing.T) {
	good := func() Config {
		return Config{Denylist: denylist.New(), Issuers: []Issuer{{Issuer: issuer, JWKSURI: "https://x.example/", Algorithms: []string{"RS256"}}}}
	}
	for want, change := range map[string]func(*Config){
		"no list: Denylist is missing":              func(c *Config) { c.Denylist = nil },
		"no issuer: Issuers must hold at least one": func(c *Config) { c.Issuers = nil },
		"Issuers[0].JWKSURI is missing":             func(c *Config) { c.Issuers[0].JWKSURI = "" },
		"Issuers[0].Algorithms can't hold HS256":    func(c *Config) { c.Issuers[0].Algorithms = []string{"HS256"} },
		"bad policy: OnStale must be Deny or Allow": func(c *Config) { c.OnStale = 7 },
		"CacheSize must not be negative":            func(c *Config) { c.CacheSize = -1 },
	} {
		c := good()
		change(&c)
		if _, err := New(c); err == nil || !strings.HasPrefix(err.Error(), "verifier.Config: "+want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestStats(t *testing.T) {
	r := newRig(t, nil).fresh()
	raw := es256().Token(claims(nil))
	r.want(t, raw, Clear)
	r.Decide(t.Context(), "opaque")
	st := r.Stats()
	if len(st.Decisions) != len(outcomes) {
		t.Errorf("%d reasons", len(st.Decisions))
	}
	for _, d := range st.Decisions {
		want := uint64(0)
		if d.Reason == Clear || d.Reason == NotCompact {
			want = 1
		}
		if d.Count != want || d.Outcome != outcomes[d.Reason] {
			t.Errorf("got %+v", d)
		}
	}
	if k := st.Keys[0]; k.Issuer != issuer || k.Keys != 2 || k.Err != nil || k.Loaded.IsZero() {
		t.Errorf("got %+v", k)
	}
}
