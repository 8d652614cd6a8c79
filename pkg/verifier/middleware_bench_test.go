package verifier

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// BenchmarkMiddlewareWarm is what the middleware adds to a handler: 10,000 tokens of some
// 700 bytes in turn, all in the cache, and a million live revocations. The
// reference is the bare handler, in the same run: the difference is what counts.
func BenchmarkMiddlewareWarm(b *testing.B) {
	const tokens, revocations = 10_000, 1_000_000
	key := tokentest.NewKey("e1", "EdDSA") // what signed a cached token doesn't matter
	idp := tokentest.NewIdP(key)
	r := newRig(b, func(c *Config) { c.HTTPClient, c.Issuers[0].Algorithms = idp.Client(), []string{"EdDSA"} }).fresh()
	for i := range revocations {
		r.list.Add(denylist.Revocation{
			Issuer: issuer, Selector: denylist.One(denylist.JTI, fmt.Sprint("other-", i)), ExactExpiry: true,
			Expires: time.Now().Add(time.Duration(i%3600) * time.Second),
		}.Entry())
	}
	raws := make([]string, tokens)
	for i := range raws {
		raw := key.Token(claims(map[string]any{"jti": fmt.Sprint("t-", i), "sub": fmt.Sprint("s-", i), "pad": strings.Repeat("x", 200)}))
		for r.cache.get(raw) == nil {
			if d := r.Decide(b.Context(), raw); d.Outcome != Allowed {
				b.Fatal(d)
			}
			r.cache.tokens.Wait()
		}
		raws[i] = raw
	}
	passed := 0
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed++ })
	call := func(h http.Handler) calls {
		w, request := httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), "GET", "/", nil)
		return each(tokens, raws, func(raw string) {
			request.Header["Authorization"] = []string{"Bearer " + raw} // just come from the network
			h.ServeHTTP(w, request)
		})
	}
	inTurns(b, call(r.Middleware(handler)), call(handler))
	if passed == 0 || passed%tokens != 0 {
		b.Errorf("%d passed", passed)
	}
}
