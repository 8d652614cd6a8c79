package broadcast

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const issuer = "https://idp.example"

func testSigner() wire.Signer {
	return wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
}

func revocation(jti string) denylist.Revocation {
	now := time.Now()
	return denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.JTI, jti), Expires: now.Add(time.Hour), ExactExpiry: true,
		At: now, By: "web", Reason: "test",
	}
}

// presented is the token that revocation(jti), made at the same time, revokes.
func presented(t testing.TB, r denylist.Revocation) *denylist.Token {
	t.Helper()
	token, err := denylist.NewToken(denylist.Claims{
		Issuer: r.Issuer, Expires: r.Expires, Values: map[string]any{"jti": r.Selector.Pairs()[0].Value},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type testLog struct {
	*Log
	list *denylist.List
}

func open(t testing.TB, dir string) testLog {
	t.Helper()
	list := denylist.New()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := Open(ctx, Config{
		Embedded: &Embedded{Listen: "127.0.0.1:0", StoreDir: dir}, Signer: testSigner(),
		MaxLifetime: 24 * time.Hour, List: list, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return testLog{l, list}
}

// page fetches the log after a position until its end, checks everything that a
// verifier checks, and returns the revocations.
func (l testLog) page(t testing.TB, from uint64, chain wire.Chain) (entries []denylist.Revocation, h wire.Heartbeat) {
	t.Helper()
	if err := l.await(t.Context(), func() bool { return l.track.Position() >= l.lastAcked }); err != nil {
		t.Fatal(err)
	}
	track := wire.NewTrack(from, chain)
	for {
		b, err := l.Page(t.Context(), track.Position(), 0, "n")
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.ring.ReadPage(bytes.NewReader(b), track.Position(), "n")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			opened, err := l.ring.Open(r.Message)
			if err != nil {
				t.Fatal(err)
			}
			if opened.Batch != nil {
				entries = append(entries, opened.Batch.Entries...)
			}
			track.Append(wire.HashOf(r.Message))
		}
		if got, ok := track.At(p.Heartbeat.Position); ok {
			if got != p.Heartbeat.Chain {
				t.Fatal("the chain over the pages is not the heartbeat's")
			}
			return entries, p.Heartbeat
		}
	}
}

func TestDurableAppendIsInTheLogAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			if _, err := first.Append(t.Context(), revocation(fmt.Sprint("a", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, h := first.page(t, 0, wire.ChainStart(first.Stats().Epoch))
	if len(entries) != 300 {
		t.Fatalf("%d revocations in the log", len(entries))
	}
	if st := first.Stats(); st.Batches >= 300 || st.Entries != 300 {
		t.Errorf("no group commit: %+v", st)
	}
	_ = first.Close()
	second := open(t, dir)
	entries, h2 := second.page(t, 0, wire.ChainStart(second.Stats().Epoch))
	if len(entries) != 300 || h2.Epoch != h.Epoch || h2.Position < h.Position {
		t.Fatalf("after the restart: %d revocations, %+v then %+v", len(entries), h, h2)
	}
	if n := second.list.Stats().Entries; n != 300 {
		t.Errorf("%d entries in the list", n)
	}
	if err := second.await(t.Context(), func() bool { return !second.asOf.IsZero() }); err != nil {
		t.Fatal(err)
	}
	if err := second.Ready(); err != nil {
		t.Error(err)
	}
}

// snapshot reads the log's snapshot as a verifier does.
func (l testLog) snapshot(t *testing.T) (wire.Snapshot, *denylist.List) {
	t.Helper()
	file, err := l.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	snapshot, sections, err := l.ring.ReadSnapshot(file)
	if err != nil {
		t.Fatal(err)
	}
	list := denylist.New()
	for s, err := range sections {
		if err != nil {
			t.Fatal(err)
		}
		list.AddSection(s)
	}
	list.Advance(time.Now())
	return snapshot, list
}

func TestSnapshotHoldsTheList(t *testing.T) {
	l := open(t, t.TempDir())
	r := revocation("x")
	if _, err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := l.await(t.Context(), func() bool { return l.track.Position() >= l.lastAcked }); err != nil {
		t.Fatal(err)
	}
	snapshot, copied := l.snapshot(t)
	if v := copied.CheckToken(presented(t, r), time.Now()); v.Status != denylist.Revoked {
		t.Errorf("verdict %+v", v)
	}
	if got, h := l.page(t, snapshot.Position, snapshot.Chain); len(got) != 0 || h.Position < snapshot.Position {
		t.Errorf("%d revocations after the snapshot", len(got))
	}
}

func TestSignedALogIsWrittenWithOneKey(t *testing.T) {
	dir := t.TempDir()
	_ = open(t, dir).Close()
	other := wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)))
	l, err := Open(t.Context(), Config{
		Embedded: &Embedded{Listen: "127.0.0.1:0", StoreDir: dir}, Signer: other, MaxLifetime: time.Hour, List: denylist.New(),
	})
	if err == nil {
		_ = l.Close()
		t.Fatal("a second key is taken")
	}
	t.Log(err)
}

func TestFinalAShorterLifetimeDropsNothingFromTheLog(t *testing.T) {
	dir := t.TempDir()
	_ = open(t, dir).Close()
	for _, lifetime := range []time.Duration{time.Hour, 48 * time.Hour, 24 * time.Hour} {
		l, err := Open(t.Context(), Config{
			Embedded: &Embedded{Listen: "127.0.0.1:0", StoreDir: dir}, Signer: testSigner(), MaxLifetime: lifetime, List: denylist.New(),
		})
		if err != nil {
			t.Fatal(err)
		}
		info, err := l.stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if least := max(lifetime, 24*time.Hour); info.Config.MaxAge < least+denylist.Grace {
			t.Errorf("lifetime %s: messages are kept for %s", lifetime, info.Config.MaxAge)
		}
		_ = l.Close()
	}
}

// TestStatsTellHowFullTheLogIs, in time for somebody to do something about it.
func TestStatsTellHowFullTheLogIs(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	for i := range 50 {
		if _, err := l.Append(t.Context(), revocation(fmt.Sprint("a", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	deadline := time.Now().Add(20 * time.Second)
	for l.Stats().MaxBytes == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if st := l.Stats(); st.MaxBytes != DefaultMaxBytes || st.Bytes < 50*100 || st.Bytes > 1<<20 {
		t.Errorf("%d of %d bytes", st.Bytes, st.MaxBytes)
	}
}
