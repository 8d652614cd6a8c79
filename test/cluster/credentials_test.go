//go:build fault

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
)

// api are the subjects of the JetStream API, of the system account's part of it too.
var api = strings.Fields(`
	INFO STREAM.NAMES STREAM.LIST STREAM.CREATE.REVCAST STREAM.CREATE.OTHER STREAM.UPDATE.REVCAST STREAM.INFO.REVCAST
	STREAM.DELETE.REVCAST STREAM.PURGE.REVCAST STREAM.SNAPSHOT.REVCAST STREAM.RESTORE.REVCAST STREAM.MSG.GET.REVCAST
	STREAM.MSG.DELETE.REVCAST STREAM.PEER.REMOVE.REVCAST STREAM.PEER.EVACUATE.REVCAST STREAM.LEADER.STEPDOWN.REVCAST
	STREAM.CANCEL_MOVE.REVCAST DIRECT.GET.REVCAST DIRECT.GET.REVCAST.revcast.log.batch
	CONSUMER.CREATE.REVCAST CONSUMER.CREATE.REVCAST.c CONSUMER.CREATE.REVCAST.c.revcast.log.batch
	CONSUMER.DURABLE.CREATE.REVCAST.c CONSUMER.NAMES.REVCAST CONSUMER.LIST.REVCAST CONSUMER.INFO.REVCAST.c
	CONSUMER.DELETE.REVCAST.c CONSUMER.PAUSE.REVCAST.c CONSUMER.RESET.REVCAST.c CONSUMER.UNPIN.REVCAST.c
	CONSUMER.MSG.NEXT.REVCAST.c CONSUMER.LEADER.STEPDOWN.REVCAST.c CONSUMER.PEER.REMOVE.REVCAST.c
	CONSUMER.PEER.EVACUATE.REVCAST.c META.LEADER.STEPDOWN META.RESCUE SERVER.REMOVE SERVER.EVACUATE
	ACCOUNT.PURGE.REVCAST ACCOUNT.STREAM.MOVE.REVCAST.REVCAST ACCOUNT.STREAM.CANCEL_MOVE.REVCAST.REVCAST`)

// authorityUses is what an authority needs of it.
var authorityUses = strings.Fields(`
	STREAM.CREATE.REVCAST STREAM.UPDATE.REVCAST STREAM.INFO.REVCAST STREAM.MSG.GET.REVCAST
	DIRECT.GET.REVCAST DIRECT.GET.REVCAST.revcast.log.batch
	CONSUMER.CREATE.REVCAST.c CONSUMER.CREATE.REVCAST.c.revcast.log.batch CONSUMER.INFO.REVCAST.c
	CONSUMER.DELETE.REVCAST.c CONSUMER.MSG.NEXT.REVCAST.c`)

// user is a connection to one server, and what the server refuses it.
type user struct {
	*testing.T
	*nats.Conn
	refusals chan string
}

func (w *world) connect(n *node, options ...nats.Option) (*user, error) {
	u := &user{T: w.T, refusals: make(chan string, 1000)}
	options = append(options, nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			u.refusals <- strings.ToLower(err.Error())
		}
	}))
	var err error
	u.Conn, err = nats.Connect("nats://"+n.client, options...)
	if err == nil {
		w.Cleanup(u.Close)
	}
	return u, err
}

func (w *world) login(n *node, name, secret, file string) *user {
	w.Helper()
	u, err := w.connect(n, nats.UserInfo(name, w.secrets[secret][file]))
	if err != nil {
		w.Fatalf("%s at %s: %v", name, n.Name, err)
	}
	return u
}

func (w *world) verifier(n *node) *user {
	w.Helper()
	return w.login(n, "verifier", "authority", "nats-verifier")
}

// refused waits for the server's refusal of an operation, "publish" or "subscription", on
// a subject; for no other comes before it.
func (u *user) refused(operation, subject string) {
	u.Helper()
	want := strings.ToLower(fmt.Sprintf("%s to %q", operation, subject))
	select {
	case got := <-u.refusals:
		if !strings.Contains(got, want) {
			u.Errorf("%s is not refused; the next refusal is: %s", want, got)
		}
	case <-time.After(2 * time.Second):
		u.Errorf("%s is not refused", want)
	}
}

func (u *user) mustNotPublish(m *nats.Msg) {
	u.Helper()
	if err := errors.Join(u.PublishMsg(m), u.Flush()); err != nil {
		u.Fatal(err)
	}
	u.refused("publish", m.Subject)
}

func (u *user) mustNotSubscribe(subject string) {
	u.Helper()
	s, err := u.SubscribeSync(subject)
	if err = errors.Join(err, u.Flush()); err != nil {
		u.Fatal(err)
	}
	u.refused("subscription", subject)
	_ = s.Unsubscribe()
}

// mustNotCall calls a function of the client library that asks the server at a subject,
// until the server has refused that.
func (u *user) mustNotCall(subject string, call func(ctx context.Context, js jetstream.JetStream) error) {
	u.Helper()
	js, err := jetstream.New(u.Conn)
	if err != nil {
		u.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(u.Context(), 10*time.Second)
	defer cancel()
	seen := make(chan bool, 1)
	go func() {
		for {
			select {
			case r := <-u.refusals:
				if strings.Contains(r, strings.ToLower(fmt.Sprintf("publish to %q", subject))) {
					cancel()
					seen <- true
					return
				}
			case <-ctx.Done():
				seen <- false
				return
			}
		}
	}()
	err = call(ctx, js)
	if err == nil {
		u.Errorf("%s is answered", subject)
	}
	if !<-seen {
		u.Errorf("%s fails, and is not refused: %v", subject, err)
	}
}

// TestVerifiersCredentialsPublishNothing, at any of the servers: no message, no call of
// JetStream's, none with a reply that would reach the log. And they hear nothing but the
// live feed.
func TestVerifiersCredentialsPublishNothing(t *testing.T) {
	w := newWorld(t)
	const inbox = "_INBOX.somebody"
	hearing := w.login(w.nats[0], "authority", "authority", "nats-authority")
	heard, err := hearing.SubscribeSync(inbox)
	if err = errors.Join(err, hearing.Flush()); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nats {
		u := w.verifier(n)
		for _, subject := range []string{
			wire.LogBatch, wire.LogMark, "revcast.log.x", "revcast.live.batch", "revcast.live.mark", wire.LiveHeartbeat, "revcast.live.x",
			"revcast.other", inbox, "anything", "$JS.ACK.REVCAST.c.1.1.1.1.1", "$JS.FC.REVCAST.c.x", "$JSC.CI.x", "$NRG.V.x", "$SRV.PING",
			"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.REVCAST.CONNZ", "$SYS.ACCOUNT.REVCAST.CONNECT",
		} {
			u.mustNotPublish(&nats.Msg{Subject: subject, Data: []byte("noise")})
		}
		for _, call := range api {
			u.mustNotPublish(&nats.Msg{Subject: "$JS.API." + call, Reply: wire.LogBatch, Data: []byte(`{"seq":1}`)})
			u.mustNotPublish(&nats.Msg{Subject: "$JS.REVCAST.API." + call})
		}
		for _, subject := range []string{
			">", "*.>", "revcast.>", "revcast.*.>", "revcast.*.batch", wire.LogSubjects, wire.LogBatch,
			"_INBOX.>", inbox, "$JS.>", "$JS.EVENT.>", "$SYS.>", "$SRV.>",
		} {
			u.mustNotSubscribe(subject)
		}
		live, err := u.SubscribeSync(wire.LiveSubjects)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := live.NextMsg(10 * time.Second); err != nil {
			t.Errorf("%s: the live feed: %v", n.Name, err)
		}
		if len(u.refusals) > 0 {
			t.Errorf("%s refuses the live feed: %s", n.Name, <-u.refusals)
		}
	}
	u := w.verifier(w.nats[0])
	config := jetstream.StreamConfig{Name: wire.Stream, Subjects: []string{wire.LogSubjects}}
	push := jetstream.ConsumerConfig{Name: "c", DeliverSubject: wire.LogBatch}
	for subject, call := range map[string]func(context.Context, jetstream.JetStream) error{
		"INFO": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.AccountInfo(ctx)
			return err
		},
		"STREAM.INFO.REVCAST": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.Stream(ctx, wire.Stream)
			return err
		},
		"STREAM.NAMES": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.StreamNameBySubject(ctx, wire.LogBatch)
			return err
		},
		"STREAM.CREATE.REVCAST": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.CreateStream(ctx, config)
			return err
		},
		"STREAM.UPDATE.REVCAST": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.UpdateStream(ctx, config)
			return err
		},
		"STREAM.DELETE.REVCAST": func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, wire.Stream)
		},
		"CONSUMER.CREATE.REVCAST.c": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.CreateConsumer(ctx, wire.Stream, jetstream.ConsumerConfig{Name: "c"})
			return err
		},
		"CONSUMER.CREATE.REVCAST.d": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.CreateOrUpdateConsumer(ctx, wire.Stream, jetstream.ConsumerConfig{Name: "d", Durable: "d"})
			return err
		},
		"CONSUMER.CREATE.REVCAST.p": func(ctx context.Context, js jetstream.JetStream) error {
			push.Name = "p"
			_, err := js.CreatePushConsumer(ctx, wire.Stream, push)
			return err
		},
		"CONSUMER.INFO.REVCAST.c": func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.Consumer(ctx, wire.Stream, "c")
			return err
		},
		"CONSUMER.DELETE.REVCAST.c": func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteConsumer(ctx, wire.Stream, "c")
		},
	} {
		u.mustNotCall("$JS.API."+subject, call)
	}
	u.mustNotCall(wire.LogBatch, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.Publish(ctx, wire.LogBatch, []byte("noise"))
		return err
	})

	if err := hearing.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := heard.Pending(); n > 0 {
		t.Errorf("%d messages reached an inbox", n)
	}
	for _, p := range w.authorities {
		at := p.Metric(t, "revcast_log_position")
		w.waitUntil("the log has been followed since", func() bool { return p.Metric(t, "revcast_log_position") > at })
		if n := p.Metric(t, "revcast_log_rejected_messages_total"); n > 0 {
			t.Errorf("the log holds %v messages that are no authority's", n)
		}
	}
}

// TestAuthoritysCredentialsTakeNothingBack: the log can't be deleted, purged or moved with
// them, and no other stream made.
func TestAuthoritysCredentialsTakeNothingBack(t *testing.T) {
	w := newNATS(t)
	u := w.login(w.nats[0], "authority", "authority", "nats-authority")
	uses := map[string]bool{}
	for _, call := range authorityUses {
		uses[call] = true
	}
	for _, call := range api {
		if !uses[call] {
			u.mustNotPublish(&nats.Msg{Subject: "$JS.API." + call, Data: []byte(`{"seq":1}`)})
		}
	}
	for _, subject := range []string{"revcast.live.batch", "revcast.other", "_INBOX.somebody", "anything", "$SYS.REQ.SERVER.PING"} {
		u.mustNotPublish(&nats.Msg{Subject: subject})
	}
	for _, subject := range []string{">", wire.LogSubjects, wire.LiveSubjects, "$JS.>", "$SYS.>"} {
		u.mustNotSubscribe(subject)
	}
}

// TestStrangersAreRefused by every server, as clients and as servers.
func TestStrangersAreRefused(t *testing.T) {
	w := newNATS(t)
	_, route, _ := strings.Cut(w.secrets["nats-passwords"]["passwords.conf"], `ROUTE_PASSWORD: "`)
	route, _, _ = strings.Cut(route, `"`)
	authority, verifier := w.secrets["authority"]["nats-authority"], w.secrets["authority"]["nats-verifier"]
	for _, n := range w.nats {
		for who, option := range map[string]nats.Option{
			"nobody":                      nats.Name("nobody"),
			"a verifier without password": nats.UserInfo("verifier", ""),
			"a verifier with another's":   nats.UserInfo("verifier", authority),
			"an authority with another's": nats.UserInfo("authority", verifier),
			"a server":                    nats.UserInfo("route", route),
			"a token":                     nats.Token(route),
		} {
			if _, err := w.connect(n, option); !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("%s is let in by %s: %v", who, n.Name, err)
			}
		}
		for _, password := range []string{"", "guess", authority, verifier} {
			if answer := w.join(n, password); !strings.Contains(answer, "Authorization Violation") {
				t.Errorf("%s, asked for a route with the password %q, answers %q", n.Name, password, answer)
			}
		}
	}
}

// join asks a server for a route, as another server does, and returns what it says until
// it ends the connection.
func (w *world) join(n *node, password string) string {
	w.Helper()
	c, err := net.Dial("tcp", n.route)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "CONNECT {\"user\":\"route\",\"pass\":%q,\"name\":\"stranger\",\"cluster\":\"revcast\"}\r\nPING\r\n", password); err != nil {
		w.Fatal(err)
	}
	answer, _ := io.ReadAll(c) // it may reset the connection
	return string(answer)
}
