package sidecar

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/revcast/revcast/pkg/verifier"
)

var formSeeds = []string{
	"", "a=b", "a=access_token=b", "access_token", "xaccess_token=b", "a=b&c", "access_token&a=b",
	"access_token=x", "a=b&access_token=", "a;access_token=x", "%61ccess%5Ftoken=x", "ACCESS.TOKEN=x", "access_token[]=x", "+%20+access_token=x",
	"access_token%00y=x", "access_token[%zz]=x", "access_token[" + strings.Repeat("x", 50) + "%41]=x", strings.Repeat("+", 99) + "access_token=x",
	strings.Repeat("%61", 30) + "&a=b&access_token=x",
}

// readForm reads a form through a guard and returns what passed.
func readForm(r io.Reader) (passed []byte, two bool) {
	passed, err := io.ReadAll(&formBody{ReadCloser: io.NopCloser(r)})
	return passed, errors.Is(err, errTwoTokens)
}

// pieces reads by sizes that a fuzzer chose.
type pieces struct {
	of    io.Reader
	sizes []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	size := 1
	if len(p.sizes) > 0 {
		size, p.sizes = int(p.sizes[0])%16+1, p.sizes[1:]
	}
	return p.of.Read(b[:min(size, len(b))])
}

func FuzzFormBody(f *testing.F) {
	two := 0
	for _, s := range formSeeds {
		f.Add([]byte(s), []byte{1, 5, 2})
		if _, found := readForm(strings.NewReader(s)); found {
			two++
		}
	}
	if two != 12 {
		f.Fatalf("%d seeds hold a token", two)
	}
	f.Fuzz(func(t *testing.T, form, sizes []byte) {
		passed, two := readForm(bytes.NewReader(form))
		for _, r := range []io.Reader{
			iotest.OneByteReader(bytes.NewReader(form)), iotest.DataErrReader(bytes.NewReader(form)), &pieces{bytes.NewReader(form), sizes},
		} {
			if p, also := readForm(r); also != two || !bytes.Equal(p, passed) {
				t.Fatalf("in pieces %q, %t, and else %q, %t", p, also, passed, two)
			}
		}
		if !bytes.HasPrefix(form, passed) || !two && len(passed) != len(form) {
			t.Fatalf("%q passed", passed)
		}
		if _, found := readForm(bytes.NewReader(passed)); found {
			t.Fatalf("%q passed, and names a token", passed)
		}
		values, err := url.ParseQuery(string(form))
		if values.Get("access_token") != "" && !two {
			t.Fatal("net/url finds a token")
		}
		if err != nil || bytes.ContainsRune(form, ';') {
			return
		}
		named := false
		for name := range values {
			named = named || verifier.IsTokenParameter(url.QueryEscape(name))
		}
		if two && !named {
			t.Fatal("net/url finds no name like it")
		}
		if rest, err := url.ParseQuery(withoutTokens(string(form))); err != nil || len(rest) > len(values) || rest.Has("access_token") {
			t.Fatalf("without tokens it is %v, %v", rest, err)
		}
	})
}

func TestWithoutTokensLeavesTheRest(t *testing.T) {
	for query, want := range map[string]string{
		"": "", "a=b&c=%zz;d": "a=b&c=%zz;d", "access_token=x": "", "a&access_token=x&b;c": "a&b;c", "a;access_token=x;b&c": "a;b&c",
		"&&a=access_token&": "&&a=access_token&", "+Access.Token=x&a": "a",
	} {
		if got := withoutTokens(query); got != want {
			t.Errorf("%q is %q, want %q", query, got, want)
		}
	}
}
