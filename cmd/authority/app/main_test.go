package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs the binary's command line in this process.
func command(ctx context.Context, env []string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, cli.Process{Name: name, Args: args, Env: env, Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

// Each bad file begins with the one line that it must give. Nothing may be written.
func TestBadConfigurations(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no bad files", err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	for _, file := range names {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		want := strings.TrimPrefix(first, "# want: ") + "\n"
		code, stdout, stderr := command(t.Context(), nil, "serve", "--config", file, "--data-dir", dir)
		if code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d\n got %swant %s", file, code, stderr, want)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a bad configuration touched the disk")
	}
}

func TestCommandLine(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, 2, "authority: a command is missing (see authority --help)\n"},
		{[]string{"bogus"}, 2, "authority: unknown command \"bogus\" (see authority --help)\n"},
		{[]string{"serve", "--bogus"}, 2, "authority: flag provided but not defined: -bogus (see authority --help)\n"},
		{[]string{"serve", "x"}, 2, "authority: unexpected argument \"x\" (see authority --help)\n"},
		{[]string{"client-secret", "x"}, 2, "authority: unexpected argument \"x\" (see authority --help)\n"},
		{[]string{"serve"}, 1, "config: issuers: at least one is required: name a configuration file with --config (see authority --help)\n"},
		{[]string{"serve", "--config", missing}, 1, "config: --config: " + missing + ": no such file or directory\n"},
	} {
		code, stdout, stderr := command(t.Context(), nil, c.args...)
		if code != c.code || stderr != c.stderr || stdout != "" {
			t.Errorf("%v: exit %d, %q, want %d, %q", c.args, code, stderr, c.code, c.stderr)
		}
	}
	if code, stdout, _ := command(t.Context(), nil, "--version"); code != 0 || !regexp.MustCompile(`^authority \S+\n$`).MatchString(stdout) {
		t.Error(code, stdout)
	}
}

func TestHelpNamesEveryKeyAndFlag(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"serve", "--help"}} {
		if code, stdout, stderr := command(t.Context(), nil, args...); code != 0 || stdout != help || stderr != "" {
			t.Errorf("%v: exit %d", args, code)
		}
	}
	names := append(config.Keys(Config{}), config.Keys(Issuer{})...)
	names = append(names, config.Keys(Transmitter{})...)
	for _, key := range append(names, config.Keys(Client{})...) {
		leaf := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)[ {]`+leaf+`:`).MatchString(" "+help) && !strings.Contains(help, "\n  "+leaf+":") {
			t.Errorf("--help does not show %s", key)
		}
	}
	for flag, key := range flags {
		if !strings.Contains(help, "--"+flag+" ") {
			t.Errorf("--help does not show --%s", flag)
		}
		if !strings.Contains(strings.Join(config.Keys(Config{}), " "), key) {
			t.Errorf("--%s sets no key", flag)
		}
	}
	for _, line := range strings.Split(help, "\n") {
		if len(line) > 100 {
			t.Errorf("too long for a terminal: %s", line)
		}
	}
}

// A key whose variable is another's, or one that Kubernetes injects for a Service
// named authority, could not be set.
func TestEnvironmentNamesAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, key := range config.Keys(Config{}) {
		env := config.EnvName(prefix, key)
		if other, ok := seen[env]; ok {
			t.Errorf("%s and %s are both %s", key, other, env)
		}
		if strings.HasSuffix(env, "_PORT") || strings.HasSuffix(env, "_SERVICE_HOST") {
			t.Errorf("%s may be injected", env)
		}
		seen[env] = key
	}
}

func TestClientSecret(t *testing.T) {
	code, stdout, _ := command(t.Context(), nil, "client-secret")
	found := regexp.MustCompile(`(?s)\nsecret: (\S+)\n.*\nsecret_sha256: ([0-9a-f]{64})\n$`).FindStringSubmatch(stdout)
	if code != 0 || found == nil {
		t.Fatal(code, stdout)
	}
	if sum := sha256.Sum256([]byte(found[1])); hex.EncodeToString(sum[:]) != found[2] {
		t.Error("the hash is not the secret's")
	}
}

// The configuration in the help is one: strictly read, it gives the defaults.
func TestHelpConfigurationIsStrict(t *testing.T) {
	_, block, _ := strings.Cut(help, "\nConfiguration, with defaults\n")
	block, _, found := strings.Cut(block, "\nEnvironment\n")
	if !found {
		t.Fatal("--help has no configuration")
	}
	file := filepath.Join(t.TempDir(), "help.yaml")
	if err := os.WriteFile(file, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	got, want := NewConfig(), NewConfig()
	if _, err := config.Load(&got, config.Source{File: file}); err != nil {
		t.Fatal(err)
	}
	want = want.complete()
	want.Issuers, want.Clients, want.Dialects = []Issuer{NewIssuer("", "")}, []Client{}, []string{}
	want.Issuers[0].LogoutAudiences = []string{}
	want.Issuers[0].Audiences, want.NATS.MonitorURLs = []string{}, []string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("--help shows  %+v\ndefaults are %+v", got, want)
	}
}

func TestBusyPorts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	busy := ln.Addr().String()
	dir := filepath.Join(t.TempDir(), "data")
	env := []string{"AUTHORITY_ISSUERS=[{issuer: a, jwks_uri: 'http://127.0.0.1:1/jwks'}]", "AUTHORITY_DATA_DIR=" + dir}
	for want, args := range map[string][]string{
		"config: listen: " + busy + " is already in use\n":      {"serve", "--listen", busy},
		"config: nats.listen: " + busy + " is already in use\n": {"serve", "--listen", "127.0.0.1:0", "--nats-listen", busy},
	} {
		if code, _, stderr := command(t.Context(), env, args...); code != 1 || stderr != want {
			t.Errorf("exit %d: %s want %s", code, stderr, want)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a busy port touched the disk")
	}
}
