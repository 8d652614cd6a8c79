package k8s

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/wire"
)

// TestSecretsAreMadeAnew each time, are printed, and are written nowhere.
func TestSecretsAreMadeAnew(t *testing.T) {
	script, err := filepath.Abs(filepath.Join(root, "secrets.sh"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for range 2 {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "RANDFILE="+filepath.Join(dir, "rnd"))
		keys := []string{}
		var public strings.Builder
		cmd.Stderr = &public
		printed, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, &public)
		}
		for _, s := range secretsOf(t, string(printed)) {
			for key, text := range s.StringData {
				if seen[key] == text {
					t.Errorf("%s is the same twice", key)
				}
				seen[key] = text
				keys = append(keys, s.Namespace+"/"+s.Name+": "+key)
			}
		}
		slices.Sort(keys)
		if want := []string{
			"revcast/authority: feed.key", "revcast/authority: nats-authority", "revcast/authority: nats-verifier",
			"revcast/nats-passwords: passwords.conf",
		}; !slices.Equal(keys, want) {
			t.Errorf("%v", keys)
		}
		signer, err := wire.ParseSigner([]byte(seen["feed.key"]))
		if err != nil {
			t.Fatal(err)
		}
		x := base64.RawURLEncoding.EncodeToString(signer.Public())
		if want := "For sidecar.yaml: authority_keys: [\"" + x + "\"]\n"; public.String() != want {
			t.Errorf("says %q, not %q", &public, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("leaves %v, %v", left, err)
		}
	}
}

// TestSecretsStayOutOfCommitsAndImages, where people keep them as the page says.
func TestSecretsStayOutOfCommitsAndImages(t *testing.T) {
	if !strings.Contains(page(t), "revcast-secrets.yaml)") {
		t.Error("the page keeps them somewhere else")
	}
	for file, names := range map[string][]string{
		".gitignore":    {"/mine/", "revcast-secrets*"},
		".dockerignore": {"mine", "**/revcast-secrets*", "data"},
	} {
		lines := strings.Split(read(t, filepath.Join("../..", file)), "\n")
		for _, name := range names {
			if !slices.Contains(lines, name) {
				t.Errorf("%s takes in %s", file, name)
			}
		}
	}
}
