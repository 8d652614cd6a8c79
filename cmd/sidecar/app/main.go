package app

import (
	"context"
	_ "embed"
	"strings"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/config"
)

const (
	name   = "sidecar"
	prefix = "SIDECAR" // of the environment
)

//go:embed help.txt
var help string

// flags are those that set a key.
var flags = map[string]string{
	"listen": "listen", "check-listen": "check_listen", "extauthz-listen": "extauthz_listen",
	"authority": "authority", "upstream": "upstream",
	"state-file": "state_file", "keys-file": "keys_file", "max-staleness": "freshness.max_staleness", "on-stale": "freshness.on_stale",
	"log-level": "log.level", "log-format": "log.format",
}

// Main runs the sidecar binary and returns its exit code.
func Main(args []string) int { return cli.Main(name, args, run) }

func run(ctx context.Context, p cli.Process) int {
	return p.Dispatch(ctx, help, cli.Command{Name: "serve", Run: serve})
}

func serve(ctx context.Context, p cli.Process, args []string) error {
	f := cli.NewFlags(flags)
	file, issuer, jwksURI := f.Text("config"), f.Text("issuer"), f.Text("jwks-uri")
	algorithms, audience := f.Text("algorithms"), f.Text("audience")
	given, err := f.Parse(args)
	if err != nil {
		return err
	}
	cfg := NewConfig()
	ignored, err := config.Load(&cfg, config.Source{File: *file, Prefix: prefix, Env: p.Env, Flags: given})
	if err != nil {
		return err
	}
	switch {
	case *issuer != "":
		one := config.NewIssuer(*issuer, *jwksURI)
		if *algorithms != "" {
			one.Algorithms = strings.Split(*algorithms, ",")
		}
		if *audience != "" {
			one.Audiences = strings.Split(*audience, ",")
		}
		cfg.Issuers = []config.Issuer{one}
	case *jwksURI+*algorithms+*audience != "":
		return &cli.UsageError{Problem: "--jwks-uri, --algorithms and --audience need --issuer"}
	}
	if err := cfg.Log.Check("log"); err != nil {
		return err
	}
	logger := cfg.Log.Logger(p.Stderr)
	if len(ignored) > 0 {
		logger.Warn("environment variables that name no key", "names", ignored)
	}
	return Run(ctx, cfg, Options{Logger: logger})
}
