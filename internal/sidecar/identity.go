package sidecar

import (
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/revcast/revcast/pkg/verifier"
)

// Identity has a claim of accepted tokens told to the upstream in a header.
type Identity struct {
	Claim, Header string
}

// ours are the headers that only this proxy may set, in lower case: where a request
// came from, what some servers take for its real path, and what /check says of it.
var ours = []string{"forwarded", "x-real-ip", "x-original-url", "x-original-uri", "x-rewrite-url", "x-revcast-public"}

const oursBelow = "x-forwarded-"

// identities are the headers that claims are told in.
type identities struct {
	told  []Identity // headers in canonical form
	owned []string   // ours, and those of told in lower case
}

func newIdentities(told []Identity) (identities, error) {
	all := identities{owned: slices.Clone(ours)}
	for i, t := range told {
		key := fmt.Sprintf("identity[%d].header", i)
		name := textproto.CanonicalMIMEHeaderKey(t.Header)
		lower := strings.ToLower(name)
		switch {
		case t.Claim == "":
			return identities{}, bad(fmt.Sprintf("identity[%d].claim", i), "is required")
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r != '-' && (r > 'z' || !isAlphanumeric(byte(r))) }):
			return identities{}, bad(key, "must be letters, digits and hyphens, not %q", t.Header)
		case all.owns(name) || slices.Contains(reserved, lower) || slices.Contains(answering, lower) || strings.HasPrefix(lower, "content-"):
			return identities{}, bad(key, "%s can't carry a claim: it is there twice, or has a meaning of its own", name)
		}
		all.told = append(all.told, Identity{t.Claim, name})
		all.owned = append(all.owned, lower)
	}
	return all, nil
}

// reserved can't carry a claim: the request would become another one.
var reserved = []string{
	"authorization", "connection", "content-length", "content-type", "content-encoding", "cookie", "expect", "host", "keep-alive", "origin",
	"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// answering can't carry a claim either: /check tells claims in its answer, which would
// become another one.
var answering = []string{
	"accept-ranges", "age", "allow", "alt-svc", "cache-control", "clear-site-data", "date", "etag", "expires", "last-modified", "location", "pragma",
	"proxy-authenticate", "proxy-authentication-info", "refresh", "retry-after", "server", "set-cookie", "strict-transport-security", "vary", "via",
	"warning", "www-authenticate",
}

// isTwin reports whether a header is none of reserved, and might be taken for one.
func isTwin(name string) bool {
	return isOneOf(name, reserved) && strings.ContainsFunc(name, func(r rune) bool { return r != '-' && !isAlphanumeric(byte(r)) })
}

// owns reports whether a header is one of ours, in any spelling that a server might
// take for it: CGI and its like write every other character as an underscore.
func (all *identities) owns(name string) bool {
	if len(name) >= len(oursBelow) && sameName(name[:len(oursBelow)], oursBelow) {
		return true
	}
	return isOneOf(name, all.owned)
}

// names reports whether a header tells a claim, or might be taken for one that does.
func (all *identities) names(name string) bool { return isOneOf(name, all.owned[len(ours):]) }

func isOneOf(name string, lower []string) bool {
	for _, o := range lower {
		if len(name) == len(o) && sameName(name, o) {
			return true
		}
	}
	return false
}

// sameName compares a name with one in lower case of the same length.
func sameName(name, lower string) bool {
	for i := range len(lower) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		} else if !isAlphanumeric(c) {
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// scrub deletes what only this proxy may say, and what others may take for a length, a
// coding or a type that it did not see.
func (all *identities) scrub(h http.Header) {
	for name := range h {
		if all.owns(name) || isTwin(name) {
			delete(h, name)
		}
	}
}

// set tells claims; a claim that is missing or has no text is not told.
func (all *identities) set(h http.Header, c *verifier.Claims) {
	if len(all.told) == 0 {
		return
	}
	values := c.Raw()
	for i := range all.told {
		if text := headerText(values[all.told[i].Claim]); text != "" {
			h[all.told[i].Header] = []string{text}
		}
	}
}

// headerText writes a claim so that no text poses as another, or as several, and none
// breaks out of a header: strings, numbers and booleans, and arrays of them with commas between.
// Within a value, commas, percent signs, spaces at its ends and all that is not visible
// ASCII are percent-encoded. Objects have no text, nor have numbers so large that they may
// have been others before they were read as floating point.
func headerText(v any) string {
	switch v := v.(type) {
	case string:
		return encodeText(v)
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if math.Abs(v) >= 1<<53 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		texts := make([]string, 0, len(v))
		for _, e := range v {
			if _, nested := e.([]any); !nested {
				if text := headerText(e); text != "" {
					texts = append(texts, text)
				}
			}
		}
		return strings.Join(texts, ",")
	}
	return ""
}

func encodeText(s string) string {
	plain := func(i int) bool {
		c := s[i]
		return c > ' ' && c < 0x7f && c != ',' && c != '%' || c == ' ' && i > 0 && i < len(s)-1
	}
	for i := range len(s) {
		if plain(i) {
			continue
		}
		var b strings.Builder
		for i := range len(s) {
			if plain(i) {
				b.WriteByte(s[i])
			} else {
				fmt.Fprintf(&b, "%%%02X", s[i])
			}
		}
		return b.String()
	}
	return s
}
