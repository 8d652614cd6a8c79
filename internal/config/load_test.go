package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample has a key of every kind.
type sample struct {
	Listen    string    `yaml:"listen"`
	Count     int32     `yaml:"count"`
	Verbose   bool      `yaml:"verbose"`
	Note      string    `yaml:"note"`
	Words     []string  `yaml:"words"`
	Freshness freshness `yaml:"freshness"`
	Issuers   []inlined `yaml:"issuers"`
}

type freshness struct {
	MaxStaleness time.Duration `yaml:"max_staleness"`
	OnStale      string        `yaml:"on_stale"`
}

type inlined struct {
	Issuer `yaml:",inline"`
	Claims []string `yaml:"client_claims"`
}

func (i *inlined) Default() { i.Issuer.Default(); i.Claims = []string{"client_id"} }

func newSample() sample {
	return sample{Listen: "127.0.0.1:1", Freshness: freshness{5 * time.Minute, "deny"}}
}

func TestGoodFiles(t *testing.T) {
	cfg := newSample()
	if _, err := Load(&cfg, Source{File: "testdata/good/full.yaml"}); err != nil {
		t.Fatal(err)
	}
	issuer := inlined{NewIssuer("https://idp.example", "https://idp.example/jwks"), []string{"client_id"}}
	issuer.Algorithms, issuer.Audiences, issuer.Leeway = []string{"RS256"}, []string{}, time.Minute
	want := sample{
		Listen: "127.0.0.1:8710", Count: 3, Verbose: true, Note: "two\nlines\n", Words: []string{"a", "b", "c"},
		Freshness: freshness{90 * time.Second, "allow"}, Issuers: []inlined{issuer},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	for _, name := range []string{"comment_only", "nulls"} {
		cfg := newSample()
		if _, err := Load(&cfg, Source{File: "testdata/good/" + name + ".yaml"}); err != nil {
			t.Error(err)
		}
		if !reflect.DeepEqual(cfg, newSample()) {
			t.Errorf("%s changes the defaults: %+v", name, cfg)
		}
	}
}

// Each bad file begins with the one line that it must give.
func TestBadFiles(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no bad files", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := bytes.Cut(text, []byte("\n"))
		want := strings.TrimPrefix(string(first), "# want: ")
		cfg := newSample()
		_, err = Load(&cfg, Source{File: name})
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
}

// A file that is the value of a key is not one that the configuration is read from: the
// signing key is none, which the authority writes itself.
func TestFilesOfASource(t *testing.T) {
	type keyed struct {
		KeyFile string `yaml:"key_file"`
		Note    string `yaml:"note"`
	}
	s := Source{File: "a.yaml", Prefix: "X", Env: []string{
		"X_KEY_FILE=feed.key", "X_KEY_FILE_FILE=where", "X_NOTE_FILE=note", "X_NOTE=x", "X_OTHER_FILE=other", "Y_NOTE_FILE=y", "X_NOTE_FILE=",
	}}
	if got, want := s.Files(keyed{}), []string{"a.yaml", "where", "note"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#"), maxText+1), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.yaml")
	for file, want := range map[string]string{
		missing: "config: --config: " + missing + ": no such file or directory",
		dir:     "config: --config: " + dir + ": is a directory",
		big:     "config: --config: " + big + ": larger than 1048576 bytes",
	} {
		cfg := newSample()
		if _, err := Load(&cfg, Source{File: file}); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestLaterSourcesWin(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(secret, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := newSample()
	ignored, err := Load(&cfg, Source{
		File: "testdata/good/full.yaml", Prefix: "SIDECAR",
		Env: []string{
			"SIDECAR_LISTEN=env:1", "SIDECAR_COUNT=7", "SIDECAR_VERBOSE=false", "SIDECAR_NOTE_FILE=" + secret,
			"SIDECAR_FRESHNESS={max_staleness: 1h, on_stale: deny}", "SIDECAR_FRESHNESS_MAX_STALENESS=2m",
			"SIDECAR_ISSUERS=[{issuer: a}, {issuer: b, leeway: 5s}]", "SIDECAR_WORDS=",
			"SIDECAR_SERVICE_HOST=10.0.0.1", "SIDECAR_PORT=tcp://10.0.0.1:8710", "SIDECAR_PORT_8710_TCP_ADDR=10.0.0.1",
			"SIDECAR_CUONT=1", "OTHER_COUNT=9", "SIDECARS=1",
		},
		Flags: []Flag{{"--listen", "listen", "flag:1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ignored, []string{"SIDECAR_CUONT"}) {
		t.Errorf("ignored: %v", ignored)
	}
	if cfg.Listen != "flag:1" || cfg.Count != 7 || cfg.Verbose || cfg.Note != "from a file" || len(cfg.Words) != 3 {
		t.Errorf("got %+v", cfg)
	}
	if cfg.Freshness != (freshness{2 * time.Minute, "deny"}) {
		t.Errorf("freshness: %+v", cfg.Freshness)
	}
	if len(cfg.Issuers) != 2 || cfg.Issuers[0].Leeway != 30*time.Second || cfg.Issuers[1].Leeway != 5*time.Second {
		t.Errorf("issuers: %+v", cfg.Issuers)
	}
}

func TestBadEnvironmentAndFlags(t *testing.T) {
	for _, c := range []struct {
		env  string
		flag Flag
		want string
	}{
		{env: "X_COUNT=many", want: `config: X_COUNT: must be a whole number, not "many"`},
		{env: "X_VERBOSE=maybe", want: `config: X_VERBOSE: must be true or false, not "maybe"`},
		{env: "X_FRESHNESS_MAX_STALENESS=5", want: `config: X_FRESHNESS_MAX_STALENESS: must be a duration such as 90s, 5m or 24h, not "5"`},
		{env: "X_WORDS=a", want: `config: X_WORDS: must be a list, not text`},
		{env: "X_ISSUERS=[{isuer: a}]", want: `config: unknown key "X_ISSUERS[0].isuer" (did you mean "X_ISSUERS[0].issuer"?)`},
		{env: "X_NOTE_FILE=/nowhere", want: `config: X_NOTE_FILE: /nowhere: no such file or directory`},
		{flag: Flag{"--max", "freshness.max_staleness", "x"}, want: `config: --max: must be a duration such as 90s, 5m or 24h, not "x"`},
	} {
		src := Source{Prefix: "X", Env: []string{c.env}}
		if c.flag.Name != "" {
			src.Flags = []Flag{c.flag}
		}
		cfg := newSample()
		if _, err := Load(&cfg, src); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	cfg := newSample()
	_, err := Load(&cfg, Source{Prefix: "X", Env: []string{"X_NOTE=a", "X_NOTE_FILE=b"}})
	if err == nil || err.Error() != "config: X_NOTE_FILE: X_NOTE is set as well" {
		t.Error(err)
	}
}

func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(seeds) < 10 {
		f.Fatal("the seeds are gone", err)
	}
	for _, name := range seeds {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg := newSample()
		err := decodeText("f.yaml", "", text, reflect.ValueOf(&cfg).Elem())
		if err == nil {
			return
		}
		if line := err.Error(); !strings.HasPrefix(line, "config: ") || strings.ContainsAny(line, "\r\n") || len(line) > 1000 {
			t.Errorf("not one short line: %q", line)
		}
	})
}
