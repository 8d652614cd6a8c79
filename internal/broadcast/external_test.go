package broadcast

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// cluster starts three NATS servers that fsync before they acknowledge.
func cluster(t testing.TB) []*server.Server {
	t.Helper()
	var servers []*server.Server
	var routes []*url.URL
	var ports []int
	for range 3 {
		port := freePort(t)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", port)})
	}
	for i := range 3 {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		go srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		servers = append(servers, srv)
	}
	for _, srv := range servers {
		if !srv.ReadyForConnections(20 * time.Second) {
			t.Fatal("a NATS server did not start")
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		leader := false
		for _, s := range servers {
			leader = leader || s.JetStreamIsLeader()
		}
		if leader {
			return servers
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster found no leader")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// runNATS runs a NATS server until the test ends.
func runNATS(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return srv
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func openOn(t testing.TB, servers []*server.Server) testLog {
	t.Helper()
	var urls, monitors []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
		monitors = append(monitors, "http://"+s.MonitorAddr().String())
	}
	list := denylist.New()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	l, err := Open(ctx, Config{
		External: &External{URL: strings.Join(urls, ","), Replicas: 3, VerifierURL: urls[0], MonitorURLs: monitors},
		Signer:   testSigner(), MaxLifetime: 24 * time.Hour, List: list, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return testLog{l, list}
}

func TestDurableTwoAuthoritiesOnAClusterThatLosesANode(t *testing.T) {
	servers := cluster(t)
	a, b := openOn(t, servers), openOn(t, servers)
	if a.Stats().Epoch != b.Stats().Epoch {
		t.Fatal("two authorities made two logs")
	}
	revoke := func(l testLog, name string, n int) (acked []denylist.Revocation) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				r := revocation(fmt.Sprint(name, i))
				for range 40 { // a retry is harmless
					if _, err := l.Append(t.Context(), r); err == nil {
						mu.Lock()
						defer mu.Unlock()
						acked = append(acked, r)
						return
					}
				}
				t.Errorf("%s%d was never stored", name, i)
			})
		}
		wg.Wait()
		return acked
	}
	acked := append(revoke(a, "a", 50), revoke(b, "b", 50)...)

	leader := servers[0]
	if info, err := a.stream.Info(t.Context()); err == nil {
		for _, s := range servers {
			if s.Name() == info.Cluster.Leader {
				leader = s
			}
		}
	}
	leader.Shutdown()
	acked = append(acked, revoke(a, "c", 20)...)
	acked = append(acked, revoke(b, "d", 20)...)

	for _, l := range []testLog{a, b} {
		for _, r := range acked {
			token := presented(t, r)
			if err := l.await(t.Context(), func() bool { return l.list.CheckToken(token, time.Now()).Status == denylist.Revoked }); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.Stats().Alarms; n != 0 {
			t.Errorf("%d alarms", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		was := l.Stats().AsOf
		if err := l.await(ctx, func() bool { return l.asOf.After(was) }); err != nil {
			t.Errorf("no heartbeat after the leader was lost: %v", err)
		}
		cancel()
		entries, _ := l.page(t, 0, wire.ChainStart(l.Stats().Epoch))
		if len(entries) < len(acked) {
			t.Errorf("%d revocations in the log, %d acknowledged", len(entries), len(acked))
		}
	}
}

func TestDurableFsyncOfAClusterIsProved(t *testing.T) {
	for _, always := range []bool{true, false} {
		srv := runNATS(t, &server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: always, NoSigs: true, NoLog: true,
		})
		l := &Log{log: slog.New(slog.DiscardHandler)}
		url := "http://" + srv.MonitorAddr().String()
		if got, want := l.inspect(t.Context(), Server{URL: url}, true), (Server{url, true, true, always}); got != want {
			t.Errorf("found %+v, want %+v", got, want)
		}
	}
}

// TestDurableFsyncOfAClusterIsProvedLater, where a server did not answer at first, and
// told once each time that it is another than it was.
func TestDurableFsyncOfAClusterIsProvedLater(t *testing.T) {
	var lines bytes.Buffer
	l := &Log{log: slog.New(slog.NewTextHandler(&lines, nil))}
	syncs, healthy := "", http.StatusOK
	monitor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case syncs == "" || r.URL.Path == "/healthz" && healthy != http.StatusOK:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/varz":
			fmt.Fprintf(w, `{"jetstream":{"config":{"sync_always":%s}}}`, syncs)
		}
	}))
	t.Cleanup(monitor.Close)
	known := Server{URL: monitor.URL}
	for i, c := range []struct {
		syncs   string
		healthy int
		want    Server
		says    string
	}{
		{"", 200, Server{}, "can't tell yet"},
		{"", 200, Server{}, ""},
		{"true", 503, Server{Known: true, Syncs: true}, "fsyncs before it acknowledges"},
		{"true", 200, Server{Healthy: true, Known: true, Syncs: true}, ""},
		{"", 200, Server{Known: true, Syncs: true}, ""}, // what it said stands while it is away
		{"false", 200, Server{Healthy: true, Known: true}, "acknowledges before it fsyncs"},
		{"false", 200, Server{Healthy: true, Known: true}, ""},
	} {
		lines.Reset()
		syncs, healthy, c.want.URL = c.syncs, c.healthy, monitor.URL
		known = l.inspect(t.Context(), known, i == 0)
		if got := lines.String(); known != c.want || (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%d: %+v, %q, want %+v, %q", i, known, got, c.want, c.says)
		}
	}
}

// TestFreshAgainSoonAfterTheClusterAnswers has the follower lose its consumer while nobody
// answers who asks for another, as when a cluster has lost its leader. Once somebody does,
// the log is known complete again within seconds.
func TestFreshAgainSoonAfterTheClusterAnswers(t *testing.T) {
	deaf := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.CREATE.>"}}}
	store := t.TempDir()
	options := func(p *server.Permissions) *server.Options {
		return &server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: store, NoSigs: true, NoLog: true,
			Users: []*server.User{{Username: "authority", Password: "a", Permissions: p}, {Username: "admin", Password: "b"}},
		}
	}
	srv := runNATS(t, options(nil))
	reload := func(p *server.Permissions) {
		t.Helper()
		if err := srv.ReloadOptions(options(p)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(t.Context(), Config{
		External: &External{URL: srv.ClientURL(), Login: Login{"authority", func() (string, error) { return "a", nil }}, Replicas: 1, VerifierURL: srv.ClientURL()},
		Signer:   testSigner(), MaxLifetime: 24 * time.Hour, List: denylist.New(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	behind := func(d time.Duration) func() bool {
		return func() bool { age := time.Since(l.asOf); return age > d }
	}
	until := func(what string, so func() bool) time.Duration {
		t.Helper()
		began := time.Now()
		for {
			l.mu.Lock()
			ok := so()
			l.mu.Unlock()
			if ok {
				return time.Since(began)
			}
			if time.Since(began) > 20*time.Second {
				t.Fatal(what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	until("no heartbeat", func() bool { return !l.asOf.IsZero() })

	reload(deaf)
	nc, err := nats.Connect(srv.ClientURL(), nats.UserInfo("admin", "b"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	names, deleted := stream.ConsumerNames(t.Context()), 0
	for name := range names.Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		deleted++
	}
	if names.Err() != nil || deleted == 0 {
		t.Fatalf("%d consumers deleted: %v", deleted, names.Err())
	}
	until("the log is still known complete, without a consumer", behind(3*time.Second))
	reload(nil)
	if took := until("the log is not known complete again", func() bool { return !behind(2 * time.Second)() }); took > 8*time.Second { // it was ten
		t.Errorf("known complete only after %s", took.Round(time.Millisecond))
	}
}
