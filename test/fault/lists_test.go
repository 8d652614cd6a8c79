//go:build fault

package fault

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
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

	entries []denylist.Entry // of the list, which can't be asked for them
}

func (a *audit) add(entries ...denylist.Entry) {
	a.list.Add(entries...)
	a.entries = append(a.entries, entries...)
}

// fromStart begins at the log's first message.
func (w *world) fromStart() *audit {
	w.Helper()
	d, ring, err := wire.ParseDiscovery(w.fetch(wire.DiscoveryPath))
	if err != nil {
		w.Fatal(err)
	}
	a := &audit{w: w, epoch: d.Epoch, ring: ring, track: wire.NewTrack(0, wire.ChainStart(d.Epoch)), list: denylist.New()}
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
	s, sections, err := ring.ReadSnapshot(bytes.NewReader(w.fetch(wire.SnapshotPath)))
	if err != nil {
		w.Fatal(err)
	}
	a := &audit{w: w, epoch: s.Epoch, ring: ring, track: wire.NewTrack(s.Position, s.Chain), list: denylist.New()}
	a.add(w.entriesOf(sections)...)
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
					a.add(e.Entry())
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

func (w *world) entriesOf(sections iter.Seq2[denylist.Section, error]) (entries []denylist.Entry) {
	w.Helper()
	for s, err := range sections {
		if err != nil {
			w.Fatal(err)
		}
		for i, digest := range s.Digests {
			e := denylist.Entry{Shape: s.Shape, Digest: digest, Cutoff: denylist.NoCutoff, Expires: s.Window, Windowed: true}
			if s.Window == 0 {
				e.Cutoff, e.Expires, e.Windowed = s.Cuts[i].Cutoff, s.Cuts[i].Expires, false
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// encoded writes entries as snapshots and state files do: equal lists, equal bytes.
func encoded(t testing.TB, entries []denylist.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := wire.WriteSections(&b, denylist.Sections(entries)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entriesIn reads the state file of a sidecar that has ended by its bytes, without
// the feed: sections, a header, a checksum, then frames.
func (a *audit) entriesIn(state []byte) []denylist.Entry {
	a.w.Helper()
	const magic = "RVCF\x02"
	r := bytes.NewReader(state)
	take := func(n int) []byte {
		a.w.Helper()
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			a.w.Fatalf("the state file ends at %d: %v", len(state), err)
		}
		return b
	}
	if string(take(len(magic))) != magic {
		a.w.Fatal("not a state file of version 2")
	}
	entries := a.w.entriesOf(wire.ReadSections(r))
	take(int(binary.BigEndian.Uint16(take(2))))
	if sum := sha256.Sum256(state[:len(state)-r.Len()]); !bytes.Equal(take(sha256.Size), sum[:]) {
		a.w.Fatal("the state file's checksum does not hold")
	}
	for r.Len() > 0 {
		start := len(state) - r.Len()
		kind := take(1)[0]
		payload := take(int(binary.BigEndian.Uint32(take(4))))
		if sum := sha256.Sum256(state[start : len(state)-r.Len()]); !bytes.Equal(take(8), sum[:8]) {
			a.w.Fatalf("the checksum of the frame at %d does not hold", start)
		}
		if kind != 'm' {
			continue
		}
		opened, err := a.ring.Open(payload[8:])
		if err != nil {
			a.w.Fatalf("the frame at %d: %v", start, err)
		}
		if opened.Batch != nil {
			for _, e := range opened.Batch.Entries {
				entries = append(entries, e.Entry())
			}
		}
	}
	return entries
}

// stateOf returns the list that a feed makes of the state file that a sidecar left
// when it ended, and the entries that are in the file.
func (a *audit) stateOf(p *harness.Process) (*denylist.List, []denylist.Entry) {
	w := a.w
	w.Helper()
	state, err := os.ReadFile(filepath.Join(p.Dir, "sidecar.state"))
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.TempDir(), "copy.state")
	if err := os.WriteFile(path, state, 0o600); err != nil {
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
	return list, a.entriesIn(state)
}
