package broadcast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

func openWith(t *testing.T, change func(*Config)) (testLog, error) {
	t.Helper()
	list := denylist.New()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cfg := Config{
		Embedded: &Embedded{Listen: "127.0.0.1:0", StoreDir: t.TempDir()}, Signer: testSigner(),
		MaxLifetime: 24 * time.Hour, List: list, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	change(&cfg)
	l, err := Open(ctx, cfg)
	if err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	return testLog{l, list}, err
}

func must(t *testing.T, l testLog, err error) testLog {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lone starts a NATS server that someone else runs, and returns a way to open a
// log on it and a connection with every right.
func lone(t *testing.T) (on func(*Config), js jetstream.JetStream) {
	t.Helper()
	srv := runNATS(t, &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
	})
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.Embedded, c.External = nil, &External{URL: srv.ClientURL(), VerifierURL: srv.ClientURL(), Replicas: 1}
	}, js
}

// store appends until it is acknowledged, as clients retry.
func (l testLog) store(t *testing.T, name string) denylist.Revocation {
	t.Helper()
	r := revocation(name)
	var err error
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if _, err = l.Append(t.Context(), r); err == nil {
			return r
		}
	}
	t.Fatalf("%s was never stored: %v", name, err)
	return r
}

// knows waits until the follower has read a revocation from the stream.
func (l testLog) knows(t *testing.T, rs ...denylist.Revocation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, r := range rs {
		token := presented(t, r)
		if err := l.await(ctx, func() bool { return l.list.CheckToken(token, time.Now()).Status == denylist.Revoked }); err != nil {
			t.Fatalf("acknowledged, and never in the list: %v", err)
		}
	}
}

// proves waits for a heartbeat that says "complete" of a later moment than now.
func (l testLog) proves(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	now := time.Now()
	for ctx.Err() == nil {
		if h, err := l.state(); err == nil && h.AsOf.After(now) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no heartbeat says that the log is complete")
}

func TestDurableAStreamReplacedUnderTwoRunningAuthorities(t *testing.T) {
	on, js := lone(t)
	a, err := openWith(t, on)
	a = must(t, a, err)
	for i := range 5 {
		a.knows(t, a.store(t, fmt.Sprint("a", i)))
	}
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	b, err := openWith(t, on)
	b = must(t, b, err)
	fromA, fromB := a.store(t, "from a"), b.store(t, "from b")
	a.knows(t, fromA, fromB)
	b.knows(t, fromA, fromB)
	if a.Stats().Epoch != b.Stats().Epoch || a.Stats().Alarms == 0 {
		t.Errorf("a: %+v\nb: %+v", a.Stats(), b.Stats())
	}
	a.proves(t)
	b.proves(t)
}

func TestDurableAStreamThatIsDeletedIsMadeAnew(t *testing.T) {
	on, js := lone(t)
	l, err := openWith(t, on)
	l = must(t, l, err)
	early := l.store(t, "early")
	l.knows(t, early)
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	l.knows(t, l.store(t, "late"), early)
	l.proves(t)
}

func TestDurableAServerRolledBackUnderARunningAuthority(t *testing.T) {
	dir, backup := t.TempDir(), t.TempDir()
	l, err := openWith(t, func(c *Config) { c.Embedded.StoreDir = dir })
	l = must(t, l, err)
	l.server.stop()
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := l.server.start(); err != nil {
		t.Fatal(err)
	}
	var before []denylist.Revocation
	for i := range 10 {
		before = append(before, l.store(t, fmt.Sprint("a", i)))
	}
	l.knows(t, before...)
	l.server.stop()
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "jetstream")), os.CopyFS(dir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	if err := l.server.start(); err != nil {
		t.Fatal(err)
	}
	l.knows(t, l.store(t, "after"))
	l.knows(t, before...) // what was known stays known
	l.proves(t)
	if l.Stats().Alarms == 0 {
		t.Error("no alarm")
	}
}

// gate is a way to a server that can be closed.
type gate struct {
	net.Listener
	mu     sync.Mutex
	closed bool
	open   []net.Conn
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			g.mu.Lock()
			if err != nil || g.closed {
				_ = in.Close()
				if err == nil {
					_ = out.Close()
				}
			} else {
				g.open = append(g.open, in, out)
				wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
				wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
			}
			g.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = l.Close(); g.set(true); wg.Wait() })
	return g
}

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	for _, c := range g.open {
		_ = c.Close()
	}
	g.open = nil
}

func TestDurableAStreamThatWasRolledBackAndGrewAgainUnseen(t *testing.T) {
	dir, backup, address := t.TempDir(), t.TempDir(), fmt.Sprint("127.0.0.1:", freePort(t))
	var srv *server.Server
	start := func() {
		t.Helper()
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		srv, err = server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: n, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		if !srv.ReadyForConnections(10 * time.Second) {
			t.Fatal("the NATS server did not start")
		}
	}
	stop := func() { srv.Shutdown(); srv.WaitForShutdown() }
	start()
	t.Cleanup(func() { stop() })
	way := newGate(t, address)
	on := func(address string) func(*Config) {
		return func(c *Config) {
			c.Embedded, c.External = nil, &External{URL: "nats://" + address, VerifierURL: "nats://" + address, Replicas: 1}
		}
	}
	b, err := openWith(t, on(address))
	b = must(t, b, err)
	a, err := openWith(t, on(way.Addr().String()))
	a = must(t, a, err)
	a.knows(t, b.store(t, "before"))
	stop()
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	start()
	for i := range 10 {
		a.knows(t, b.store(t, fmt.Sprint("lost", i)))
	}

	way.set(true) // a looks away
	stop()
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "jetstream")), os.CopyFS(dir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	start()
	var after []denylist.Revocation
	for i := range 40 {
		after = append(after, b.store(t, fmt.Sprint("after", i)))
	}
	b.knows(t, after...)
	way.set(false)

	a.knows(t, after...)
	a.proves(t)
	b.proves(t)
	if a.Stats().Alarms == 0 {
		t.Error("no alarm")
	}
}

func TestDurableALogThatLostMessagesIsTakenUpWithAnAlarm(t *testing.T) {
	on, js := lone(t)
	l, err := openWith(t, on)
	l = must(t, l, err)
	for i := range 6 {
		l.knows(t, l.store(t, fmt.Sprint("a", i)))
	}
	stream, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	good := stream.CachedInfo().Config
	bad := good
	bad.MaxMsgsPerSubject = 3 // whoever has the rights: the server drops what is more
	if _, err := js.UpdateStream(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(t, on); err == nil {
		t.Fatal("a stream that drops messages is accepted")
	} else {
		t.Log(err)
	}
	_ = l.Close()
	good.MaxMsgsPerSubject = -1
	if _, err := js.UpdateStream(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	again, err := openWith(t, on)
	again = must(t, again, err)
	if again.Stats().Alarms == 0 {
		t.Error("no alarm")
	}
	again.knows(t, again.store(t, "after"))
	again.proves(t)
	if _, err := again.Page(t.Context(), 1, 0, "n"); !errors.Is(err, wire.ErrGone) {
		t.Errorf("a page from before the hole: %v", err)
	}
	snapshot, _ := again.snapshot(t)
	again.page(t, snapshot.Position, snapshot.Chain) // and from there on it holds together
}

func TestBoundedAClockThatJumpsAheadAndBackDropsNothing(t *testing.T) {
	var ahead atomic.Int64
	l, err := openWith(t, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	l = must(t, l, err)
	early := l.store(t, "early")
	l.knows(t, early)
	ahead.Store(int64(48 * time.Hour))
	for l.list.CheckToken(presented(t, early), time.Now()).Status == denylist.Revoked {
		time.Sleep(10 * time.Millisecond) // until the clock has done its harm
	}
	ahead.Store(0)
	l.knows(t, early, l.store(t, "late"))
	if _, list := l.snapshot(t); list.Stats().Entries != 2 {
		t.Errorf("%d of 2 revocations in the snapshot", list.Stats().Entries)
	}
}

func TestRecentMessagesAreCopiedForPages(t *testing.T) {
	var r recent
	for i := range uint64(10) {
		r.add(wire.Record{Position: i + 1, Message: make([]byte, 800<<10)})
	}
	page, ok := r.after(0)
	if !ok || len(page) != 10 {
		t.Fatalf("%d records, %v", len(page), ok)
	}
	for i := range uint64(10) {
		r.add(wire.Record{Position: 11 + i, Message: make([]byte, 800<<10)})
	}
	for i, p := range page {
		if p.Position != uint64(i)+1 || p.Message == nil {
			t.Fatalf("record %d became %d", i+1, p.Position)
		}
	}
	if _, ok := r.after(0); ok {
		t.Error("claims messages that it has dropped")
	}
}

func TestPageFromTheStreamItself(t *testing.T) {
	l := open(t, t.TempDir())
	for i := range 30 {
		l.store(t, fmt.Sprint("a", i))
	}
	if err := l.await(t.Context(), func() bool { return l.track.Position() >= l.lastAcked }); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.recent = recent{} // as if they had been pushed out
	l.mu.Unlock()
	if entries, _ := l.page(t, 0, wire.ChainStart(l.Stats().Epoch)); len(entries) != 30 {
		t.Errorf("%d of 30 revocations", len(entries))
	}
}

func TestBoundedTheSameRevocationIsStoredOnce(t *testing.T) {
	l := open(t, t.TempDir())
	r := revocation("again and again")
	if _, err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := l.await(t.Context(), func() bool { return l.track.Position() >= l.lastAcked }); err != nil {
		t.Fatal(err)
	}
	was := l.Stats().Entries
	for range 10 {
		if position, err := l.Append(t.Context(), r); err != nil || position == 0 {
			t.Fatal(position, err)
		}
	}
	if n := l.Stats().Entries; n != was {
		t.Errorf("%d entries more", n-was)
	}
}

// What the list makes of two entries, no entry of the log may say: a list that reads
// the log when one of them has expired would deny less.
func TestDurableWhatTwoEntriesSayTogetherIsStoredByItself(t *testing.T) {
	l := open(t, t.TempDir())
	say := func(cutoff, lives time.Duration) denylist.Revocation {
		now := time.Now()
		r := denylist.Revocation{Issuer: issuer, Selector: denylist.One(denylist.SID, "s"), Expires: now.Add(lives), At: now}
		if cutoff != 0 {
			r.IssuedBefore = now.Add(cutoff)
		}
		return r
	}
	for i, r := range []denylist.Revocation{say(0, 2*time.Minute), say(-time.Hour, 23*time.Hour), say(0, 2*time.Hour)} {
		if _, err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := l.await(t.Context(), func() bool { return l.track.Position() >= l.lastAcked }); err != nil {
			t.Fatal(err)
		}
		if n := l.Stats().Entries; n != uint64(i+1) {
			t.Errorf("%d of %d revocations are in the log", n, i+1)
		}
	}
}

func TestDurableWhatOnlyTheOldLogHeldIsStoredAgain(t *testing.T) {
	on, js := lone(t)
	l, err := openWith(t, on)
	l = must(t, l, err)
	r := l.store(t, "early")
	l.knows(t, r)
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	l.knows(t, l.store(t, "late"))
	was := l.Stats().Entries
	if _, err := l.Append(t.Context(), r); err != nil || l.Stats().Entries != was+1 {
		t.Errorf("answered as stored, and is not in the new log: %v", err)
	}
}

func TestCloseAnswersWhatIsQueued(t *testing.T) {
	l := open(t, t.TempDir())
	const callers = 200
	answers := make(chan error, callers)
	for i := range callers {
		go func() {
			_, err := l.Append(context.Background(), revocation(fmt.Sprint(i)))
			answers <- err
		}()
	}
	_ = l.Close()
	for range callers {
		select {
		case <-answers:
		case <-time.After(20 * time.Second):
			t.Fatal("a caller was left without an answer")
		}
	}
}
