package authority

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

const plainHeader = `{"alg":"EdDSA","kid":"k1"}`

// pair is an authority and a verifier of one issuer, and the list between them.
type pair struct {
	key      *tokentest.Key
	log      *fakeLog
	face     *Authority
	verifier *verifier.Verifier
	plain    *token.Reader // reads as the verifier does, and says what it has read
	list     *denylist.List
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{key: tokentest.NewKey("k1", "EdDSA"), log: &fakeLog{}, list: denylist.New()}
	idp := tokentest.NewIdP(p.key)
	p.face = newAuthority(t, p.log, func(c *Config) { c.Tokens = realReader(t, p.key) })
	p.plain = readerOf(t, idp, token.Issuer{Issuer: issuer, MaxLifetime: lifetime})
	p.list.Advance(now)
	var err error
	p.verifier, err = verifier.New(verifier.Config{
		Denylist: p.list, HTTPClient: idp.Client(), Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Issuers: []verifier.Issuer{{Issuer: issuer, JWKSURI: "https://idp.example/jwks", Algorithms: []string{"EdDSA", "ES256"}, MaxLifetime: lifetime}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.verifier.Close)
	for p.verifier.Ready() != nil {
		runtime.Gosched()
	}
	return p
}

// deny has the verifier's list hold just these.
func (p *pair) deny(rs ...denylist.Revocation) {
	denylist.New().Join(p.list)
	for _, r := range rs {
		p.list.Add(r.Entry())
	}
}

// meanings are what presenting a token may mean, in all dialects.
var meanings = map[string]command{
	"the token itself": {}, "hinted to be one": {hint: "access_token"}, "its user": {user: true}, "its grant": {hint: "refresh_token"},
	"its user, hinted": {user: true, hint: "refresh_token"},
}

// FuzzParserAgreement holds that an authority and a verifier read a JWT in the same
// way, whatever is in it: they derive the same selectors, or both refuse. What the
// verifier accepts, the authority can revoke, and then the verifier refuses it; and
// what the verifier can't read is never stored as if it were over.
//
// By design they differ in one thing. An authority reads refresh tokens that call
// themselves so by their typ, which no verifier accepts.
func FuzzParserAgreement(f *testing.F) {
	headers, payloads := seeds(f, "testdata/agreement/header-*.json"), seeds(f, "testdata/agreement/claims-*.json")
	for _, claims := range payloads {
		f.Add(plainHeader, string(claims))
	}
	for _, header := range headers {
		f.Add(string(header), string(payloads["claims-full.json"]))
	}
	p := newPair(f)
	f.Fuzz(func(t *testing.T, header, payload string) {
		if len(header)+len(payload) > token.MaxSize {
			return
		}
		p.check(t, p.key.Sign(header, payload))
	})
}

func (p *pair) check(t *testing.T, raw string) {
	// A kid that nobody has takes a fetch, which is not what this is about.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p.deny()
	before := p.verifier.Decide(ctx, raw)
	accepted := before.Outcome == verifier.Allowed
	read, readErr := p.plain.Read(ctx, raw)
	if accepted && readErr != nil {
		t.Fatalf("accepted, and can't be read: %v", readErr)
	}
	for name, c := range meanings {
		c.token = raw
		p.log.stored = nil
		o := p.face.revokeToken(ctx, provider{"idp"}, c, now)
		stored := p.log.all()
		if (o.kind == revoked) != (len(stored) > 0) {
			t.Fatalf("%s: answered %s, and stored %v", name, o.kind, stored)
		}
		switch {
		case accepted:
			if o.kind != revoked {
				t.Fatalf("%s: the verifier accepts the token, and the authority answers %s: %v %s", name, o.kind, o.cause, o.why)
			}
			p.deny(stored...)
			if after := p.verifier.Decide(ctx, raw); after.Reason != verifier.Revoked {
				t.Fatalf("%s: stored %v, and the verifier says %s", name, stored, after.Reason)
			}
		case readErr == nil:
			checkReadAlike(t, name, c, read, o, stored)
		case errors.Is(readErr, token.ErrKeysUnavailable):
			// Nobody knows.
		case errors.Is(readErr, token.ErrType):
			// Refresh tokens, and nothing else.
			if o.kind == revoked {
				v, err := p.face.tokens.ReadAs(ctx, token.Revocable, raw)
				if err != nil || v.Type != token.RefreshType && v.Type != "refresh+jwt" {
					t.Fatalf("%s: the verifier refuses the type, and the authority revokes it: %v", name, err)
				}
			}
		case o.kind == revoked:
			t.Fatalf("%s: the verifier can't read the token (%v), and the authority stores %v", name, readErr, stored)
		}
	}
	if accepted {
		p.checkOwner(ctx, t, raw, before.Claims)
		p.checkSelectors(ctx, t, raw, before.Claims)
	}
}

// checkReadAlike checks a token that the verifier can read, and does not accept now. It
// may elsewhere, or later.
func checkReadAlike(t *testing.T, name string, c command, read *token.Verified, o outcome, stored []denylist.Revocation) {
	t.Helper()
	never := errors.Is(read.ValidAt(now), token.ErrLifetime) && !read.IssuedAt.IsZero()
	switch {
	case o.kind == revoked && !never:
		list := denylist.New()
		for _, r := range stored {
			list.Add(r.Entry())
		}
		prepared, err := read.DenylistToken()
		if err != nil {
			t.Fatal(err)
		}
		if v := list.CheckToken(prepared, now); v.Status != denylist.Revoked && v.Why != denylist.Uncheckable {
			t.Fatalf("%s: stored %v, which does not deny what the verifier reads", name, stored)
		}
	case o.kind == revoked:
	case o.kind == nothing && !now.Before(read.Expires.Add(denylist.Grace)):
	case o.kind == badRequest && read.Expires.Sub(now) > lifetime:
	case o.kind == unsupported && c.hint == "refresh_token" && read.Expires.Sub(now) > lifetime:
	default:
		t.Fatalf("%s: the verifier can read the token, and the authority answers %s: %v %s", name, o.kind, o.cause, o.why)
	}
}

// checkOwner checks that the client that the verifier sees can revoke its token; all it
// can be told otherwise is that it is another's.
func (p *pair) checkOwner(ctx context.Context, t *testing.T, raw string, seen *verifier.Claims) {
	t.Helper()
	if seen.ClientID == "" {
		return
	}
	o := p.face.revokeToken(ctx, vouched{seen.ClientID, client.NewQuota(client.DefaultMaxEntries)}, command{token: raw}, now)
	_, contradicted := seen.Raw()["client_id"] // an empty one counts, and azp does not
	if o.kind != revoked && !(o.kind == notOwner && contradicted && seen.Raw()["client_id"] == "") && len(seen.ClientID) <= denylist.MaxNote {
		t.Fatalf("its client can't revoke it: %s %s", o.kind, o.why)
	}
}

// checkSelectors revokes by what the verifier sees of a token.
func (p *pair) checkSelectors(ctx context.Context, t *testing.T, raw string, seen *verifier.Claims) {
	t.Helper()
	try := func(selector map[string]any) (denylist.Revocation, bool) {
		body, err := json.Marshal(map[string]any{
			"issuer": issuer, "selector": selector, "confirm": true, "issued_before": now.Add(maxAhead).UTC(),
		}, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		r, o, ok := p.face.plan(provider{"idp"}, body, now)
		if !ok && o.kind != badRequest {
			t.Fatalf("%s: %s", o.kind, o.why)
		}
		return r, ok
	}
	all := map[string]any{}
	names := slices.Sorted(maps.Keys(seen.Raw()))
	for _, name := range names[:min(len(names), 16)] {
		value := seen.Raw()[name]
		elements, many := value.([]any)
		if !many {
			elements = []any{value}
		}
		for _, value := range elements[:min(len(elements), 4)] {
			r, ok := try(map[string]any{name: value})
			if can := selectable(name, value); ok != can {
				t.Fatalf("selector %q: %v can be one: %v, and is taken: %v", name, value, can, ok)
			}
			if !ok {
				continue
			}
			p.deny(r)
			after := p.verifier.Decide(ctx, raw)
			posed := name == denylist.KeyID && value != seen.KeyID || name == denylist.Fingerprint
			if posed != (after.Outcome == verifier.Allowed) {
				t.Fatalf("selector %s of what the verifier sees: it says %s", r.Selector, after.Reason)
			}
			if !posed && len(all) < denylist.MaxPairs {
				all[name] = value
			}
		}
	}
	r, ok := try(all)
	if !ok {
		t.Fatalf("the claims together are no selector: %v", all)
	}
	p.deny(r)
	if after := p.verifier.Decide(ctx, raw); after.Outcome == verifier.Allowed {
		t.Fatalf("selector %s of what the verifier sees: it says %s", r.Selector, after.Reason)
	}
	// Another letter's case, or another value, is another selector.
	p.deny()
	if sub, ok := seen.Raw()["sub"].(string); ok && sub != "" {
		for name, value := range map[string]string{"SUB": sub, "sub": sub + "\x00", "Sub": sub} {
			if _, there := seen.Raw()[name]; there && name != "sub" {
				continue
			}
			if r, ok := try(map[string]any{name: value}); ok {
				p.list.Add(r.Entry())
			}
		}
		if after := p.verifier.Decide(ctx, raw); after.Outcome != verifier.Allowed {
			t.Fatalf("denied by selectors that are not its own: %s", after.Reason)
		}
	}
}

// selectable says by the words of docs and decisions what a selector can hold.
func selectable(name string, value any) bool {
	if name == "" || len(name) > denylist.MaxNameSize || strings.Contains(name, "\x00") || slices.Contains([]string{"iss", "exp", "nbf", "iat"}, name) {
		return false
	}
	switch value := value.(type) {
	case string:
		return value != ""
	case bool:
		return true
	case float64:
		return value == float64(int64(value)) && value < 1<<53 && value > -1<<53
	}
	return false
}

// The seeds say by their names what becomes of them, so that none is there in vain.
func TestParserAgreementSeeds(t *testing.T) {
	p := newPair(t)
	check := func(name, raw string) {
		p.deny()
		p.log.stored = nil
		d := p.verifier.Decide(t.Context(), raw)
		o := p.face.revokeToken(t.Context(), provider{"idp"}, command{token: raw}, now)
		bad, refresh := strings.Contains(name, "-bad-"), strings.HasPrefix(name, "header-refresh-")
		if (d.Outcome == verifier.Allowed) != (!bad && !refresh) {
			t.Errorf("%s: the verifier says %s", name, d.Reason)
		}
		if (o.kind == revoked) != !bad {
			t.Errorf("%s: the authority says %s", name, o.kind)
		}
	}
	claims := seeds(t, "testdata/agreement/claims-*.json")
	for name, b := range claims {
		check(name, p.key.Sign(plainHeader, string(b)))
	}
	for name, b := range seeds(t, "testdata/agreement/header-*.json") {
		check(name, p.key.Sign(string(b), string(claims["claims-full.json"])))
	}
}
