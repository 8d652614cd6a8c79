package smuggling

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// rules are the routes of the sidecars, as whoever breaks them would want to know.
var rules = []struct {
	path   string
	below  bool
	public bool
	needs  func(token) bool
}{
	{path: "/public", below: true, public: true},
	{path: "/admin", below: true, needs: token.isAdmin},
	{path: "/desk", below: true, needs: token.isAdmin}, // letters that others fold to
	{path: "/finance", below: true, needs: func(k token) bool { return slices.Contains(k.audience, "finance") }},
	{path: "/jobs:purge", needs: token.isAdmin}, // a character that may be escaped
}

func (k token) isAdmin() bool { return slices.Contains(strings.Fields(k.scope), "admin") }

// readings are ways in which servers read a path, each of one that was read already.
var readings = map[string]func(string) string{
	"decoded": func(p string) string {
		if s, err := url.PathUnescape(p); err == nil {
			return s
		}
		return p
	},
	"case folded": func(p string) string {
		return strings.Map(func(r rune) rune {
			if r >= 0xff01 && r <= 0xff5e { // fullwidth forms
				r -= 0xfee0
			}
			return unicode.ToLower(unicode.ToUpper(r))
		}, p)
	},
	"parameters cut": each(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s }),
	"ends trimmed":   each(func(s string) string { return strings.TrimRight(s, ". \t") }),
	"query cut":      func(p string) string { p, _, _ = strings.Cut(p, "?"); return p },
	"fragment cut":   func(p string) string { p, _, _ = strings.Cut(p, "#"); return p },
	"NUL cut":        func(p string) string { p, _, _ = strings.Cut(p, "\x00"); return p },
	"backslashes":    func(p string) string { return strings.ReplaceAll(p, `\`, "/") },
	"dots removed":   func(p string) string { return path.Clean("/" + p) },
	"host cut": func(p string) string { // what begins with two slashes
		if rest, ok := strings.CutPrefix(p, "//"); ok {
			_, rest, _ = strings.Cut(rest, "/")
			return "/" + rest
		}
		return p
	},
	"overlong": func(p string) string { // as decoders did that take C0 AF for a slash
		return strings.NewReplacer("\xc0\xaf", "/", "\xc0\xae", ".", "\xe0\x80\xaf", "/").Replace(p)
	},
}

func each(f func(string) string) func(string) string {
	return func(p string) string {
		segments := strings.Split(p, "/")
		for i, s := range segments {
			if s != "." && s != ".." {
				segments[i] = f(s)
			}
		}
		return strings.Join(segments, "/")
	}
}

// allReadings are those of a target, by any number of ways after each other.
func allReadings(target string) (all []string) {
	p, _, _ := strings.Cut(target, "?")
	all = []string{p}
	for i := 0; i < len(all) && len(all) < 2000; i++ {
		for _, read := range readings {
			if s := read(all[i]); !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// breaks says which rule a request breaks for some reading of its target; "" for none. k is
// nil where it has no token.
func breaks(target string, k *token) string {
	for _, p := range allReadings(target) {
		p = strings.TrimSuffix(p, "/")
		isPublic := false
		for _, r := range rules {
			if p != r.path && !(r.below && strings.HasPrefix(p, r.path+"/")) {
				continue
			}
			isPublic = r.public
			if !r.public && (k == nil || !r.needs(*k)) {
				return fmt.Sprintf("%q may be read as %q, which needs more", target, p)
			}
		}
		if k == nil && !isPublic {
			return fmt.Sprintf("%q may be read as %q, which is not public", target, p)
		}
	}
	return ""
}

// folded is a header's name as CGI and its like read it.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return unicode.ToLower(r)
		}
		return '-'
	}, name)
}

// truth is what the headers that the proxy owns must say.
func truth(g *got, k *token) map[string]string {
	all := map[string]string{
		"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "x-forwarded-proto": "http",
	}
	if hosts := g.values("Host"); len(hosts) == 1 {
		all["x-forwarded-host"] = hosts[0]
	}
	if k != nil {
		all["x-auth-sub"] = told(k.sub)
		if k.scope != "" {
			all["x-auth-scope"] = told(k.scope)
		}
	}
	return all
}

// told is a claim's text in a header.
func told(claim string) string {
	inner := strings.Trim(claim, " ")
	if inner == "" {
		return strings.Repeat("%20", len(claim))
	}
	before, after, _ := strings.Cut(claim, inner)
	var b strings.Builder
	for _, c := range []byte(inner) {
		if c >= ' ' && c < 0x7f && c != ',' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return strings.Repeat("%20", len(before)) + b.String() + strings.Repeat("%20", len(after))
}

func owned(name string) bool {
	f := folded(name)
	return strings.HasPrefix(f, "x-forwarded-") || slices.Contains([]string{
		"x-auth-sub", "x-auth-scope", "forwarded", "x-real-ip", "x-original-url", "x-original-uri", "x-rewrite-url", "x-revcast-public",
	}, f)
}

// lies says which header or trailer of a request tells something that is not so.
func lies(g *got, k *token) string {
	want := truth(g, k)
	for _, f := range g.header {
		switch {
		case !owned(f.name):
		case want[strings.ToLower(f.name)] != f.value || f.value == "" || len(g.values(f.name)) != 1:
			return fmt.Sprintf("%s: %q", f.name, f.value)
		}
	}
	for name, value := range want {
		if strings.HasPrefix(name, "x-auth-") && len(g.values(name)) != 1 {
			return fmt.Sprintf("%s is not told: %s", name, value)
		}
	}
	for _, f := range g.trailer {
		if owned(f.name) || strings.EqualFold(f.name, "Authorization") {
			return fmt.Sprintf("the trailer %s: %q", f.name, f.value)
		}
	}
	for _, v := range g.values("Trailer") {
		if slices.ContainsFunc(strings.Split(v, ","), func(s string) bool { return owned(strings.TrimSpace(s)) }) {
			return fmt.Sprintf("Trailer: %q", v)
		}
	}
	return ""
}

// isPreflight is what a sidecar with cors_preflight may let through to any path.
func isPreflight(g *got) bool {
	return g.method == "OPTIONS" && len(g.values("Origin")) == 1 && len(g.values("Access-Control-Request-Method")) == 1 &&
		len(g.values("Authorization")) == 0 && len(g.values("Cookie")) == 0 && len(g.values("Upgrade")) == 0 &&
		len(g.values("X-HTTP-Method-Override")) == 0
}

// checkRequest holds a request that reached the API to the invariants.
func (w *world) checkRequest(t *testing.T, g *got, c *testCase) {
	t.Helper()
	var k *token
	switch v := g.values("Authorization"); {
	case len(v) > 1:
		t.Errorf("%d Authorization headers", len(v))
	case len(v) == 1 && !strings.HasPrefix(v[0], "Basic "):
		scheme, raw, _ := strings.Cut(v[0], " ")
		one, known := w.byRaw(strings.Trim(raw, " "))
		if !strings.EqualFold(scheme, "Bearer") || !known || !one.good {
			t.Errorf("Authorization: %q is passed on", v[0])
		}
		k = &one
	}
	switch isPlain := strings.HasPrefix(c.to, "plain"); {
	case isPlain && k == nil:
		t.Errorf("%s %s has no token", g.method, g.target)
	case isPlain, k == nil && c.to == "preflight proxy" && isPreflight(g):
	default:
		if broken := breaks(g.target, k); broken != "" {
			t.Error(broken)
		}
	}
	if lie := lies(g, k); lie != "" {
		t.Error(lie)
	}
	for _, v := range g.values("Upgrade") {
		if !strings.EqualFold(v, "websocket") {
			t.Errorf("Upgrade: %s", v)
		}
	}
	if len(g.values("HTTP2-Settings")) > 0 {
		t.Error("HTTP2-Settings is passed on")
	}
}

// The invariants must be able to fail.
func TestInvariantsAreTight(t *testing.T) {
	user, admin := tokens["user"], tokens["admin"]
	for _, target := range []string{
		"/admin/x", "/ADMIN", "/public/..%2fadmin", "/public/..%252fadmin/x", "/public;/../admin", "/admin;x/y", "/public/..%5cadmin",
		"//admin", "/x//../admin", "/%61dmin", "/admin%20", "/admin.", "/admin%3fx", "/admin%23", "/admin%00.html", "/public/%2e%2e/admin",
		"/des%E2%84%AA/x", "/de%C5%BFk", "/public/%c0%ae%c0%ae%c0%afadmin", "/jobs%3apurge", "//host/admin", "/%EF%BD%81dmin",
	} {
		if breaks(target, &user) == "" {
			t.Errorf("%s breaks nothing", target)
		}
		if got := breaks(target, &admin); got != "" {
			t.Errorf("%s for an admin: %s", target, got)
		}
	}
	for _, target := range []string{"/public/x", "/public", "/public/a%20b"} {
		if got := breaks(target, nil); got != "" {
			t.Error(got)
		}
	}
	if breaks("/other/x", nil) == "" || breaks("/publicity", nil) == "" {
		t.Error("all is public")
	}
	if breaks("/other/x", &user) != "" {
		t.Error("nothing is allowed")
	}
	for _, name := range []string{"X_Auth_Sub", "x.auth.sub", "X-AUTH-SCOPE", "X_Forwarded_User", "Forwarded", "X_Original-URL"} {
		if g := (&got{header: []field{{name, "x"}}}); lies(g, nil) == "" {
			t.Errorf("%s is no lie", name)
		}
		if g := (&got{trailer: []field{{name, "x"}}}); lies(g, nil) == "" {
			t.Errorf("%s is no lie in a trailer", name)
		}
	}
}
