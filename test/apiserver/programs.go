package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Programs builds what go.mod names as tools, unless that is done already, and returns the
// directory that they are in. The package's module is where it must be called.
var Programs = sync.OnceValues(func() (string, error) {
	ctx := context.Background()
	version, err := command(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs("../../bin/apiserver")
	if err != nil {
		return "", err
	}
	// Programs that ask for the version can't read what stands there without a release.
	_, err = command(ctx, "go", "build", "-ldflags=-X=k8s.io/component-base/version.gitVersion="+version,
		"-o", dir+string(filepath.Separator), "tool")
	return dir, err
})

// command runs one that ends, and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", cmd, err, &wrong)
	}
	return strings.TrimSpace(string(out)), err
}
