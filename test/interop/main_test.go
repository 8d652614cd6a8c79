//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// node returns a Node to run the scripts of this directory with.
func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("these tests need Node 18 or later: %v", err)
	}
	if _, err := os.Stat("node_modules/oidc-provider"); err != nil {
		t.Fatalf("these tests need the packages of package-lock.json: run npm ci in test/interop (%v)", err)
	}
	return path
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// object reads the body as a JSON object.
func (a answer) object(t *testing.T) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &o); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return o
}

func do(t *testing.T, request *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// post sends a body with the client's Basic credentials, and wants 200.
func post(t *testing.T, client harness.Client, address, contentType, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(client.ID, client.Secret)
	request.Header.Set("Content-Type", contentType)
	got := do(t, request)
	if got.status != http.StatusOK {
		t.Fatalf("POST %s: %d %s", address, got.status, got.body)
	}
	return got
}

func postForm(t *testing.T, client harness.Client, address string, form url.Values) answer {
	t.Helper()
	return post(t, client, address, "application/x-www-form-urlencoded", form.Encode())
}

// run runs a script and returns its standard output.
func run(t *testing.T, stdin string, args ...string) []byte {
	t.Helper()
	script := exec.CommandContext(t.Context(), node(t), args...)
	var stderr bytes.Buffer
	script.Stdin, script.Stderr = strings.NewReader(stdin), &stderr
	out, err := script.Output()
	if err != nil {
		t.Fatalf("node %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}
