package feed

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/internal/broadcast"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const issuer = "https://idp.example"

func testSigner() wire.Signer {
	return wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
}

// authority is a real log behind the few HTTP paths that a verifier uses.
type authority struct {
	*httptest.Server
	*broadcast.Log
	list *denylist.List
	cut  atomic.Bool // HTTP is out of reach
	// liveURL, where set, is what discovery names instead of the real feed.
	liveURL atomic.Pointer[string]
	mu      sync.RWMutex // guards Log, which restart replaces
}

func startAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	return serve(t, broadcast.Config{Embedded: &broadcast.Embedded{Listen: "127.0.0.1:0", StoreDir: dir}})
}

func (a *authority) open(t testing.TB, cfg broadcast.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cfg.Signer, cfg.MaxLifetime, cfg.List = testSigner(), 24*time.Hour, denylist.New()
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := broadcast.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.Log, a.list = l, cfg.List
	a.mu.Unlock()
}

func serve(t testing.TB, cfg broadcast.Config) *authority {
	t.Helper()
	a := &authority{}
	a.open(t, cfg)
	mux := http.NewServeMux()
	mux.HandleFunc(wire.DiscoveryPath, func(w http.ResponseWriter, r *http.Request) {
		d, err := a.Discovery()
		if u := a.liveURL.Load(); u != nil {
			d.Live.URL = *u
		}
		if err == nil {
			err = json.NewEncoder(w).Encode(d)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc(wire.SnapshotPath, func(w http.ResponseWriter, r *http.Request) {
		s, err := a.Snapshot(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.Copy(w, s)
	})
	mux.HandleFunc(wire.LogPath, func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseUint(r.FormValue("after"), 10, 64)
		wait, _ := time.ParseDuration(r.FormValue("wait"))
		b, err := a.Page(r.Context(), after, wait, r.FormValue("nonce"))
		switch {
		case errors.Is(err, wire.ErrGone):
			w.WriteHeader(http.StatusGone)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			_, _ = w.Write(b)
		}
	})
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		a.mu.RLock()
		defer a.mu.RUnlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		a.Server.CloseClientConnections()
		a.Server.Close()
		_ = a.Log.Close()
	})
	return a
}

// restart closes the log and opens it again, after doing something to its files.
func (a *authority) restart(t testing.TB, cfg broadcast.Config, between func()) {
	t.Helper()
	a.cut.Store(true)
	a.mu.Lock()
	_ = a.Log.Close()
	a.mu.Unlock()
	between()
	a.open(t, cfg)
	a.cut.Store(false)
}

// revoke makes a token and revokes it.
func (a *authority) revoke(t testing.TB, jti string) *denylist.Token {
	t.Helper()
	exp := time.Now().Add(time.Hour)
	_, err := a.Append(t.Context(), denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.JTI, jti), Expires: exp, ExactExpiry: true, At: time.Now(), By: "web",
	})
	if err != nil {
		t.Fatal(err)
	}
	return tokenOf(t, jti, exp)
}

func tokenOf(t testing.TB, jti string, exp time.Time) *denylist.Token {
	t.Helper()
	token, err := denylist.NewToken(denylist.Claims{Issuer: issuer, Expires: exp, Values: map[string]any{"jti": jti}})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type follower struct {
	*Feed
	list *denylist.List
	stop func()
}

func follow(t testing.TB, url string, change ...func(*Config)) *follower {
	t.Helper()
	cfg := Config{Authority: url, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&cfg)
	}
	list := denylist.New()
	f, err := New(list, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return &follower{f, list, stop}
}

// eventually polls a condition on real sockets, with a deadline far beyond what
// is due.
func eventually(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

func (f *follower) denies(token *denylist.Token) bool {
	return f.list.CheckToken(token, time.Now()).Status == denylist.Revoked
}

func (f *follower) fresh() bool {
	age, ok := f.list.Age(time.Now())
	return ok && age < 2*time.Second
}

func TestPromptRevocationArrivesLive(t *testing.T) {
	a := startAuthority(t, t.TempDir())
	before := a.revoke(t, "before")
	f := follow(t, a.URL)
	eventually(t, "ready", f.fresh)
	if !f.denies(before) {
		t.Fatal("a revocation from before the start is missed")
	}
	eventually(t, "connected", func() bool { return f.Status().Connected })
	after := a.revoke(t, "after")
	t.Logf("denied %s after the answer", eventually(t, "denied", func() bool { return f.denies(after) }))
	eventually(t, "heartbeats confirm", func() bool { return f.Status().Heartbeats >= 2 })
	if s := f.Status(); len(s.Alarms) > 0 || s.Confirmed == 0 {
		t.Errorf("%+v", s)
	}
}

func TestFreshWithNATSCutRevocationsArriveOverHTTP(t *testing.T) {
	a := startAuthority(t, t.TempDir())
	nowhere := "nats://127.0.0.1:1"
	a.liveURL.Store(&nowhere)
	f := follow(t, a.URL)
	eventually(t, "ready", f.fresh)
	for i := range 5 {
		token := a.revoke(t, fmt.Sprint("x", i))
		t.Logf("denied %s after the answer", eventually(t, "denied", func() bool { return f.denies(token) }))
	}
	eventually(t, "still fresh", f.fresh)
}

func TestFreshOrUnknownRestartFromTheStateFile(t *testing.T) {
	a := startAuthority(t, t.TempDir())
	state := func(c *Config) { c.StateFile = filepath.Join(t.TempDir(), "state") }
	path := ""
	f := follow(t, a.URL, state, func(c *Config) { path = c.StateFile })
	keep := func(c *Config) { c.StateFile = path }
	eventually(t, "connected", func() bool { return f.fresh() && f.Status().Connected })
	token := a.revoke(t, "x")
	eventually(t, "denied", func() bool { return f.denies(token) })
	f.stop()
	a.cut.Store(true)
	g := follow(t, a.URL, keep)
	eventually(t, "the state is taken up", func() bool { return g.denies(token) })
	if age, ok := g.list.Age(time.Now()); !ok || age > 10*time.Second {
		t.Errorf("age %v %v", age, ok)
	}
	a.cut.Store(false)
	later := a.revoke(t, "later")
	eventually(t, "caught up", func() bool { return g.denies(later) && g.fresh() })
	if s := g.Status(); s.Snapshots != 0 || len(s.Alarms) > 0 {
		t.Errorf("%+v", s)
	}
}

// TestSignedKeysOverPlainHTTPAreWarnedOf where nobody has pinned them.
func TestSignedKeysOverPlainHTTPAreWarnedOf(t *testing.T) {
	pinned := []ed25519.PublicKey{testSigner().Public()}
	for _, c := range []struct {
		authority string
		keys      []ed25519.PublicKey
		warned    bool
	}{
		{"http://authority.revcast.svc:8700", nil, true},
		{"http://10.0.0.1:8700", nil, true},
		{"http://authority.revcast.svc:8700", pinned, false},
		{"https://authority.example", nil, false},
		{"http://127.0.0.1:8700", nil, false},
		{"http://[::1]:8700", nil, false},
		{"http://localhost:8700", nil, false},
	} {
		var lines bytes.Buffer
		if _, err := New(denylist.New(), Config{Authority: c.authority, Keys: c.keys, Logger: slog.New(slog.NewTextHandler(&lines, nil))}); err != nil {
			t.Fatal(err)
		}
		if warned := strings.Contains(lines.String(), "plain http"); warned != c.warned {
			t.Errorf("%s, %d keys: %q", c.authority, len(c.keys), lines.String())
		}
	}
}
