package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

func postSelector(id, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v1/revocations", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", basic(id, adminSecret))
	return r
}

// shapes are selectors and the grants that cover them beside any.
var shapes = []struct {
	selector string
	grants   []string
	wide     bool
}{
	{`{"sub":"alice"}`, []string{client.GrantSubject, client.GrantIssuer}, false},
	{`{"sub":"alice","client_id":"web"}`, []string{client.GrantSubject, client.GrantIssuer}, false},
	{`{"azp":"web","sub":"alice"}`, []string{client.GrantSubject, client.GrantIssuer}, false},
	{`{"sid":"s1"}`, []string{client.GrantSession, client.GrantIssuer}, false},
	{`{"client_id":"web"}`, []string{client.GrantClient, client.GrantIssuer}, true},
	{`{"azp":"web"}`, []string{client.GrantClient, client.GrantIssuer}, true},
	{`{}`, []string{client.GrantIssuer}, true},
	{`{"kid":"k1"}`, []string{client.GrantIssuer}, true},
	{`{"jti":"j1"}`, nil, false},
	{`{"fingerprint":"f"}`, nil, false},
	{`{"tenant":7}`, nil, true},
	{`{"sub":"alice","sid":"s1"}`, nil, false},
	{`{"sub":"alice","kid":"k1"}`, nil, false},
	{`{"client_id":"web","azp":"web"}`, nil, true},
}

func TestSelectorGrants(t *testing.T) {
	for _, s := range shapes {
		for _, g := range allGrants {
			log := &fakeLog{}
			w := do(newAuthority(t, log), postSelector(g, fmt.Sprintf(`{"issuer":%q,"selector":%s,"confirm":true}`, issuer, s.selector)))
			allowed := g == client.GrantAny
			for _, covering := range s.grants {
				allowed = allowed || g == covering
			}
			if allowed {
				checkJSON(t, w, 200, "")
			} else {
				checkJSON(t, w, 403, "access_denied")
			}
			if stored := len(log.all()); (stored == 1) != allowed {
				t.Errorf("grant %s, selector %s: stored %d", g, s.selector, stored)
			}
		}
	}
}

func TestWideSelectorsAskForConfirmation(t *testing.T) {
	for _, s := range shapes {
		for _, confirm := range []string{"", `,"confirm":false`} {
			log := &fakeLog{}
			w := do(newAuthority(t, log), postSelector(client.GrantAny, fmt.Sprintf(`{"issuer":%q,"selector":%s%s}`, issuer, s.selector, confirm)))
			if s.wide {
				if body := checkJSON(t, w, 400, "invalid_request"); !strings.Contains(fmt.Sprint(body["error_description"]), "confirm") {
					t.Errorf("it doesn't say how: %s", w.Body)
				}
			} else {
				checkJSON(t, w, 200, "")
			}
			if stored := len(log.all()); (stored == 0) != s.wide {
				t.Errorf("selector %s: stored %d", s.selector, stored)
			}
		}
		body := checkJSON(t, do(newAuthority(t, &fakeLog{}),
			postSelector(client.GrantAny, fmt.Sprintf(`{"issuer":%q,"selector":%s,"confirm":true}`, issuer, s.selector))), 200, "")
		if says, _ := body["matches"].(string); strings.HasPrefix(says, "every token of "+issuer) != s.wide ||
			s.wide && !strings.Contains(says, " issued at or before 2026-09-01T12:00:00Z") {
			t.Errorf("selector %s matches %q", s.selector, says)
		}
	}
}

func TestSelectorTimes(t *testing.T) {
	at := func(d time.Duration) string { return now.Add(d).Truncate(time.Second).Format(time.RFC3339) }
	const cut, exp = "issued_before", "expires"
	cases := []struct {
		name, selector, members string
		says                    string // of a refusal
		issuedBefore, expires   string // of the answer
	}{
		{name: "a subject, from now", selector: `{"sub":"a"}`, issuedBefore: at(0), expires: at(lifetime)},
		{name: "a token", selector: `{"jti":"a"}`, expires: at(lifetime)},
		{name: "a session", selector: `{"sid":"a"}`, expires: at(lifetime)},
		{name: "a session up to now", selector: `{"sid":"a"}`, members: `"issued_before":"` + at(0) + `"`, issuedBefore: at(0), expires: at(lifetime)},
		{name: "earlier", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(-time.Minute) + `"`, issuedBefore: at(-time.Minute), expires: at(lifetime - time.Minute)},
		{name: "in another zone, with a fraction", selector: `{"sub":"a"}`, members: `"issued_before":"2026-09-01T13:59:00.999+02:00"`, issuedBefore: at(-time.Minute), expires: at(lifetime - time.Minute)},
		{name: "a clock that is ahead", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(maxAhead) + `"`, issuedBefore: at(maxAhead), expires: at(lifetime + maxAhead)},
		{name: "too far ahead", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(maxAhead+time.Second) + `"`, says: cut},
		{name: "just not too old", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(time.Second-lifetime) + `"`, issuedBefore: at(time.Second - lifetime), expires: at(time.Second)},
		{name: "too old", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(-lifetime) + `"`, says: "max_token_lifetime"},
		{name: "before all time", selector: `{"sub":"a"}`, members: `"issued_before":"0001-01-01T00:00:00Z"`, says: "max_token_lifetime"},
		{name: "after all time", selector: `{"sub":"a"}`, members: `"issued_before":"9999-12-31T23:59:59Z"`, says: cut},
		{name: "expires sooner", selector: `{"sub":"a"}`, members: `"expires":"` + at(time.Minute) + `"`, issuedBefore: at(0), expires: at(time.Minute)},
		{name: "expires at the last", selector: `{"jti":"a"}`, members: `"expires":"` + at(lifetime) + `"`, expires: at(lifetime)},
		{name: "expires too late", selector: `{"jti":"a"}`, members: `"expires":"` + at(lifetime+time.Second) + `"`, says: lifetime.String()},
		{name: "expires too late for its cut-off", selector: `{"sub":"a"}`, members: `"issued_before":"` + at(-time.Minute) + `","expires":"` + at(lifetime) + `"`, says: lifetime.String()},
		{name: "expired", selector: `{"jti":"a"}`, members: `"expires":"` + at(0) + `"`, says: exp},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			body := fmt.Sprintf(`{"issuer":%q,"selector":%s`, issuer, c.selector)
			if c.members != "" {
				body += "," + c.members
			}
			w := do(newAuthority(t, log), postSelector(client.GrantAny, body+"}"))
			if c.says != "" {
				if body := checkJSON(t, w, 400, "invalid_request"); !strings.Contains(fmt.Sprint(body["error_description"]), c.says) {
					t.Errorf("it doesn't name %s: %s", c.says, w.Body)
				}
				if all := log.all(); len(all) != 0 {
					t.Errorf("stored %v", all)
				}
				return
			}
			checkJSON(t, w, 200, "")
			want := fmt.Sprintf(`{"position":1,"selector":%s,`, c.selector)
			if c.issuedBefore != "" {
				want += fmt.Sprintf(`"issued_before":%q,`, c.issuedBefore)
			}
			want += fmt.Sprintf(`"expires":%q}`, c.expires)
			if got := strings.TrimSpace(w.Body.String()); got != want {
				t.Errorf("answer %s\n  want %s", got, want)
			}
			r := log.all()[0]
			if err := r.Validate(); err != nil || r.ExactExpiry || r.By != client.GrantAny || !r.At.Equal(now) {
				t.Errorf("stored %+v: %v", r, err)
			}
		})
	}
}

// The files are bodies by name: what is wrong with each, or that nothing is.
func TestSelectorBodies(t *testing.T) {
	for name, body := range seeds(t, "testdata/revocations/*.json") {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			log := &fakeLog{}
			w := do(newAuthority(t, log, logged(&lines)), postSelector(client.GrantAny, string(body)))
			good := strings.HasPrefix(name, "ok-")
			if good {
				checkJSON(t, w, 200, "")
			} else if body := checkJSON(t, w, 400, "invalid_request"); !regexp.MustCompile(`^\w.{10,}`).MatchString(fmt.Sprint(body["error_description"])) {
				t.Errorf("it doesn't say why: %s", w.Body)
			}
			if stored := len(log.all()); (stored == 1) != good {
				t.Errorf("stored %d", stored)
			}
			t.Logf("%s", w.Body)
			checkSilent(t, "the answer", w.Body.String(), "Go ", "json:", "denylist")
			checkSilent(t, "the log", lines.String(), "alice", "hunter2", "misplaced", adminSecret)
			if !good {
				checkSilent(t, "the answer", w.Body.String(), "alice", "hunter2")
			}
		})
	}
}

func TestSelectorRefusals(t *testing.T) {
	body := fmt.Sprintf(`{"issuer":%q,"selector":{"sub":"alice"}}`, issuer)
	change := func(f func(*http.Request)) *http.Request { r := postSelector(client.GrantAny, body); f(r); return r }
	cases := []struct {
		name   string
		r      *http.Request
		logErr error
		status int
		code   string
	}{
		{"no credentials", change(func(r *http.Request) { r.Header.Del("Authorization") }), nil, 401, "invalid_client"},
		{"wrong secret", change(func(r *http.Request) { r.Header.Set("Authorization", basic(client.GrantAny, "x")) }), nil, 401, "invalid_client"},
		{"public client", change(func(r *http.Request) { r.Header.Set("Authorization", basic("spa", "")) }), nil, 401, "invalid_client"},
		{"no basic client", change(func(r *http.Request) { r.Header.Set("Authorization", basic("post-only", "p")) }), nil, 401, "invalid_client"},
		{"two headers", change(func(r *http.Request) { r.Header.Add("Authorization", basic(client.GrantAny, adminSecret)) }), nil, 400, "invalid_request"},
		{"a form", change(func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }), nil, 400, "invalid_request"},
		{"no type", change(func(r *http.Request) { r.Header.Del("Content-Type") }), nil, 400, "invalid_request"},
		{"1 MB", postSelector(client.GrantAny, pad(body, 1<<20)), nil, 413, "invalid_request"},
		{"grant own", postSelector(client.GrantOwn, body), nil, 403, "access_denied"},
		{"the log fails", postSelector(client.GrantAny, body), errors.New("disk of 10.0.0.7 is full"), 503, "temporarily_unavailable"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{err: c.logErr}
			w := do(newAuthority(t, log), c.r)
			answer := checkJSON(t, w, c.status, c.code)
			if answer["position"] != nil || len(log.all()) != 0 {
				t.Errorf("claimed or stored: %s", w.Body)
			}
			if got := w.Header().Get("WWW-Authenticate"); (c.status == 401) != strings.HasPrefix(got, `Basic realm="revcast"`) {
				t.Errorf("WWW-Authenticate: %q", got)
			}
			checkSilent(t, "the answer", w.Body.String(), "alice", "10.0.0.7")
		})
	}
}

// FuzzRevocation holds that whatever is accepted keeps the rules: a valid
// revocation that ends in time, by a client that may.
func FuzzRevocation(f *testing.F) {
	for _, seed := range seeds(f, "testdata/revocations/*.json") {
		f.Add(seed)
	}
	issuers := map[string]Issuer{issuer: {Issuer: issuer, MaxTokenLifetime: lifetime}}
	who := someone(f, client.GrantAny)
	f.Fuzz(func(t *testing.T, body []byte) {
		c, why := decodeSelectorCommand(body)
		if why != "" {
			if _, err := json.Marshal(why); err != nil || len(why) > 300 {
				t.Fatalf("why: %q", why)
			}
			return
		}
		if !json.Valid(body) || c.Selector == nil {
			t.Fatalf("read %q", body)
		}
		r, o, ok := decide(who, c, issuers, now)
		if !ok {
			if o.kind != badRequest || o.why == "" {
				t.Fatalf("refused as %+v", o)
			}
			return
		}
		_, wide := grantFor(r.Selector.Shape())
		switch {
		case r.Validate() != nil:
			t.Fatalf("%+v: %v", r, r.Validate())
		case r.ExactExpiry || !r.Expires.After(now) || r.Expires.After(now.Add(lifetime+maxAhead)):
			t.Fatalf("lives until %s", r.Expires)
		case wide && !c.Confirm:
			t.Fatal("nobody confirmed")
		case denylist.NeedsCutoff(r.Selector) && r.IssuedBefore.After(now.Add(maxAhead)):
			t.Fatalf("cut off at %s", r.IssuedBefore)
		}
		if _, _, ok := decide(someone(t, client.GrantOwn), c, issuers, now); ok {
			t.Fatal("own was enough")
		}
	})
}

// Whoever repeats himself does not fill the log: what it stores again counts again, and
// what it doesn't costs nothing.
func TestBoundedRepeatsCountWhereTheyAreStored(t *testing.T) {
	const most = 3
	for name, c := range map[string]struct {
		r      denylist.Revocation
		stored int
	}{
		"a token":  {denylist.Revocation{Selector: denylist.One(denylist.JTI, "j1"), ExactExpiry: true}, 2 * most},
		"a jti":    {denylist.Revocation{Selector: denylist.One(denylist.JTI, "j1")}, most},
		"a cut":    {denylist.Revocation{Selector: denylist.One(denylist.Sub, "alice"), IssuedBefore: now}, most},
		"a digest": {denylist.Revocation{Selector: denylist.One(denylist.Fingerprint, denylist.FingerprintOf("opaque"))}, most},
	} {
		list, log := denylist.New(), &fakeLog{}
		a := newAuthority(t, log, func(c *Config) { c.List = list })
		clients := registry(t, client.Config{ID: "c", SecretSHA256: hash("x"), MaxEntries: most})
		who, err := clients.Authenticate(t.Context(), client.Credentials{Method: client.SecretPost, Logins: []client.Login{{ID: "c", Secret: "x"}}}, now)
		if err != nil {
			t.Fatal(err)
		}
		c.r.Issuer, c.r.At, c.r.By, c.r.Expires = issuer, now, "c", now.Add(lifetime).Truncate(time.Second)
		stored := 0
		for range 2 * most {
			if a.store(t.Context(), who, now, c.r).kind == revoked {
				stored++
			}
			list.Add(c.r.Entry())
		}
		if stored != c.stored {
			t.Errorf("%s: answered as stored %d times, want %d", name, stored, c.stored)
		}
	}
}
