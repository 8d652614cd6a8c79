package token

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// newRevoking is newReader for an authority.
func newRevoking(t testing.TB, idp *tokentest.IdP, algs ...string) *Reader {
	t.Helper()
	r, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: algs}}, idp.Client(), silent, ForRevoking())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// isDropped reports whether an authority answers that a token is dealt with, though
// it stores nothing.
func isDropped(err error) bool { return err != nil && !errors.Is(err, ErrKeysUnavailable) }

func named(k *tokentest.Key, kid string) *tokentest.Key { c := *k; c.KID = kid; return &c }

// later runs a second reader in the bubble of another, after its first fetch.
func later(t *testing.T, r *Reader, f func()) {
	for _, i := range r.order {
		i.keys.wake = make(chan struct{}, 1)
	}
	stop := tokentest.Run(t, r.Run)
	synctest.Wait()
	f()
	stop()
}

// TestDurableKeyWithdrawn: an authority that has the new key document reads what a
// verifier with the old one accepts, for as long as that can be.
func TestDurableKeyWithdrawn(t *testing.T) {
	a, b := es256(), es256New()
	bare := func(k *tokentest.Key) *tokentest.Key { return named(k, "") }
	type keys = []*tokentest.Key
	for _, c := range []struct {
		name     string
		was, now keys
		signer   *tokentest.Key
	}{
		{"left out", keys{a, b}, keys{b}, a},
		{"replaced under its kid", keys{a}, keys{named(b, a.KID)}, a},
		{"kid for another algorithm", keys{a}, keys{named(rsaKey(), a.KID)}, a},
		{"kid doubled", keys{a}, keys{a, named(b, a.KID), rsaKey()}, a},
		{"no kid", keys{bare(a)}, keys{bare(b)}, bare(a)},
		{"no kid, a second key", keys{bare(a)}, keys{bare(a), b}, bare(a)},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := tokentest.NewIdP(c.was...), tokentest.NewIdP(c.was...)
			verifier := newReader(t, near, "ES256", "RS256")
			authority := newRevoking(t, far, "ES256", "RS256")
			bubble(t, authority, func(t *testing.T) {
				later(t, verifier, func() {
					near.Answer(http.StatusServiceUnavailable, "")
					far.Serve(c.now...)
					time.Sleep(refreshEvery)
					synctest.Wait()
					raw := c.signer.Token(goodClaims(map[string]any{"exp": time.Now().Add(DefaultMaxLifetime).Unix()}))
					for range 12 {
						if _, err := verifier.Read(t.Context(), raw); err != nil {
							t.Fatalf("the verifier refuses: %v", err)
						}
						if _, err := authority.Read(t.Context(), raw); err != nil {
							t.Fatalf("the authority can't read it: %v", err)
						}
						time.Sleep(DefaultMaxLifetime / 12)
					}
				})
			})
		})
	}
}

// TestDurableKeyNotSeenYet: an authority that has the old key document never says
// that there is nothing to a token that a verifier with the new one accepts.
func TestDurableKeyNotSeenYet(t *testing.T) {
	a, b := es256(), es256New()
	type keys = []*tokentest.Key
	for _, c := range []struct {
		name     string
		was, now keys
		signer   *tokentest.Key
	}{
		{"new", keys{a}, keys{a, b}, b},
		{"replaced under its kid", keys{a}, keys{named(b, a.KID)}, named(b, a.KID)},
		{"kid for another algorithm", keys{named(rsaKey(), a.KID)}, keys{a}, a},
		{"no kid", keys{named(a, "")}, keys{named(b, "")}, named(b, "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for after := time.Duration(0); after < 3*onDemandEvery; after += 500 * time.Millisecond {
				idp := tokentest.NewIdP(c.was...)
				authority, verifier := newRevoking(t, idp, "ES256", "RS256"), newReader(t, idp, "ES256", "RS256")
				bubble(t, authority, func(t *testing.T) {
					time.Sleep(after)
					idp.Serve(c.now...)
					raw := c.signer.Token(goodClaims(nil))
					later(t, verifier, func() {
						if _, err := verifier.Read(t.Context(), raw); err != nil {
							t.Fatalf("the verifier refuses: %v", err)
						}
					})
					for waited := time.Duration(0); ; waited += 100 * time.Millisecond {
						_, err := authority.Read(t.Context(), raw)
						if err == nil {
							break
						}
						if isDropped(err) || waited > onDemandEvery {
							t.Fatalf("the authority drops it, %s and %s after its fetch: %v", after, waited, err)
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
		})
	}
}

// TestForgedSignatureFlood: forged signatures under a known kid are answered at
// once, reach the issuer no more than once in 5 seconds, and hold up no good token.
// With an iat that is past, nearly all of the answers are definite.
func TestForgedSignatureFlood(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(*testing.T, *tokentest.IdP, ...string) *Reader
		iat   time.Duration
		least float64 // part of the answers that are definite
		wait  time.Duration
		most  int64 // fetches in a minute
	}{
		"authority":            {func(t *testing.T, p *tokentest.IdP, a ...string) *Reader { return newRevoking(t, p, a...) }, -time.Hour, 1, time.Second, 13},
		"authority, iat now":   {func(t *testing.T, p *tokentest.IdP, a ...string) *Reader { return newRevoking(t, p, a...) }, 0, 0, time.Second, 13},
		"verifier never waits": {func(t *testing.T, p *tokentest.IdP, a ...string) *Reader { return newReader(t, p, a...) }, 0, 1, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			good, stranger := es256(), named(es256New(), es256().KID)
			idp := tokentest.NewIdP(good)
			r := c.make(t, idp, "ES256")
			bubble(t, r, func(t *testing.T) {
				time.Sleep(time.Second)
				document := string(tokentest.Document(good))
				idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					return tokentest.Response(r, 200, document), nil
				})
				before, started := idp.Fetches.Load(), time.Now()
				var flood sync.WaitGroup
				var definite, all atomic.Int64
				forged := stranger.Token(goodClaims(map[string]any{"iat": started.Add(c.iat).Unix()}))
				for range 10 {
					flood.Go(func() {
						for time.Since(started) < time.Minute {
							var err error
							if took := elapsed(func() { _, err = r.Read(t.Context(), forged) }); took > c.wait {
								t.Errorf("answered after %s", took)
							}
							if !errors.Is(err, ErrSignature) {
								t.Errorf("forged: %v", err)
							}
							if all.Add(1); isDropped(err) {
								definite.Add(1)
							}
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				raw := good.Token(goodClaims(nil))
				for range 300 {
					var err error
					if took := elapsed(func() { _, err = r.Read(t.Context(), raw) }); err != nil || took != 0 {
						t.Fatalf("a good token: %v after %s", err, took)
					}
					time.Sleep(200 * time.Millisecond)
				}
				flood.Wait()
				if n := idp.Fetches.Load() - before; n > c.most {
					t.Errorf("%d fetches in a minute", n)
				}
				if part := float64(definite.Load()) / float64(all.Load()); part < c.least {
					t.Errorf("%.2f of the answers are definite", part)
				}
			})
		})
	}
}

// TestForgedSignatureIsDefinite: but not while the issuer is away.
func TestForgedSignatureIsDefinite(t *testing.T) {
	idp := tokentest.NewIdP(es256())
	r := newRevoking(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		forged := named(es256New(), es256().KID)
		read := func(iat time.Duration) error {
			_, err := r.Read(t.Context(), forged.Token(goodClaims(map[string]any{"iat": time.Now().Add(iat).Unix()})))
			if !errors.Is(err, ErrSignature) {
				t.Errorf("got %v", err)
			}
			return err
		}
		if err := read(-time.Minute); !isDropped(err) {
			t.Errorf("issued before the fetch just now: %v", err)
		}
		if err := read(0); isDropped(err) {
			t.Errorf("issued since: %v", err)
		}
		time.Sleep(onDemandEvery)
		if err := read(0); !isDropped(err) {
			t.Errorf("after a fetch of its own: %v", err)
		}
		time.Sleep(time.Minute)
		idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(onDemandWait - time.Millisecond)
			return tokentest.Response(r, 200, string(tokentest.Document(es256()))), nil
		})
		if err := read(-30 * time.Second); !isDropped(err) {
			t.Errorf("after a slow fetch of its own: %v", err)
		}
		if err := read(-32 * time.Second); isDropped(err) { // the document may be of the fetch's beginning
			t.Errorf("issued since a slow fetch began, for all that is known: %v", err)
		}
		time.Sleep(time.Minute)
		idp.Hang()
		var err error
		if took := elapsed(func() { err = read(-time.Hour) }); isDropped(err) || took != onDemandWait {
			t.Errorf("the issuer hangs: %v after %s", err, took)
		}
		idp.Serve(es256())
		time.Sleep(time.Minute)
		idp.Answer(http.StatusServiceUnavailable, "")
		if err := read(-time.Hour); isDropped(err) {
			t.Errorf("the issuer is away: %v", err)
		}
	})
}

// TestWithdrawnKeysAreBounded in number and time, and retired for verifiers.
func TestWithdrawnKeysAreBounded(t *testing.T) {
	idp := tokentest.NewIdP(es256())
	r := newRevoking(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		raw := es256().Token(goodClaims(nil))
		v, err := r.Read(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		rotate := func(n int) {
			idp.Serve(named(es256New(), fmt.Sprint("n", n)))
			time.Sleep(refreshEvery)
			synctest.Wait()
		}
		for n := range maxWithdrawn {
			rotate(n)
			if again, err := r.Read(t.Context(), raw); err != nil || !v.KeyRetired() || !again.KeyRetired() {
				t.Fatalf("after %d rotations: %v", n+1, err)
			}
		}
		rotate(maxWithdrawn)
		time.Sleep(time.Minute)
		if _, err := r.Read(t.Context(), raw); !isDefinite(err) {
			t.Errorf("after one too many: %v", err)
		}

		idp.Serve(es256())
		time.Sleep(refreshEvery)
		synctest.Wait()
		rotate(0)
		time.Sleep(DefaultMaxLifetime + denylist.Grace - refreshEvery)
		if _, err := r.Read(t.Context(), raw); err != nil {
			t.Errorf("what it signed may still be valid: %v", err)
		}
		time.Sleep(refreshEvery)
		if _, err := r.Read(t.Context(), raw); !isDefinite(err) {
			t.Errorf("all it signed has expired: %v", err)
		}
	})
}
