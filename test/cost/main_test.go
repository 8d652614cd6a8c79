//go:build cost

package cost

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/test/harness"
)

var (
	rounds      = flag.Int("rounds", 5, "how often everything is measured, in turns")
	requests    = flag.Int("requests", 40_000, "how many are sent to measure one thing once")
	revocations = flag.Int("revocations", 1_000_000, "how many are live")
	only        = flag.String("only", "", "a comma-separated list of what is measured; empty: everything")
	profiles    = flag.String("profiles", "", "a directory for CPU profiles of the bare proxy and the middleware")
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	distinct    = 10_000 // tokens
	tokenLength = 700
)

// world is everything that requests go through.
type world struct {
	*testing.T
	dir, subject     string
	issuer           harness.Trust
	key              *tokentest.Key
	authority        *harness.Process
	sidecar          *harness.Process
	upstream, tokens string // an address, a file
}

// newWorld starts an authority with revocations, a sidecar that has loaded them, and
// an API behind it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), key: tokentest.NewKey("k1", "RS256")}
	w.subject = filepath.Join(w.dir, "subject")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", w.subject, "github.com/revcast/revcast/test/cost/subject")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the subject: %v\n%s", err, out)
	}
	idp := httptest.NewServer(tokentest.NewIdP(w.key))
	t.Cleanup(idp.Close)
	w.issuer = harness.Trust{Issuer: idp.URL, JWKSURI: idp.URL + "/jwks", Algorithms: []string{"RS256"}}
	w.writeTokens()

	admin := harness.Client{ID: "admin", Secret: "secret-of-admin", Revoke: []string{"any"}}
	w.authority = harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{w.issuer}, Clients: []harness.Client{admin},
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "warn"}
			c := config["clients"].([]any)[0].(map[string]any)
			c["max_entries"], c["rate"] = 2**revocations, 1_000_000
		},
	})
	w.revoke(admin)
	w.upstream, _ = w.start("api")
	w.sidecar = harness.StartSidecar(t, harness.SidecarOptions{
		Authority: w.authority.URL, Upstream: "http://" + w.upstream, Issuers: []harness.Trust{w.issuer},
	})
	for began := time.Now(); int(w.sidecar.Metric(t, "revcast_list_entries")) < *revocations; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the sidecar does not get all revocations")
		}
	}
	return w
}

// writeTokens makes the tokens that requests carry.
func (w *world) writeTokens() {
	w.Helper()
	now := time.Now().Unix()
	claims := func(i, pad int) map[string]any {
		return map[string]any{
			"iss": w.issuer.Issuer, "sub": fmt.Sprintf("user-%05d", i), "client_id": "web", "jti": fmt.Sprintf("good-%05d", i),
			"iat": now, "exp": now + 4*3600, "scope": "read write " + strings.Repeat("x", pad),
		}
	}
	pad := (tokenLength - len(w.key.Token(claims(0, 0)))) * 3 / 4
	all := make([]string, distinct)
	for i := range all {
		all[i] = w.key.Token(claims(i, pad))
	}
	if n := len(all[0]); n < tokenLength-2 || n > tokenLength+2 {
		w.Fatalf("tokens of %d bytes", n)
	}
	w.tokens = w.write("tokens", []byte(strings.Join(all, "\n")))
}

func (w *world) write(name string, content []byte) (file string) {
	w.Helper()
	file = filepath.Join(w.dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		w.Fatal(err)
	}
	return file
}

func revoked(i int) string { return "revoked-" + strconv.Itoa(i) }

// revoke has the authority store revocations of tokens that expire within a day.
func (w *world) revoke(admin harness.Client) {
	w.Helper()
	began := time.Now()
	var body bytes.Buffer
	for i := range *revocations {
		expires := began.Add(time.Hour + time.Duration(i%72_000)*time.Second)
		fmt.Fprintf(&body, `{"issuer":%q,"selector":{"jti":%q},"expires":%q}`+"\n", w.issuer.Issuer, revoked(i), expires.UTC().Format(time.RFC3339))
	}
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.authority.URL+"/v1/revocations", &body)
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.SetBasicAuth(admin.ID, admin.Secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if stored := bytes.Count(answer, []byte(`{"position":`)); err != nil || stored != *revocations {
		w.Fatalf("%s, %d revocations stored: %v: %.300s", resp.Status, stored, err, answer)
	}
	w.Logf("%d revocations stored in %s", *revocations, time.Since(began).Round(time.Millisecond))
}

// start starts a role of the subject that serves, and waits until it does.
func (w *world) start(role string, args ...string) (address string, pid int) {
	w.Helper()
	address = harness.FreeAddress(w)
	if *profiles != "" {
		args = append(args, "-profile", filepath.Join(*profiles, role+".pprof"))
	}
	return address, w.run(address, w.subject, append([]string{role, "-address", address}, args...)...)
}

// run starts a command that serves at an address, until the test ends.
func (w *world) run(address, name string, args ...string) (pid int) {
	w.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = w.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.Fatalf("start %s: %v", name, err)
	}
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if w.Failed() {
			w.Logf("output of %s %s:\n%s", name, strings.Join(args, " "), &out)
		}
	})
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return cmd.Process.Pid
		}
		if time.Since(began) > time.Minute {
			w.Fatalf("%s does not listen at %s", name, address)
		}
	}
}

// tally is what senders say.
type tally struct {
	Statuses map[int]int
	Took     time.Duration
	Latency  []time.Duration
	Opened   int
}

// sender is a role of the subject that sends, as a command.
func (w *world) sender(role, address, path string, args ...string) *exec.Cmd {
	args = append([]string{role, "-address", address, "-path", path, "-tokens", w.tokens, "-issuer", w.issuer.Issuer}, args...)
	cmd := exec.CommandContext(w.Context(), w.subject, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// send runs a sender to its end. All must have been answered with 200.
func (w *world) send(role, address, path string, args ...string) (t tally) {
	w.Helper()
	out, err := w.sender(role, address, path, args...).Output()
	if err == nil {
		err = json.Unmarshal(out, &t)
	}
	if err != nil {
		w.Fatalf("%s to %s: %v", role, address, err)
	}
	if len(t.Statuses) != 1 || t.Statuses[http.StatusOK] == 0 {
		w.Fatalf("%s to %s%s was answered %v", role, address, path, t.Statuses)
	}
	return t
}

// hasCheck says whether the sidecar has the door at /check.
func (w *world) hasCheck() bool {
	w.Helper()
	resp, err := http.Get(w.sidecar.OpsURL + "/check")
	if err != nil {
		w.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode != http.StatusNotFound
}

func host(url string) string { return strings.TrimPrefix(url, "http://") }

// spread is the median of some figures, with the least and the greatest.
type spread struct{ median, least, most float64 }

func spreadOf(all []float64) spread {
	all = slices.Clone(all)
	slices.Sort(all)
	return spread{all[len(all)/2], all[0], all[len(all)-1]}
}

// p99 sorts what it is given.
func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*99/100)]
}
