package openapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/test/harness"
)

// notProvoked says which statuses no test here can bring about, and why.
var notProvoked = map[string]string{
	"Gone": "the log keeps its messages for a token's life",
	key(http.MethodGet, "/.well-known/oauth-authorization-server", http.StatusNotFound): "both authorities have a public_url; TestMetadataIsNotForAnyHost has it",
}

var (
	web    = harness.Client{ID: "web", Secret: "s3cret-of/web"}
	spa    = harness.Client{ID: "spa"}
	admin  = harness.Client{ID: "admin", Secret: "s3cret-of/admin", Revoke: []string{"any"}}
	agent  = harness.Client{ID: "agent", Secret: "s3cret-of/agent", Revoke: []string{"subject"}}
	nobody = harness.Client{ID: "web", Secret: "wrong"}
	eager  = harness.Client{ID: "eager", Secret: "s3cret-of/eager", Revoke: []string{"any"}} // one request a second
)

// TestDescriptionIsValid includes the examples, and that an answer's members are all
// described.
func TestDescriptionIsValid(t *testing.T) {
	w := start(t)
	if err := w.doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	for _, name := range everyAnswer {
		if !strings.Contains(w.doc.Info.Description, "`"+name) {
			t.Errorf("the description doesn't tell of %s", name)
		}
	}
	for path, item := range w.doc.Paths.Map() {
		for method, o := range item.Operations() {
			if o.RequestBody != nil {
				for name, body := range o.RequestBody.Value.Content {
					if body.Example == nil && body.Examples == nil {
						t.Errorf("%s %s: no example of %s", method, path, name)
					}
					w.checkExampleLines(t, name, body)
				}
			}
			for status, answer := range o.Responses.Map() {
				for name, body := range answer.Value.Content {
					where := fmt.Sprintf("%s %s %s %s", method, path, status, name)
					if name == jsonType {
						strict(t, where, body.Schema)
						if body.Example == nil && body.Examples == nil {
							t.Errorf("%s: no example", where)
						}
					}
					w.checkExampleLines(t, name, body)
				}
			}
		}
	}
}

// checkExampleLines holds an example of a stream to what its lines are.
func (w *world) checkExampleLines(t *testing.T, name string, body *openapi3.MediaType) {
	t.Helper()
	if name == ndjson {
		text, _ := body.Example.(string)
		w.checkLines(t, body.Schema, []byte(text))
	}
}

// strict fails where a schema lets an object have members that it doesn't name.
func strict(t *testing.T, where string, s *openapi3.SchemaRef) {
	t.Helper()
	if s == nil {
		return
	}
	if v := s.Value; v.Type.Is("object") && v.AdditionalProperties.Schema == nil &&
		(v.AdditionalProperties.Has == nil || *v.AdditionalProperties.Has) {
		t.Errorf("%s: an object of the answer may have any member", where)
	}
	for _, one := range slices.Concat(s.Value.OneOf, s.Value.AllOf, s.Value.AnyOf) {
		strict(t, where, one)
	}
	for name, one := range s.Value.Properties {
		strict(t, where+" "+name, one)
	}
	strict(t, where+" []", s.Value.Items)
}

// TestServesWhatIsDescribed compares the routes, both ways.
func TestServesWhatIsDescribed(t *testing.T) {
	w := start(t)
	var described []string
	for path, item := range w.doc.Paths.Map() {
		var allow []string
		for method := range item.Operations() {
			allow = append(allow, method)
			if method == http.MethodGet {
				allow = append(allow, http.MethodHead)
			}
		}
		at := w.authority.URL + strings.ReplaceAll(path, "{org}", "bifrost")
		got := send(t, call{method: http.MethodPatch, url: at}.request(t))
		slices.Sort(allow)
		said := strings.Split(got.header.Get("Allow"), ", ")
		slices.Sort(said)
		described = append(described, path)
		if got.status != http.StatusMethodNotAllowed || !slices.Equal(allow, said) {
			t.Errorf("%s: PATCH is answered %d, Allow: %s; want 405, %s", path, got.status, said, allow)
		}
		w.checkError(t, got)
		if slices.Contains(allow, http.MethodHead) {
			c := call{method: http.MethodGet, url: at}
			if path == "/v1/log" {
				c.url += "?after=0"
			}
			get := send(t, c.request(t))
			c.method = http.MethodHead
			if head := send(t, c.request(t)); head.status != get.status || len(head.body) > 0 ||
				head.header.Get("Content-Type") != get.header.Get("Content-Type") {
				t.Errorf("%s: GET is answered %d, HEAD %d", path, get.status, head.status)
			}
		}
	}
	w.checkError(t, send(t, call{method: http.MethodGet, url: w.authority.URL + "/v2"}.request(t)))

	text := send(t, call{method: http.MethodGet, url: w.authority.URL + "/metrics"}.request(t))
	var served []string
	for _, m := range regexp.MustCompile(`revcast_http_requests_total\{route="([^"]*)"`).FindAllSubmatch(text.body, -1) {
		if route := string(m[1]); route != "other" {
			served = append(served, route)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if served = slices.Compact(served); !slices.Equal(served, described) {
		t.Errorf("served:    %s\ndescribed: %s", strings.Join(served, " "), strings.Join(described, " "))
	}
}

// checkError fails unless the answer is an error as they all are.
func (w *world) checkError(t *testing.T, got answer) {
	t.Helper()
	checkEveryAnswer(t, got)
	if err := w.matches(w.doc.Components.Schemas["Error"], got.body); err != nil || got.header.Get("Content-Type") != jsonType {
		t.Errorf("%d %s: %v", got.status, got.body, err)
	}
}

// TestDoesAsDescribed sends requests, good and bad, and has each operation give every
// answer that is described.
func TestDoesAsDescribed(t *testing.T) {
	w := start(t)
	for _, c := range slices.Concat(w.tokenCases(), w.selectorCases(), w.questionCases(), w.eventCases(), w.otherCases()) {
		t.Run(c.name, func(t *testing.T) {
			at := w.authority
			if c.away {
				at = w.away
			}
			c.url = at.URL + c.url
			got := w.check(t, at, c.call, !c.unfit)
			for n := 0; n < c.insist && got.status != c.want; n++ {
				got = w.check(t, at, c.call, !c.unfit)
			}
			if got.status != c.want || !strings.Contains(string(got.body), c.says) {
				t.Errorf("%d %s, want %d %s", got.status, got.body, c.want, c.says)
			}
		})
	}
	for path, item := range w.doc.Paths.Map() {
		for method, o := range item.Operations() {
			for status := range o.Responses.Map() {
				var code int
				if _, err := fmt.Sscan(status, &code); err != nil {
					t.Fatalf("%s %s: status %s", method, path, status)
				}
				told := notProvoked[http.StatusText(code)] != "" || notProvoked[key(method, path, code)] != ""
				if seen := w.seen[key(method, path, code)]; seen == told {
					t.Errorf("%s %s %d: seen: %v, said not to be: %v", method, path, code, seen, told)
				}
			}
		}
	}
}

// world is an authority with its description, and one whose log is out of reach.
type world struct {
	*contract
	authority, away *harness.Process
	key             *tokentest.Key
	issuer          string // of key
	tokens          int
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{key: tokentest.NewKey("k1", "ES256")}
	idp := httptest.NewServer(tokentest.NewIdP(w.key))
	t.Cleanup(idp.Close)
	w.issuer = idp.URL
	gone := "http://" + harness.FreeAddress(t)
	o := harness.AuthorityOptions{
		Issuers: []harness.Trust{{Issuer: w.issuer, JWKSURI: w.issuer}, {Issuer: keysAway, JWKSURI: gone}},
		Clients: []harness.Client{web, spa, admin, agent},
	}
	o.Edit = func(config map[string]any) {
		config["public_url"] = publicURL
		config["issuers"].([]any)[0].(map[string]any)["logout_audiences"] = []string{web.ID}
		config["clients"] = append(config["clients"].([]any), map[string]any{
			"id": eager.ID, "secret_sha256": hash(eager.Secret), "revoke": eager.Revoke, "rate": 1,
		})
		transmitter := func(issuer, keys string) map[string]any {
			return map[string]any{"issuer": issuer, "jwks_uri": keys, "audiences": []string{publicURL}, "issuers": []string{w.issuer}}
		}
		pushing := transmitter(withPushToken, w.issuer)
		pushing["push_token_sha256"] = hash("push")
		config["transmitters"] = []any{transmitter(w.issuer, w.issuer), transmitter(keysAway, gone), pushing}
	}
	w.authority = harness.StartAuthority(t, o)
	w.contract = fetch(t, w.authority)
	o.NoWait = true
	edit := o.Edit
	o.Edit = func(config map[string]any) {
		edit(config)
		config["nats"] = map[string]any{"url": "nats://" + harness.FreeAddress(t), "verifier_url": "nats://127.0.0.1:4222"}
	}
	w.away = harness.StartAuthority(t, o)
	answering(t, w.away)
	return w
}

const (
	publicURL     = "https://revcast.example"
	keysAway      = "https://keys-away.example"  // an issuer whose keys can't be had
	withPushToken = "https://push-token.example" // a transmitter that shows one, "push"
)

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// token issues a token of its own to a client; change is in pairs.
func (w *world) token(client harness.Client, change ...any) string {
	return w.sign("at+jwt", append([]any{"sub", "alice", "client_id", client.ID, "exp", time.Now().Add(time.Hour).Unix()}, change...)...)
}

// sign signs claims, in pairs, as a JWT of a type and with a jti of its own.
func (w *world) sign(typ string, pairs ...any) string {
	w.tokens++
	claims := map[string]any{"iss": w.issuer, "iat": time.Now().Unix(), "jti": fmt.Sprintf("j%d", w.tokens)}
	for i := 0; i < len(pairs); i += 2 {
		claims[pairs[i].(string)] = pairs[i+1]
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // a mistake of the test's
	}
	return w.key.Sign(`{"alg":"ES256","kid":"k1","typ":"`+typ+`"}`, string(payload))
}

// testCase is a request, and the status of its answer.
type testCase struct {
	name string
	call
	want  int
	says  string // in the body
	unfit bool   // the description says that it is a bad request
	away  bool   // for the authority whose log is out of reach
	// insist is how often to come again where the answer is another.
	insist int
}

// but returns the case with changes, of which some are common.
func (c testCase) but(changes []func(*testCase)) testCase {
	for _, f := range changes {
		f(&c)
	}
	return c
}

func unfit(c *testCase)     { c.unfit = true }
func away(c *testCase)      { c.away = true }
func anonymous(c *testCase) { c.header = nil }
func insist(c *testCase)    { c.insist = 50 }

func basic(c harness.Client) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(c.ID+":"+c.Secret))}}
}

func appHeaders(c harness.Client) http.Header {
	return http.Header{"X-App-Id": {c.ID}, "X-App-Token": {c.Secret}}
}

// tokenCases go to every path that takes a token.
func (w *world) tokenCases() (all []testCase) {
	for _, d := range []struct {
		path, token string
		introspects bool
		done        int
		login       func(harness.Client) http.Header
	}{
		{"/oauth2/revoke", "token", false, 200, basic},
		{"/v1/oauth-app/client/revoke", "token", false, 200, basic},
		{"/t/bifrost/oauth2/revoke", "token", false, 200, basic},
		{"/oidc/token/revocation", "token", false, 200, basic},
		{"/oauth/token/revocation", "token", false, 200, basic},
		{"/v1/oauth/token/revoke", "access_token", false, 204, appHeaders},
		{"/oauth2/introspect", "token", true, 200, basic},
		{"/t/bifrost/oauth2/introspect", "token", true, 200, basic},
		{"/oidc/token/introspection", "token", true, 200, basic},
		{"/oauth/token/introspection", "token", true, 200, basic},
	} {
		add := func(name string, want int, login harness.Client, body url.Values, change ...func(*testCase)) {
			c := testCase{name: d.path + "/" + name, want: want, call: call{
				method: http.MethodPost, url: d.path, contentType: form, body: body.Encode(), header: d.login(login),
			}}
			all = append(all, c.but(change))
		}
		over := d.done // where there is nothing to revoke
		if d.done == http.StatusNoContent {
			over = http.StatusNotFound
		}
		known := w.token(web, "sub", d.path, // no other case revokes this user's
			"nbf", time.Now().Unix(), "scope", "read", "username", "alice", "sid", "s1", "azp", web.ID,
			"cnf", map[string]any{"jkt": "x"}, "act", map[string]any{"sub": "bot"}, "secret", "not passed on")
		add("a token", d.done, web, url.Values{d.token: {known}}, func(c *testCase) {
			if d.introspects {
				c.says = `"active":true`
			}
		})
		add("again", over, web, url.Values{d.token: {known}}, func(c *testCase) {
			if d.introspects || d.done == 200 {
				c.want = 200
			}
		})
		add("an expired token", over, web, url.Values{d.token: {w.token(web, "exp", time.Now().Add(-time.Hour).Unix())}})
		add("a token over 64 KiB", 413, web, url.Values{d.token: {known}, "x": {strings.Repeat("x", 64<<10)}})
		add("no token", 400, web, url.Values{"x": {"x"}}, unfit)
		add("a wrong secret", 401, nobody, url.Values{d.token: {known}})
		add("keys can't be had", 503, web, url.Values{d.token: {w.token(web, "iss", keysAway)}})
		add("the log is out of reach", 503, web, url.Values{d.token: {w.token(web)}}, away)
		add("too often", 429, eager, url.Values{d.token: {known}}, insist)
		add("JSON", 400, web, nil, unfit, func(c *testCase) { c.contentType, c.body = jsonType, `{"token":"x"}` })
		if d.token != "token" {
			add("another's token", 404, web, url.Values{d.token: {w.token(spa)}})
			add("no credentials", 401, web, url.Values{d.token: {known}}, anonymous, unfit)
			continue
		}
		add("no credentials", 401, web, url.Values{d.token: {known}}, anonymous)
		add("secret in the form", 200, web, url.Values{
			d.token: {w.token(web)}, "token_type_hint": {"access_token"}, "client_id": {web.ID}, "client_secret": {web.Secret},
		}, anonymous)
		add("a public client", 200, spa, url.Values{d.token: {w.token(spa)}, "client_id": {spa.ID}}, anonymous)
		if !d.introspects {
			add("another's token", 400, web, url.Values{d.token: {w.token(spa)}})
			add("an opaque token", 400, web, url.Values{d.token: {"opaque"}})
		}
	}
	return all
}

func (w *world) selectorCases() (all []testCase) {
	const path = "/v1/revocations"
	add := func(name string, want int, login harness.Client, contentType, body string, change ...func(*testCase)) {
		c := testCase{name: path + "/" + name, want: want, call: call{
			method: http.MethodPost, url: path, contentType: contentType, header: basic(login),
			body: strings.ReplaceAll(body, "ISS", w.issuer),
		}}
		all = append(all, c.but(change))
	}
	add("by sub", 200, agent, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`)
	add("by jti", 200, admin, jsonType, `{"issuer":"ISS","selector":{"jti":"1"},"reason":"found in a log"}`)
	add("a wide one", 200, admin, jsonType, `{"issuer":"ISS","selector":{"tenant":42,"guest":true},"confirm":true}`)
	add("a wide one, unconfirmed", 400, admin, jsonType, `{"issuer":"ISS","selector":{"tenant":42}}`)
	add("an unknown member", 400, admin, jsonType, `{"issuer":"ISS","selector":{"sub":"a"},"x":1}`, unfit)
	add("no selector", 400, admin, jsonType, `{"issuer":"ISS"}`, unfit)
	add("a fraction", 400, admin, jsonType, `{"issuer":"ISS","selector":{"sub":1.5}}`, unfit)
	add("nine claims", 400, admin, jsonType, `{"issuer":"ISS","selector":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":""}}`, unfit)
	add("a date", 400, admin, jsonType, `{"issuer":"ISS","selector":{"sub":"a"},"issued_before":"2026-09-01"}`, unfit)
	add("a long reason", 400, admin, jsonType, `{"issuer":"ISS","selector":{"sub":"a"},"reason":"`+strings.Repeat("x", 513)+`"}`, unfit)
	add("another type", 400, admin, form, `issuer=ISS`, unfit)
	add("a wrong secret", 401, nobody, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`)
	add("no credentials", 401, nobody, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`, unfit, anonymous)
	add("no grant", 403, agent, jsonType, `{"issuer":"ISS","selector":{"sid":"1"}}`)
	add("over 64 KiB", 413, admin, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`+strings.Repeat(" ", 64<<10))
	add("too often", 429, eager, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`, insist)
	add("the log is out of reach", 503, admin, jsonType, `{"issuer":"ISS","selector":{"sub":"alice"}}`, away)
	const lines = `{"issuer":"ISS","selector":{"sub":"alice"}}` + "\n" + `{"issuer":"ISS"}` + "\n" +
		`{"issuer":"ISS","selector":{"tenant":"42"},"confirm":true}` + "\n"
	add("a stream", 200, admin, ndjson, lines)
	add("a stream with a wrong secret", 401, nobody, ndjson, lines)
	add("a stream, the log is out of reach", 200, admin, ndjson, lines, away)
	return all
}

func (w *world) questionCases() (all []testCase) {
	add := func(query string, want int, login harness.Client, change ...func(*testCase)) {
		c := testCase{name: fmt.Sprintf("question/%s/%d", query, want), want: want, call: call{
			method: http.MethodGet, header: basic(login),
			url: "/v1/revocations?" + strings.ReplaceAll(query, "ISS", url.QueryEscape(w.issuer)),
		}}
		all = append(all, c.but(change))
	}
	add("issuer=ISS&sub=alice", 200, agent, func(c *testCase) { c.says = `"live":true` })
	add("issuer=ISS&sub=who", 200, agent, func(c *testCase) { c.says = `"live":false` })
	add("issuer=ISS&jti=1", 200, admin, func(c *testCase) { c.says = "found in a log" })
	add("sub=alice", 400, agent, unfit)
	add("issuer=ISS&sub=a&sub=b", 400, agent)
	add("issuer=ISS&sub=alice", 401, nobody)
	add("issuer=ISS&sub=alice", 401, agent, unfit, anonymous)
	add("issuer=ISS&sid=1", 403, agent)
	add("issuer=ISS&sub=alice", 429, eager, insist)
	add("issuer=ISS&sub=alice", 503, agent, away)
	return all
}

func (w *world) eventCases() (all []testCase) {
	add := func(name, path string, want int, contentType, body, bearer string, change ...func(*testCase)) {
		c := testCase{name: path + "/" + name, want: want, call: call{
			method: http.MethodPost, url: path, contentType: contentType, body: body, header: http.Header{},
		}}
		if bearer != "" {
			c.header.Set("Authorization", "Bearer "+bearer)
		}
		all = append(all, c.but(change))
	}
	in5 := time.Now().Add(5 * time.Minute).Unix()

	const logout = "/backchannel-logout"
	ended := func(pairs ...any) string {
		event := map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}
		return "logout_token=" + w.sign("logout+jwt", append([]any{"aud", web.ID, "exp", in5, "sub", "bob", "events", event}, pairs...)...)
	}
	once := ended()
	add("a logout token", logout, 200, form, once, "")
	add("again", logout, 400, form, once, "")
	add("with a nonce", logout, 400, form, ended("nonce", "n"), "")
	add("no token", logout, 400, form, "x=x", "", unfit)
	add("over 64 KiB", logout, 413, form, ended()+"&x="+strings.Repeat("x", 64<<10), "")
	add("keys can't be had", logout, 503, form, ended("iss", keysAway), "")
	add("the log is out of reach", logout, 503, form, ended(), "", away)

	const events, secevent = "/v1/events", "application/secevent+jwt"
	happened := func(pairs ...any) string {
		event := map[string]any{"https://schemas.openid.net/secevent/caep/event-type/session-revoked": map[string]any{}}
		subject := map[string]any{"format": "iss_sub", "iss": w.issuer, "sub": "bob"}
		return w.sign("secevent+jwt", append([]any{"aud", publicURL, "sub_id", subject, "events", event}, pairs...)...)
	}
	add("an event", events, 202, secevent, happened(), "")
	add("with a push token", events, 202, secevent, happened("iss", withPushToken), "push")
	add("without a push token", events, 401, secevent, happened("iss", withPushToken), "")
	add("for others", events, 400, secevent, happened("aud", "https://other.example"), "")
	add("of a stranger", events, 400, secevent, happened("iss", "https://other.example"), "")
	add("as JSON", events, 400, jsonType, `{}`, "", unfit)
	add("over 64 KiB", events, 413, secevent, strings.Repeat("x", 64<<10+1), "", unfit)
	add("keys can't be had", events, 503, secevent, happened("iss", keysAway), "")
	add("the log is out of reach", events, 503, secevent, happened(), "", away)

	const global = "/global-token-revocation"
	bearer := func(pairs ...any) string {
		return w.sign("JWT", append([]any{"aud", publicURL + global, "exp", in5, "sub", "idp"}, pairs...)...)
	}
	subject := func(format, iss string) string {
		return fmt.Sprintf(`{"sub_id":{"format":%q,"iss":%q,"sub":"bob"}}`, format, iss)
	}
	used, bob := bearer(), subject("iss_sub", w.issuer)
	add("a user", global, 204, jsonType, bob, used)
	add("a bearer token again", global, 401, jsonType, bob, used)
	add("no bearer token", global, 401, jsonType, bob, "", unfit)
	add("a bearer token for others", global, 401, jsonType, bob, bearer("aud", publicURL))
	add("no subject", global, 400, jsonType, `{}`, bearer(), unfit)
	add("of another issuer", global, 403, jsonType, subject("iss_sub", "https://other.example"), bearer())
	add("over 64 KiB", global, 413, jsonType, bob+strings.Repeat(" ", 64<<10), bearer())
	add("by email", global, 422, jsonType, `{"sub_id":{"format":"email","email":"bob@example.com"}}`, bearer())
	add("keys can't be had", global, 503, jsonType, bob, bearer("iss", keysAway))
	add("the log is out of reach", global, 503, jsonType, bob, bearer(), away)
	return all
}

func (w *world) otherCases() (all []testCase) {
	get := func(url string, want int, change ...func(*testCase)) {
		c := testCase{name: fmt.Sprintf("%s/%d", url, want), want: want, call: call{method: http.MethodGet, url: url}}
		all = append(all, c.but(change))
	}
	for _, path := range []string{
		"/.well-known/oauth-authorization-server", "/.well-known/revcast", "/v1/snapshot", "/v1/log?after=0",
		"/v1/log?after=0&wait=10ms&nonce=n", "/healthz", "/readyz", "/metrics", "/openapi.yaml",
	} {
		get(path, 200)
	}
	for _, path := range []string{"/.well-known/revcast", "/v1/snapshot", "/v1/log?after=0", "/readyz"} {
		get(path, 503, away)
	}
	get("/v1/log", 400, unfit)
	get("/v1/log?after=-1", 400, unfit)
	get("/v1/log?after=0&nonce="+strings.Repeat("n", 65), 400, unfit)
	get("/v1/log?after=0&wait=1h", 400)
	return all
}

// TestBrowsers asks from a page of an origin that nobody allowed.
func TestBrowsers(t *testing.T) {
	w := start(t)
	for path, item := range w.doc.Paths.Map() {
		if item.Post == nil || !slices.Contains(item.Post.Tags, "tokens") {
			continue
		}
		c := call{method: http.MethodOptions, url: w.authority.URL + strings.ReplaceAll(path, "{org}", "bifrost"), header: http.Header{
			"Origin": {"https://page.example"}, "Access-Control-Request-Method": {http.MethodPost},
		}}
		got := send(t, c.request(t))
		checkEveryAnswer(t, got)
		if got.status != http.StatusNoContent || got.header.Get("Vary") == "" || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
}
