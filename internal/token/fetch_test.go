package token

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/token/tokentest"
)

func answer(status int, body string) func(*tokentest.IdP) {
	return func(p *tokentest.IdP) { p.Answer(status, body) }
}

// faults are ways in which a key document fails as a whole.
var faults = map[string]func(*tokentest.IdP){
	"503":                  answer(503, "try later"),
	"404 with keys":        answer(404, string(tokentest.Document(es256New()))),
	"garbage":              answer(200, "<html>"),
	"empty":                answer(200, ""),
	"null":                 answer(200, "null"),
	"empty object":         answer(200, "{}"),
	"no keys":              answer(200, `{"keys":[]}`),
	"keys null":            answer(200, `{"keys":null}`),
	"keys object":          answer(200, `{"keys":{}}`),
	"keys in capitals":     answer(200, strings.Replace(string(tokentest.Document(es256New())), "keys", "KEYS", 1)),
	"keys twice":           answer(200, `{"keys":[],"keys":[]}`),
	"only unusable keys":   answer(200, `{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA"}]}`),
	"a key's member twice": answer(200, strings.Replace(string(tokentest.Document(es256New())), `"kty"`, `"kty":"oct","kty"`, 1)),
	"only secrets":         answer(200, string(tokentest.Document(tokentest.NewKey("e2", "HS256")))),
	"not UTF-8":            answer(200, strings.Replace(string(tokentest.Document(es256New())), `"e2"`, "\"e\xff\"", 1)),
	"trailing document":    answer(200, string(tokentest.Document(es256New()))+"{}"),
	"truncated":            answer(200, string(tokentest.Document(es256New()))[:100]),
	"23 MB":                answer(200, `{"x":"`+strings.Repeat("x", 23<<20)+`","keys":[]}`),
	"a byte above 1 MiB":   answer(200, sized(maxDocument+1)),
	"hang":                 (*tokentest.IdP).Hang,
	"hang in the body":     func(p *tokentest.IdP) { p.AnswerFunc(hangInBody) },
	"connection refused":   func(p *tokentest.IdP) { p.AnswerFunc(refuse) },
	"redirect to another":  func(p *tokentest.IdP) { p.AnswerFunc(redirect("https://evil.example/jwks")) },
	"redirect to http":     func(p *tokentest.IdP) { p.AnswerFunc(redirect("http://a.example/jwks")) },
	"redirect for ever":    func(p *tokentest.IdP) { p.AnswerFunc(redirect("https://a.example/jwks")) },
}

// sized is a good document of n bytes.
func sized(n int) string {
	d := string(tokentest.Document(es256New()))
	return d + strings.Repeat(" ", n-len(d))
}

func refuse(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func hangInBody(r *http.Request) (*http.Response, error) {
	a := tokentest.Response(r, 200, "")
	a.ContentLength = -1
	a.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
		<-r.Context().Done()
		return 0, r.Context().Err()
	}))
	return a, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// redirect sends every request on to a URL, and would serve keys from elsewhere.
func redirect(to string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "evil.example" || r.URL.Scheme == "http" {
			return tokentest.Response(r, 200, string(tokentest.Document(es256New()))), nil
		}
		a := tokentest.Response(r, http.StatusFound, "")
		a.Header.Set("Location", to)
		return a, nil
	}
}

// TestBodyIsCapped: no more than the cap is read, whatever is sent.
func TestBodyIsCapped(t *testing.T) {
	idp := tokentest.NewIdP()
	read := 0
	idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
		a := tokentest.Response(r, 200, "")
		a.ContentLength = -1
		a.Body = io.NopCloser(readerFunc(func(b []byte) (int, error) {
			if read += len(b); read > 2*maxDocument {
				return 0, io.ErrUnexpectedEOF
			}
			return len(b), nil
		}))
		return a, nil
	})
	if _, err := fetchDocument(t.Context(), Restrict(idp.Client()), jwksURI); err == nil || read > 2*maxDocument {
		t.Errorf("read %d bytes, %v", read, err)
	}
}

func TestRedirectWithinTheHost(t *testing.T) {
	idp := tokentest.NewIdP()
	idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/jwks" {
			return redirect("https://a.example/keys")(r)
		}
		return tokentest.Response(r, 200, string(tokentest.Document(es256()))), nil
	})
	r := newReader(t, idp, "ES256")
	start(t, r)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

func TestDocumentOfExactlyOneMiB(t *testing.T) {
	idp := tokentest.NewIdP()
	idp.Answer(200, sized(maxDocument))
	r := newReader(t, idp, "ES256")
	start(t, r)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

// TestRealSockets runs over a network with the reader's own client, against a
// document that is small only while it is compressed.
func TestRealSockets(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	io.WriteString(z, sized(23<<20))
	z.Close()
	big := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb.Bytes())
	}))
	defer big.Close()
	good := httptest.NewServer(tokentest.NewIdP(es256()))
	defer good.Close()
	r, err := NewReader([]Issuer{
		{Issuer: issuerA, JWKSURI: good.URL, Algorithms: []string{"ES256"}},
		{Issuer: issuerB, JWKSURI: big.URL, Algorithms: []string{"ES256"}},
	}, nil, silent)
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	if _, err := r.Read(t.Context(), es256().Token(goodClaims(nil))); err != nil {
		t.Error(err)
	}
	if st := r.KeyStatuses()[1]; st.Keys != 0 || st.Err == nil || !strings.Contains(st.Err.Error(), "1 MiB") {
		t.Errorf("status %+v", st)
	}
}
