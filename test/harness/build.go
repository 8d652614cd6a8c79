package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var built struct {
	sync.Mutex
	dir  string // set by Main, removed at its end
	done map[string]bool
}

// Main runs a package's tests and exits.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "revcast-bin-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	built.dir, built.done = dir, map[string]bool{}
	return m.Run()
}

// Build builds both binaries, the first time it is called, and returns the
// directory that holds them as "authority" and "sidecar". The environment's GOFLAGS
// count: GOFLAGS=-race builds them with the race detector.
func Build(t testing.TB) (dir string) {
	t.Helper()
	return build(t, "github.com/revcast/revcast/cmd/authority", "github.com/revcast/revcast/cmd/sidecar")
}

// NATSServer builds nats-server, of the version that is embedded in the authority,
// the first time it is called, and returns its path.
func NATSServer(t testing.TB) (path string) {
	t.Helper()
	return filepath.Join(build(t, "github.com/nats-io/nats-server/v2"), "nats-server")
}

func build(t testing.TB, packages ...string) (dir string) {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		t.Fatal("harness: TestMain doesn't call harness.Main")
	}
	if built.done[packages[0]] {
		return built.dir
	}
	args := append([]string{"build", "-o", built.dir + string(filepath.Separator)}, packages...)
	if out, err := exec.CommandContext(context.Background(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build the binaries: %v\n%s", err, out)
	}
	built.done[packages[0]] = true
	return built.dir
}
