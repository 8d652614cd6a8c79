//go:build scale

package scale

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/broadcast"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/test/harness"
)

var (
	entries = flag.Int("entries", 10_000_000, "how many revocations are live")
	keep    = flag.String("keep", "", "a directory for the authority's data, made where it is empty and used again where it is not")
)

func TestMain(m *testing.M) { harness.Main(m) }

var web = harness.Client{ID: "web", Secret: "secret-of-web"}

const (
	issuerOfMany = "https://many.example"
	lifetime     = 24 * time.Hour
)

// fill makes an authority's data: a log with many revocations, each of a token that
// expires within a day, through the same code that the authority runs.
func fill(t *testing.T, data string) {
	if _, err := os.Stat(filepath.Join(data, "feed.key")); err == nil {
		return
	}
	began := time.Now()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := wire.NewSigner(key)
	list := denylist.New()
	log, err := broadcast.Open(t.Context(), broadcast.Config{
		Embedded: &broadcast.Embedded{Listen: "127.0.0.1:0", StoreDir: filepath.Join(data, "jetstream")}, Signer: signer,
		MaxLifetime: lifetime, List: list, SnapshotFile: filepath.Join(data, "snapshot"),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	var callers sync.WaitGroup
	now := time.Now()
	for range 16 {
		callers.Go(func() {
			for {
				first := int(next.Add(broadcast.MaxAppend)) - broadcast.MaxAppend
				if first >= *entries {
					return
				}
				batch := make([]denylist.Revocation, min(broadcast.MaxAppend, *entries-first))
				for i := range batch {
					batch[i] = revocation(first+i, now)
				}
				if _, err := log.Append(t.Context(), batch...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	for list.Stats().Entries < *entries {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(2 * time.Second) // a mark follows the last snapshot
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := signer.MarshalPEM()
	if err == nil {
		err = os.WriteFile(filepath.Join(data, "feed.key"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d revocations stored in %s", *entries, time.Since(began).Round(time.Second))
}

func revocation(i int, now time.Time) denylist.Revocation {
	return denylist.Revocation{
		Issuer: issuerOfMany, Selector: denylist.One(denylist.JTI, "token-"+strconv.Itoa(i)),
		Expires: now.Add(time.Hour + time.Duration(i%82_800)*time.Second), ExactExpiry: true, At: now, By: "web",
	}
}

func mb(n int) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

func waitReady(t *testing.T, p *harness.Process, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for !p.Ready() {
		if !p.Running() || time.Since(began) > limit {
			t.Fatalf("%s is not ready after %s", p.Name, time.Since(began))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func TestTenMillion(t *testing.T) {
	issuer := harness.NewIssuer(t)
	dir := *keep
	if dir == "" {
		dir = t.TempDir()
	}
	fill(t, filepath.Join(dir, "data"))

	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Dir: dir, Issuers: []harness.Trust{issuer.Trust}, Clients: []harness.Client{web}, NoWait: true,
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "warn"}
			c := config["clients"].([]any)[0].(map[string]any)
			c["max_entries"], c["rate"] = 2**entries, 1_000_000 // how fast it can be, not may be, is what counts here
		},
	})
	t.Logf("the authority is ready %s after its start", waitReady(t, authority, 5*time.Minute).Round(time.Millisecond))
	time.Sleep(3 * time.Second)
	idle := harness.UsageOf(t, authority.PID())
	t.Logf("the authority holds %s, %.1f bytes an entry", mb(idle.RSS), float64(idle.RSS)/float64(*entries))

	t.Run("snapshot", func(t *testing.T) { snapshot(t, authority, issuer) })
	t.Run("forty", func(t *testing.T) { forty(t, authority) })
	t.Run("sidecar", func(t *testing.T) { sidecar(t, authority, issuer) })
}

// acks revokes one token after the other until ctx ends, and returns how long each
// answer took.
func acks(ctx context.Context, t *testing.T, authority *harness.Process, tokens <-chan string) (took []time.Duration) {
	for ctx.Err() == nil {
		form := url.Values{"token": {<-tokens}}.Encode()
		request, err := http.NewRequest(http.MethodPost, authority.URL+"/oauth2/revoke", strings.NewReader(form))
		if err != nil {
			t.Error(err)
			return took
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth(web.ID, web.Secret)
		began := time.Now()
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return took
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("revoke: %s", response.Status)
			return took
		}
		took = append(took, time.Since(began))
	}
	return took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100]
}

// snapshot compares revoking while snapshots are made, one after the other, with
// revoking while none is.
func snapshot(t *testing.T, authority *harness.Process, issuer *harness.Issuer) {
	tokens := make(chan string, 64)
	stop := make(chan struct{})
	var signers sync.WaitGroup
	defer func() { close(stop); signers.Wait() }()
	signers.Go(func() {
		for i := 0; ; i++ {
			raw := issuer.Token(map[string]any{
				"jti": fmt.Sprint("live-", i), "client_id": "web", "iat": time.Now().Unix(), "exp": time.Now().Add(12 * time.Hour).Unix(),
			})
			select {
			case tokens <- raw:
			case <-stop:
				return
			}
		}
	})
	measure := func(during time.Duration) time.Duration {
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		all := make([][]time.Duration, 4)
		var callers sync.WaitGroup
		for i := range all {
			callers.Go(func() { all[i] = acks(ctx, t, authority, tokens) })
		}
		callers.Wait()
		joined := slices.Concat(all...)
		t.Logf("%d revocations answered, p50 %s, p99 %s", len(joined), p50(joined), p99(joined))
		return p99(joined)
	}
	measure(10 * time.Second) // warms everything
	harness.ResetPeak(t, authority.PID())
	idle := measure(20 * time.Second)
	before := harness.UsageOf(t, authority.PID())
	harness.ResetPeak(t, authority.PID())
	var made atomic.Int64
	done := make(chan struct{})
	var asker sync.WaitGroup
	asker.Go(func() {
		for was := 0.0; ; time.Sleep(50 * time.Millisecond) {
			select {
			case <-done:
				return
			default:
			}
			now := authority.Metrics(t)["revcast_snapshot_timestamp_seconds"] // not there before the first
			if now != was {
				made.Add(1)
				was = now
			}
			response, err := http.Head(authority.URL + wire.SnapshotPath)
			if err == nil {
				_ = response.Body.Close()
			}
		}
	})
	busy := measure(20 * time.Second)
	close(done)
	asker.Wait()
	after := harness.UsageOf(t, authority.PID())
	t.Logf("%d snapshots made meanwhile, the last in %v s", made.Load(), authority.Metric(t, "revcast_snapshot_duration_seconds"))
	list := authority.Metric(t, "revcast_list_bytes")
	t.Logf("p99 %s beside %s: %.2fx", busy, idle, float64(busy)/float64(idle))
	t.Logf("memory at most %s while revoking, %s while snapshots are made too: the list's %s and %.2f times as much again",
		mb(before.Peak), mb(after.Peak), mb(int(list)), float64(after.Peak-before.Peak)/list)
	size, err := http.Head(authority.URL + wire.SnapshotPath)
	if err != nil {
		t.Fatal(err)
	}
	_ = size.Body.Close()
	held := authority.Metric(t, "revcast_snapshot_entries")
	t.Logf("%d bytes on the wire for %.0f entries, %.3f each", size.ContentLength, held, float64(size.ContentLength)/held)
	if made.Load() < 2 {
		t.Error("too few snapshots were made to say anything")
	}
}

func p50(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// forty verifiers ask for the snapshot at once.
func forty(t *testing.T, authority *harness.Process) {
	before := harness.UsageOf(t, authority.PID())
	harness.ResetPeak(t, authority.PID())
	began := time.Now()
	var readers sync.WaitGroup
	var bytes atomic.Int64
	for range 40 {
		readers.Go(func() {
			response, err := http.Get(authority.URL + wire.SnapshotPath)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = response.Body.Close() }()
			n, err := io.Copy(io.Discard, response.Body)
			if err != nil || n != response.ContentLength {
				t.Errorf("%d of %d bytes: %v", n, response.ContentLength, err)
			}
			bytes.Add(n)
		})
	}
	readers.Wait()
	after := harness.UsageOf(t, authority.PID())
	t.Logf("40 snapshots, %s, in %s: %s of the authority's processor time each; memory %s before, %s at most",
		mb(int(bytes.Load())), time.Since(began).Round(time.Millisecond), (after.CPU-before.CPU)/40, mb(before.RSS), mb(after.Peak))
}

func sidecar(t *testing.T, authority *harness.Process, issuer *harness.Issuer) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer api.Close()
	began := time.Now()
	s := harness.StartSidecar(t, harness.SidecarOptions{
		Authority: authority.URL, Upstream: api.URL, Issuers: []harness.Trust{issuer.Trust}, NoWait: true,
	})
	waitReady(t, s, time.Minute)
	t.Logf("an empty sidecar is ready %s after its start", time.Since(began).Round(time.Millisecond))
	time.Sleep(5 * time.Second)
	u := harness.UsageOf(t, s.PID())
	t.Logf("it holds %s (at most %s), %.1f bytes an entry; %.0f entries in %.0f bytes of list", mb(u.RSS), mb(u.Peak),
		float64(u.RSS)/float64(*entries), s.Metric(t, "revcast_list_entries"), s.Metric(t, "revcast_list_bytes"))
	for _, kill := range []bool{false, true} {
		if kill {
			s.Kill()
		} else if exit := s.Terminate(10 * time.Second); exit.Code != 0 {
			t.Errorf("exit code %d", exit.Code)
		}
		began = time.Now()
		s.Start()
		waitReady(t, s, time.Minute)
		t.Logf("after a restart (kill -9: %v) it is ready in %s", kill, time.Since(began).Round(time.Millisecond))
	}
	for line := range strings.Lines(s.Output()) {
		t.Log(strings.TrimSpace(line))
	}
	if !strings.Contains(s.Output(), "took up the state file") || strings.Count(s.Output(), "loaded a snapshot") != 1 {
		t.Errorf("it did not start from its state file:\n%s", s.Output())
	}
}
