package client

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	audience = "https://revcast.example/oauth2/revoke"
	jwksURI  = "https://svc.example/jwks"
)

var now = time.Date(2026, 9, 1, 12, 0, 0, 345678901, time.UTC)

var (
	es256 = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e1", "ES256") })
	other = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e2", "ES256") })
	rs256 = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("r1", "RS256") })
	ps256 = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("p1", "PS256") })
	eddsa = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("d1", "EdDSA") })
)

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// withKeys is a client with keys at hand.
func withKeys(id string, keys ...*tokentest.Key) Config {
	return Config{ID: id, Auth: []string{PrivateKeyJWT}, JWKS: tokentest.Document(keys...)}
}

// withURI is a client whose keys are fetched.
func withURI(id string) Config {
	return Config{ID: id, Auth: []string{PrivateKeyJWT}, JWKSURI: jwksURI}
}

// claims are those of a good assertion of svc, with changes; nil takes one away.
func claims(changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": "svc", "sub": "svc", "aud": audience, "jti": "j-1", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// assertion signs as a client would, under an ordinary header.
func assertion(k *tokentest.Key, changes map[string]any) string {
	return k.Sign(`{"alg":"`+k.Alg+`","kid":"`+k.KID+`","typ":"JWT"}`, marshal(claims(changes)))
}

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func byAssertion(a string) Credentials { return Credentials{Method: PrivateKeyJWT, Assertion: a} }

func byName(method, id, secret string) Credentials {
	return Credentials{Method: method, Logins: []Login{{id, secret}}}
}

func registry(t testing.TB, o Options, clients ...Config) *Registry {
	t.Helper()
	if o.Audiences == nil {
		o.Audiences = []string{"https://revcast.example", audience}
	}
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	r, err := New(clients, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs a registry until the test ends, and returns when keys at hand are loaded.
func start(t testing.TB, r *Registry) (stop func()) {
	t.Helper()
	stop = tokentest.Run(t, r.Run)
	loaded(t, r)
	return stop
}

// loaded waits until every client's keys are there.
func loaded(t testing.TB, r *Registry) {
	t.Helper()
	for id, c := range r.current.Load().byID {
		if c.keys == nil {
			continue
		}
		// Reading what no key has signed waits for the first document.
		_, _ = c.keys.reader.ReadAs(t.Context(), token.Assertion, assertion(other(), map[string]any{"iss": id}))
		if err := c.keys.reader.Ready(); err != nil {
			t.Fatal(err)
		}
	}
}
