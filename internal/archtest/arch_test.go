package archtest

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/revcast/revcast/"

// rules say which packages of ours a package may import, and why no more. Tests
// may import what they like.
var rules = map[string]struct {
	imports []string
	why     string
}{
	"pkg/denylist":              {nil, "the leaf: vocabulary and set, for anyone's verifier"},
	"internal/wire":             {[]string{"pkg/denylist"}, "bytes know nothing of behaviour"},
	"internal/token":            {[]string{"pkg/denylist"}, "one way to read a token, for authority and verifiers"},
	"internal/token/tokentest":  {nil, "makes tokens and faulty key documents for the tests of others, and shares no code with the reader"},
	"pkg/feed":                  {[]string{"internal/wire", "pkg/denylist"}, "the receiving end advances the list and knows no tokens"},
	"pkg/verifier":              {[]string{"internal/token", "pkg/denylist"}, "freshness is in the list: a verifier never sees the feed"},
	"pkg/verifier/verifiergrpc": {[]string{"pkg/verifier"}, "a door like the middleware, apart from it so that HTTP users don't pay for gRPC"},
	"internal/broadcast":        {[]string{"internal/wire", "pkg/denylist"}, "the sending end knows no HTTP requests and no tokens"},
	"internal/client":           {[]string{"internal/token"}, "who may call: knows no HTTP and no log"},
	"internal/event":            {[]string{"internal/token", "pkg/denylist"}, "what identity providers say, as selectors: who answers them and who stores it are others"},
	"internal/authority": {[]string{"internal/client", "internal/event", "internal/token", "internal/wire", "pkg/denylist"},
		"the log is behind an interface, so that its failures can be tested"},
	"internal/sidecar":  {[]string{"pkg/denylist", "pkg/verifier", "pkg/verifier/verifiergrpc"}, "one decision, many doors: doors render, the verifier decides"},
	"internal/config":   {[]string{"internal/token", "pkg/denylist"}, "strict decoding for both commands; bounds, names and defaults come from those who apply them"},
	"internal/archtest": {nil, "looks from outside"},
	"cmd/internal/cli":  {[]string{"internal/config", "pkg/denylist"}, "what both commands' shells share"},
	"cmd/authority":     {[]string{"cmd/authority/app"}, "main calls run"},
	"cmd/sidecar":       {[]string{"cmd/sidecar/app"}, "main calls run"},
	"cmd/authority/app": {[]string{"cmd/internal/cli", "internal/authority", "internal/broadcast", "internal/client", "internal/config", "internal/event", "internal/token",
		"internal/wire", "pkg/denylist"}, "wiring"},
	"cmd/sidecar/app": {[]string{"cmd/internal/cli", "internal/config", "internal/sidecar", "internal/wire", "pkg/denylist", "pkg/feed",
		"pkg/verifier"}, "wiring"},
	"examples/quickstart": {[]string{"cmd/authority/app", "cmd/sidecar/app", "internal/config", "pkg/denylist", "pkg/feed", "pkg/verifier"},
		"everything in one process"},
	"test/harness": {nil, "starts the real binaries: it knows them as a user does"},
}

// banned names what may not be among a package's dependencies, however deep.
var banned = []struct{ pkg, dependency, why string }{
	{"pkg/denylist", "github.com/nats-io/", "importers of the set want no message broker"},
	{"pkg/denylist", "github.com/golang-jwt/", "importers of the set may have another JWT library"},
	{"pkg/denylist", "net/http", "the set does no I/O"},
	{"pkg/verifier", "github.com/nats-io/", "verifying needs no message broker"},
	{"pkg/verifier", "google.golang.org/grpc", "HTTP users don't pay for gRPC"},
	{"pkg/verifier", "github.com/prometheus/", "users choose their own metrics"},
	{"pkg/feed", "github.com/nats-io/nats-server/", "a verifier is a client"},
	{"pkg/feed", "github.com/golang-jwt/", "the feed knows no tokens"},
	{"pkg/feed", "github.com/prometheus/", "users choose their own metrics"},
	{"internal/authority", "github.com/nats-io/", "the log is behind an interface"},
	{"cmd/sidecar", "github.com/nats-io/nats-server/", "a sidecar is small"},
}

type pkg struct {
	ImportPath, Dir string
	GoFiles         []string
	Imports, Deps   []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"...")
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 { // else it holds tests alone
			all = append(all, p)
		}
	}
}

func TestImportsRunOneWay(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		rule, ok := rules[name]
		if seen[name] = true; !ok && !strings.HasPrefix(name, "test/") {
			t.Errorf("%s has no row in the rules: say what it may import, and why", name)
		}
		for _, i := range p.Imports {
			if i, ours := strings.CutPrefix(i, module); ours && ok && !slices.Contains(rule.imports, i) {
				t.Errorf("%s imports %s, and may not: %s", name, i, rule.why)
			}
		}
		for _, b := range banned {
			for _, d := range p.Deps {
				if name == b.pkg && (d == b.dependency || strings.HasPrefix(d, b.dependency) && strings.HasSuffix(b.dependency, "/")) {
					t.Errorf("%s depends on %s: %s", name, d, b.why)
				}
			}
		}
	}
	for name := range rules {
		if !seen[name] {
			t.Errorf("there is a row for %s, and no such package", name)
		}
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	for _, p := range packages(t) {
		var documented []string
		for _, f := range p.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil {
				documented = append(documented, f)
			}
		}
		if len(documented) != 1 {
			t.Errorf("%s has its doc comment in %v: one file must have it", p.ImportPath, documented)
		}
	}
}
