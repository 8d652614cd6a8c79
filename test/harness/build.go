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
	done bool
}

// Main runs a package's tests and exits.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "revcast-bin-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	built.dir = dir
	return m.Run()
}

// Build builds both binaries, the first time it is called, and returns the
// directory that holds them as "authority" and "sidecar". The environment's GOFLAGS
// count: GOFLAGS=-race builds them with the race detector.
func Build(t testing.TB) (dir string) {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		t.Fatal("harness: TestMain doesn't call harness.Main")
	}
	if built.done {
		return built.dir
	}
	build := exec.CommandContext(context.Background(), "go", "build", "-o", built.dir+string(filepath.Separator),
		"github.com/revcast/revcast/cmd/authority", "github.com/revcast/revcast/cmd/sidecar")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the binaries: %v\n%s", err, out)
	}
	built.done = true
	return built.dir
}
