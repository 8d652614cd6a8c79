package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// lines are a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// keeping is newReader with a file, and what it logs.
func keeping(t *testing.T, path string, idp *tokentest.IdP, options ...Option) (*Reader, *lines) {
	t.Helper()
	var log lines
	r, err := NewReader([]Issuer{{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"ES256"}}}, idp.Client(),
		slog.New(slog.NewTextHandler(&log, nil)), append(options, Persist(path))...)
	if err != nil {
		t.Fatal(err)
	}
	return r, &log
}

// kept is a file with the keys, as a reader that fetched them leaves it.
func kept(t *testing.T, keys ...*tokentest.Key) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys.json")
	r, log := keeping(t, path, tokentest.NewIdP(keys...))
	bubble(t, r, func(*testing.T) {})
	if strings.Contains(log.String(), "level=WARN") {
		t.Fatalf("logged\n%s", log)
	}
	return path
}

// TestKeptKeys: what an earlier process fetched is there at once, whatever the issuer
// does, and is asked for anew.
func TestKeptKeys(t *testing.T) {
	old, fresh := es256(), es256New()
	path := kept(t, old)
	if info, err := os.Stat(path); err != nil {
		t.Fatal(err)
	} else if info.Mode().Perm() != 0o600 {
		t.Error("others can read it, or write:", info.Mode())
	}
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			idp := tokentest.NewIdP()
			fail(idp)
			r, log := keeping(t, path, idp)
			if !strings.Contains(log.String(), "took up") || strings.Contains(log.String(), "WARN") {
				t.Errorf("logged\n%s", log)
			}
			if err := r.Ready(); err != nil {
				t.Errorf("not ready before the first fetch: %v", err)
			}
			bubble(t, r, func(t *testing.T) {
				if n := idp.Fetches.Load(); n < 1 {
					t.Error("the issuer was not asked at once")
				}
				var first *Verified
				took := elapsed(func() {
					v, err := r.Read(t.Context(), old.Token(goodClaims(nil)))
					if err != nil {
						t.Fatal(err)
					}
					first = v
				})
				if took != 0 {
					t.Errorf("a known key took %s", took)
				}
				time.Sleep(time.Minute)
				if st := r.KeyStatuses()[0]; st.Keys != 1 || st.Err == nil || time.Since(st.Loaded) < time.Minute {
					t.Errorf("status %+v", st)
				}
				if _, err := r.Read(t.Context(), fresh.Token(goodClaims(nil))); !isBestKnowledge(err) {
					t.Errorf("an unknown key: %v", err)
				}
				idp.Serve(fresh)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if _, err := r.Read(t.Context(), fresh.Token(goodClaims(nil))); err != nil || !first.KeyRetired() {
					t.Errorf("10 s after recovery: %v, retired %v", err, first.KeyRetired())
				}
			})
			after, _ := keeping(t, path, idp)
			if after.first().current.Load().byID[fresh.KID] == nil {
				t.Error("the new key is not on disk")
			}
			if err := os.WriteFile(path, mustRead(t, kept(t, old)), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeptKeysProveNothing: an authority never says "no" by a document of an earlier
// process, whose keys it goes on reading once the issuer has withdrawn them.
func TestKeptKeysProveNothing(t *testing.T) {
	path := kept(t, es256())
	idp := tokentest.NewIdP()
	idp.Answer(503, "")
	r, _ := keeping(t, path, idp, ForRevoking())
	bubble(t, r, func(t *testing.T) {
		forged := named(es256New(), es256().KID)
		for _, age := range []time.Duration{0, time.Minute, time.Hour} {
			claims := goodClaims(map[string]any{"iat": time.Now().Add(-age).Unix()})
			if _, err := r.Read(t.Context(), forged.Token(claims)); !errors.Is(err, ErrSignature) || isDropped(err) {
				t.Errorf("forged, issued %s ago: %v", age, err)
			}
			if _, err := r.Read(t.Context(), es256New().Token(claims)); isDropped(err) {
				t.Errorf("an unknown key, issued %s ago: %v", age, err)
			}
			time.Sleep(onDemandEvery)
		}
		idp.Serve(es256New())
		time.Sleep(time.Minute)
		if v, err := r.Read(t.Context(), es256().Token(goodClaims(nil))); err != nil || !v.KeyRetired() {
			t.Errorf("withdrawn while we were away: %v", err)
		}
	})
}

// TestKeptKeysAreBound to issuer and address.
func TestKeptKeysAreBound(t *testing.T) {
	path := kept(t, es256())
	for name, i := range map[string]Issuer{
		"another issuer":  {Issuer: issuerB, JWKSURI: jwksURI},
		"another address": {Issuer: issuerA, JWKSURI: jwksURI + "2"},
		"keys at hand":    {Issuer: issuerA, JWKS: tokentest.Document(es256New())},
	} {
		var log lines
		i.Algorithms = []string{"ES256"}
		r, err := NewReader([]Issuer{i}, noClient(t), slog.New(slog.NewTextHandler(&log, nil)), Persist(path))
		if err != nil {
			t.Fatal(err)
		}
		if r.first().current.Load() != nil || r.Ready() == nil {
			t.Errorf("%s: took them up", name)
		}
		if strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("%s: logged\n%s", name, &log)
		}
	}
}

// TestDamagedKeysFile is as none, with one line, and is replaced.
func TestDamagedKeysFile(t *testing.T) {
	good := string(mustRead(t, kept(t, es256())))
	document := func(d string) string {
		sum := sha256.Sum256([]byte(d))
		b, err := json.Marshal(keysFile{keysVersion, []keptDocument{{issuerA, jwksURI, time.Unix(1, 0), hex.EncodeToString(sum[:]), []byte(d)}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	twice := strings.Replace(good, `"documents":[`, `"documents":[`+good[strings.Index(good, `[`)+1:strings.LastIndex(good, `]`)]+`,`, 1)
	for name, text := range map[string]string{
		"empty":                     "",
		"truncated":                 good[:len(good)/2],
		"a byte short":              good[:len(good)-1],
		"no JSON":                   "RVCF\x02",
		"null":                      "null",
		"an array":                  "[" + good + "]",
		"trailing":                  good + "{}",
		"another version":           strings.Replace(good, `"version":1`, `"version":2`, 1),
		"no version":                strings.Replace(good, `"version":1,`, ``, 1),
		"an unknown member":         strings.Replace(good, `"version":1`, `"version":1,"x":1`, 1),
		"a member twice":            strings.Replace(good, `"version":1`, `"version":1,"version":1`, 1),
		"an issuer twice":           twice,
		"a changed document":        strings.Replace(good, `"document":"eyJ`, `"document":"eyI`, 1),
		"a document that is none":   document("{}"),
		"a document without a key":  document(`{"keys":[]}`),
		"a document with a secret":  document(`{"keys":[{"kty":"oct","k":"AAAA"}]}`),
		"a document above 1 MiB":    document(sized(maxDocument + 1)),
		"no time":                   strings.Replace(document(sized(maxDocument)), "1970-01-01T00:00:01Z", "0001-01-01T00:00:00Z", 1),
		"another checksum's letter": strings.Replace(good, `"sha256":"`, `"sha256":"0`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if text == good {
				t.Fatal("nothing is wrong with it")
			}
			path := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, log := keeping(t, path, tokentest.NewIdP(es256()))
			if r.first().current.Load() != nil || strings.Count(log.String(), "level=WARN") != 1 || strings.Count(log.String(), "\n") != 1 {
				t.Fatalf("took it, or logged\n%s", log)
			}
			bubble(t, r, func(t *testing.T) {
				if _, err := r.Read(t.Context(), es256().Token(goodClaims(nil))); err != nil {
					t.Error(err)
				}
			})
			if again, log := keeping(t, path, tokentest.NewIdP()); again.Ready() != nil {
				t.Errorf("not replaced:\n%s", log)
			}
		})
	}
	t.Run("larger than its bound", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maxKeysFile+1)); err != nil {
			t.Fatal(err)
		}
		if _, log := keeping(t, path, tokentest.NewIdP()); !strings.Contains(log.String(), "64 MiB") {
			t.Errorf("logged\n%s", log)
		}
	})
	t.Run("missing", func(t *testing.T) {
		r, log := keeping(t, filepath.Join(t.TempDir(), "keys.json"), tokentest.NewIdP())
		if r.Ready() == nil || log.String() != "" {
			t.Errorf("logged\n%s", log)
		}
	})
	t.Run("largest document", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(path, []byte(document(sized(maxDocument))), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, log := keeping(t, path, tokentest.NewIdP()); r.Ready() != nil {
			t.Errorf("logged\n%s", log)
		}
	})
}

// TestKeptKeysAreConfirmed: the file learns that a document is still good, once an
// hour, and is left alone otherwise.
func TestKeptKeysAreConfirmed(t *testing.T) {
	path := kept(t, es256())
	first := string(mustRead(t, path))
	r, _ := keeping(t, path, tokentest.NewIdP(es256()))
	bubble(t, r, func(t *testing.T) {
		for range 11 {
			time.Sleep(refreshEvery)
		}
		synctest.Wait()
		if string(mustRead(t, path)) != first {
			t.Error("written within the hour, with nothing new")
		}
		time.Sleep(2 * refreshEvery)
		synctest.Wait()
		if string(mustRead(t, path)) == first {
			t.Error("the document looks older than it is")
		}
	})
}

// TestKeysFileFailures are told once, change nothing else, and end by themselves.
func TestKeysFileFailures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "keys.json")
	r, log := keeping(t, path, tokentest.NewIdP(es256()))
	bubble(t, r, func(t *testing.T) {
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if _, err := r.Read(t.Context(), es256().Token(goodClaims(nil))); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d lines in\n%s", n, log)
		}
		if err := os.MkdirAll(path, 0o700); err != nil { // another failure: a directory is there
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 2 {
			t.Errorf("%d lines in\n%s", n, log)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(saveRetry)
		synctest.Wait()
		if !strings.Contains(log.String(), "kept on disk again") {
			t.Errorf("logged\n%s", log)
		}
	})
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left behind: %v, %v", all, err)
	}
	if again, log := keeping(t, path, tokentest.NewIdP()); again.Ready() != nil {
		t.Errorf("logged\n%s", log)
	}
}

// TestKeysFileOfTwo: processes that share a file by mistake lose nothing but each
// other's news: whoever reads it finds one that is whole.
func TestKeysFileOfTwo(t *testing.T) {
	path := kept(t, es256())
	var writing sync.WaitGroup
	for range 2 {
		r, log := keeping(t, path, tokentest.NewIdP())
		writing.Go(func() {
			for n := range 50 {
				r.store.keep(issuerA, jwksURI, tokentest.Document(named(es256New(), fmt.Sprint(n))), time.Now())
				if err := r.store.save(); err != nil {
					t.Errorf("%v\n%s", err, log)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if r, log := keeping(t, path, tokentest.NewIdP()); r.Ready() != nil {
			t.Fatalf("read\n%s", log)
		}
	}
}

// TestKeysFileOfAKilledProcess: what it left goes, what another one writes now stays.
func TestKeysFileOfAKilledProcess(t *testing.T) {
	path := kept(t, es256())
	now, left := path+".new-1", path+".new-2"
	long := time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(now, nil, 0o600), os.WriteFile(left, nil, 0o600), os.Chtimes(left, long, long)); err != nil {
		t.Fatal(err)
	}
	keeping(t, path, tokentest.NewIdP())
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed process left: %v", err)
	}
	if _, err := os.Stat(now); err != nil {
		t.Errorf("what another process writes: %v", err)
	}
}

// TestSecretsAreNotKept on disk, nor keys that the configuration holds.
func TestSecretsAreNotKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	hs := tokentest.NewKey("", "HS256")
	r := withSecret(t, hs, tokentest.NewIdP(es256()), Persist(path))
	bubble(t, r, func(*testing.T) {})
	text := string(mustRead(t, path))
	if strings.Contains(text, issuerA) || !strings.Contains(text, issuerB) {
		t.Errorf("the file holds\n%s", text)
	}
}
