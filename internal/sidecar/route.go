package sidecar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Route says what requests for some paths need. Of several routes that match, the one
// with the longest path counts; where none does, a good token is needed.
type Route struct {
	// Path is a path, "/status", with or without a slash behind it, or that path and all
	// below it, "/admin/*". ASCII letters without escapes.
	Path string
	// Public: anyone may pass, and no token is looked at or passed on.
	Public bool
	// Decider decides on requests for a route that is not Public.
	Decider Decider
}

// routes is in the order in which they are tried: the longest first.
type routes []route

type route struct {
	Route
	base  string // Path without /* or / at its end; "" for all
	below bool
}

func newRoutes(given []Route) (routes, error) {
	var all routes
	for i, g := range given {
		key := fmt.Sprintf("routes[%d].path", i)
		base, below := strings.CutSuffix(g.Path, "/*")
		if !below {
			base = strings.TrimSuffix(g.Path, "/")
		}
		normal, ok := normalPath(base + "/")
		read, same := loosestReading(base)
		if !strings.HasPrefix(g.Path, "/") || !ok || normal != base+"/" || strings.ContainsAny(base, "%*") || !same || read != base {
			return nil, bad(key, "must be a path such as /status or /admin/*, in plain ASCII, not %q", g.Path)
		}
		if slices.ContainsFunc(all, func(r route) bool { return strings.EqualFold(r.base, base) && r.below == below }) {
			return nil, bad(key, "%q is there twice, but for case", g.Path)
		}
		all = append(all, route{g, base, below})
	}
	slices.SortStableFunc(all, func(a, b route) int {
		// The path itself before the path and all below.
		return cmp.Or(cmp.Compare(len(b.base), len(a.base)), cmp.Compare(rank(a.below), rank(b.below)))
	})
	return all, nil
}

func rank(below bool) int {
	if below {
		return 1
	}
	return 0
}

// find returns the route of a normal path, nil for none, or false where that depends on
// how the upstream reads it: whether it tells upper from lower case, what loosestReading
// says, and whether it takes a suffix off a name and finds a stricter route then.
func (all routes) find(path string) (*route, bool) {
	exact := all.match(path, false)
	read, ok := loosestReading(path)
	if !ok || exact != all.match(read, true) {
		return exact, false
	}
	spelled := 0 // so much of the path is as a rule spells it, suffixes and all
	if exact != nil {
		spelled = len(exact.base)
	}
	for i := range all {
		if &all[i] == exact {
			break
		}
		if !all[i].Public && all[i].matchesSuffixed(read, spelled) {
			return exact, false
		}
	}
	return exact, true
}

// matchesSuffixed is matches for servers that drop what is behind a dot or a colon in a
// name (formats, streams of NTFS), beyond the first characters of the path.
func (r *route) matchesSuffixed(path string, beyond int) bool {
	at := 0
	for base := r.base; base != ""; {
		end := strings.IndexByte(base[1:], '/') + 1
		if end == 0 {
			end = len(base)
		}
		if len(path)-at < end || !strings.EqualFold(path[at:at+end], base[:end]) {
			return false
		}
		at, base = at+end, base[end:]
		if at < len(path) && at >= beyond && (path[at] == '.' || path[at] == ':') {
			if next := strings.IndexByte(path[at:], '/'); next >= 0 {
				at += next
			} else {
				at = len(path)
			}
		}
		if at < len(path) && path[at] != '/' {
			return false
		}
	}
	rest := path[at:]
	return rest == "" || rest == "/" || r.below
}

func (all routes) match(path string, fold bool) *route {
	for i := range all {
		if all[i].matches(path, fold) {
			return &all[i]
		}
	}
	return nil
}

func (r *route) matches(path string, fold bool) bool {
	if len(path) < len(r.base) {
		return false
	}
	start, rest := path[:len(r.base)], path[len(r.base):]
	if start != r.base && !(fold && strings.EqualFold(start, r.base)) {
		return false
	}
	return rest == "" || rest == "/" || r.below && rest[0] == '/'
}
