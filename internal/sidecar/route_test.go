package sidecar

import (
	"testing"
)

func TestNormalPath(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/": "/a/", "/a/b.c/~x": "/a/b.c/~x", "/a:b@c,d=e+f": "/a:b@c,d=e+f", "/...": "/...", "/.a": "/.a",
		"/%61dmin": "/admin", "/%41": "/A", "/a%20b": "/a%20b", "/%c3%a9": "/%C3%A9", "/\u00e9": "/%C3%A9", "/a%2Eb": "/a.b", "/a%2cb": "/a%2Cb",
		"/a|b": "/a%7Cb", "/%7Euser": "/~user", "/%26": "/%26", "/&": "/&",
	} {
		got, ok := normalPath(path)
		if !ok || got != want {
			t.Errorf("%s: %s %v, want %s", path, got, ok, want)
		}
		if again, ok := normalPath(got); !ok || again != got {
			t.Errorf("%s is not normal: %s", got, again)
		}
	}
	for _, path := range []string{
		"", "a", "*", "//", "/a//b", "/a//", "/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e", "/%2E%2e/a", "/.%2e", "/a/%2e%2e/b",
		"/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a;b", "/a%3bb", "/a%00", "/a%0a", "/a%7f", "/a\x00", "/a\x7f", "/a b", "/a%", "/a%2", "/a%zz", "/a%2gb",
		"/a%252e", "/%25", "/a#b", "/a?b", "/%ff", "/%c0%af", "/\xff", "/%ed%a0%80", "/%c3",
	} {
		if got, ok := normalPath(path); ok {
			t.Errorf("%q is taken for %q", path, got)
		}
	}
	path := "/orders/123/items/4567"
	if n := testing.AllocsPerRun(100, func() { normalPath(path) }); n != 0 {
		t.Errorf("%v allocations for a path that is normal", n)
	}
}

func TestRoutes(t *testing.T) {
	all, err := newRoutes([]Route{
		{Path: "/*", Decider: fake{}}, {Path: "/public/*", Public: true}, {Path: "/public/admin/*", Decider: fake{}},
		{Path: "/status", Public: true}, {Path: "/Files/*", Decider: fake{}}, {Path: "/public/admin", Decider: fake{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/": "/*", "/x": "/*", "/public": "/public/*", "/public/": "/public/*", "/public/a/b": "/public/*", "/publicity": "/*", "/publi": "/*",
		"/public/admin": "/public/admin", "/public/admin/": "/public/admin", "/public/admin/x": "/public/admin/*", "/public/admins": "/public/*",
		"/status": "/status", "/status/": "/status", "/status/x": "/*", "/Files/a": "/Files/*",
		// An upstream that ignores case would see another route than this.
		"/PUBLIC/a": "", "/public/Admin/x": "", "/Status": "", "/files/a": "", "/FILES": "",
		"/X": "/*", "/public/Xyz": "/public/*", "/Files/ADMIN": "/Files/*",
	} {
		route, ok := all.find(path)
		got := ""
		if ok && route != nil {
			got = route.Path
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { all.find("/public/admin/x") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	some, err := newRoutes([]Route{{Path: "/a", Public: true}})
	if err != nil {
		t.Fatal(err)
	}
	if route, ok := some.find("/b"); route != nil || !ok {
		t.Errorf("%v %v", route, ok)
	}
}

// A suffix does not lead around a rule, where servers may take it off.
func TestRoutesAndSuffixes(t *testing.T) {
	all, err := newRoutes([]Route{
		{Path: "/public/*", Public: true}, {Path: "/admin/*", Decider: fake{}}, {Path: "/public/users/*", Decider: fake{}}, {Path: "/exact", Decider: fake{}},
		{Path: "/admin/open", Public: true}, {Path: "/jobs", Decider: fake{}}, {Path: "/jobs:purge", Decider: fake{}}, {Path: "/v1/*", Decider: fake{}},
		{Path: "/v1.0/*", Public: true}, {Path: "/v1.0/keys/*", Decider: fake{}}, {Path: "/ops.v2/*", Decider: fake{}}, {Path: "/ops.v2.open", Public: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/admin.json", "/admin.json/", "/admin:x", "/admin:x/y", "/admin::$DATA", "/admin.", "/admin.x/y.z", "/admin%3Ax", "/admin%2Ejson", "/ADMIN.json", "/admin.a:b",
		"/public/users.json", "/public/users.json/1", "/public.x/users", "/public.x/users.y/1", "/exact.json", "/exact.tar.gz", "/exact.json/", "/v1.1/x", "/v1:x",
		"/ops.v2.json", "/ops.v2.open.json", "/jobs.json", "/jobs:purge.json", "/v1.0.1/x", "/v1.0/keys.json",
	} {
		normal, ok := normalPath(path)
		if !ok {
			t.Errorf("%s is not normal", path)
		}
		if r, ok := all.find(normal); ok {
			t.Errorf("%s has the route %v", path, r)
		}
	}
	for path, want := range map[string]string{
		"/public/a.json": "/public/*", "/public/.users": "/public/*", "/public/x.users": "/public/*", "/public/usersx.y": "/public/*", "/admin/x.json": "/admin/*",
		"/admin/open.json": "/admin/*", "/exact.json/x": "", "/exactly.json": "", "/jobs:purge": "/jobs:purge", "/v1.0/x.y": "/v1.0/*", "/v1/x.y": "/v1/*",
		"/ops.v2.open": "/ops.v2.open", "/ops.v3": "", "/.admin": "", "/:admin": "", "/public.json": "", "/x.json": "", "/": "",
	} {
		got := ""
		r, ok := all.find(path)
		if r != nil {
			got = r.Path
		}
		if !ok || got != want {
			t.Errorf("%s: %q %t, want %q", path, got, ok, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { all.find("/public/a.b/c:d"); all.find("/admin.json") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRoutesThatCantBe(t *testing.T) {
	for problem, routes := range map[string][]Route{
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not ""`:          {{Public: true}},
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not "a"`:         {{Path: "a", Public: true}},
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not "/a*"`:       {{Path: "/a*", Public: true}},
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not "/a//*"`:     {{Path: "/a//*", Public: true}},
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not "/%61"`:      {{Path: "/%61", Public: true}},
		`routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not "/a/../b"`:   {{Path: "/a/../b", Public: true}},
		`routes[1].path: "/A/*" is there twice, but for case`:                                         {{Path: "/a/*", Public: true}, {Path: "/A/*", Public: true}},
		`routes[1].path: "/a/" is there twice, but for case`:                                          {{Path: "/a", Public: true}, {Path: "/a/", Public: true}},
		"routes[0].path: must be a path such as /status or /admin/*, in plain ASCII, not \"/\u00e9\"": {{Path: "/\u00e9", Public: true}},
	} {
		if _, err := newRoutes(routes); err == nil || err.Error() != "sidecar: "+problem {
			t.Errorf("got %v, want %s", err, problem)
		}
	}
}

func TestIdentityOwnsEverySpelling(t *testing.T) {
	all, err := newIdentities([]Identity{{"sub", "x-auth-sub"}, {"scope", "X-Auth-Scope"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"X-Auth-Sub", "x-auth-sub", "X_Auth_Sub", "x_AUTH-sub", "X.Auth.Sub", "X!Auth~Sub", "X-Auth-Scope", "X-Forwarded-For", "X_forwarded_anything",
		"X-Forwarded-", "Forwarded", "X-Real_ip", "X-Original-URL", "X_Rewrite_Url", "X-Original-Uri",
	} {
		if !all.owns(name) {
			t.Errorf("%s from outside would pass", name)
		}
	}
	for _, name := range []string{"X-Auth-Subject", "X-Auth-Su", "XX-Auth-Sub", "Accept", "X-Forwarded", "X-Authxsub", "X9Auth9Sub"} {
		if all.owns(name) {
			t.Errorf("%s would be dropped", name)
		}
	}
	if n := testing.AllocsPerRun(100, func() { all.owns("X-Request-Id"); all.owns("Accept-Encoding") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIdentitiesThatCantBe(t *testing.T) {
	const meaning = " can't carry a claim: it is there twice, or has a meaning of its own"
	for problem, told := range map[string][]Identity{
		"identity[0].claim: is required":                                          {{"", "X-A"}},
		`identity[0].header: must be letters, digits and hyphens, not ""`:         {{"sub", ""}},
		`identity[0].header: must be letters, digits and hyphens, not "a_b"`:      {{"sub", "a_b"}},
		"identity[0].header: must be letters, digits and hyphens, not \"\u0161\"": {{"sub", "\u0161"}},
		"identity[1].header: X-A" + meaning:                                       {{"sub", "X-A"}, {"jti", "x-a"}},
		"identity[0].header: Authorization" + meaning:                             {{"sub", "authorization"}},
		"identity[0].header: X-Forwarded-User" + meaning:                          {{"sub", "X-Forwarded-User"}},
		"identity[0].header: Host" + meaning:                                      {{"sub", "Host"}},
		"identity[0].header: Cache-Control" + meaning:                             {{"sub", "cache-control"}},
		"identity[0].header: Set-Cookie" + meaning:                                {{"sub", "Set-Cookie"}},
		"identity[0].header: Content-Language" + meaning:                          {{"sub", "Content-Language"}},
		"identity[0].header: Keep-Alive" + meaning:                                {{"sub", "Keep-Alive"}},
	} {
		if _, err := newIdentities(told); err == nil || err.Error() != "sidecar: "+problem {
			t.Errorf("got %v, want %s", err, problem)
		}
	}
}

func TestHeaderText(t *testing.T) {
	for want, v := range map[string]any{
		"alice": "alice", "read write": "read write", "a%2Cb": "a,b", "a,b": []any{"a", "b"}, "50%25": "50%", "%20a%20": " a ", "a%0D%0AX-B: c": "a\r\nX-B: c",
		"jos%C3%A9": "jos\u00e9", "jos%25C3%25A9": "jos%C3%A9", "true": true, "12": float64(12), "1.5": 1.5, "1000000000000": 1e12, "x,true,3": []any{"x", true, float64(3)},
	} {
		if got := headerText(v); got != want {
			t.Errorf("%q: %q, want %q", v, got, want)
		}
	}
	for _, v := range []any{nil, "", map[string]any{"a": 1}, []any{}, []any{map[string]any{}}, []any{[]any{"x"}}} {
		if got := headerText(v); got != "" {
			t.Errorf("%v: %q", v, got)
		}
	}
	if got := headerText("\x00\x7f\xff\n"); got != "%00%7F%FF%0A" {
		t.Error(got)
	}
}
