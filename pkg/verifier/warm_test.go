package verifier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/revcast/revcast/pkg/denylist"
)

// manyTokens are different tokens of one subject each.
var manyTokens = sync.OnceValue(func() []string {
	raw := make([]string, 1000)
	for i := range raw {
		raw[i] = rsaKey().Token(claims(map[string]any{"jti": fmt.Sprint("t-", i), "sub": fmt.Sprint("s-", i), "sid": fmt.Sprint("session-", i)}))
	}
	return raw
})

// warm returns a verifier whose cache holds the tokens. Its list revokes none of
// them, though it has n entries of each of the five shapes that it asks a token for:
// other tokens, subjects, subjects at a client, sessions, and the issuer's tokens of
// an hour ago.
func warm(t testing.TB, n int, tokens ...string) *rig {
	r := newRig(t, nil).fresh()
	now := time.Now()
	for i := range n {
		name := fmt.Sprint("other-", i)
		of := denylist.Revocation{Issuer: issuer, Expires: now.Add(time.Duration(i) * time.Hour / time.Duration(n)), ExactExpiry: true}
		of.Selector = denylist.One(denylist.JTI, name)
		r.list.Add(of.Entry())
		of.ExactExpiry, of.IssuedBefore = false, now
		for _, pairs := range []map[string]string{
			{denylist.Sub: name}, {denylist.Sub: name, denylist.ClientID: "web"}, {denylist.SID: name},
		} {
			of.Selector, _ = denylist.NewSelector(pairs)
			r.list.Add(of.Entry())
		}
	}
	r.list.Add(denylist.Revocation{Issuer: issuer, IssuedBefore: now.Add(-time.Hour), Expires: now.Add(time.Hour)}.Entry())
	// An entry in the tokens' own window, which they ask first.
	r.list.Add(denylist.Revocation{Issuer: issuer, Selector: denylist.One(denylist.JTI, "other"), Expires: now.Add(time.Hour), ExactExpiry: true}.Entry())
	if got := len(r.list.Stats().Shapes); got != 5 {
		t.Fatalf("%d live shapes", got)
	}
	for _, raw := range tokens {
		for r.cache.get(raw) == nil { // the cache may refuse anything, any number of times
			if d := r.Decide(t.Context(), raw); d.Outcome != Allowed {
				t.Fatal(d)
			}
		}
		r.Decide(t.Context(), raw) // computes what the list asks for, if it was not asked yet
	}
	return r
}

// TestDecideWarmAllocatesNothing holds the hot path to zero allocations, with five
// live shapes, and the middleware to those of handing on the claims in a
// context that can end.
func TestDecideWarmAllocatesNothing(t *testing.T) {
	raw := rsaKey().Token(claims(map[string]any{"sid": "session"}))
	r := warm(t, 100, raw)
	ctx := t.Context()
	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	passed := 0
	var next http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passed += min(1, len(r.Header)) })
	behind, w, shared := r.Middleware(next), httptest.NewRecorder(), &Claims{}
	handOn := testing.AllocsPerRun(1000, func() {
		ctx, cancel := context.WithCancelCause(request.Context())
		next.ServeHTTP(w, request.WithContext(NewContext(ctx, shared)))
		cancel(nil)
	})
	for _, c := range []struct {
		name string
		most float64
		call func()
	}{
		{"Decide", 0, func() { passed += int(r.Decide(ctx, raw).Outcome / Allowed) }},
		{"DecideRequest", 0, func() { passed += int(r.DecideRequest(ctx, request.Header, "a=b&c=d").Outcome / Allowed) }},
		{"Middleware", handOn, func() { behind.ServeHTTP(w, request) }},
	} {
		passed = 0
		// The cache hands its record of reads on in a slice every 64 reads; the average
		// over runs rounds down.
		if n := testing.AllocsPerRun(1000, c.call); n > c.most {
			t.Errorf("%s: %v allocations, and %v are needed", c.name, n, c.most)
		}
		if passed != 1001 { // one to warm up
			t.Errorf("%s: %d passed", c.name, passed)
		}
	}
}

// mustVerify parses and verifies a token with the JWT library alone, as each request
// would without a cache.
func mustVerify(b *testing.B) func(raw string) {
	public := rsaKey().Private.Public()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(),
		jwt.WithIssuer(issuer), jwt.WithAudience("api"), jwt.WithStrictDecoding())
	return func(raw string) {
		if _, err := parser.Parse(raw, func(*jwt.Token) (any, error) { return public, nil }); err != nil {
			b.Error(err)
		}
	}
}

func (r *rig) mustAllow(b *testing.B) func(raw string) {
	ctx := b.Context()
	return func(raw string) {
		if r.Decide(ctx, raw).Outcome != Allowed {
			b.Error("not allowed")
		}
	}
}

// calls are a run of them.
type calls struct {
	n   int
	run func(n int)
}

// each makes calls of one after another of the tokens.
func each(n int, tokens []string, call func(raw string)) calls {
	return calls{n, func(n int) {
		for i := range n {
			call(tokens[i%len(tokens)])
		}
	}}
}

// everywhere makes the same calls on every core at once.
func everywhere(c calls) calls {
	return calls{c.n, func(n int) {
		var all sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			all.Go(func() { c.run(n) })
		}
		all.Wait()
	}}
}

// inTurns makes ours and the reference's in turns, so that whatever else the machine
// does meets both, and reports the median time of a call of each, and how many times
// shorter ours is.
func inTurns(b *testing.B, ours, reference calls) {
	measure := func(c calls, took []float64) []float64 {
		began := time.Now()
		c.run(c.n)
		return append(took, float64(time.Since(began).Nanoseconds())/float64(c.n))
	}
	var x, y []float64
	for b.Loop() {
		x, y = measure(ours, x), measure(reference, y)
	}
	slices.Sort(x)
	slices.Sort(y)
	b.ReportMetric(x[len(x)/2], "ns/decision")
	b.ReportMetric(y[len(y)/2], "ref-ns/decision")
	b.ReportMetric(y[len(y)/2]/x[len(x)/2], "times-faster")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDecideWarm: a decision on cached tokens, for which the list asks five live
// shapes and which none revokes; against parsing and verifying the same tokens.
func BenchmarkDecideWarm(b *testing.B) {
	for _, n := range []int{1, len(manyTokens())} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			tokens := manyTokens()[:n]
			r := warm(b, 10_000, tokens...)
			inTurns(b, each(20_000, tokens, r.mustAllow(b)), each(200, tokens, mustVerify(b)))
			ctx := b.Context()
			b.ReportMetric(testing.AllocsPerRun(1000, func() { r.Decide(ctx, tokens[0]) }), "allocs/decision")
		})
	}
}

// BenchmarkDecideWarmParallel: both of them on every core at once.
func BenchmarkDecideWarmParallel(b *testing.B) {
	tokens := manyTokens()
	r := warm(b, 10_000, tokens...)
	inTurns(b, everywhere(each(20_000, tokens, r.mustAllow(b))), everywhere(each(200, tokens, mustVerify(b))))
}

// BenchmarkDecideCold: a decision that has to read and verify the token first.
func BenchmarkDecideCold(b *testing.B) {
	tokens := manyTokens()
	r := warm(b, 10_000)
	r.cache.size = 0 // it keeps nothing
	inTurns(b, each(200, tokens, r.mustAllow(b)), each(200, tokens, mustVerify(b)))
}
