//go:build fault

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/test/harness"
)

const manifests = "../../deploy/k8s"

// secrets are what secrets.sh printed: by Secret, its files.
type secrets map[string]map[string]string

func newSecrets(t *testing.T) secrets {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "sh", filepath.Join(manifests, "secrets.sh")).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		t.Fatalf("secrets.sh (install openssl where it is missing): %v", err)
	}
	all := secrets{}
	documents := yaml.NewDecoder(strings.NewReader(string(text)))
	for {
		var one struct {
			Metadata   struct{ Name string }
			StringData map[string]string `yaml:"stringData"`
		}
		err := documents.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("what secrets.sh prints: %v", err)
		}
		all[one.Metadata.Name] = one.StringData
	}
}

// write puts a Secret's files into a directory, as mounting it does.
func (s secrets) write(t *testing.T, name, dir string, names *strings.Replacer) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range s[name] {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(names.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// node is one NATS server of the cluster.
type node struct {
	*harness.Process
	client, monitor, route string // host:port
}

// names has the addresses that are here in place of the names that a cluster gives.
func names(nodes []*node) *strings.Replacer {
	var pairs []string
	for i, n := range nodes {
		host := fmt.Sprintf("nats-%d.nats", i)
		pairs = append(pairs, host+".revcast.svc:4222", n.client, host+":4222", n.client, host+":8222", n.monitor, host+":6222", n.route)
	}
	return strings.NewReplacer(pairs...)
}

// startNATS starts the three servers on nats.conf as it is. They have names by their
// environment and disks by their command lines, as in the StatefulSet, and addresses, as pods
// have by themselves.
func startNATS(t *testing.T, s secrets, etc string) (nodes []*node) {
	t.Helper()
	for range 3 {
		nodes = append(nodes, &node{client: harness.FreeAddress(t), monitor: harness.FreeAddress(t), route: harness.FreeAddress(t)})
	}
	text, err := os.ReadFile(filepath.Join(manifests, "nats", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(etc, "nats.conf")
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.write(t, "nats-passwords", filepath.Join(etc, "passwords"), names(nodes))
	t.Setenv("POD_NAME", "nats-0") // which each server has of its own, below
	options, err := server.ProcessConfigFile(conf)
	if err != nil {
		t.Fatalf("nats.conf: %v", err)
	}
	// An address for routes on the command line takes the place of the file's user and
	// password too, so they are said again.
	login := options.Cluster.Username + ":" + options.Cluster.Password
	program := harness.NATSServer(t)
	for i, n := range nodes {
		dir, name := t.TempDir(), fmt.Sprintf("nats-%d", i)
		n.Process = harness.StartProgram(t, dir, n.client, "env", "POD_NAME="+name, program,
			"--config", conf, "--store_dir", filepath.Join(dir, "data"), "--pid", filepath.Join(dir, "nats.pid"),
			"--addr", "127.0.0.1", "--port", port(n.client), "--http_port", port(n.monitor),
			"--cluster_listen", "nats://"+login+"@"+n.route)
		n.Name = name
	}
	return nodes
}

func port(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return port
}

// ask reads a page of a server's monitoring address.
func (w *world) ask(n *node, path string, into any) error {
	resp, err := w.client.Get("http://" + n.monitor + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", path, resp.StatusCode)
	}
	return nil
}

// healthy says whether a server has all that it should have, as the startup probe asks.
func (w *world) healthy(n *node) bool {
	return w.ask(n, "/healthz", &struct{}{}) == nil
}

// leader is the server that leads the log's stream; nil while there is none. Only its
// own word counts: the others may not have noticed yet that it is gone.
func (w *world) leader() *node {
	for _, n := range w.nats {
		var js server.JSInfo
		if w.ask(n, "/jsz?acc=REVCAST&streams=true", &js) != nil {
			continue
		}
		for _, a := range js.AccountDetails {
			for _, s := range a.Streams {
				if s.Name == wire.Stream && s.Cluster != nil && s.Cluster.Leader == n.Name {
					return n
				}
			}
		}
	}
	return nil
}

// listeners counts the sidecars that are connected to a server.
func (w *world) listeners(n *node) (count int) {
	w.Helper()
	var all server.Connz
	if err := w.ask(n, "/connz", &all); err != nil {
		w.Fatal(err)
	}
	for _, c := range all.Conns {
		if c.Name == "revcast-verifier" {
			count++
		}
	}
	return count
}
