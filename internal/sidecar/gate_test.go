package sidecar

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

const issuer = "https://idp.example"

var key = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e1", "ES256") })

// tokenOf is a token that is good for another hour, but for the changes.
func tokenWith(changes map[string]any) string {
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": "alice", "aud": []string{"api", "finance"}, "jti": "t-1", "scope": "read admin",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return key().Token(c)
}

// guarded is a sidecar with a real verifier, rules and identity.
type guarded struct {
	*Sidecar
	list *denylist.List
	logs *logBuffer
}

func guard(t *testing.T, change func(*Config)) *guarded {
	t.Helper()
	g := &guarded{list: denylist.New(), logs: &logBuffer{}}
	logger := slog.New(slog.NewTextHandler(g.logs, nil))
	v, err := verifier.New(verifier.Config{
		Denylist: g.list, HTTPClient: tokentest.NewIdP(key()).Client(), Logger: logger,
		Issuers: []verifier.Issuer{{Issuer: issuer, JWKSURI: issuer + "/jwks", Algorithms: []string{"ES256"}, Audiences: []string{"api"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	g.list.Advance(time.Now())
	c := Config{
		Decider: v, Upstream: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Ready: v.Ready, Logger: logger,
		Routes: []Route{
			{Path: "/public/*", Public: true},
			{Path: "/admin/*", Decider: v.Requiring(verifier.Requirement{Scopes: []string{"admin"}})},
			{Path: "/finance/*", Decider: v.Requiring(verifier.Requirement{Audiences: []string{"finance"}})},
		},
		Identity: []Identity{{"sub", "X-Auth-Sub"}, {"scope", "X-Auth-Scope"}},
	}
	if change != nil {
		change(&c)
	}
	if g.Sidecar, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) revoke(t *testing.T, claim, value string) {
	t.Helper()
	r := denylist.Revocation{Issuer: issuer, Selector: denylist.One(claim, value), Expires: time.Now().Add(2 * time.Hour)}
	if denylist.NeedsCutoff(r.Selector) {
		r.IssuedBefore = time.Now()
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	g.list.Add(r.Entry())
}

// said is what a door answered, in the terms of all doors.
type said struct {
	status    int
	challenge string
	code      string // of the error
	sub       string // that the upstream is told
}

// asking are the doors that are told of a whole request.
var asking = map[string]func(*testing.T, *guarded, *http.Request) said{
	"proxy": func(t *testing.T, g *guarded, r *http.Request) said {
		told := ""
		upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told = r.Header.Get("X-Auth-Sub") }))
		defer upstream.Close()
		g.upstream.Host = strings.TrimPrefix(upstream.URL, "http://")
		defer g.Close()
		w := httptest.NewRecorder()
		g.Handler(ProxyListener).ServeHTTP(w, r)
		s := recorded(w)
		s.sub = told
		return s
	},
	"check, X-Forwarded-Uri": func(_ *testing.T, g *guarded, r *http.Request) said {
		check := httptest.NewRequest("GET", "/check", nil)
		check.Header = r.Header.Clone()
		check.Header.Set("X-Forwarded-Uri", r.URL.RequestURI())
		check.Header.Set("X-Forwarded-Method", r.Method)
		return checked(g, check)
	},
	"check, X-Original-URI": func(_ *testing.T, g *guarded, r *http.Request) said {
		check := httptest.NewRequest("GET", "/check", nil)
		check.Header = r.Header.Clone()
		check.Header.Set("X-Original-URI", r.URL.RequestURI())
		check.Header.Set("X-Original-Method", r.Method)
		return checked(g, check)
	},
	"check, X-Original-URL": func(_ *testing.T, g *guarded, r *http.Request) said { // as ingress-nginx asks
		check := httptest.NewRequest("GET", "/check", nil)
		check.Header = r.Header.Clone()
		check.Header.Set("X-Original-URL", "https://api.example:8443"+r.URL.RequestURI())
		check.Header.Set("X-Original-Method", r.Method)
		return checked(g, check)
	},
	"check, path": func(_ *testing.T, g *guarded, r *http.Request) said {
		check := httptest.NewRequest(r.Method, "/check"+r.URL.RequestURI(), nil)
		check.Header = r.Header.Clone()
		return checked(g, check)
	},
	"ext_authz": func(t *testing.T, g *guarded, r *http.Request) said {
		joined := map[string]string{}
		for name, values := range r.Header {
			joined[strings.ToLower(name)] = strings.Join(values, ",")
		}
		return envoy(t, g, &auth.AttributeContext_HttpRequest{Method: r.Method, Path: r.URL.RequestURI(), Headers: joined})
	},
	"ext_authz, raw headers": func(t *testing.T, g *guarded, r *http.Request) said {
		lines := &core.HeaderMap{}
		for name, values := range r.Header {
			for _, v := range values {
				lines.Headers = append(lines.Headers, &core.HeaderValue{Key: strings.ToLower(name), RawValue: []byte(v)})
			}
		}
		return envoy(t, g, &auth.AttributeContext_HttpRequest{Method: r.Method, Path: r.URL.RequestURI(), HeaderMap: lines})
	},
}

func recorded(w *httptest.ResponseRecorder) said {
	var e struct{ Error string }
	_ = json.Unmarshal(w.Body.Bytes(), &e) // not every answer is an error
	return said{w.Code, w.Header().Get("WWW-Authenticate"), e.Error, w.Header().Get("X-Auth-Sub")}
}

func checked(g *guarded, r *http.Request) said {
	w := httptest.NewRecorder()
	g.Handler(CheckListener).ServeHTTP(w, r)
	return recorded(w)
}

func envoy(t *testing.T, g *guarded, about *auth.AttributeContext_HttpRequest) said {
	t.Helper()
	z := authorization{sidecar: g.Sidecar}
	r, err := z.Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{Http: about}}})
	if err != nil {
		t.Fatal(err)
	}
	if no := r.GetDeniedResponse(); no != nil {
		w := httptest.NewRecorder()
		for _, h := range no.GetHeaders() {
			w.Header().Set(h.GetHeader().GetKey(), h.GetHeader().GetValue())
		}
		w.WriteHeader(int(no.GetStatus().GetCode()))
		_, _ = w.WriteString(no.GetBody())
		if r.GetStatus().GetCode() == 0 {
			t.Error("denied with the status OK")
		}
		return recorded(w)
	}
	if r.GetStatus().GetCode() != 0 {
		t.Errorf("allowed with the status %d", r.GetStatus().GetCode())
	}
	s := said{status: 200}
	for _, h := range r.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-auth-sub" && h.GetAppendAction() == core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			s.sub = h.GetHeader().GetValue()
		}
	}
	return s
}

// TestOneDecision asks every door the same, and expects the same.
func TestOneDecision(t *testing.T) {
	const (
		invalid = `Bearer error="invalid_token"`
		request = `Bearer error="invalid_request"`
		scope   = `Bearer error="insufficient_scope"`
	)
	good := tokenWith(nil)
	allowed := said{status: 200, sub: "alice"}
	bad := said{401, invalid, "invalid_token", ""}
	for _, c := range []struct {
		name, method, target string
		header               map[string][]string
		before               func(*testing.T, *guarded)
		want                 said
	}{
		{"good", "GET", "/orders?a=b", bearer(good), nil, allowed},
		{"good, POST", "POST", "/orders", bearer(good), nil, allowed},
		{"no token", "GET", "/orders", nil, nil, said{401, "Bearer", "missing_token", ""}},
		{"another scheme", "GET", "/orders", map[string][]string{"Authorization": {"Basic dTpw"}}, nil, said{401, "Bearer", "missing_token", ""}},
		{"expired", "GET", "/orders", bearer(tokenWith(map[string]any{"exp": time.Now().Unix() - 60})), nil, bad},
		{"another audience", "GET", "/orders", bearer(tokenWith(map[string]any{"aud": "other"})), nil, bad},
		{"two headers", "GET", "/orders", map[string][]string{"Authorization": {"Bearer " + good, "Bearer " + good}}, nil, said{400, request, "invalid_request", ""}},
		{"two headers, two schemes", "GET", "/orders", map[string][]string{"Authorization": {"Basic dTpw", "Bearer " + good}}, nil, said{400, request, "invalid_request", ""}},
		{"in the query, too", "GET", "/orders?access%5Ftoken=x", bearer(good), nil, said{400, request, "invalid_request", ""}},
		{"revoked", "GET", "/orders", bearer(good), func(t *testing.T, g *guarded) { g.revoke(t, "jti", "t-1") }, bad},
		{"revoked by sub", "GET", "/orders", bearer(good), func(t *testing.T, g *guarded) { g.revoke(t, "sub", "alice") }, bad},

		{"public", "GET", "/public/a", nil, nil, said{status: 200}},
		{"public with a revoked token", "GET", "/public/a", bearer(good), func(t *testing.T, g *guarded) { g.revoke(t, "jti", "t-1") }, said{status: 200}},
		{"public with rubbish", "GET", "/public/a", bearer("rubbish"), nil, said{status: 200}},
		{"public with a spoofed identity", "GET", "/public/a", map[string][]string{"X-Auth-Sub": {"root"}}, nil, said{status: 200}},
		{"scope", "GET", "/admin/x", bearer(good), nil, allowed},
		{"scope missing", "GET", "/admin/x", bearer(tokenWith(map[string]any{"scope": "read"})), nil, said{403, scope, "insufficient_scope", ""}},
		{"scope missing, and revoked", "GET", "/admin", bearer(tokenWith(map[string]any{"scope": "read"})), func(t *testing.T, g *guarded) { g.revoke(t, "jti", "t-1") }, bad},
		{"audience of the route", "GET", "/finance/x", bearer(good), nil, allowed},
		{"audience of the route missing", "GET", "/finance/x", bearer(tokenWith(map[string]any{"aud": "api"})), nil, bad},
		{"escaped letters", "GET", "/%61dmin/x", bearer(tokenWith(map[string]any{"scope": "read"})), nil, said{403, scope, "insufficient_scope", ""}},
		{"case", "GET", "/ADMIN/x", bearer(good), nil, said{400, "", "invalid_request", ""}},
		{"dots", "GET", "/public/../admin/x", bearer(good), nil, said{400, "", "invalid_request", ""}},
		{"escaped slash", "GET", "/public/..%2fadmin/x", nil, nil, said{400, "", "invalid_request", ""}},
		{"semicolon", "GET", "/admin;x/y", bearer(good), nil, said{400, "", "invalid_request", ""}},
		{"preflight, not let through", "OPTIONS", "/orders", map[string][]string{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}}, nil, said{401, "Bearer", "missing_token", ""}},
	} {
		for name, ask := range asking {
			t.Run(c.name+", "+name, func(t *testing.T) {
				g := guard(t, nil)
				if c.before != nil {
					c.before(t, g)
				}
				r := httptest.NewRequest(c.method, c.target, nil)
				for name, values := range c.header {
					r.Header[name] = values
				}
				if got := ask(t, g, r); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				for _, values := range c.header {
					for _, v := range values {
						if _, token, _ := strings.Cut(v, " "); len(token) > 20 && strings.Contains(g.logs.String(), token) {
							t.Error("the token is logged")
						}
					}
				}
			})
		}
	}
}

func bearer(token string) map[string][]string {
	return map[string][]string{"Authorization": {"Bearer " + token}}
}

// TestUnknownIsNeverAFailedCheck: other proxies may let through where a check fails.
func TestUnknownIsNeverAFailedCheck(t *testing.T) {
	for name, ask := range asking {
		g := guard(t, nil)
		g.gate.decider = fake{verifier.Decision{Outcome: verifier.Unavailable, Reason: verifier.Stale}}
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("Authorization", "Bearer a.b.c")
		want := said{403, "", "temporarily_unavailable", ""}
		if name == "proxy" {
			want.status = 503
		}
		if got := ask(t, g, r); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestPreflight(t *testing.T) {
	for name, ask := range asking {
		for _, c := range []struct {
			method string
			header map[string][]string
			passes bool
		}{
			{"OPTIONS", map[string][]string{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}}, true},
			{"GET", map[string][]string{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}}, false},
			{"OPTIONS", map[string][]string{"Origin": {"https://a"}}, false},
			{"OPTIONS", map[string][]string{"Access-Control-Request-Method": {"PUT"}}, false},
			{"OPTIONS", map[string][]string{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}, "Cookie": {"a=b"}}, false},
			{"OPTIONS", map[string][]string{"Origin": {"https://a"}, "Access-Control-Request-Method": {"PUT"}, "Authorization": {"Bearer x"}}, false},
		} {
			g := guard(t, func(c *Config) { c.Preflights = true })
			r := httptest.NewRequest(c.method, "/orders", nil)
			for name, values := range c.header {
				r.Header[name] = values
			}
			if got := ask(t, g, r); (got.status == 200) != c.passes || got.sub != "" {
				t.Errorf("%s, %s %v: %+v", name, c.method, c.header, got)
			}
		}
	}
}

// TestCheckIsToldOnce: what a check is about must be said in one way.
func TestCheckIsToldOnce(t *testing.T) {
	good := tokenWith(nil)
	for _, c := range []struct {
		target string
		header map[string][]string
		status int
	}{
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/a"}, "X-Original-Uri": {"/a"}}, 200},
		{"/check/a", map[string][]string{"X-Forwarded-Uri": {"/a"}}, 200},
		{"/check/a?b=c", map[string][]string{"X-Original-Uri": {"/a?b=c"}}, 200},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/public/a"}, "X-Original-Uri": {"/admin"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/a", "/a"}}, 200},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/public/a", "/admin"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {""}}, 400},
		{"/check/admin", map[string][]string{"X-Forwarded-Uri": {"/public/a"}}, 400},
		{"/check/a", map[string][]string{"X-Forwarded-Uri": {"/a?b"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"a"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"http://api/a"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/a#b"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api/a?b"}, "X-Original-Uri": {"/a?b"}}, 200},
		{"/check", map[string][]string{"X-Original-Url": {"/a"}, "X-Original-Uri": {"/a"}}, 200},
		{"/check", map[string][]string{"X-Original-Url": {"/public/a"}, "X-Original-Uri": {"/admin"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"http://[::1]:80/public/a"}}, 200},
		{"/check", map[string][]string{"X-Original-Url": {"https://api/admin"}, "X-Forwarded-Uri": {"/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api/public/a", "https://api/admin"}}, 400},
		{"/check/admin", map[string][]string{"X-Original-Url": {"https://api/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {""}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https:///public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://apihttp://api/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api?/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api#/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://u@api/public/a"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"https://api/public/a#b"}}, 400},
		{"/check", map[string][]string{"X-Original-Url": {"ftp://api/public/a"}}, 400},
		{"/check", map[string][]string{"X-Forwarded-Uri": {"/a"}, "X-Forwarded-Method": {"GET"}, "X-Original-Method": {"POST"}}, 400},
		{"/check", nil, 403},
		{"/%63heck/a", nil, 400},
		{"/checkers", nil, 404},
	} {
		g := guard(t, nil)
		r := httptest.NewRequest("GET", c.target, nil)
		r.Header.Set("Authorization", "Bearer "+good)
		for name, values := range c.header {
			r.Header[name] = values
		}
		if got := checked(g, r); got.status != c.status {
			t.Errorf("%s %v: %+v, want %d", c.target, c.header, got, c.status)
		}
	}
	g := guard(t, func(c *Config) { c.Routes = nil })
	r := httptest.NewRequest("GET", "/check", nil)
	r.Header.Set("Authorization", "Bearer "+good)
	if got := checked(g, r); got.status != 200 {
		t.Errorf("without routes no path is needed: %+v", got)
	}
}

// TestExtAuthzRemovesWhatPosesAsIdentity: Envoy deletes after it has set.
func TestExtAuthzRemovesWhatPosesAsIdentity(t *testing.T) {
	for _, c := range []struct {
		path   string
		header map[string]string
		set    []string
		remove []string
	}{
		{"/a", map[string]string{"x-auth-sub": "root", "x_auth_sub": "root", "x-auth.scope": "all", "x-kept": "a"}, []string{"x-auth-scope=read admin", "x-auth-sub=alice"}, []string{"x-auth.scope", "x_auth_sub"}},
		{"/public/a", map[string]string{"x-auth-sub": "root", "x_auth_sub": "root"}, nil, []string{"authorization", "x-auth-scope", "x-auth-sub", "x_auth_sub"}},
		{"/public/a", map[string]string{"authorization": "Basic dTpw"}, nil, []string{"x-auth-scope", "x-auth-sub"}},
	} {
		g := guard(t, nil)
		headers := map[string]string{"authorization": "Bearer " + tokenWith(nil)}
		maps.Copy(headers, c.header)
		z := authorization{sidecar: g.Sidecar}
		r, err := z.Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{
			Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: c.path, Headers: headers},
		}}})
		if err != nil || r.GetOkResponse() == nil {
			t.Fatal(r, err)
		}
		var set []string
		for _, h := range r.GetOkResponse().GetHeaders() {
			set = append(set, h.GetHeader().GetKey()+"="+h.GetHeader().GetValue())
		}
		removed := r.GetOkResponse().GetHeadersToRemove()
		slices.Sort(set)
		slices.Sort(removed)
		if !slices.Equal(set, c.set) || !slices.Equal(removed, c.remove) {
			t.Errorf("%s %v: sets %q, removes %q", c.path, c.header, set, removed)
		}
	}
	for name, r := range map[string]*auth.CheckRequest{"nil": nil, "empty": {}} {
		g := guard(t, nil)
		if a, err := (&authorization{sidecar: g.Sidecar}).Check(t.Context(), r); err != nil || a.GetDeniedResponse() == nil {
			t.Errorf("%s: %v %v", name, a, err)
		}
	}
}

// TestOneLineOfARefusal: with reason, issuer, shape and age of the list.
func TestOneLineOfARefusal(t *testing.T) {
	g := guard(t, nil)
	g.revoke(t, "sub", "alice")
	r := httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+tokenWith(nil))
	checked(g, func() *http.Request { r.URL.Path = "/check/orders"; return r }())
	line := g.logs.String()[strings.Index(g.logs.String(), "token not accepted"):]
	if strings.Count(line, "\n") != 1 {
		t.Errorf("not one line: %s", line)
	}
	for _, want := range []string{"outcome=refused", "reason=revoked", "issuer=" + issuer, "shape=sub", "list_age="} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	for _, target := range []string{"/check//x", "/check"} {
		r := httptest.NewRequest("GET", target, nil)
		checked(g, r)
	}
	for _, want := range []string{"reason=bad_path", "reason=no_path"} {
		if !strings.Contains(g.logs.String(), want) {
			t.Errorf("no %s in %s", want, g.logs)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(g.Sidecar)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP revcast_route_answers_total Requests that were answered before any token was looked at, by reason.
# TYPE revcast_route_answers_total counter
revcast_route_answers_total{reason="bad_path"} 1
revcast_route_answers_total{reason="no_path"} 1
revcast_route_answers_total{reason="preflight"} 0
revcast_route_answers_total{reason="public"} 0
`), "revcast_route_answers_total"); err != nil {
		t.Error(err)
	}
}
