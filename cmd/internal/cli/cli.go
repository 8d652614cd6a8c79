package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/revcast/revcast/internal/config"
)

// Process is what a command is given of the process that runs it, so that a test
// can run it in its own.
type Process struct {
	Name           string // of the binary
	Args           []string
	Env            []string
	Stdout, Stderr io.Writer
}

// Main runs a binary until it ends, or SIGTERM or SIGINT ends it, and returns the
// exit code. A second signal kills.
func Main(name string, args []string, run func(context.Context, Process) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, Process{name, args, os.Environ(), os.Stdout, os.Stderr})
}

// UsageError is a command line that can't be read.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

// Exit says what went wrong, if anything did, and returns the exit code.
func (p Process) Exit(err error) int {
	if err == nil {
		return 0
	}
	line := strings.Join(strings.Fields(err.Error()), " ")
	if _, ok := errors.AsType[*UsageError](err); ok {
		fmt.Fprintf(p.Stderr, "%s: %s (see %s --help)\n", p.Name, line, p.Name)
		return 2
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		fmt.Fprintln(p.Stderr, line)
		return 1
	}
	fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, line)
	return 1
}

// Command is what a binary can do.
type Command struct {
	Name string
	Run  func(ctx context.Context, p Process, args []string) error
}

// Dispatch runs the command that the arguments name, or shows help or version.
func (p Process) Dispatch(ctx context.Context, help string, commands ...Command) int {
	if len(p.Args) == 0 {
		return p.Exit(&UsageError{"a command is missing"})
	}
	for _, arg := range p.Args {
		if arg == "--help" || arg == "-h" || arg == "-help" {
			fmt.Fprint(p.Stdout, help)
			return 0
		}
	}
	switch name := p.Args[0]; name {
	case "help":
		fmt.Fprint(p.Stdout, help)
		return 0
	case "--version", "-version", "version":
		fmt.Fprintf(p.Stdout, "%s %s\n", p.Name, Version())
		return 0
	default:
		for _, c := range commands {
			if c.Name == name {
				return p.Exit(c.Run(ctx, p, p.Args[1:]))
			}
		}
		return p.Exit(&UsageError{fmt.Sprintf("unknown command %q", name)})
	}
}

// Flags are the flags of a command: some set keys of its configuration, others are
// its own.
type Flags struct {
	set  *flag.FlagSet
	keys map[string]string // configuration keys by flag name
}

// NewFlags makes flags. keys names, by flag, the configuration key that it sets.
func NewFlags(keys map[string]string) *Flags {
	f := &Flags{flag.NewFlagSet("", flag.ContinueOnError), keys}
	f.set.SetOutput(io.Discard)
	for name := range keys {
		f.set.String(name, "", "")
	}
	return f
}

// Text adds a flag of the command's own.
func (f *Flags) Text(name string) *string { return f.set.String(name, "", "") }

// Parse reads the arguments and returns the flags that set keys, in a stable order.
// Its errors are UsageErrors.
func (f *Flags) Parse(args []string) ([]config.Flag, error) {
	if err := f.set.Parse(args); err != nil {
		return nil, &UsageError{err.Error()}
	}
	if f.set.NArg() > 0 {
		return nil, &UsageError{fmt.Sprintf("unexpected argument %q", f.set.Arg(0))}
	}
	var given []config.Flag
	f.set.Visit(func(one *flag.Flag) {
		if key, ok := f.keys[one.Name]; ok {
			given = append(given, config.Flag{Name: "--" + one.Name, Key: key, Text: one.Value.String()})
		}
	})
	return given, nil
}

// version is set by the linker for releases.
var version string

// Version returns the release, or the commit that was built, or "dev".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
