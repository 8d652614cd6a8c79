package app

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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

// Each bad file begins with the one line that it must give.
func TestBadConfigurations(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no bad files", err)
	}
	for _, file := range names {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		want := strings.TrimPrefix(first, "# want: ") + "\n"
		code, stdout, stderr := command(t.Context(), nil, "serve", "--config", file)
		if code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d\n got %swant %s", file, code, stderr, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	base := []string{"serve", "--authority", "http://a:8700", "--upstream", "http://u:9000"}
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, 2, "sidecar: a command is missing (see sidecar --help)\n"},
		{[]string{"authority"}, 2, "sidecar: unknown command \"authority\" (see sidecar --help)\n"},
		{[]string{"serve", "--bogus"}, 2, "sidecar: flag provided but not defined: -bogus (see sidecar --help)\n"},
		{[]string{"serve", "--config", missing}, 1, "config: --config: " + missing + ": no such file or directory\n"},
		{[]string{"serve"}, 1, "config: authority: is required\n"},
		{base, 1, "config: issuers: at least one is required\n"},
		{append(base, "--issuer", "i"), 1, "config: issuers[0].jwks_uri: is required\n"},
		{append(base, "--jwks-uri", "http://i/"), 2, "sidecar: --jwks-uri, --algorithms and --audience need --issuer (see sidecar --help)\n"},
		{append(base, "--max-staleness", "5"), 1, "config: --max-staleness: must be a duration such as 90s, 5m or 24h, not \"5\"\n"},
	} {
		code, stdout, stderr := command(t.Context(), nil, c.args...)
		if code != c.code || stderr != c.stderr || stdout != "" {
			t.Errorf("%v: exit %d, %q, want %d, %q", c.args, code, stderr, c.code, c.stderr)
		}
	}
	if code, stdout, _ := command(t.Context(), nil, "--version"); code != 0 || !regexp.MustCompile(`^sidecar \S+\n$`).MatchString(stdout) {
		t.Error(code, stdout)
	}
}

func TestHelpNamesEveryKeyAndFlag(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"serve", "--help"}} {
		if code, stdout, stderr := command(t.Context(), nil, args...); code != 0 || stdout != help || stderr != "" {
			t.Errorf("%v: exit %d", args, code)
		}
	}
	seen := map[string]bool{}
	for _, key := range slices.Concat(config.Keys(Config{}), config.Keys(config.Issuer{}), config.Keys(Route{}), config.Keys(Identity{})) {
		leaf := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`[ {\n]` + leaf + `:`).MatchString(help) {
			t.Errorf("--help does not show %s", key)
		}
	}
	for _, key := range config.Keys(Config{}) {
		env := config.EnvName(prefix, key)
		if seen[env] || strings.HasSuffix(env, "_PORT") || strings.HasSuffix(env, "_SERVICE_HOST") {
			t.Errorf("%s is another key's, or may be injected", env)
		}
		seen[env] = true
	}
	for flag, key := range flags {
		if !strings.Contains(help, "--"+flag+" ") || !seen[config.EnvName(prefix, key)] {
			t.Errorf("--help does not show --%s, or it sets no key", flag)
		}
	}
	for _, line := range strings.Split(help, "\n") {
		if len(line) > 100 {
			t.Errorf("too long for a terminal: %s", line)
		}
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
	want.Issuers, want.AuthorityKeys = []config.Issuer{config.NewIssuer("", "")}, []string{}
	want.Issuers[0].Audiences, want.Routes, want.Identity = []string{}, []Route{}, []Identity{}
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
	base := []string{
		"serve", "--authority", "http://127.0.0.1:1", "--upstream", "http://127.0.0.1:1", "--issuer", "i",
		"--jwks-uri", "http://127.0.0.1:1", "--state-file", filepath.Join(t.TempDir(), "state"),
	}
	for want, args := range map[string][]string{
		"config: listen: " + busy + " is already in use\n":       {"--listen", busy},
		"config: check_listen: " + busy + " is already in use\n": {"--listen", "127.0.0.1:0", "--check-listen", busy},
		"config: extauthz_listen: " + busy + " is already in use\n": {
			"--listen", "127.0.0.1:0", "--check-listen", "127.0.0.1:0", "--extauthz-listen", busy,
		},
	} {
		if code, _, stderr := command(t.Context(), nil, append(base, args...)...); code != 1 || stderr != want {
			t.Errorf("exit %d: %s want %s", code, stderr, want)
		}
	}
}
