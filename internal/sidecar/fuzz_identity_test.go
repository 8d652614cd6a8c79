package sidecar

import (
	"testing"

	"golang.org/x/net/http/httpguts"
)

var textSeeds = []string{"", "alice", " alice", "alice ", "a b", "a,b", "a%2Cb", "a\r\nX: y", "é", "\x00", "\xff", "%", "%25", "~", "\t"}

func FuzzHeaderText(f *testing.F) {
	seen := map[string]string{}
	for _, a := range textSeeds {
		for _, b := range textSeeds {
			f.Add(a, b)
		}
		text := headerText(a)
		if other, twice := seen[text]; twice {
			f.Fatalf("%q and %q are both %q", a, other, text)
		}
		seen[text] = a
	}
	if seen["a b"] != "a b" || seen["a%2Cb"] != "a,b" {
		f.Fatal(seen)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := headerText(a), headerText(b)
		if (x == y) != (a == b) {
			t.Fatalf("%q is %q, and %q is %q", a, x, b, y)
		}
		if !httpguts.ValidHeaderFieldValue(x) {
			t.Fatalf("%q is no value of a header", x)
		}
		for i := range len(x) { // nor may it be joined with others, or trimmed
			if c := x[i]; c < ' ' || c > '~' || c == ',' || c == ' ' && (i == 0 || i == len(x)-1) {
				t.Fatalf("%q", x)
			}
		}
		if list := headerText([]any{a, b}); a != "" && b != "" && list != x+","+y {
			t.Fatalf("%q and %q together are %q", a, b, list)
		}
	})
}

// Two users whose numbers floating point can't tell apart must not be one.
func TestHeaderTextOfNumbers(t *testing.T) {
	for number, want := range map[float64]string{
		0: "0", -1: "-1", 1.5: "1.5", 9007199254740991: "9007199254740991", 9007199254740992: "", -9007199254740992: "", 1e300: "",
	} {
		if got := headerText(number); got != want {
			t.Errorf("%v is %q, want %q", number, got, want)
		}
	}
}
