// Package tokentest has signing keys and an identity provider for tests, and runs what
// reads tokens. The provider is an [http.RoundTripper], so it works without sockets and
// in a bubble of testing/synctest; it is an [http.Handler] too.
package tokentest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// Key is a key pair of an identity provider.
type Key struct {
	KID, Alg string // KID may be empty
	Private  crypto.Signer
	Secret   []byte         // of an HS256, HS384 or HS512 key, which has no Private
	Extra    map[string]any // members of the JWK to add or replace; nil removes one
}

// NewKey makes a key pair for RS256, PS256, ES256, ES384, EdDSA and their like, or a
// secret for HS256 and its like.
func NewKey(kid, alg string) *Key {
	k := &Key{KID: kid, Alg: alg}
	var err error
	switch alg {
	case "ES256":
		k.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k.Private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		k.Private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "HS256", "HS384", "HS512":
		k.Secret = make([]byte, jwt.GetSigningMethod(alg).(*jwt.SigningMethodHMAC).Hash.Size())
		_, err = rand.Read(k.Secret)
	case "EdDSA":
		_, k.Private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.Private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err)
	}
	return k
}

// With returns a copy whose JWK has other members.
func (k *Key) With(extra map[string]any) *Key {
	c := *k
	c.Extra = extra
	return &c
}

// JWK returns the public key as a JSON Web Key.
func (k *Key) JWK() map[string]any {
	m := map[string]any{"use": "sig"}
	if k.KID != "" {
		m["kid"] = k.KID
	}
	if k.Alg != "" {
		m["alg"] = k.Alg
	}
	if k.Secret != nil {
		m["kty"], m["k"] = "oct", encode(k.Secret)
		return m
	}
	switch p := k.Private.Public().(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", encode(p.N.Bytes()), encode(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", p.Params().Name, encode(point[1:1+half]), encode(point[1+half:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", encode(p)
	}
	maps.Copy(m, k.Extra)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

// Document returns a JWK Set of the keys.
func Document(keys ...*Key) []byte {
	set := map[string]any{}
	all := make([]any, len(keys))
	for i, k := range keys {
		all[i] = k.JWK()
	}
	set["keys"] = all
	return marshal(set)
}

// Token signs claims under an ordinary access token's header.
func (k *Key) Token(claims map[string]any) string {
	return k.SignInput(k.Header() + "." + encode(marshal(claims)))
}

// Header returns an ordinary access token's header, encoded.
func (k *Key) Header() string {
	h := map[string]any{"alg": k.Alg, "typ": "at+jwt"}
	if k.KID != "" {
		h["kid"] = k.KID
	}
	return encode(marshal(h))
}

// Sign signs exactly this header and payload, whatever the header says, with the
// key's own algorithm.
func (k *Key) Sign(header, payload string) string {
	return k.SignInput(encode([]byte(header)) + "." + encode([]byte(payload)))
}

// SignInput signs exactly this "header.payload".
func (k *Key) SignInput(input string) string {
	var private any = k.Private
	if k.Secret != nil {
		private = k.Secret
	}
	s, err := jwt.GetSigningMethod(k.Alg).Sign(input, private)
	if err != nil {
		panic(err)
	}
	return input + "." + encode(s)
}

// IdP is an identity provider whose key document can be made to fail.
type IdP struct {
	Fetches atomic.Int64

	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
}

// NewIdP serves a document of the keys.
func NewIdP(keys ...*Key) *IdP {
	p := &IdP{}
	p.Serve(keys...)
	return p
}

// Serve makes the provider answer with a document of the keys.
func (p *IdP) Serve(keys ...*Key) { p.Answer(http.StatusOK, string(Document(keys...))) }

// Answer makes the provider answer with a status and a body.
func (p *IdP) Answer(status int, body string) {
	p.AnswerFunc(func(r *http.Request) (*http.Response, error) { return Response(r, status, body), nil })
}

// Hang makes the provider answer nothing until the client gives up.
func (p *IdP) Hang() {
	p.AnswerFunc(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
}

// AnswerFunc makes the provider answer as f does.
func (p *IdP) AnswerFunc(f func(*http.Request) (*http.Response, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Response is an answer without anything special.
func Response(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// RoundTrip answers without a network.
func (p *IdP) RoundTrip(r *http.Request) (*http.Response, error) {
	p.Fetches.Add(1)
	p.mu.Lock()
	answer := p.answer
	p.mu.Unlock()
	return answer(r)
}

// Client returns a client all of whose requests the provider answers.
func (p *IdP) Client() *http.Client { return &http.Client{Transport: p} }

// ServeHTTP answers over a network.
func (p *IdP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	response, err := p.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body)
}

// Run runs something, a reader or what holds one, until stop is called or the test ends,
// and waits for its end.
func Run(t testing.TB, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
