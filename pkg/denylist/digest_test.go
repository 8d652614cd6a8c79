package denylist

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The digests in testdata/digests.txt were not made by this package but by
//
//	import hashlib, json, struct
//	def n(s): b = s.encode(); return struct.pack(">I", len(b)) + b
//	for iss, sel in cases:
//	    pairs = sorted((k.encode(), k, v) for k, v in sel.items())
//	    b = b"revcast/digest/v1" + n(iss) + b"".join(n(k) + n(v) for _, k, v in pairs)
//	    print(hashlib.sha256(b).hexdigest()[:32], json.dumps([iss, sel]))
func TestDigestsThatOthersComputed(t *testing.T) {
	f, err := os.Open("testdata/digests.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		want, text, _ := strings.Cut(lines.Text(), " ")
		var issuer string
		var sel Selector
		var parts [2]jsontext.Value
		err := json.Unmarshal([]byte(text), &parts)
		if err := cmp.Or(err, json.Unmarshal(parts[0], &issuer), json.Unmarshal(parts[1], &sel)); err != nil {
			t.Fatalf("%.100s: %v", text, err)
		}
		d := sel.Digest(issuer)
		if hex.EncodeToString(d[:]) != want {
			t.Errorf("%.100s: %x, not %s", text, d, want)
		}
	}
	if n < 10 {
		t.Errorf("%d digests only", n)
	}
}

func TestDigestsTellSelectorsApart(t *testing.T) {
	seen := map[Digest]string{}
	for _, issuer := range []string{"a", "ab", "abc", "a\x00"} {
		for _, pairs := range []map[string]string{
			{}, {"b": "c"}, {"bc": "d"}, {"b": "cd"}, {"c": "d"}, {"b": "c", "d": "e"}, {"b": "c\x00\x00\x00\x01d\x00\x00\x00\x01e"},
			{"jti": "x"}, {"sid": "x"}, {"sub": "x"}, {"sub": "x", "client_id": "y"}, {"sub": "y", "client_id": "x"},
		} {
			s := mustSelect(t, pairs)
			name := issuer + s.String()
			if other, ok := seen[s.Digest(issuer)]; ok {
				t.Errorf("%s and %s have one digest", name, other)
			}
			seen[s.Digest(issuer)] = name
		}
	}
}

func mustSelect(t testing.TB, pairs map[string]string) Selector {
	t.Helper()
	s, err := NewSelector(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
