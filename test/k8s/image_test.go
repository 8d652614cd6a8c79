package k8s

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"encoding/base64"
	"errors"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/test/harness"
)

const (
	released = "v1.2.3-test"
	nobody   = 65532 // whom the images run as
)

var binaries = []string{"authority", "sidecar"}

// dist is what deploy/dist.sh makes.
func dist(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "../dist.sh"))
	cmd.Env = append(os.Environ(), "VERSION="+released, "DIST="+dir, "GOOS=", "GOARCH=") // as where docker sets neither
	finish(t, cmd)
	return dir
}

// TestImagesHoldWhatTheyNeedAndNothingElse, and the binaries in them run there.
func TestImagesHoldWhatTheyNeedAndNothingElse(t *testing.T) {
	dir := dist(t)
	for _, name := range binaries {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "rootfs", name, name)
			checkBinary(t, file)
			checkRoot(t, filepath.Dir(file), name)
			for arg, want := range map[string]string{"--version": name + " " + released + "\n", "--help": name + " serve --config"} {
				cmd := exec.CommandContext(t.Context(), "/"+name, arg)
				inside(t, cmd, filepath.Dir(file))
				if out := finish(t, cmd); !strings.Contains(out, want) {
					t.Errorf("%s prints %q", arg, out)
				}
			}
			if !bytes.Equal([]byte(read(t, filepath.Join(dir, name))), []byte(read(t, file))) {
				t.Error("the binary beside the root file system is another")
			}
		})
	}
	t.Run("single", func(t *testing.T) { runSingle(t, filepath.Join(dir, "rootfs/authority")) })
	t.Run("Dockerfile", func(t *testing.T) { checkDockerfile(t, dir) })
}

// checkBinary: it needs no file beside it, and names none of the machine that built it.
func checkBinary(t *testing.T, file string) {
	t.Helper()
	binary, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = binary.Close() }()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s: is not static: %v", file, p.Type)
		}
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, s := range info.Settings {
		said[s.Key] = s.Value
	}
	if said["-trimpath"] != "true" || said["CGO_ENABLED"] != "0" {
		t.Errorf("%s: built with %v", file, said)
	}
	text := []byte(read(t, file))
	here, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{here, filepath.Join(home, "go"), strings.TrimSpace(run(t, "go", "env", "GOMODCACHE"))} {
		if bytes.Contains(text, []byte(path+"/")) {
			t.Errorf("%s: names %s", file, path)
		}
	}
}

// checkRoot: a root file system is whole, and whoever breaks in finds nothing to use.
func checkRoot(t *testing.T, dir, name string) {
	t.Helper()
	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if at := strings.TrimPrefix(path, dir); at != "" && err == nil {
			got[at] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const file, folder = fs.FileMode(0o644), fs.ModeDir | 0o755
	want := map[string]fs.FileMode{
		"/" + name: 0o755, "/tmp": fs.ModeDir | fs.ModeSticky | 0o777,
		"/etc": folder, "/etc/passwd": file, "/etc/group": file, "/etc/revcast": folder,
		"/etc/ssl": folder, "/etc/ssl/certs": folder, "/etc/ssl/certs/ca-certificates.crt": file,
		"/var": folder, "/var/lib": folder, "/var/lib/revcast": folder,
	}
	for at, mode := range want {
		if got[at] != mode {
			t.Errorf("%s is %v, not %v", at, got[at], mode)
		}
		delete(got, at)
	}
	if len(got) > 0 {
		t.Errorf("there is more: %v", got)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(read(t, filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt")))) {
		t.Error("no CA certificates")
	}
	if text := read(t, filepath.Join(dir, "etc/passwd")); !strings.HasPrefix(text, fmt.Sprintf("revcast:x:%d:%d:", nobody, nobody)) || strings.Count(text, "\n") != 1 {
		t.Errorf("passwd: %s", text)
	}
}

// inside has a command run as it would in a container: with a root file system of its own, as
// nobody, and without an environment.
func inside(t *testing.T, cmd *exec.Cmd, root string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("run it as root: a root file system can be tried by nobody else")
	}
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) { // t.TempDir is root's alone
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// runSingle starts the authority of overlays/single in its image's root file system, with its
// configuration as it is, but for the ports, which somebody else may have here.
func runSingle(t *testing.T, root string) {
	all := ours(t, build(t, "overlays/single"))
	if len(all) != 1 {
		t.Fatalf("%d containers", len(all))
	}
	c := all[0]
	for name, text := range c.files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, at, text)
		if err := errors.Join(os.Chown(at, 0, nobody), os.Chmod(at, 0o440)); err != nil { // as a volume's with fsGroup
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(root, "var/lib/revcast"), nobody, nobody); err != nil { // as fsGroup does
		t.Fatal(err)
	}
	address := harness.FreeAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cmd := exec.CommandContext(ctx, "/authority", c.container.Args...)
	inside(t, cmd, root)
	cmd.Env = []string{"AUTHORITY_LISTEN=" + address, "AUTHORITY_NATS_LISTEN=" + harness.FreeAddress(t)}
	for _, e := range c.container.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, probe := range []string{c.container.StartupProbe.HTTPGet.Path, c.container.LivenessProbe.HTTPGet.Path, c.container.ReadinessProbe.HTTPGet.Path} {
		await(t, "http://"+address+probe, "")
	}
	signer, err := wire.ParseSigner([]byte(c.files["/run/secrets/revcast/feed.key"]))
	if err != nil {
		t.Fatal(err)
	}
	await(t, "http://"+address+"/.well-known/revcast", base64.RawURLEncoding.EncodeToString(signer.Public()))
	await(t, "http://"+address+"/metrics", fmt.Sprintf("revcast_build_info{version=%q}", released))
	stop()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("ends with %v\n%s", err, &out)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/revcast/feed.key")); !os.IsNotExist(err) {
		t.Errorf("made a key of its own: %v", err)
	}
}

// await asks until the answer is 200, and holds a text.
func await(t *testing.T, url, text string) {
	t.Helper()
	limit := time.Now().Add(harness.ReadyTimeout)
	for {
		got, code := "", 0
		resp, err := http.Get(url)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			got, code = string(body), resp.StatusCode
		}
		if code == http.StatusOK && strings.Contains(got, text) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: %d %v\n%s", url, code, err, got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var from = regexp.MustCompile(`^FROM (?:--platform=\S+ )?(\S+) AS (\S+)$`)

// checkDockerfile: it takes what dist.sh makes, and its images are that, run by nobody.
func checkDockerfile(t *testing.T, dir string) {
	file, err := os.Open("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var stage string
	var base = map[string]string{}
	said := map[string][]string{} // by stage and instruction
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if m := from.FindStringSubmatch(line); m != nil {
			stage = m[2]
			base[stage] = m[1]
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		said[stage+" "+instruction] = append(said[stage+" "+instruction], rest)
	}
	goVersion := "go" + strings.TrimSuffix(strings.TrimPrefix(base["build"], "golang:"), "-bookworm")
	needs := "go" + strings.TrimSpace(run(t, "go", "list", "-m", "-f", "{{.GoVersion}}", "github.com/revcast/revcast"))
	if version.Lang(goVersion) != version.Lang(needs) || version.Compare(goVersion, needs) < 0 {
		t.Errorf("built with %s, and go.mod asks for %s", goVersion, needs)
	}
	if built := said["build RUN"]; built[len(built)-1] != "GOOS=$TARGETOS GOARCH=$TARGETARCH VERSION=$VERSION deploy/dist.sh" {
		t.Errorf("built by %v", built)
	}
	for _, arg := range []string{"TARGETOS", "TARGETARCH"} {
		if !slices.Contains(said["build ARG"], arg) {
			t.Errorf("the build is not told %s", arg)
		}
		for at, all := range said {
			if strings.HasSuffix(at, " ARG") && slices.ContainsFunc(all, func(a string) bool { return strings.HasPrefix(a, arg+"=") }) {
				t.Errorf("%s has a default, which hides what --platform asks for: %q", arg, all)
			}
		}
	}
	for _, name := range binaries {
		if base[name] != "scratch" {
			t.Errorf("%s is made from %s", name, base[name])
		}
		if got := said[name+" USER"]; !slices.Equal(got, []string{fmt.Sprintf("%d:%d", nobody, nobody)}) {
			t.Errorf("%s is run by %v", name, got)
		}
		if got := said[name+" ENTRYPOINT"]; !slices.Equal(got, []string{fmt.Sprintf("[%q]", "/"+name)}) {
			t.Errorf("%s runs %v", name, got)
		}
		if got := said[name+" WORKDIR"]; !slices.Equal(got, []string{"/var/lib/revcast"}) {
			t.Errorf("%s runs in %v", name, got)
		}
		copied := said[name+" COPY"]
		if len(copied) != 2 {
			t.Fatalf("%s copies %v", name, copied)
		}
		for i, want := range []string{
			"--from=build /src/dist/rootfs/" + name + "/ /",
			fmt.Sprintf("--from=build --chown=%d:%d /src/dist/rootfs/%s/var/lib/ /var/lib/", nobody, nobody, name),
		} {
			if copied[i] != want {
				t.Errorf("%s copies %s, not %s", name, copied[i], want)
			}
			words := strings.Fields(copied[i])
			source := strings.TrimPrefix(words[len(words)-2], "/src/dist/")
			if info, err := os.Stat(filepath.Join(dir, source)); err != nil || !info.IsDir() {
				t.Errorf("%s copies %s, which dist.sh doesn't make: %v", name, source, err)
			}
		}
	}
}
