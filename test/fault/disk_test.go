//go:build fault && linux

package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

const (
	diskSize = 12 << 20
	logSize  = 16 << 20 // the least that an authority takes, and more than the disk
	// backWithin is how soon after the cause is gone revocations are stored again.
	backWithin = 15 * time.Second
)

// disk mounts a file system of its own.
func disk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		t.Fatalf("this test mounts a small tmpfs, and that takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no more than a number of bytes on the disk, and returns how to give
// them back.
func fill(t *testing.T, dir string, left int) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for piece := make([]byte, 4096); ; {
		if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	size, err := f.Seek(0, 1)
	if err == nil {
		err = f.Truncate(max(0, size-int64(left)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull takes the authority's disk away and gives it back.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name string
		// fill makes the disk full, and returns what it had stored till then and how
		// to make room.
		fill func(w *world, dir string) (stored []token, free func())
	}{
		{"ByOthers", func(w *world, dir string) ([]token, func()) { return nil, fill(w.T, dir, 0) }},
		{"ByTheLog", func(w *world, dir string) (stored []token, free func()) {
			free = fill(w.T, dir, 1<<20)
			for n := 0; ; n++ {
				lines, tokens := w.fat(50)
				ok, refusal, err := w.stream(lines)
				if err != nil || n > 1000 {
					w.Fatalf("the disk is not full after %d streams: %v", n, err)
				}
				if ok < len(lines) {
					w.Logf("full after %d revocations more: %s", n*50+ok, refusal)
					return stored, free
				}
				stored = append(stored, tokens...)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { fullDisk(t, c.fill) })
	}
}

func fullDisk(t *testing.T, fill func(*world, string) ([]token, func())) {
	dir := disk(t)
	w := newWorld(t, func(config map[string]any) {
		config["data_dir"] = filepath.Join(dir, "data")
		config["nats"].(map[string]any)["max_bytes"] = logSize
	})
	sidecar := w.sidecar(w.authority.URL, freshness{})
	sidecar.WaitReady()
	good, acked := w.token(nil), w.tokens(300)
	w.revokeAll(acked)

	stored, free := fill(w, dir)
	acked = append(acked, stored...)
	// A little may still fit into pages that are there.
	refused := 0
	var why string
	for began := time.Now(); time.Since(began) < 6*time.Second || refused < 3; {
		if time.Since(began) > patience {
			t.Fatalf("the disk is full, and %d revocations were refused", refused)
		}
		asked := time.Now()
		some := w.tokens(16)
		answers := make([]answer, len(some))
		parallel(len(some), func(i int) { answers[i] = w.revoke(some[i]) })
		for i, a := range answers {
			if a.status == http.StatusOK {
				acked = append(acked, some[i])
				continue
			}
			var body struct {
				Error string `json:"error"`
			}
			err := json.Unmarshal([]byte(a.body), &body)
			if a.status != http.StatusServiceUnavailable || a.retryAfter == "" || err != nil || body.Error == "" {
				t.Fatalf("a revocation that can't be stored: %+v", a)
			}
			if refused++; refused == 1 {
				t.Logf("refused after %s with %d: %s", time.Since(asked).Round(time.Millisecond), a.status, strings.TrimSpace(a.body))
			}
		}
		if why = w.readyz(w.authority); why == "" && refused > 0 {
			t.Error("revocations were just not stored, and /readyz says ready")
		}
	}
	t.Logf("%d refused; /readyz says %q", refused, why)
	w.mustServe(sidecar, good)
	w.mustRefuseAll(sidecar, acked[:100])

	free()
	freed := time.Now()
	back := w.waitSince(freed, "revocations are stored again", func() bool {
		one := w.token(nil)
		ok := w.revoke(one).status == http.StatusOK
		if ok {
			acked = append(acked, one)
		}
		return ok
	})
	ready := w.waitSince(freed, "the authority is ready", w.authority.Ready)
	if back > backWithin || ready > backWithin {
		t.Errorf("stored again after %s and ready after %s", back, ready)
	}
	t.Logf("room at last: stored again after %s, ready after %s, the server restarted %.0f times",
		back.Round(time.Millisecond), ready.Round(time.Millisecond), w.authority.Metric(w, "revcast_log_server_restarts_total"))
	more := w.tokens(300)
	w.revokeAll(more)
	acked = append(acked, more...)
	inStep := w.refusedSince(time.Now(), sidecar, acked...)
	t.Logf("all %d answered with 200 refused after %s", len(acked), inStep.Round(time.Millisecond))

	w.authority.Restart()
	if n := missing(w.fromSnapshot().list, acked); n > 0 {
		t.Errorf("after kill -9 and a restart, %d of %d are gone", n, len(acked))
	}
	if n := missing(w.fromStart().list, acked); n > 0 {
		t.Errorf("after kill -9 and a restart, the log misses %d of %d", n, len(acked))
	}
	fresh := w.sidecar(w.authority.URL, freshness{})
	fresh.WaitReady()
	for _, p := range []*harness.Process{sidecar, fresh} {
		w.mustRefuseAll(p, acked)
		w.mustServe(p, good)
	}
	if alarms := w.authority.Metric(w, "revcast_log_alarms_total"); alarms != 0 {
		t.Errorf("%.0f alarms", alarms)
	}
}

// TestLogFull fills the log to its own limit, on a disk with room: it refuses more,
// forgets nothing, and what is there goes on to be served.
func TestLogFull(t *testing.T) {
	w := newWorld(t, func(config map[string]any) { config["nats"].(map[string]any)["max_bytes"] = logSize })
	sidecar := w.sidecar(w.authority.URL, freshness{"5s", "deny"})
	sidecar.WaitReady()
	good, acked := w.token(nil), []token(nil)
	for n := 0; ; n++ {
		lines, tokens := w.fat(500)
		ok, refusal, err := w.stream(lines)
		if err != nil || n > 1000 {
			t.Fatalf("the log is not full after %d streams: %v", n, err)
		}
		if ok < len(lines) {
			t.Logf("full after %d revocations: %s", n*500+ok, refusal)
			break
		}
		acked = append(acked, tokens[:20]...)
	}
	restarts := func() float64 { return w.authority.Metric(w, "revcast_log_server_restarts_total") }
	before := restarts()
	oldest := time.Duration(0)
	refused := 0
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
		one := w.token(nil)
		if a := w.revoke(one); a.status == http.StatusOK {
			acked = append(acked, one) // it fits where a stream did not
		} else if refused++; a.status != http.StatusServiceUnavailable || a.retryAfter == "" {
			t.Fatalf("a full log: %+v", a)
		}
		oldest = max(oldest, w.staleness(sidecar))
		w.mustServe(sidecar, good)
	}
	t.Logf("%d refused; /readyz says %q; the list never older than %s; the server restarted %.0f times", refused,
		w.readyz(w.authority), oldest.Round(time.Millisecond), restarts()-before)
	if restarts() != before {
		t.Error("a full log restarts the server, which makes no room and disconnects every verifier")
	}
	if oldest > 3*time.Second {
		t.Errorf("the list was %s old", oldest)
	}
	w.mustRefuseAll(sidecar, acked)
}

// fat makes lines that need much room, and the tokens that they revoke.
func (w *world) fat(n int) (lines []string, tokens []token) {
	w.Helper()
	for range n {
		id := fmt.Sprintf("session-%d", w.serial.Add(1))
		line, err := json.Marshal(map[string]any{
			"issuer": w.issuer.Issuer, "selector": map[string]string{"sid": id}, "reason": strings.Repeat("much ado ", 55),
		})
		if err != nil {
			w.Fatal(err)
		}
		lines, tokens = append(lines, string(line)), append(tokens, w.token(map[string]any{"sid": id}))
	}
	return lines, tokens
}
