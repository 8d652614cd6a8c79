package sidecar

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

var pathSeeds = []string{
	"/", "/admin/x", "/admin/", "/%61dmin", "/a%20b", "/a%c3%a9", "/a%2a:@!$&'()*+,=", "/ADMIN", "/admin.", "/admin.json/x", "/admin:x", "/jobs%3Apurge", "/des%E2%84%AA", "/a%3fb%23",
	"/..", "/a//b", "/a%2fb", "/a;b", "/a%00", "/a%25", "/a%zz", "/%c0%ae", "/a\\b", "a", "", "/a#b",
}

// escaped are the escapes that may be left in a normal path: not of what is unreserved,
// and of nothing that ends or divides a path.
var escaped = regexp.MustCompile(`%([0-9A-F]{2})`)

func fuzzRoutes(f *testing.F) routes {
	all, err := newRoutes([]Route{
		{Path: "/admin/*", Decider: fake{}}, {Path: "/admin/open", Public: true}, {Path: "/public/*", Public: true},
		{Path: "/jobs:purge", Decider: fake{}}, {Path: "/desk/*", Decider: fake{}}, {Path: "/status", Public: true},
	})
	if err != nil {
		f.Fatal(err)
	}
	return all
}

// checkNormal says what must hold of a path that has one reading.
func checkNormal(normal string, all routes) error {
	if again, ok := normalPath(normal); !ok || again != normal {
		return fmt.Errorf("it is %q, %t the second time", again, ok)
	}
	if strings.ContainsAny(normal, `\;?# "<>^{|}`+"`") || strings.Contains(normal, "//") {
		return fmt.Errorf("it is ambiguous")
	}
	for _, m := range escaped.FindAllStringSubmatch(normal, -1) {
		if c := unhex(m[1][0])<<4 | unhex(m[1][1]); isUnreserved(byte(c)) || c < ' ' || c == 0x7f || strings.ContainsRune(`/\%;`, rune(c)) {
			return fmt.Errorf("%s is left", m[0])
		}
	}
	if strings.Count(normal, "%") != len(escaped.FindAllString(normal, -1)) {
		return fmt.Errorf("not all escapes are in upper case")
	}
	decoded, err := url.PathUnescape(normal)
	if err != nil {
		return err
	}
	clean := path.Clean(decoded)
	if decoded != clean && decoded != clean+"/" {
		return fmt.Errorf("decoded it is %q, and clean %q", decoded, clean)
	}
	found, ok := all.find(normal)
	for _, read := range []string{decoded, clean, strings.ToLower(clean), strings.ToUpper(strings.ToLower(clean))} {
		if ok && all.match(read, true) != found {
			return fmt.Errorf("the route of %q is another", read)
		}
	}
	for _, suffix := range []string{".json", ":x", "::$DATA"} { // below no rule, none leads around one
		stricter := all.match(normal, false)
		if strings.HasSuffix(normal, "/") || stricter == nil || stricter.Public || !ok {
			continue
		}
		if r, ok := all.find(normal + suffix); ok && r != stricter && r != nil && len(r.base) < len(stricter.base) || ok && r == nil {
			return fmt.Errorf("%s leads around its rule", suffix)
		}
	}
	// What the upstream gets is what was decided on.
	if u := withPath(&url.URL{}, normal); u.EscapedPath() != normal || u.Path != decoded {
		return fmt.Errorf("the upstream gets %q", u.EscapedPath())
	}
	return nil
}

func FuzzNormalPath(f *testing.F) {
	all := fuzzRoutes(f)
	normal := 0
	for _, s := range pathSeeds {
		f.Add(s)
		if p, ok := normalPath(s); ok {
			normal++
			if err := checkNormal(p, all); err != nil {
				f.Fatalf("%q: %v", p, err)
			}
		}
	}
	if normal != 14 { // a fuzz target whose seeds are all refused tests nothing
		f.Fatalf("%d seeds are normal", normal)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := normalPath(s)
		if !ok {
			if p != "" {
				t.Fatalf("refused, and %q", p)
			}
			return
		}
		if err := checkNormal(p, all); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
	})
}

// A rule must not depend on how much of a path the upstream reads: where it does, no
// route is the right one.
func TestRouteNeedsOneReading(t *testing.T) {
	all, err := newRoutes([]Route{{Path: "/admin/*", Public: true}, {Path: "/jobs:purge", Public: true}, {Path: "/desk", Public: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ambiguous := range []string{
		"/Admin", "/admin%3Fx", "/admin%23", "/admin%20", "/admin./x", "/admin%20.%20/x", "/jobs%3Apurge", "/des%E2%84%AA", "/de%C5%BFk", "/adm%C4%B1n",
		"/%EF%BD%81dmin", "/admin%EF%BC%8Fx", "/x/.../y", "/x/..%20/y", "/x/%20/y", "/x/%EF%BC%8E%EF%BC%8E/y",
	} {
		if _, ok := normalPath(ambiguous); !ok {
			t.Errorf("%s is not normal", ambiguous)
		}
		if _, ok := all.find(ambiguous); ok {
			t.Errorf("%s has a route", ambiguous)
		}
	}
	for _, clear := range []string{"/x", "/X/what%3F", "/x/a%20b%20", "/x/v1.", "/admin/what%3F", "/admin/%E4%BD%95%EF%BC%9F", "/x/a:b", "/x/%40", "/"} {
		if _, ok := all.find(clear); !ok {
			t.Errorf("%s has no route", clear)
		}
	}
	if n := testing.AllocsPerRun(100, func() { all.find("/admin/v1.2/x") }); n > 0 {
		t.Errorf("%v allocations for a plain path", n)
	}
	for _, bad := range []string{"/v1./*", "/v1.", "/..."} {
		if _, err := newRoutes([]Route{{Path: bad, Public: true}}); err == nil {
			t.Errorf("a route %s, which no request has", bad)
		}
	}
}
