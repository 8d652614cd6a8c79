package authority

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// upstream is a provider's revocation endpoint.
type upstream struct {
	*httptest.Server
	answer http.HandlerFunc // nil: 200

	mu    sync.Mutex
	asked []*http.Request
	body  []string
}

func newUpstream(t testing.TB, answer http.HandlerFunc) *upstream {
	u := &upstream{answer: answer}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.asked, u.body = append(u.asked, r), append(u.body, string(body))
	u.mu.Unlock()
	if u.answer != nil {
		u.answer(w, r)
	}
}

func (u *upstream) times() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

// says answers a status and a body, with headers in pairs.
func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const unsupportedHere = `{"error":"unsupported_token_type"}`

// relaying is an authority in front of a provider; change is of its Relay.
func (u *upstream) relaying(t testing.TB, log Log, change func(*Relay), more ...func(*Config)) *Authority {
	t.Helper()
	a := newAuthority(t, log, append([]func(*Config){func(c *Config) {
		c.Issuers[0].Relay.Endpoint = u.URL + "/revoke"
		if change != nil {
			change(&c.Issuers[0].Relay)
		}
	}}, more...)...)
	t.Cleanup(a.relays.client.CloseIdleConnections)
	return a
}

func overrules(r *Relay)  { r.OverruleUnsupported = true }
func localFirst(r *Relay) { r.LocalFirst = true }
func takesOpaque(c *Config) {
	c.Opaque = Opaque{Issuer: issuer}
}

// asks asks as a client that only the provider knows, but for its name.
func asks(id, token string) *http.Request {
	return speakers["rfc7009"].request(id, "the provider's", token)
}

func checkStored(t *testing.T, log *fakeLog, want ...string) {
	t.Helper()
	var got []string
	for _, r := range log.all() {
		got = append(got, r.Selector.String())
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

const ofOwn = `{jti="j1"}`

// What the provider takes is stored here where a verifier could accept it, and its
// answer is the client's. It is the provider that knows the client.
func TestRelayStoresWhatTheProviderTakes(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	odd := encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(`{"iss":"`+issuer+`"}`)) + ".c2ln" // malformed, and names the issuer
	for _, c := range []struct {
		name, id, token string
		answer          http.HandlerFunc
		change          func(*Relay)
		more            func(*Config)
		status          int
		body            string // of the answer, with its spaces
		stored          []string
		unasked         bool
		want            kind
	}{
		{name: "its own token", id: "web", token: "own", answer: says(200, ""), status: 200, stored: []string{ofOwn}, want: revoked},
		{name: "answered in words", id: "web", token: "own", answer: says(202, "thanks"), status: 202, body: "thanks", stored: []string{ofOwn}, want: revoked},
		// What was not done here is not passed off as done.
		{name: "another's token", id: "web", token: "other", answer: says(200, "{}"), status: 400, want: notOwner},
		{name: "nobody's token", id: "web", token: "nobody's", answer: says(200, ""), status: 400, want: notOwner},
		{name: "a token that lives too long for verifiers", id: "web", token: "long.lived", answer: says(200, ""), status: 400, want: badRequest},
		{name: "a forged token", id: "web", token: "forged", answer: says(200, ""), status: 200, body: "{}\n", unasked: true, want: nothing},
		{name: "what only its issuer can read", id: "svc", token: "foreign.alg", answer: says(200, "done"), status: 200, body: "done", want: nothing},
		{name: "the same with an id of ours", id: "web", token: "foreign.alg", answer: says(200, "done"), status: 401, unasked: true, want: badClient},
		{name: "what was meant to look so", id: "web", token: odd, answer: says(200, "done"), status: 401, unasked: true, want: badClient},
		{name: "the same without an id of ours", id: "svc", token: odd, answer: says(200, "done"), status: 200, body: "done", want: nothing},
		{name: "an expired token", id: "web", token: "expired", answer: says(200, ""), status: 200, want: nothing},
		{name: "an opaque token that no verifier takes", id: "web", token: "opaque", answer: says(200, ""), status: 200, want: nothing},
		{name: "an opaque token", id: "web", token: "opaque", answer: says(200, ""), more: takesOpaque, status: 200, want: nothing},
		{name: "an opaque token that the provider refuses", id: "web", token: "opaque", answer: says(400, "no"), more: takesOpaque, status: 400, body: "no", want: refusedUpstream},

		{name: "unsupported", id: "web", token: "own", answer: says(400, unsupportedHere), status: 400, body: unsupportedHere, want: refusedUpstream},
		{name: "unsupported, overruled", id: "web", token: "own", answer: says(400, unsupportedHere), change: overrules, status: 200, body: "{}\n", stored: []string{ofOwn}, want: revoked},
		{name: "unsupported, overruled, forged", id: "web", token: "forged", answer: says(400, unsupportedHere), change: overrules, status: 200, body: "{}\n", unasked: true, want: nothing},
		{name: "unsupported, overruled, opaque", id: "web", token: "opaque", answer: says(400, unsupportedHere), change: overrules, status: 400, body: unsupportedHere, want: nothing},
		{name: "unsupported as 401", id: "web", token: "own", answer: says(401, unsupportedHere), change: overrules, status: 401, body: unsupportedHere, want: refusedUpstream},
		{name: "another refusal is not overruled", id: "web", token: "own", answer: says(400, `{"error":"invalid_client"}`), change: overrules, status: 400, body: `{"error":"invalid_client"}`, want: refusedUpstream},
		{name: "a refusal that can be read in two ways", id: "web", token: "own", answer: says(400, `{"error":"invalid_client","error":"unsupported_token_type"}`), change: overrules,
			status: 400, body: `{"error":"invalid_client","error":"unsupported_token_type"}`, want: refusedUpstream},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines bytes.Buffer
			log, u := &fakeLog{}, newUpstream(t, c.answer)
			a := u.relaying(t, log, c.change, logged(&lines))
			if c.more != nil {
				a = u.relaying(t, log, c.change, logged(&lines), c.more)
			}
			w := do(a, asks(c.id, c.token))
			switch code := kinds[c.want].code; {
			case c.want == refusedUpstream || code == "":
				if w.Code != c.status || w.Body.String() != c.body {
					t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.body)
				}
			default:
				checkJSON(t, w, c.status, code)
			}
			checkStored(t, log, c.stored...)
			if n := counter(t, a, "revcast_revoke_requests_total", "rfc7009", c.want.String()); n != 1 {
				t.Errorf("counted %v times as %s", n, c.want)
			}
			if n := u.times(); (n == 0) != c.unasked || n > 1 {
				t.Errorf("asked %d times", n)
			}
			checkSilent(t, "the log", lines.String(), "the provider's", `"j1"`, "alice", `"opaque"`)
		})
	}
	w := do(newUpstream(t, says(400, unsupportedHere)).relaying(t, &fakeLog{}, overrules), asks("web", "other"))
	checkJSON(t, w, 400, "invalid_grant")
}

// A provider's refusal is passed on as it is, and nothing beside it.
func TestRelayPassesRefusalsOn(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		header []string // what is passed on
	}{
		{400, `{"error":"invalid_request"}`, []string{"Content-Type", "application/json;charset=UTF-8"}},
		{401, "", []string{"WWW-Authenticate", `Basic realm="a"`, "WWW-Authenticate", "DPoP"}},
		{429, "slow down", []string{"Retry-After", "120", "Content-Type", "text/plain"}},
		{403, "<html>", nil},
		{404, "", nil},
	} {
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			says(c.status, c.body, append([]string{
				"Set-Cookie", "a=b", "Server", "x", "Access-Control-Allow-Origin", "*", "Cache-Control", "public", "Location", "/x",
			}, c.header...)...)(w, r)
		})
		log := &fakeLog{}
		s := httptest.NewServer(u.relaying(t, log, nil))
		q := asks("web", "own")
		q.RequestURI, q.URL = "", mustURL(t, s.URL+"/oauth2/revoke")
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		s.Close()
		want := http.Header{"Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}, "Vary": {"Origin"}}
		for i := 0; i < len(c.header); i += 2 {
			want.Add(c.header[i], c.header[i+1])
		}
		resp.Header.Del("Date")
		resp.Header.Del("Content-Length")
		if resp.StatusCode != c.status || string(body) != c.body || !maps.EqualFunc(resp.Header, want, slices.Equal) {
			t.Errorf("%d %v %q, want %d %v %q", resp.StatusCode, resp.Header, body, c.status, want, c.body)
		}
		checkStored(t, log)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Whatever is no answer is none: the client comes again.
func TestRelayIsUnavailableWithoutAnAnswer(t *testing.T) {
	elsewhere := newUpstream(t, nil)
	down := newUpstream(t, nil)
	down.Close()
	for name, u := range map[string]*upstream{
		"500":         newUpstream(t, says(500, "oops")),
		"503":         newUpstream(t, says(503, "", "Retry-After", "3600")),
		"a redirect":  newUpstream(t, says(307, "", "Location", elsewhere.URL)),
		"304":         newUpstream(t, says(304, "")),
		"too large":   newUpstream(t, says(200, strings.Repeat("x", maxBody+1))),
		"cut off":     newUpstream(t, says(200, "", "Content-Length", "10")),
		"much header": newUpstream(t, says(200, "", "X-Large", strings.Repeat("x", 128<<10))),
		"reset":       newUpstream(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"not there":   down,
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			w := do(u.relaying(t, log, nil), asks("web", "own"))
			checkJSON(t, w, 503, "temporarily_unavailable")
			checkSilent(t, "the answer", w.Body.String(), "127.0.0.1", "oops")
			checkStored(t, log)
		})
	}
	if n := elsewhere.times(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}

	t.Run("busy", func(t *testing.T) {
		u := newUpstream(t, nil)
		a := u.relaying(t, &fakeLog{}, nil)
		for range relaysAtOnce {
			a.relays.byIssuer[issuer].slots <- struct{}{}
		}
		checkJSON(t, do(a, asks("web", "own")), 503, "temporarily_unavailable")
		<-a.relays.byIssuer[issuer].slots
		if w := do(a, asks("web", "own")); w.Code != 200 || u.times() != 1 {
			t.Errorf("%d, asked %d times", w.Code, u.times())
		}
	})

	t.Run("too slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Issuers[0].Relay.Endpoint = "https://idp.example/revoke" })
			idp := tokentest.NewIdP()
			idp.Hang()
			a.relays.client.Transport = idp
			checkJSON(t, do(a, asks("web", "own")), 503, "temporarily_unavailable")
		})
	})
}

// Durable: what the provider has revoked and the log has not is not answered as done.
func TestDurableBehindARelay(t *testing.T) {
	u := newUpstream(t, says(200, "done"))
	log := &fakeLog{err: errors.New("disk full")}
	a := u.relaying(t, log, nil, takesOpaque)
	checkJSON(t, do(a, asks("web", "own")), 503, "temporarily_unavailable")
	checkJSON(t, do(a, asks("svc", "keys.away")), 503, "temporarily_unavailable")
	log.mu.Lock()
	log.err = nil
	log.mu.Unlock()
	if w := do(a, asks("web", "own")); w.Code != 200 || w.Body.String() != "done" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	checkStored(t, log, ofOwn)

	// A caller that hangs up once the provider has done its part doesn't undo ours.
	ctx, hangUp := context.WithCancel(t.Context())
	var stored context.Context
	gone := &fakeLog{append: func(ctx context.Context, _ []denylist.Revocation) (uint64, error) {
		hangUp()
		stored = ctx
		return 1, ctx.Err()
	}}
	a = u.relaying(t, gone, nil)
	if w := do(a, asks("web", "own").WithContext(ctx)); w.Code != 200 || stored == nil {
		t.Errorf("%d: the caller took its revocation with it", w.Code)
	}
}

func TestRelayLocalFirst(t *testing.T) {
	down := newUpstream(t, nil)
	down.Close()
	refuses := newUpstream(t, says(401, "who?"))
	unsupports := newUpstream(t, says(400, unsupportedHere))
	takes := newUpstream(t, says(200, "done"))
	both := func(r *Relay) { localFirst(r); overrules(r) }
	for _, c := range []struct {
		name, secret, token string
		u                   *upstream
		change              func(*Relay)
		status              int
		body                string // where it is the provider's, or a success
		stored              bool
		asked               int
	}{
		{"both take it", webSecret, "own", takes, localFirst, 200, "done", true, 1},
		{"the provider is down", webSecret, "own", down, localFirst, 200, "{}\n", true, 0},
		{"the provider refuses", webSecret, "own", refuses, localFirst, 401, "who?", true, 1},
		{"the provider can't", webSecret, "own", unsupports, localFirst, 400, unsupportedHere, true, 1},
		{"the provider can't, overruled", webSecret, "own", unsupports, both, 200, "{}\n", true, 1},
		{"a wrong secret", "wrong", "own", takes, localFirst, 401, "", false, 0},
		{"another's token", webSecret, "other", takes, localFirst, 400, "", false, 0},
		// Nothing shows that these come from the provider, and so it gets no secret of ours.
		{"a forged token", webSecret, "forged", takes, localFirst, 200, "{}\n", false, 0},
		{"what only its issuer can read", webSecret, "foreign.alg", takes, localFirst, 200, "{}\n", false, 0},
		{"an expired token", webSecret, "expired", takes, localFirst, 200, "done", false, 1},
		{"an expired token, the provider is down", webSecret, "expired", down, localFirst, 503, "", false, 0},
		{"an opaque token is the provider's", webSecret, "opaque", takes, localFirst, 200, "done", false, 1},
		{"an opaque token, the provider is down", webSecret, "opaque", down, localFirst, 503, "", false, 0},
		{"an opaque token, not a client here", "wrong", "opaque", takes, localFirst, 401, "", false, 0},
		{"an opaque token, nobody can", webSecret, "opaque", unsupports, both, 400, "", false, 1},
	} {
		// Where opaque tokens are taken, those of an issuer that has a relay are its own still.
		for name, more := range map[string]func(*Config){c.name: func(*Config) {}, c.name + ", opaque tokens taken": takesOpaque} {
			t.Run(name, func(t *testing.T) {
				log, before := &fakeLog{}, c.u.times()
				w := do(c.u.relaying(t, log, c.change, more), speakers["rfc7009"].request("web", c.secret, c.token))
				if w.Code != c.status || c.body != "" && w.Body.String() != c.body {
					t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.body)
				}
				if got := len(log.all()) > 0; got != c.stored {
					t.Errorf("stored: %v", got)
				}
				if n := c.u.times() - before; n != c.asked {
					t.Errorf("asked %d times", n)
				}
			})
		}
	}
	log := &fakeLog{err: errors.New("disk full")}
	before := takes.times()
	checkJSON(t, do(takes.relaying(t, log, localFirst), speakers["rfc7009"].request("web", webSecret, "own")), 503, "temporarily_unavailable")
	if takes.times() != before {
		t.Error("asked, though nothing was stored first")
	}
}

// The provider gets what the dialect has read of the request, and nothing of what it has
// passed over: that is what decides here whose token it may be.
func TestRelayForwards(t *testing.T) {
	const typ, body = "application/x-www-form-urlencoded", "token=own&&client_id=web&client_secret=a%2bb+c&x=%7E&token_type_hint=&access_token=x"
	for _, c := range []struct {
		path, body string
		header     http.Header
		wantBody   string
		want       http.Header
	}{
		{"/oauth2/revoke?trace=1", body, http.Header{"Content-Type": {"Application/X-WWW-Form-Urlencoded; charset=utf-8"}, "Accept": {"text/html", "application/json"}, "X-App-Id": {"evil"}},
			"client_id=web&client_secret=a%2Bb+c&token=own", http.Header{"Content-Type": {typ}, "Accept": {"text/html", "application/json"}}},
		{"/oauth2/revoke", "token=own&client_id=web&token_type_hint=access_token", http.Header{"Content-Type": {typ}, "Authorization": {"basic  " + basic("web", "a b")[6:]}},
			"client_id=web&token=own&token_type_hint=access_token", http.Header{"Content-Type": {typ}, "Authorization": {"basic  " + basic("web", "a b")[6:]}}},
		{"/oidc/token/revocation", "token=own&client_id=web&client_secret=s", http.Header{"Content-Type": {typ}, "Authorization": {"Bearer of something", basic("web", "s"), basic("web", "s")}},
			"client_id=web&client_secret=s&token=own", http.Header{"Content-Type": {typ}, "Authorization": {basic("web", "s")}}},
		{"/v1/oauth/token/revoke", "access_token=own&token=other&client_id=evil&client_secret=s", http.Header{"Content-Type": {typ}, "X-App-Id": {"web"}, "X-App-Token": {"s e"}, "Authorization": {basic("evil", "s")}},
			"access_token=own", http.Header{"Content-Type": {typ}, "X-App-Id": {"web"}, "X-App-Token": {"s e"}}},
	} {
		u, log := newUpstream(t, nil), &fakeLog{}
		r := postForm(c.path, c.body)
		r.Header = maps.Clone(c.header)
		for _, name := range []string{"Cookie", "Origin", "Referer", "X-Forwarded-For", "Forwarded", "Dpop", "X-Request-Id", "Accept-Language", "User-Agent"} {
			r.Header.Set(name, "between us")
		}
		w := do(u.relaying(t, log, nil), r)
		if w.Code != 200 || u.times() != 1 {
			t.Fatalf("%s: %d %s, asked %d times", c.path, w.Code, w.Body, u.times())
		}
		got := u.asked[0]
		c.want["User-Agent"], c.want["Content-Length"] = []string{"revcast"}, []string{fmt.Sprint(len(c.wantBody))}
		if got.Method != http.MethodPost || got.RequestURI != "/revoke" || got.Host != strings.TrimPrefix(u.URL, "http://") ||
			u.body[0] != c.wantBody || !maps.EqualFunc(got.Header, c.want, slices.Equal) {
			t.Errorf("%s %s at %s: %v %q, want %v %q", got.Method, got.RequestURI, got.Host, got.Header, u.body[0], c.want, c.wantBody)
		}
		checkStored(t, log, ofOwn)
	}
}

// A provider answers 200 whoever's a token is (RFC 7009 section 2.2), so the request
// itself must say, and nowhere contradict, that the token's own client sent it.
func TestRelayedCallerIsTheOwner(t *testing.T) {
	assertion := func(iss, sub string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(`{"alg":"ES256"}`)) + "." + encode(fmt.Appendf(nil, `{"iss":%q,"sub":%q}`, iss, sub)) + ".c2ln"
	}
	asserted := func(a string) url.Values {
		return url.Values{"client_assertion": {a}, "client_assertion_type": {assertionType}}
	}
	plus := func(v url.Values, name, value string) url.Values { v.Set(name, value); return v }
	for _, c := range []struct {
		name   string
		path   string // "": RFC 7009's
		form   url.Values
		header http.Header
		owner  bool
	}{
		{"Basic", "", nil, http.Header{"Authorization": {basic("web", "s")}}, true},
		{"Basic, encoded", "", nil, http.Header{"Authorization": {basic("%77eb", "s")}}, true},
		{"another's Basic", "", nil, http.Header{"Authorization": {basic("evil", "s")}}, false},
		{"secret in the form", "", url.Values{"client_id": {"web"}, "client_secret": {"s"}}, nil, true},
		{"another's secret in the form", "", url.Values{"client_id": {"evil"}, "client_secret": {"s"}}, nil, false},
		{"a public client", "", url.Values{"client_id": {"web"}}, nil, true},
		{"another public client", "", url.Values{"client_id": {"evil"}}, nil, false},
		{"nobody", "", nil, nil, false},
		{"Bearer", "", nil, http.Header{"Authorization": {"Bearer web"}}, false},
		{"an assertion", "", asserted(assertion("web", "web")), nil, true},
		{"an assertion with its client_id", "", plus(asserted(assertion("web", "web")), "client_id", "web"), nil, true},
		{"another's assertion", "", asserted(assertion("evil", "evil")), nil, false},
		{"an assertion of another iss", "", asserted(assertion("evil", "web")), nil, false},
		{"an assertion of another sub", "", asserted(assertion("web", "evil")), nil, false},
		{"another's assertion with the owner's client_id", "", plus(asserted(assertion("evil", "evil")), "client_id", "web"), nil, false},
		{"an assertion with another's client_id", "", plus(asserted(assertion("web", "web")), "client_id", "evil"), nil, false},
		{"no assertion", "", plus(asserted("web"), "client_id", "web"), nil, false},
		{"X-App beside the form", "", url.Values{"client_id": {"web"}}, http.Header{"X-App-Id": {"evil"}, "X-App-Token": {"s"}}, true}, // which it does not get
		{"X-App", "/v1/oauth/token/revoke", nil, http.Header{"X-App-Id": {"web"}, "X-App-Token": {"s"}}, true},
		{"another's X-App", "/v1/oauth/token/revoke", nil, http.Header{"X-App-Id": {"evil"}, "X-App-Token": {"s"}}, false},
		{"X-App beside another's form", "/v1/oauth/token/revoke", url.Values{"client_id": {"evil"}, "client_secret": {"s"}}, http.Header{"X-App-Id": {"web"}, "X-App-Token": {"s"}}, true}, // which it does not get
		{"X-App beside another's Basic", "/v1/oauth/token/revoke", nil, http.Header{"Authorization": {basic("evil", "s")}, "X-App-Id": {"web"}, "X-App-Token": {"s"}}, true},               // which it does not get
		{"X-App beside another's id in Basic", "/v1/oauth/token/revoke", nil, http.Header{"Authorization": {basic("evil", "")}, "X-App-Id": {"web"}, "X-App-Token": {"s"}}, true},          // which it does not get
		{"X-App beside another's assertion", "/v1/oauth/token/revoke", asserted(assertion("evil", "evil")), http.Header{"X-App-Id": {"web"}, "X-App-Token": {"s"}}, true},                  // which it does not get
	} {
		t.Run(c.name, func(t *testing.T) {
			log, u := &fakeLog{}, newUpstream(t, nil)
			form := url.Values{"token": {"own"}, "access_token": {"own"}}
			maps.Copy(form, c.form)
			path := c.path
			if path == "" {
				path = "/oauth2/revoke"
			}
			r := postForm(path, form.Encode())
			maps.Copy(r.Header, c.header)
			status := http.StatusOK
			if !c.owner {
				status = map[bool]int{true: 400, false: 404}[c.path == ""]
			}
			if w := do(u.relaying(t, log, nil), r); w.Code != status || u.times() != 1 {
				t.Errorf("%d %s, asked %d times", w.Code, w.Body, u.times())
			}
			if c.owner {
				checkStored(t, log, ofOwn)
			} else {
				checkStored(t, log)
			}
		})
	}
}

// Which provider is asked is the token's iss to say; an opaque token, which has none,
// goes to the one that is configured, or to the only one there is.
func TestRelayOfAToken(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	of := func(iss string) string {
		return encode([]byte(`{"alg":"ES256"}`)) + "." + encode(fmt.Appendf(nil, `{"iss":%q}`, iss)) + ".c2ln"
	}
	const other, third = "https://other.example", "https://third.example"
	for _, c := range []struct {
		token     string
		one, both string // who is asked where one issuer has a relay, and where two have
	}{
		{of(issuer), "a", "a"},
		{of(other), "", "b"},
		{of(third), "", ""},
		{of("https://unknown.example"), "", ""},
		{"opaque", "a", "a"},
		{"ya29.a0Af-H6_SM.x", "a", "a"},
		{"two.dots", "a", "a"},
		{strings.Repeat("x", token.MaxSize+1), "a", "a"},
	} {
		for _, two := range []bool{false, true} {
			a, b, log := newUpstream(t, nil), newUpstream(t, nil), &fakeLog{}
			h := a.relaying(t, log, nil, takesOpaque, func(config *Config) {
				config.Issuers = append(config.Issuers, Issuer{Issuer: other}, Issuer{Issuer: third})
				if two {
					config.Issuers[1].Relay.Endpoint = b.URL
				}
				config.Tokens = fakeTokens{"opaque": testTokens["opaque"]}
			})
			w := do(h, asks("svc", c.token))
			want := map[bool]string{false: c.one, true: c.both}[two]
			got := strings.Repeat("a", a.times()) + strings.Repeat("b", b.times())
			if got != want || (w.Code == http.StatusUnauthorized) != (want == "") { // nobody here knows the client
				t.Errorf("%.40s, two relays: %v: asked %q, want %q; %d", c.token, two, got, want, w.Code)
			}
			if len(log.all()) > 0 { // a provider takes any string for an opaque token
				t.Errorf("%.40s, two relays: %v: stored %v", c.token, two, log.all())
			}
		}
	}

	// Those of an issuer without a relay are for clients of ours to revoke, and so are all
	// where two could be meant.
	for _, c := range []struct {
		opaque string
		two    bool
		want   kind
	}{{other, false, revoked}, {"", true, unsupported}} {
		u, log := newUpstream(t, nil), &fakeLog{}
		a := u.relaying(t, log, nil, func(config *Config) {
			config.Opaque.Issuer = c.opaque
			config.Issuers = append(config.Issuers, Issuer{Issuer: other})
			if c.two {
				config.Issuers[1].Relay.Endpoint = u.URL
			}
		})
		speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, "opaque")), c.want)
		if u.times() != 0 || (len(log.all()) == 1) != (c.want == revoked) {
			t.Errorf("asked %d times, stored %v", u.times(), log.all())
		}
	}
}

// What a provider's clients revoke is bounded, though none of them is known here.
func TestBoundedBehindARelay(t *testing.T) {
	u, log := newUpstream(t, says(200, "done")), &fakeLog{}
	a := u.relaying(t, log, nil)
	a.relays.byIssuer[issuer].quota = client.NewQuota(1)
	log.err = errors.New("disk full")
	checkJSON(t, do(a, asks("web", "own")), 503, "temporarily_unavailable") // and is given back
	log.err = nil
	edgetag := func() *http.Request { return speakers["edgetag"].request("web", "the provider's", "own") }
	if w := do(a, edgetag()); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(a, edgetag()); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n := len(log.all()); n != 1 {
		t.Errorf("stored %d", n)
	}
}

// Each dialect's clients get the provider's answer, and the authority's own where
// there is none.
func TestRelaySpeaksDialects(t *testing.T) {
	for _, d := range dialects {
		s := speakers[d.name]
		log := &fakeLog{}
		w := do(newUpstream(t, says(207, "as it is")).relaying(t, log, nil), s.request("web", "the provider's", "own"))
		if w.Code != 207 || w.Body.String() != "as it is" || len(log.all()) != 1 {
			t.Errorf("%s: %d %s, stored %v", d.name, w.Code, w.Body, log.all())
		}
		s.check(t, do(newUpstream(t, says(500, "")).relaying(t, &fakeLog{}, nil), s.request("web", "the provider's", "own")), unavailable)
	}
}
