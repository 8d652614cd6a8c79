package verifier

import (
	"io"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const issuer = "https://idp.example"

var (
	es256  = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e1", "ES256") })
	other  = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e2", "ES256") })
	rsaKey = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("r1", "RS256") })
	silent = slog.New(slog.NewTextHandler(io.Discard, nil))
)

// clock is a clock that tests set.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) forward(d time.Duration) { c.offset.Add(int64(d)) }

// rig is a verifier with everything around it.
type rig struct {
	*Verifier
	list  *denylist.List
	idp   *tokentest.IdP
	clock *clock
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{list: denylist.New(), idp: tokentest.NewIdP(es256(), rsaKey()), clock: &clock{}}
	c := Config{
		Denylist: r.list, HTTPClient: r.idp.Client(), Logger: silent, Now: r.clock.now,
		Issuers: []Issuer{{Issuer: issuer, JWKSURI: "https://idp.example/jwks", Algorithms: []string{"ES256", "RS256"}, Audiences: []string{"api"}}},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if r.Verifier, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// fresh says that the list is complete as of the rig's now.
func (r *rig) fresh() *rig {
	r.list.Advance(r.clock.now())
	return r
}

func claims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": "alice", "aud": "api", "client_id": "web", "jti": "t-1", "scope": "read write",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func revocation(claim, value string) denylist.Entry {
	r := denylist.Revocation{Issuer: issuer, Selector: denylist.One(claim, value), Expires: time.Now().Add(2 * time.Hour)}
	if denylist.NeedsCutoff(r.Selector) {
		r.IssuedBefore = time.Now()
	}
	if err := r.Validate(); err != nil {
		panic(err)
	}
	return r.Entry()
}

// heap is the memory in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
