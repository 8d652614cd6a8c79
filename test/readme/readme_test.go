// Package readme checks that what README and docs/revoking.md show works.
package readme

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// blocks returns the code blocks of a language in a file.
func blocks(t *testing.T, file, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	return found
}

func run(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
}

func TestREADMEProgramCompiles(t *testing.T) {
	programs := blocks(t, "README.md", "go")
	if len(programs) == 0 {
		t.Fatal("no Go program in README")
	}
	// Inside the module, so that its imports resolve; "_" hides it from ./...
	dir, err := os.MkdirTemp(".", "_program")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(programs[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "go", "vet", "./"+dir)
	out, err := exec.Command("gofmt", "-l", dir).Output()
	if err != nil || len(out) > 0 {
		t.Errorf("gofmt would change it: %s %v", out, err)
	}
}

// What follows the program is quoted from examples, which the compiler reads.
func TestREADMEQuotesExamples(t *testing.T) {
	quotes := blocks(t, "README.md", "go")[1:]
	if len(quotes) != 1 {
		t.Fatalf("%d quotes in README", len(quotes))
	}
	for i, file := range []string{"pkg/verifier/verifiergrpc/example_test.go"} {
		example, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		quote := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(quotes[i], "\t$1")
		if !strings.Contains(string(example), quote) {
			t.Errorf("%s doesn't have this:\n%s", file, quote)
		}
	}
}

func TestREADMEConfigurationsStart(t *testing.T) {
	files := append(blocks(t, "README.md", "yaml"), blocks(t, "docs/revoking.md", "yaml")...)
	if len(files) != 3 {
		t.Fatalf("%d configurations in README and docs/revoking.md", len(files))
	}
	for i, name := range []string{"authority", "sidecar", "authority"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			binary, file := filepath.Join(dir, name), filepath.Join(dir, name+".yaml")
			run(t, "go", "build", "-o", binary, "../../cmd/"+name)
			if err := os.WriteFile(file, []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			serve := exec.CommandContext(ctx, binary, "serve", "--config", file)
			serve.Dir = dir
			prefix := strings.ToUpper(name) + "_"
			serve.Env = append(os.Environ(), prefix+"LISTEN="+free(t), prefix+"CHECK_LISTEN="+free(t), prefix+"NATS_LISTEN="+free(t))
			out, err := serve.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := serve.Start(); err != nil {
				t.Fatal(err)
			}
			// It says that it listens, or why not.
			text := ""
			for b := make([]byte, 4096); !strings.Contains(text, "is listening"); {
				n, err := out.Read(b)
				if text += string(b[:n]); err != nil {
					t.Fatalf("it ended: %v\n%s", err, text)
				}
			}
			_ = serve.Process.Signal(os.Interrupt)
			go func() {
				for b := make([]byte, 4096); ; {
					if _, err := out.Read(b); err != nil {
						return
					}
				}
			}()
			if err := serve.Wait(); err != nil {
				t.Errorf("after SIGINT: %v", err)
			}
		})
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
