package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

func known(k *tokentest.Key) header  { return header{alg: k.Alg, kid: k.KID, hasKID: true} }
func forged(n int) header            { return header{alg: "ES256", kid: fmt.Sprint("forged-", n), hasKID: true} }
func (r *Reader) first() *keySet     { return r.order[0].keys }
func elapsed(f func()) time.Duration { t := time.Now(); f(); return time.Since(t) }
func isDefinite(err error) bool {
	return errors.Is(err, ErrUnknownKey) && !errors.Is(err, ErrKeysUnavailable)
}
func isBestKnowledge(err error) bool {
	return errors.Is(err, ErrUnknownKey) && errors.Is(err, ErrKeysUnavailable)
}
func neverLoaded(err error) bool {
	return !errors.Is(err, ErrUnknownKey) && errors.Is(err, ErrKeysUnavailable)
}

// TestLastGoodKeys: no fault on refresh takes keys away, and a rotation is seen
// within 10 seconds of the issuer's recovery.
func TestLastGoodKeys(t *testing.T) {
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			old, fresh := es256(), es256New()
			idp := tokentest.NewIdP(old)
			r := newReader(t, idp, "ES256")
			bubble(t, r, func(t *testing.T) {
				before, err := r.first().lookup(t.Context(), known(old))
				if err != nil {
					t.Fatal(err)
				}
				fail(idp)
				for range 20 { // well past the regular refresh
					time.Sleep(time.Minute)
					k, err := r.first().lookup(t.Context(), known(old))
					if err != nil || k != before || k.retired.Load() {
						t.Fatalf("known key: %v, %v", k, err)
					}
				}
				if err := r.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
				if st := r.KeyStatuses()[0]; st.Err == nil || st.Keys != 1 || time.Since(st.Loaded) < 15*time.Minute {
					t.Errorf("status %+v", st)
				}
				if _, err := r.first().lookup(t.Context(), known(fresh)); !isBestKnowledge(err) {
					t.Errorf("unknown key during the fault: %v", err)
				}
				idp.Serve(fresh)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if took := elapsed(func() { _, err = r.first().lookup(t.Context(), known(fresh)) }); err != nil || took != 0 {
					t.Errorf("10 s after recovery: %v after %s", err, took)
				}
				if !before.retired.Load() {
					t.Error("the old key is not retired")
				}
			})
		})
	}
}

// TestRecoveryFromTheStart: an issuer that was away when we started.
func TestRecoveryFromTheStart(t *testing.T) {
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			idp := tokentest.NewIdP()
			fail(idp)
			r := newReader(t, idp, "ES256")
			bubble(t, r, func(t *testing.T) {
				for range 10 {
					time.Sleep(29*time.Second + 700*time.Millisecond)
					var err error
					took := elapsed(func() { _, err = r.first().lookup(t.Context(), known(es256())) })
					if !neverLoaded(err) || took > onDemandWait {
						t.Fatalf("got %v after %s", err, took)
					}
					if r.Ready() == nil {
						t.Fatal("ready without keys")
					}
				}
				idp.Serve(es256())
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if _, err := r.first().lookup(t.Context(), known(es256())); err != nil || r.Ready() != nil {
					t.Errorf("10 s after recovery: %v, %v", err, r.Ready())
				}
			})
		})
	}
}

// TestRecoveryWithinTenSeconds: wherever between two attempts the issuer comes
// back, and though nobody asks.
func TestRecoveryWithinTenSeconds(t *testing.T) {
	for name, fail := range map[string]func(*tokentest.IdP){"503": answer(503, ""), "hang": (*tokentest.IdP).Hang} {
		for phase := time.Duration(0); phase < 10*time.Second; phase += 250 * time.Millisecond {
			idp := tokentest.NewIdP()
			fail(idp)
			r := newReader(t, idp, "ES256")
			bubble(t, r, func(t *testing.T) {
				time.Sleep(time.Minute + phase)
				idp.Serve(es256())
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if err := r.Ready(); err != nil {
					t.Errorf("%s, phase %s: %v", name, phase, err)
				}
			})
		}
	}
}

// TestKidFlood: forged kids neither hold up known ones, nor reach the issuer more
// than once in 5 seconds, nor hide a rotation for more than 10.
func TestKidFlood(t *testing.T) {
	old, fresh := es256(), es256New()
	idp := tokentest.NewIdP(old)
	answering := time.Duration(0)
	slow := func(keys ...*tokentest.Key) {
		document := string(tokentest.Document(keys...))
		idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(answering)
			return tokentest.Response(r, 200, document), nil
		})
	}
	r := newReader(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		answering = 300 * time.Millisecond
		slow(old)
		ctx, stop := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		for n := range 20 {
			flood.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					if _, err := r.first().lookup(ctx, forged(100000*n+i)); !errors.Is(err, ErrUnknownKey) {
						t.Errorf("forged: %v", err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		before := idp.Fetches.Load()
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			var err error
			if took := elapsed(func() { _, err = r.first().lookup(ctx, known(old)) }); err != nil || took != 0 {
				t.Fatalf("known key: %v after %s", err, took)
			}
		}
		if n := idp.Fetches.Load() - before; n > 13 {
			t.Errorf("%d fetches in a minute", n)
		}
		slow(old, fresh)
		rotated := time.Now()
		for {
			if _, err := r.first().lookup(ctx, known(fresh)); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
			if time.Since(rotated) > 10*time.Second {
				t.Fatal("rotation not seen within 10 s")
			}
		}
		stop()
		flood.Wait()
	})
}

// TestFaultsStayWithTheirIssuer: two issuers with the same kid, one of which fails and
// is flooded with forged kids: neither's known key waits, and none stands in for the
// other's.
func TestFaultsStayWithTheirIssuer(t *testing.T) {
	a, b := tokentest.NewKey("k", "ES256"), tokentest.NewKey("k", "ES256")
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			idpA, idpB, both := tokentest.NewIdP(a), tokentest.NewIdP(b), tokentest.NewIdP()
			both.AnswerFunc(hostSwitch(map[string]*tokentest.IdP{"a.example": idpA, "b.example": idpB}))
			r, err := NewReader([]Issuer{
				{Issuer: issuerA, JWKSURI: "https://a.example/jwks", Algorithms: []string{"ES256"}},
				{Issuer: issuerB, JWKSURI: "https://b.example/jwks", Algorithms: []string{"ES256"}},
			}, both.Client(), silent)
			if err != nil {
				t.Fatal(err)
			}
			bubble(t, r, func(t *testing.T) {
				fail(idpB)
				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				for n := range 5 {
					flood.Go(func() {
						for i := 0; ctx.Err() == nil; i++ {
							r.order[1].keys.lookup(ctx, forged(100000*n+i))
							time.Sleep(10 * time.Millisecond)
						}
					})
				}
				asked := idpB.Fetches.Load()
				for n := range 14 { // an unknown kid asks again after 5 seconds
					time.Sleep(500 * time.Millisecond)
					for _, c := range []struct {
						key  *tokentest.Key
						iss  string
						want error
					}{{a, issuerA, nil}, {b, issuerB, nil}, {b, issuerA, ErrSignature}, {a, issuerB, ErrSignature}} {
						var err error
						raw := c.key.Token(goodClaims(map[string]any{"iss": c.iss, "jti": fmt.Sprint(n)}))
						if took := elapsed(func() { _, err = r.Read(ctx, raw) }); !errors.Is(err, c.want) || took != 0 {
							t.Fatalf("iss %s: %v after %s, want %v", c.iss, err, took, c.want)
						}
					}
				}
				if idpB.Fetches.Load() == asked {
					t.Error("nothing was fetched while it failed")
				}
				stop()
				flood.Wait()
			})
		})
	}
}

// TestUnknownKeyIsShared: requests that arrive together share one fetch, and all
// of them get its key.
func TestUnknownKeyIsShared(t *testing.T) {
	old, fresh := es256(), es256New()
	idp := tokentest.NewIdP(old)
	r := newReader(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		time.Sleep(time.Minute)
		idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return tokentest.Response(r, 200, string(tokentest.Document(old, fresh))), nil
		})
		before := idp.Fetches.Load()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := r.first().lookup(t.Context(), known(fresh)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := idp.Fetches.Load() - before; n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestUnknownKeyErrors: "no such key" and "can't know now" are told apart.
func TestUnknownKeyErrors(t *testing.T) {
	idp := tokentest.NewIdP(es256())
	r := newReader(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		//lint:ignore ST1008 the error is what the calls below look at first
		lookup := func(ctx context.Context) (err error, took time.Duration) {
			took = elapsed(func() { _, err = r.first().lookup(ctx, forged(1)) })
			return err, took
		}
		if err, took := lookup(t.Context()); !isBestKnowledge(err) || took != 0 {
			t.Errorf("right after a fetch: %v after %s", err, took)
		}
		time.Sleep(onDemandEvery)
		if err, _ := lookup(t.Context()); !isDefinite(err) {
			t.Errorf("after a fetch of its own: %v", err)
		}
		time.Sleep(onDemandEvery)
		idp.Answer(503, "")
		if err, _ := lookup(t.Context()); !isBestKnowledge(err) {
			t.Errorf("after a failed fetch: %v", err)
		}
		idp.Serve(es256())
		time.Sleep(time.Minute)
		idp.Hang()
		if err, took := lookup(t.Context()); !isBestKnowledge(err) || took != onDemandWait {
			t.Errorf("fetch hangs: %v after %s", err, took)
		}
		idp.Serve(es256())
		time.Sleep(time.Minute)
		idp.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err, took := lookup(ctx); !isBestKnowledge(err) || took != time.Second {
			t.Errorf("caller gives up: %v after %s", err, took)
		}
		// This fetch, under way since a second, ends well, but began before the call.
		idp.Serve(es256())
		time.Sleep(time.Minute)
		idp.AnswerFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return tokentest.Response(r, 200, string(tokentest.Document(es256()))), nil
		})
		var other sync.WaitGroup
		other.Go(func() { lookup(t.Context()) })
		time.Sleep(500 * time.Millisecond)
		if err, took := lookup(t.Context()); !isBestKnowledge(err) || took != 500*time.Millisecond {
			t.Errorf("fetch began before: %v after %s", err, took)
		}
		other.Wait()
	})
	if _, err := r.first().lookup(t.Context(), forged(1)); !isBestKnowledge(err) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := r.first().lookup(t.Context(), known(es256())); err != nil {
		t.Errorf("known key after the end: %v", err)
	}
}

// TestUnusableKidIsNotDefinite: the issuer may mend its document, and then the
// token is good.
func TestUnusableKidIsNotDefinite(t *testing.T) {
	bad := es256New().With(map[string]any{"x": "AAAA"})
	r := newReader(t, tokentest.NewIdP(es256(), bad), "ES256")
	bubble(t, r, func(t *testing.T) {
		time.Sleep(time.Minute)
		if _, err := r.first().lookup(t.Context(), known(bad)); !isBestKnowledge(err) {
			t.Errorf("got %v", err)
		}
	})
}

// TestTokensWithoutKid: one key must fit, and a bad signature may mean a new key.
func TestTokensWithoutKid(t *testing.T) {
	unnamed := func(k *tokentest.Key) *tokentest.Key { c := *k; c.KID = ""; return &c }
	old, fresh := unnamed(es256()), unnamed(es256New())
	idp := tokentest.NewIdP(old, rsaKey())
	r := newReader(t, idp, "ES256", "RS256")
	bubble(t, r, func(t *testing.T) {
		read := func(k *tokentest.Key) error {
			_, err := r.Read(t.Context(), k.Token(goodClaims(nil)))
			return err
		}
		if err := read(old); err != nil {
			t.Errorf("one key fits: %v", err)
		}
		if err := read(fresh); !errors.Is(err, ErrSignature) || !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("wrong key, right after a fetch: %v", err)
		}
		time.Sleep(time.Minute)
		if err := read(fresh); !errors.Is(err, ErrSignature) || errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("wrong key: %v", err)
		}
		time.Sleep(time.Minute)
		idp.Serve(fresh)
		if err := read(fresh); err != nil {
			t.Errorf("rotated: %v", err)
		}
		idp.Serve(old, fresh)
		time.Sleep(refreshEvery)
		synctest.Wait()
		if err := read(fresh); !isBestKnowledge(err) {
			t.Errorf("two keys fit: %v", err)
		}
	})
}

// TestKeyIdentity: an unchanged key stays the same object, a withdrawn one is
// retired, and one that comes back is a new one.
func TestKeyIdentity(t *testing.T) {
	a, b := es256(), es256New()
	idp := tokentest.NewIdP(a, b)
	r := newReader(t, idp, "ES256")
	bubble(t, r, func(t *testing.T) {
		get := func(k *tokentest.Key) *key { return r.first().current.Load().byID[k.KID] }
		serve := func(keys ...*tokentest.Key) {
			idp.Serve(keys...)
			time.Sleep(refreshEvery)
			synctest.Wait()
		}
		a1, b1 := get(a), get(b)
		serve(b, a)
		if get(a) != a1 || get(b) != b1 || a1.retired.Load() || b1.retired.Load() {
			t.Fatal("reordering changed keys")
		}
		serve(b)
		if get(a) != nil || !a1.retired.Load() || b1.retired.Load() {
			t.Fatal("withdrawing one key")
		}
		serve(a, b)
		a2 := get(a)
		if a2 == nil || a2 == a1 || a2.retired.Load() || !a1.retired.Load() {
			t.Fatal("bringing it back")
		}
		other := *b
		other.KID = a.KID
		serve(&other, b)
		if get(a) == a2 || !a2.retired.Load() {
			t.Fatal("another key under the same kid")
		}
		for range 3 {
			serve(b, b)
			if b1.retired.Load() || get(b) != b1 {
				t.Fatal("a document without a usable key retired one")
			}
		}
	})
}

// TestBadKeyIsLeftOut: the others are used, and a log line says which was not.
func TestBadKeyIsLeftOut(t *testing.T) {
	var log bytes.Buffer
	idp := tokentest.NewIdP(es256New().With(map[string]any{"x": "AAAA"}), es256())
	r, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"ES256"}}},
		idp.Client(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, r, func(t *testing.T) {
		if _, err := r.first().lookup(t.Context(), known(es256())); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
	})
	if n := strings.Count(log.String(), "key left out"); n != 1 || !strings.Contains(log.String(), "kid="+es256New().KID) {
		t.Errorf("%d lines in:\n%s", n, &log)
	}
}

// TestFailedFetchIsLogged: once, without an act that the error names too, and with
// what it means.
func TestFailedFetchIsLogged(t *testing.T) {
	for meaning, keys := range map[string][]*tokentest.Key{"stay as they are": {es256()}, "aren't known": nil} {
		var log bytes.Buffer
		idp := tokentest.NewIdP(keys...)
		r, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"ES256"}}},
			idp.Client(), slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if keys == nil {
			idp.Answer(503, "")
		}
		bubble(t, r, func(t *testing.T) {
			idp.Answer(503, "")
			time.Sleep(time.Hour)
		})
		if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, meaning) ||
			strings.Count(got, "couldn't fetch keys") != 1 {
			t.Errorf("logged\n%s", got)
		}
	}
}
