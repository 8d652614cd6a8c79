package token

import (
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerA = "https://a.example"
	issuerB = "https://b.example"
	jwksURI = "https://a.example/jwks"
)

var (
	rsaKey   = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("r1", "RS256") })
	es256    = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e1", "ES256") })
	es256New = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e2", "ES256") })
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// goodClaims are claims of a token that lives an hour, with changes.
func goodClaims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": issuerA, "sub": "alice", "aud": "api", "client_id": "web", "jti": "t-1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// newReader returns a reader of issuer A whose keys idp serves; not running yet.
func newReader(t testing.TB, idp *tokentest.IdP, algs ...string) *Reader {
	t.Helper()
	r, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: algs}}, idp.Client(), silent)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs a reader until the test ends, and waits for the first fetch.
func start(t testing.TB, r *Reader) {
	t.Helper()
	tokentest.Run(t, r.Run)
	for _, i := range r.order {
		i.keys.refresh(t.Context()) // joins the first fetch, or comes too soon after it
	}
}

// bubble runs a reader in a bubble of fake time, after its first fetch.
func bubble(t *testing.T, r *Reader, f func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		for _, i := range r.order { // channels belong to the bubble they are made in
			i.keys.wake = make(chan struct{}, 1)
		}
		stop := tokentest.Run(t, r.Run)
		synctest.Wait()
		f(t)
		stop()
	})
}
