package sidecar

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// normalPath returns the one way to write an escaped path, or false where servers
// differ on what it means: then whatever it were matched with, the upstream might see
// another path. What it returns is what the upstream is to see.
//
// Escapes of unreserved characters are decoded (RFC 3986 section 6.2.2.2), others are
// written in upper case. Refused are empty segments, . and .., escaped slashes and
// percent signs, backslashes, semicolons (which cut a path in some servers), control
// characters, and what is not UTF-8. It allocates nothing for a path that is normal.
func normalPath(path string) (string, bool) {
	if path == "" || path[0] != '/' {
		return "", false
	}
	normal := true
	for i := 0; i < len(path) && normal; i++ {
		normal = isPlain(path[i])
	}
	if !normal {
		var ok bool
		if path, ok = rewritePath(path); !ok {
			return "", false
		}
	}
	for i := 0; i < len(path); { // at each slash
		end := strings.IndexByte(path[i+1:], '/')
		last := end < 0
		if last {
			end = len(path) - i - 1
		}
		switch segment := path[i+1 : i+1+end]; {
		case segment == "." || segment == "..", segment == "" && !last:
			return "", false
		}
		i += 1 + end
	}
	return path, true
}

// isPlain reports whether a character stands for itself in a path: pchar of RFC 3986
// section 3.3 but for escapes and the semicolon, or a slash.
func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/!$&'()*+,=:@", c) >= 0
}

func rewritePath(path string) (string, bool) {
	const hex = "0123456789ABCDEF"
	var written strings.Builder
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		escaped := c == '%'
		if escaped {
			if i+2 >= len(path) {
				return "", false
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c = byte(high<<4 | low)
			i += 2
			if strings.IndexByte(`/\%;`, c) >= 0 {
				return "", false
			}
		} else if strings.IndexByte(`\;?#`, c) >= 0 {
			return "", false
		}
		if c < ' ' || c == 0x7f || c == ' ' && !escaped {
			return "", false
		}
		decoded = append(decoded, c)
		if c < utf8.RuneSelf && (isUnreserved(c) || !escaped && isPlain(c)) {
			written.WriteByte(c)
		} else {
			written.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return written.String(), utf8.Valid(decoded)
}

// loosestReading is what a normal path is to a server that decodes all of it, takes
// letters of other scripts for those of ASCII that they fold to, parses the result as a
// URL once more, and trims dots and spaces from the ends of names, as Windows does; or
// false where nothing is left of a name.
func loosestReading(path string) (string, bool) {
	if strings.IndexByte(path, '%') < 0 && !strings.Contains(path, "./") && !strings.HasSuffix(path, ".") {
		return path, true
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "", false
	}
	decoded = strings.Map(toASCII, decoded)
	if end := strings.IndexAny(decoded, "?#"); end >= 0 {
		decoded = decoded[:end]
	}
	names := strings.Split(decoded, "/")
	for i, name := range names {
		if names[i] = strings.TrimRight(name, ". "); names[i] == "" && name != "" {
			return "", false
		}
	}
	return strings.Join(names, "/"), true
}

// toASCII returns the ASCII that a character becomes in upper or lower case (the Kelvin
// sign, the long s, i with and without its dot) or as the narrow form of a wide one.
func toASCII(r rune) rune {
	if r < utf8.RuneSelf {
		return r
	}
	if '\uff01' <= r && r <= '\uff5e' {
		return r - '\uff01' + '!'
	}
	if folded := unicode.ToLower(unicode.ToUpper(r)); folded < utf8.RuneSelf {
		return folded
	}
	return r
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// splitTarget cuts the origin form of a request target (RFC 9112 section 3.2.1).
func splitTarget(target string) (path, rawQuery string, ok bool) {
	path, rawQuery, _ = strings.Cut(target, "?")
	return path, rawQuery, strings.HasPrefix(path, "/") && strings.IndexByte(target, '#') < 0
}
