package feed

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/broadcast"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// external starts a NATS server on which everyone has every right, and an
// authority on it.
func external(t *testing.T) (*authority, *nats.Conn) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	a := serve(t, broadcast.Config{External: &broadcast.External{URL: srv.ClientURL(), VerifierURL: srv.ClientURL(), Replicas: 1}})
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return a, nc
}

// counts are what a list holds; they change with any entry, since none is taken
// away meanwhile.
func counts(l *denylist.List) denylist.Stats {
	st := l.Stats()
	st.FalseHits = 0
	return st
}

func TestSignedNothingElseOnTheLiveSubjectChangesTheList(t *testing.T) {
	a, nc := external(t)
	f := follow(t, a.URL)
	a.revoke(t, "one")
	eventually(t, "live", func() bool { return f.Status().Heartbeats > 1 && f.Status().Entries+uint64(f.list.Stats().Entries) > 0 })
	before := counts(f.list)

	epoch := a.Stats().Epoch
	entry, err := wire.EncodeEntry(denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.JTI, "victim"), Expires: time.Now().Add(time.Hour), ExactExpiry: true, At: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	stranger := wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)))
	good := testSigner().SealBatch(epoch, time.Now(), [][]byte{entry})
	altered := bytes.Clone(good)
	altered[len(altered)-5] ^= 1
	_, page := a.page(t, 0)
	replayed := page[0].Message
	for _, r := range page {
		if len(r.Message) > len(replayed) {
			replayed = r.Message
		}
	}
	oldEpoch := testSigner().SealBatch("01JOLDOLDOLDOLDOLDOLDOLDOL", time.Now(), [][]byte{entry})
	nonced, err := testSigner().SealHeartbeat(wire.Heartbeat{Epoch: epoch, Position: 1, AsOf: time.Now(), IssuedAt: time.Now(), Nonce: "asked"})
	if err != nil {
		t.Fatal(err)
	}
	next := func() string { return utoa(f.Status().Position + 1) }
	attacks := []struct {
		name, counted string
		subject       string
		data          []byte
		headers       []string
	}{
		{"unsigned", "format", "revcast.live.batch", []byte(`{"v":1}`), []string{next()}},
		{"empty", "format", "revcast.live.batch", nil, []string{next()}},
		{"wrongly signed", "signer", "revcast.live.batch", stranger.SealBatch(epoch, time.Now(), [][]byte{entry}), []string{next()}},
		{"altered", "signature", "revcast.live.batch", altered, []string{next()}},
		{"doubled header", "position", "revcast.live.batch", good, []string{next(), "1"}},
		{"no header", "position", "revcast.live.batch", good, nil},
		{"header that is no number", "position", "revcast.live.batch", good, []string{"+7"}},
		{"batch as heartbeat", "misplaced", wire.LiveHeartbeat, good, nil},
		{"an answer as heartbeat", "misplaced", wire.LiveHeartbeat, nonced, nil},
		{"foreign epoch", "foreign", "revcast.live.batch", oldEpoch, []string{next()}},
		{"replayed at its own place", "duplicate", "revcast.live.batch", replayed, []string{"1"}},
	}
	for _, x := range attacks {
		t.Run(x.name, func(t *testing.T) {
			count := func() uint64 { s := f.Status(); return s.Rejected[x.counted] + s.Decisions[x.counted] }
			was := count()
			if err := nc.PublishMsg(&nats.Msg{Subject: x.subject, Data: x.data, Header: nats.Header{wire.PositionHeader: x.headers}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "counted", func() bool { return count() > was })
			if !reflect.DeepEqual(before, counts(f.list)) {
				t.Error("the list changed")
			}
		})
	}
	// Replayed where the next message is due, the genuine one and the heartbeat that
	// covers it set things right.
	if err := nc.PublishMsg(&nats.Msg{Subject: "revcast.live.batch", Data: replayed, Header: nats.Header{wire.PositionHeader: {next()}}}); err != nil {
		t.Fatal(err)
	}
	token := a.revoke(t, "after the attacks")
	eventually(t, "denied after the attacks", func() bool { return f.denies(token) })
	beats := f.Status().Heartbeats
	eventually(t, "confirmed after the attacks", func() bool { return f.Status().Heartbeats > beats+1 && f.fresh() })
	if s := f.Status(); len(s.Alarms) > 0 {
		t.Errorf("alarms: %v", s.Alarms)
	}
}

func TestSignedABogusPositionCostsOneQuestion(t *testing.T) {
	a, nc := external(t)
	f := follow(t, a.URL)
	a.revoke(t, "one")
	eventually(t, "live", func() bool { return f.Status().Heartbeats > 1 })
	_, page := a.page(t, 0)
	for _, position := range []string{"1099511627776", "18446744073709551615"} {
		message := &nats.Msg{Subject: "revcast.live.batch", Data: page[0].Message, Header: nats.Header{wire.PositionHeader: {position}}}
		if err := nc.PublishMsg(message); err != nil {
			t.Fatal(err)
		}
	}
	gaps := f.Status().Decisions["gap"]
	eventually(t, "noticed", func() bool { return f.Status().Decisions["gap"] >= min(gaps, 2) })
	beats := f.Status().Heartbeats
	eventually(t, "in order again", func() bool { return f.Status().Heartbeats > beats+1 })
	asks := f.Status().Asks
	eventually(t, "three heartbeats later", func() bool { return f.Status().Heartbeats > beats+4 })
	if n := f.Status().Asks - asks; n > 1 {
		t.Errorf("%d questions in three seconds", n)
	}
}

func TestSignedAWithheldBatchShowsWithinTwoHeartbeats(t *testing.T) {
	a, nc := external(t)
	f := follow(t, a.URL)
	eventually(t, "live", func() bool { return f.Status().Heartbeats > 1 })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.RePublish = nil // whoever controls NATS lets heartbeats through, and batches not
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	a.cut.Store(true) // and HTTP is cut: all that is left is to notice
	token := a.revoke(t, "withheld")
	gaps := f.Status().Decisions["gap"]
	eventually(t, "two heartbeats come", func() bool { return f.Status().Decisions["gap"] >= gaps+2 })
	age, _ := f.list.Age(time.Now())
	time.Sleep(100 * time.Millisecond)
	if older, _ := f.list.Age(time.Now()); older < age+100*time.Millisecond {
		t.Errorf("the list counts as %s old, then %s", age, older)
	}
	if f.denies(token) {
		t.Fatal("the batch was not withheld: the test is void")
	}
	a.cut.Store(false)
	took := eventually(t, "repaired over HTTP", func() bool { return f.denies(token) && f.fresh() })
	t.Logf("repaired %s after HTTP came back", took)
}

func TestSignedVerifierCredentialsCanOnlySubscribe(t *testing.T) {
	a := startAuthority(t, t.TempDir())
	a.revoke(t, "x")
	d, err := a.Discovery()
	if err != nil {
		t.Fatal(err)
	}
	denied := make(chan error, 100)
	nc, err := nats.Connect(d.Live.URL, nats.UserInfo(d.Live.User, d.Live.Password),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	must := func(what string) {
		t.Helper()
		select {
		case err := <-denied:
			t.Logf("%s: %v", what, err)
		case <-time.After(10 * time.Second):
			t.Errorf("%s is allowed", what)
		}
	}
	eventually(t, "read back", func() bool { return a.Stats().Position > 0 })
	position := a.Stats().Position
	for _, subject := range []string{
		wire.LogBatch, wire.LogMark, "revcast.live.batch", wire.LiveHeartbeat, "anything",
		"$JS.API.INFO", "$JS.API.STREAM.INFO.REVCAST", "$JS.API.STREAM.DELETE.REVCAST", "$JS.API.STREAM.PURGE.REVCAST",
		"$JS.API.STREAM.UPDATE.REVCAST", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.MSG.GET.REVCAST", "$JS.API.STREAM.MSG.DELETE.REVCAST",
		"$JS.API.DIRECT.GET.REVCAST", "$JS.API.CONSUMER.CREATE.REVCAST", "$JS.API.CONSUMER.DURABLE.CREATE.REVCAST.c",
		"$JS.API.CONSUMER.MSG.NEXT.REVCAST.c", "$JS.ACK.REVCAST.c.1.1.1.1.1", "$SYS.REQ.SERVER.PING", "_INBOX.x",
	} {
		if err := nc.PublishRequest(subject, wire.LogBatch, []byte(`{"seq":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		must("publish to " + subject)
	}
	for _, subject := range []string{">", "revcast.log.>", "_INBOX.>", "$JS.>", "$SYS.>"} {
		if _, err := nc.Subscribe(subject, func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		must("subscribe to " + subject)
	}
	if got := a.Stats().Position; got != position && got != position+1 { // a mark may have come
		t.Errorf("the log grew from %d to %d", position, got)
	}
}

func TestFinalAStreamThatIsNotWhatItWasUnrevokesNothing(t *testing.T) {
	for _, c := range []struct {
		name, alarm string
		damage      func(t *testing.T, dir, backup string)
	}{
		{"rolled back to a backup", "forked rolled_back", func(t *testing.T, dir, backup string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
		}},
		{"lost altogether", "epoch_changed", func(t *testing.T, dir, _ string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, backup := t.TempDir(), t.TempDir()
			cfg := broadcast.Config{Embedded: &broadcast.Embedded{Listen: "127.0.0.1:0", StoreDir: dir}}
			a := serve(t, cfg)
			early := a.revoke(t, "early")
			a.restart(t, cfg, func() {
				if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			})
			f := follow(t, a.URL)
			late := a.revoke(t, "late")
			eventually(t, "in step", func() bool { return f.denies(early) && f.denies(late) && f.Status().Heartbeats > 0 })
			a.restart(t, cfg, func() { c.damage(t, dir, backup) })
			eventually(t, "the alarm", func() bool {
				for kind := range f.Status().Alarms {
					if bytes.Contains([]byte(c.alarm), []byte(kind)) {
						return true
					}
				}
				return false
			})
			fresh := a.revoke(t, "afterwards")
			eventually(t, "in step with the new log", func() bool { return f.denies(fresh) && f.fresh() && f.Status().Heartbeats > 0 })
			if !f.denies(early) || !f.denies(late) {
				t.Error("something was un-revoked")
			}
		})
	}
}

// page reads the log after a position over HTTP, as a verifier does.
func (a *authority) page(t *testing.T, after uint64) (wire.Heartbeat, []wire.Record) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, a.URL+wire.LogPath+"?nonce=n&after="+utoa(after), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.NewKeyring(testSigner().Public()).ReadPage(bytes.NewReader(b), after, "n")
	if err != nil {
		t.Fatal(err)
	}
	return p.Heartbeat, p.Records
}

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
