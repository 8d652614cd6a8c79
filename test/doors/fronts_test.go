//go:build doors

package doors

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// deployed is where the configurations are that users copy.
const deployed = "../../deploy/proxies"

// front is a reverse proxy in front of the API, which asks /check.
type front struct {
	name    string
	program string
	files   []string // of deployed; the first is the one to start with
	args    func(dir string) []string
	// websocket: the configuration lets them through.
	websocket bool
	// edit, where set, is what a user changes in the files besides addresses.
	edit func(string) string
}

// fronts is the table of reverse proxies. One more is its files and a row.
var fronts = []front{
	{"nginx", "nginx", []string{"nginx.conf"}, func(dir string) []string {
		return []string{
			"-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr",
			// One process: workers outlive a master that is killed.
			"-g", "daemon off; master_process off; pid " + filepath.Join(dir, "nginx.pid") + ";",
		}
	}, false, nil},
	{"Caddy", "caddy", []string{"Caddyfile"}, func(dir string) []string {
		return []string{"run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile"}
	}, true, nil},
	{"HAProxy", "haproxy", []string{"haproxy.cfg", "revcast.lua"}, func(dir string) []string {
		return []string{"-db", "-f", filepath.Join(dir, "haproxy.cfg")}
	}, true, nil},
}

// start runs the proxy with the very files that users copy, but for the addresses of
// API and /check and its own. It returns its own.
func (f front) start(t *testing.T, api, check string) (address string) {
	t.Helper()
	dir := t.TempDir()
	address = harness.FreeAddress(t)
	t.Setenv("HOME", dir) // Caddy writes there
	t.Setenv("XDG_DATA_HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	swap := []string{":8080", address[strings.LastIndex(address, ":"):], "127.0.0.1:9000", host(t, api), "127.0.0.1:8711", host(t, check)}
	var all strings.Builder
	for _, name := range f.files {
		text, err := os.ReadFile(filepath.Join(deployed, name))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
		if f.edit != nil {
			text = []byte(f.edit(string(text)))
		}
		changed := strings.NewReplacer(swap...).Replace(string(text))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(swap); i += 2 {
		if !strings.Contains(all.String(), swap[i]) {
			t.Fatalf("%v don't have the address %s", f.files, swap[i])
		}
	}
	harness.StartProgram(t, dir, address, f.program, f.args(dir)...)
	return address
}

// anotherClaim does what README.md says about one more claim: a line more in each place
// where X-Auth-Sub and X-Auth-Scope are named, made like that of X-Auth-Scope.
func anotherClaim(text string) string {
	var all strings.Builder
	for line := range strings.Lines(text) {
		all.WriteString(line)
		more := strings.NewReplacer("X-Auth-Scope", "X-User-Email", "x_auth_scope", "x_user_email", "x-auth-scope", "x-user-email",
			"$check_scope", "$check_email", "@scope", "@email").Replace(line)
		if more != line && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			all.WriteString(more)
		}
	}
	return all.String()
}

func host(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
