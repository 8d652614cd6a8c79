package app

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsWithUsers starts a NATS server that takes two users with passwords.
func natsWithUsers(t *testing.T, store string, port int, authority, verifier string) *server.Server {
	t.Helper()
	account := server.NewAccount("REVCAST")
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: store, SyncAlways: true, NoSigs: true, NoLog: true,
		Accounts: []*server.Account{account},
		Users: []*server.User{
			{Username: "authority", Password: authority, Account: account},
			{Username: "verifier", Password: verifier, Account: account, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{">"}}, Subscribe: &server.SubjectPermission{Allow: []string{"revcast.live.>"}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	if account, err = srv.LookupAccount("REVCAST"); err == nil {
		err = account.EnableJetStream(nil, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

// TestPasswordsOfNATSMayChange: what stands in the files is what counts, at the next
// connection and the next discovery, without a restart.
func TestPasswordsOfNATSMayChange(t *testing.T) {
	store, cfg := t.TempDir(), testConfig(t)
	own, theirs := filepath.Join(t.TempDir(), "own"), filepath.Join(t.TempDir(), "theirs")
	write := func(file, password string) {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(own, "a1")
	write(theirs, "v1")
	srv := natsWithUsers(t, store, server.RANDOM_PORT, "a1", "v1")
	url := srv.ClientURL()
	cfg.NATS = NATS{
		URL: url, User: "authority", PasswordFile: own, Replicas: 1, MaxBytes: defaultMaxBytes,
		VerifierURL: url, VerifierUser: "verifier", VerifierPasswordFile: theirs,
	}
	addrs, _ := start(t, cfg)
	discovery := func() (int, string) { return get(t, "http://"+addrs.HTTP+"/.well-known/revcast") }
	if _, text := discovery(); value(text, `"user":"`) != "verifier" || value(text, `"password":"`) != "v1" {
		t.Fatalf("verifiers are told %s", text)
	}

	port := srv.Addr().(*net.TCPAddr).Port
	srv.Shutdown()
	srv.WaitForShutdown()
	write(own, "a2")
	write(theirs, "v2")
	natsWithUsers(t, store, port, "a2", "v2")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if code, text := get(t, "http://"+addrs.HTTP+"/readyz"); code == http.StatusOK {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the authority is not ready again:", text)
		}
	}
	if _, text := discovery(); value(text, `"password":"`) != "v2" {
		t.Errorf("verifiers are told %s", text)
	}

	// An unreadable file is no empty password.
	if err := os.Remove(theirs); err != nil {
		t.Fatal(err)
	}
	if code, text := discovery(); code != http.StatusServiceUnavailable || strings.Contains(text, theirs) {
		t.Errorf("without the file verifiers are told %d %s", code, text)
	}
}

// TestPasswordFileIsReadAtTheStart, so that a mistake is seen before anything is touched.
func TestPasswordFileIsReadAtTheStart(t *testing.T) {
	cfg := testConfig(t)
	missing := filepath.Join(t.TempDir(), "missing")
	cfg.NATS = NATS{URL: "nats://127.0.0.1:1", Replicas: 1, MaxBytes: defaultMaxBytes, VerifierUser: "v", VerifierPasswordFile: missing}
	err := Run(t.Context(), cfg, Options{})
	if want := "config: nats.verifier_password_file: open " + missing + ": no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestKeyThatOthersReadIsToldOf(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{
		0o600: false, 0o400: false, 0o440: false, // the last as Kubernetes mounts it
		0o640: true, 0o660: true, 0o604: true, 0o444: true, 0o460: true, 0o777: true,
	} {
		if exposed(mode) != want {
			t.Errorf("%s: %v", mode, !want)
		}
	}
}
