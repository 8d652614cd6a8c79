package verifier

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/revcast/revcast/pkg/denylist"
)

// warm returns a verifier whose cache holds the token, with a list of n entries of
// other tokens in two shapes.
func warm(t testing.TB, n int) (*rig, string) {
	r := newRig(t, nil).fresh()
	r.list.Add(revocation(denylist.Sub, "mallory"))
	for i := range n {
		e := revocation(denylist.JTI, "other-"+string(rune('a'+i%26))+time.Duration(i).String())
		r.list.Add(e)
	}
	raw := rsaKey().Token(claims(nil))
	for r.Decide(t.Context(), raw); r.Stats().CacheHits == 0; r.Decide(t.Context(), raw) {
		r.cache.tokens.Wait()
	}
	return r, raw
}

// TestDecideWarmAllocatesNothing holds the hot path to zero allocations.
func TestDecideWarmAllocatesNothing(t *testing.T) {
	r, raw := warm(t, 100)
	h := map[string][]string{"Authorization": {"Bearer " + raw}}
	ctx := t.Context()
	for name, f := range map[string]func() Decision{
		"Decide":       func() Decision { return r.Decide(ctx, raw) },
		"DecideHeader": func() Decision { return r.DecideHeader(ctx, h) },
	} {
		// The cache hands its record of reads on in a slice every 64 reads; the average
		// over runs rounds down.
		if n := testing.AllocsPerRun(1000, func() {
			if f().Outcome != Allowed {
				t.Fatal("not allowed")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecideWarm(b *testing.B) {
	r, raw := warm(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if r.Decide(b.Context(), raw).Outcome != Allowed {
			b.Fatal("not allowed")
		}
	}
}

func BenchmarkDecideWarmParallel(b *testing.B) {
	r, raw := warm(b, 100_000)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r.Decide(b.Context(), raw)
		}
	})
}

// BenchmarkReferenceVerify is what each request costs without a cache: parsing and
// verifying the same RS256 token with the JWT library alone.
func BenchmarkReferenceVerify(b *testing.B) {
	raw := rsaKey().Token(claims(nil))
	public := rsaKey().Private.Public()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(),
		jwt.WithIssuer(issuer), jwt.WithAudience("api"), jwt.WithStrictDecoding())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parser.Parse(raw, func(*jwt.Token) (any, error) { return public, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecideCold reads and verifies the token each time.
func BenchmarkDecideCold(b *testing.B) {
	r, raw := warm(b, 100_000)
	r.cache.close()
	b.ReportAllocs()
	for b.Loop() {
		if r.Decide(b.Context(), raw).Outcome != Allowed {
			b.Fatal("not allowed")
		}
	}
}
