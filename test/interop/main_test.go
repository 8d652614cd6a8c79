//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
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
		t.Fatalf("these tests need Node 20 or later: %v", err)
	}
	if _, err := os.Stat("node_modules/openid-client"); err != nil {
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
	return doBy(t, http.DefaultClient, request)
}

// doBy is do by another client.
func doBy(t *testing.T, client *http.Client, request *http.Request) answer {
	t.Helper()
	resp, err := client.Do(request)
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
	got := tryPost(t, client, address, contentType, body)
	if got.status != http.StatusOK {
		t.Fatalf("POST %s: %d %s", address, got.status, got.body)
	}
	return got
}

// tryPost is post for an answer that may be another.
func tryPost(t *testing.T, client harness.Client, address, contentType, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(client.ID, client.Secret)
	request.Header.Set("Content-Type", contentType)
	return do(t, request)
}

func postForm(t *testing.T, client harness.Client, address string, form url.Values) answer {
	t.Helper()
	return post(t, client, address, "application/x-www-form-urlencoded", form.Encode())
}

// run runs a script and returns its standard output.
func run(t *testing.T, stdin string, args ...string) []byte {
	t.Helper()
	out, err := tryRun(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryRun is run for a script that may fail.
func tryRun(t *testing.T, stdin string, args ...string) ([]byte, error) {
	t.Helper()
	return execute(exec.CommandContext(t.Context(), node(t), args...), stdin)
}

// execute runs a command and returns its standard output. The error has both outputs.
func execute(command *exec.Cmd, stdin string) ([]byte, error) {
	var stderr bytes.Buffer
	command.Stdin, command.Stderr = strings.NewReader(stdin), &stderr
	out, err := command.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s%s", strings.Join(command.Args, " "), err, out, stderr.Bytes())
	}
	return out, nil
}
