package sidecar

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

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

// guardForm puts a formBody in the place of the body of a form.
func guardForm(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		r.Body = &formBody{ReadCloser: r.Body}
	}
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
		default:
			f.inValue = true
			if name, err := url.QueryUnescape(string(f.name)); err == nil && verifier.IsTokenParameter(name) {
				f.err = errTwoTokens
				return i, f.err // what follows is the token
			}
		}
	}
	return n, err
}
