package harness_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestProcesses runs the life that other tests build on.
func TestProcesses(t *testing.T) {
	issuer := harness.NewIssuer(t)
	trust := []harness.Trust{issuer.Trust}
	authority := harness.StartAuthority(t, harness.AuthorityOptions{Issuers: trust})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(api.Close)
	sidecar := harness.StartSidecar(t, harness.SidecarOptions{
		Authority: harness.Advertise(t, authority.URL, authority.NATSURL), Upstream: api.URL, Issuers: trust,
		Edit: func(config map[string]any) { config["freshness"] = map[string]any{"max_staleness": "1m"} },
	})
	token := issuer.Token(map[string]any{
		"sub": "alice", "client_id": "web", "jti": "1", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	call := func() int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sidecar.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode
	}
	if got := call(); got != http.StatusOK {
		t.Fatalf("got %d", got)
	}
	if got := sidecar.Metric(t, "revcast_list_entries"); got != 0 {
		t.Errorf("%v revocations", got)
	}
	if all := authority.Metrics(t); all["go_goroutines"] < 1 || all["revcast_log_ready"] != 1 {
		t.Errorf("metrics %v", all)
	}
	authority.Restart()
	sidecar.Kill()
	if sidecar.Running() || sidecar.Ready() {
		t.Fatal("killed, and still there")
	}
	sidecar.Start()
	sidecar.WaitReady()
	if got := call(); got != http.StatusOK {
		t.Fatalf("after restarts: got %d", got)
	}
	for _, p := range []*harness.Process{sidecar, authority} {
		if exit := p.Terminate(5 * time.Second); exit.Code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM", p.Name, exit.Code)
		}
		if !strings.Contains(p.Output(), "ended") {
			t.Errorf("%s: its output is not kept", p.Name)
		}
	}
}

// TestAdvertise checks that nothing but the NATS URL changes.
func TestAdvertise(t *testing.T) {
	const document = `{"live":{"url":"nats://a:1","user":"u"},"version":1}`
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, document)
	}))
	t.Cleanup(origin.Close)
	for path, want := range map[string]string{
		"/.well-known/revcast": strings.ReplaceAll(document, "a:1", "relay:2"), "/v1/log": document,
	} {
		resp, err := http.Get(harness.Advertise(t, origin.URL, "nats://relay:2") + path)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err := json.Unmarshal(body, &got); err != nil || string(body) != want {
			t.Errorf("%s: got %s, want %s", path, body, want)
		}
	}
}
