//go:build doors

package doors

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/verifier"
)

// TestNoSpellingOfARevokedTokenPasses: one revocation ends every byte string that
// golang-jwt, in any of its modes, would take for the same token.
func TestNoSpellingOfARevokedTokenPasses(t *testing.T) {
	w := newWorld(t)
	s := newSite(t, w.trusted(), w.authority.URL, freshness{time.Minute, verifier.Deny}, true)
	summary := []string{fmt.Sprintf("%-8s %-12s %10s %22s %12s %20s", "", "revoked by", "spellings", "taken by golang-jwt", "requests", "accepted at a door")}
	for _, alg := range append([]string{"HS256"}, algorithms...) {
		key := w.of(alg).keys[alg]
		for name, without := range map[string]map[string]any{"jti": nil, "fingerprint": {"jti": nil}} {
			raw := key.Token(w.claims(w.of(alg), without))
			for i, d := range doors {
				if said := s.ask[i](bearer(raw)); said != d.words[allowed] {
					t.Fatalf("%s at %s, before it is revoked: %q", alg, d.name, said)
				}
			}
			w.revoke(raw)
			w.heard(s)
			all := spellings(t, key, raw)
			taken := slices.DeleteFunc(slices.Clone(all), func(raw string) bool { return !golangJWTTakes(key, raw) })
			if len(taken) < 100 {
				t.Errorf("%s: golang-jwt takes %d spellings only: what is tested?", alg, len(taken))
			}
			var requests []request
			for _, spelling := range taken {
				requests = append(requests, bearer(spelling))
			}
			for _, h := range headerSpellings {
				requests = append(requests, headers(strings.ReplaceAll(h, "TOKEN", raw)))
			}
			asked, passed := s.passes(requests)
			summary = append(summary, fmt.Sprintf("%-8s %-12s %10d %22d %12d %20d", alg, name, len(all), len(taken), asked, passed))
		}
	}
	t.Logf("spellings of a revoked token\n%s", strings.Join(summary, "\n"))
}

// headerSpellings are ways to write the header that some server reads as a bearer
// token.
var headerSpellings = []string{
	"bearer TOKEN", "BEARER TOKEN", "Bearer  TOKEN", "Bearer\tTOKEN", "Bearer TOKEN ", "Bearer \t TOKEN\t", " Bearer TOKEN", "Bearer=TOKEN", "BearerTOKEN",
	"Bearer TOKEN,", "Bearer ,TOKEN", "Bearer \"TOKEN\"", "TOKEN", "JWT TOKEN", "Token TOKEN", "Bearer\r\n TOKEN", "Bearer %20TOKEN",
	"Basic d2ViOnNlY3JldA==, Bearer TOKEN",
}

// passes sends requests through every door and counts those that it lets through.
func (s *site) passes(requests []request) (asked, passed int64) {
	var running sync.WaitGroup
	var all, through atomic.Int64
	for i, d := range doors {
		running.Go(func() {
			for _, r := range requests {
				if !d.fits(r) {
					continue
				}
				all.Add(1)
				if said := s.ask[i](r); said == d.words[allowed] || strings.Contains(said, "reached: true") {
					through.Add(1)
					s.Errorf("%s lets %q through: %s", d.name, r.authorization, said)
				}
			}
		})
	}
	running.Wait()
	return all.Load(), through.Load()
}

// modes are how golang-jwt can be told to read.
var modes = [][]jwt.ParserOption{
	nil, {jwt.WithStrictDecoding()}, {jwt.WithPaddingAllowed()}, {jwt.WithPaddingAllowed(), jwt.WithStrictDecoding()}, {jwt.WithJSONNumber()},
	{jwt.WithJSONNumber(), jwt.WithPaddingAllowed()},
}

func golangJWTTakes(key *tokentest.Key, raw string) bool {
	var with any = key.Secret
	if key.Private != nil {
		with = key.Private.Public()
	}
	return slices.ContainsFunc(modes, func(mode []jwt.ParserOption) bool {
		token, err := jwt.NewParser(mode...).Parse(raw, func(*jwt.Token) (any, error) { return with, nil })
		return err == nil && token.Valid
	})
}

// spellings are byte strings that differ from a token and might verify as it.
func spellings(t *testing.T, key *tokentest.Key, raw string) []string {
	t.Helper()
	part := strings.Split(raw, ".")
	signatures := []string{part[2]}
	if private, ok := key.Private.(*ecdsa.PrivateKey); ok {
		signatures = append(signatures, negated(t, private.Curve, part[2]))
	}
	var all []string
	for _, signature := range signatures {
		written := append([]string{signature}, spelled(signature)...)
		for _, one := range written {
			all = append(all, part[0]+"."+part[1]+"."+one)
			for at := range len(one) + 1 {
				for _, end := range []string{"\r", "\n", "\r\n"} {
					// Everywhere in the plain signature; in the others, at both ends.
					if one == signature || at == 0 || at == len(one) {
						all = append(all, part[0]+"."+part[1]+"."+one[:at]+end+one[at:])
					}
				}
			}
		}
		for _, header := range spelled(part[0]) {
			all = append(all, header+"."+part[1]+"."+signature)
		}
		for _, payload := range spelled(part[1]) {
			all = append(all, part[0]+"."+payload+"."+signature)
		}
		all = append(all, part[0]+"\n."+part[1]+"."+signature, part[0]+".\n"+part[1]+"."+signature, "\n"+part[0]+"."+part[1]+"."+signature)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(s string) bool { return s == raw })
}

// spelled are other texts that base64 decoders read as the same bytes: the bits of the
// last character that mean nothing, padding, and the other alphabet.
func spelled(segment string) []string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	all := []string{strings.NewReplacer("-", "+", "_", "/").Replace(segment), segment + "=", segment + "==", segment + "==="}
	free := map[int]int{0: 1, 2: 16, 3: 4}[len(segment)%4] // how many last characters mean the same
	last := strings.IndexByte(alphabet, segment[len(segment)-1])
	for i := range free {
		other := segment[:len(segment)-1] + string(alphabet[last/free*free+i])
		if other != segment {
			all = append(all, other, other+"=", other+"==")
		}
	}
	return all
}

// negated is the signature (r, n-s), which is as good as (r, s).
func negated(t *testing.T, curve elliptic.Curve, signature string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	half := len(b) / 2
	s := new(big.Int).SetBytes(b[half:])
	s.Sub(curve.Params().N, s).FillBytes(b[half:])
	return base64.RawURLEncoding.EncodeToString(b)
}

// broken reports whether a header can't be sent by a client that knows its rules.
func broken(h http.Header) bool {
	return slices.ContainsFunc(h["Authorization"], func(v string) bool { return strings.ContainsAny(v, "\r\n") })
}
