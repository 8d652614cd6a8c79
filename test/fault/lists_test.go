//go:build fault

package fault

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/test/harness"
)

// audit follows the authority's log by its bytes, without the feed. It fails the
// test where the log is not, message for message, the one that it has followed.
type audit struct {
	w     *world
	epoch string
	ring  wire.Keyring
	track *wire.Track
	list  *denylist.List
}

// fromStart begins at the log's first message.
func (w *world) fromStart() *audit {
	w.Helper()
	d, ring, err := wire.ParseDiscovery(w.fetch(wire.DiscoveryPath))
	if err != nil {
		w.Fatal(err)
	}
	a := &audit{w, d.Epoch, ring, wire.NewTrack(0, wire.ChainStart(d.Epoch)), denylist.New()}
	a.follow()
	return a
}

// fromSnapshot begins at a snapshot.
func (w *world) fromSnapshot() *audit {
	w.Helper()
	_, ring, err := wire.ParseDiscovery(w.fetch(wire.DiscoveryPath))
	if err != nil {
		w.Fatal(err)
	}
	s, err := ring.ReadSnapshot(bytes.NewReader(w.fetch(wire.SnapshotPath)))
	if err != nil {
		w.Fatal(err)
	}
	a := &audit{w, s.Epoch, ring, wire.NewTrack(s.Position, s.Chain), denylist.New()}
	for _, section := range s.Sections {
		a.list.AddSection(section)
	}
	a.follow()
	return a
}

// follow reads on until it has all that was acknowledged before it was called,
// which is when a heartbeat says so: the log is handed out a moment after the
// acknowledgement. Both processes are on one clock.
func (a *audit) follow() {
	a.w.Helper()
	called := time.Now().Truncate(time.Microsecond)
	for {
		after, nonce := a.track.Position(), rand.Text()
		text := a.w.fetch(fmt.Sprintf("%s?after=%d&nonce=%s", wire.LogPath, after, nonce))
		page, err := a.ring.ReadPage(bytes.NewReader(text), after, nonce)
		if err != nil {
			a.w.Fatalf("the log after %d: %v", after, err)
		}
		for _, r := range page.Records {
			opened, err := a.ring.Open(r.Message)
			if err != nil {
				a.w.Fatalf("the log at %d: %v", r.Position, err)
			}
			a.track.Append(wire.HashOf(r.Message))
			if opened.Batch != nil {
				for _, e := range opened.Batch.Entries {
					a.list.Add(e.Entry())
				}
			}
		}
		chain, reached := a.track.At(page.Heartbeat.Position)
		switch {
		case page.Heartbeat.Epoch != a.epoch || page.Heartbeat.Position < after || reached && chain != page.Heartbeat.Chain:
			a.w.Fatalf("the log is not what it was: %+v after position %d of epoch %s", page.Heartbeat, after, a.epoch)
		case reached && !page.Heartbeat.AsOf.Before(called):
			return
		case time.Since(called) > patience:
			a.w.Fatalf("the log is not known complete after %s: %+v", patience, page.Heartbeat)
		case reached:
			time.Sleep(time.Millisecond)
		}
	}
}

// missing counts the tokens that a list does not call revoked.
func missing(l *denylist.List, tokens []token) (n int) {
	for _, t := range tokens {
		if !t.revokedBy(l) {
			n++
		}
	}
	return n
}

func (w *world) fetch(path string) []byte {
	w.Helper()
	r, err := http.NewRequest(http.MethodGet, w.authority.URL+path, nil)
	a := w.do(r, err)
	if a.status != http.StatusOK {
		w.Fatalf("GET %s: %+v", path, a)
	}
	return []byte(a.body)
}

// encoded writes a list as snapshots and state files do: equal lists, equal bytes.
func encoded(t testing.TB, l *denylist.List) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := wire.WriteSections(&b, l.Sections()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stateOf returns the list that a sidecar that has ended left in its state file.
func (w *world) stateOf(p *harness.Process) *denylist.List {
	w.Helper()
	from, err := os.Open(filepath.Join(p.Dir, "sidecar.state"))
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	path := filepath.Join(w.TempDir(), "copy.state")
	to, err := os.Create(path)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		w.Fatal(err)
	}
	if err := to.Close(); err != nil {
		w.Fatal(err)
	}
	list := denylist.New()
	f, err := feed.New(list, feed.Config{StateFile: path, Authority: "http://127.0.0.1:1"})
	if err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	// It has failed to ask, so the file was read before.
	w.waitSince(time.Now(), "a feed takes up the state file", func() bool { return f.Status().LastError != "" })
	stop()
	<-ended
	if f.Status().Epoch == "" {
		w.Fatalf("the state file of %s could not be read", p.URL)
	}
	return list
}
