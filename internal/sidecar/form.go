package sidecar

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/revcast/revcast/pkg/verifier"
)

// errTwoTokens: RFC 6750 section 2 allows one place.
var errTwoTokens = errors.New("the form holds a token, too")

// maxFormName is how much of a parameter's name is looked at: access_token with every
// character escaped and something in brackets is shorter.
const maxFormName = 64

// formBody is the body of a form, which ends with errTwoTokens where it names an
// access_token (RFC 6750 section 2.2): an upstream that prefers it would use a token
// that nobody decided on. It looks at what passes and keeps nothing of it.
type formBody struct {
	io.ReadCloser
	name    []byte // of the parameter so far
	inValue bool
	err     error
}

// guardForm puts a formBody in the place of the body of a form, and of all that some
// server might take for one: of several types the last, of a list the first, and none
// needs parameters that parse.
func guardForm(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if slices.ContainsFunc(r.Header["Content-Type"], func(v string) bool {
		return strings.Contains(strings.ToLower(v), "x-www-form-urlencoded")
	}) {
		r.Body = &formBody{ReadCloser: r.Body}
	}
}

// withoutTokens takes the parameters out of a query that might be taken for a token.
func withoutTokens(rawQuery string) string {
	isToken := func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return verifier.IsTokenParameter(name)
	}
	for _, separator := range []string{"&", ";"} {
		if pairs := strings.Split(rawQuery, separator); slices.ContainsFunc(pairs, isToken) {
			rawQuery = strings.Join(slices.DeleteFunc(pairs, isToken), separator)
		}
	}
	return rawQuery
}

func (f *formBody) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.ReadCloser.Read(p)
	for i, c := range p[:n] {
		switch {
		case c == '&' || c == ';':
			f.name, f.inValue = f.name[:0], false
		case f.inValue:
		case c != '=':
			if len(f.name) < maxFormName {
				f.name = append(f.name, c)
			}
			switch string(f.name) {
			case "+", " ", "%20": // any number before a name means nothing
				f.name = f.name[:0]
			}
		default:
			f.inValue = true
			if verifier.IsTokenParameter(string(f.name)) {
				f.err = errTwoTokens
				return i, f.err // what follows is the token
			}
		}
	}
	return n, err
}
