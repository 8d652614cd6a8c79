package app

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/config"
)

const (
	name   = "authority"
	prefix = "AUTHORITY" // of the environment
)

//go:embed help.txt
var help string

// flags are those that set a key.
var flags = map[string]string{
	"listen": "listen", "data-dir": "data_dir", "nats-listen": "nats.listen", "nats-url": "nats.url",
	"log-level": "log.level", "log-format": "log.format",
}

// Main runs the authority binary and returns its exit code.
func Main(args []string) int { return cli.Main(name, args, run) }

func run(ctx context.Context, p cli.Process) int {
	return p.Dispatch(ctx, help, cli.Command{Name: "serve", Run: serve}, cli.Command{Name: "client-secret", Run: clientSecret})
}

func serve(ctx context.Context, p cli.Process, args []string) error {
	f := cli.NewFlags(flags)
	file := f.Text("config")
	given, err := f.Parse(args)
	if err != nil {
		return err
	}
	source := config.Source{File: *file, Prefix: prefix, Env: p.Env, Flags: given}
	load := func() (cfg Config, ignored []string, err error) {
		cfg = NewConfig()
		ignored, err = config.Load(&cfg, source)
		return cfg, ignored, err
	}
	cfg, ignored, err := load()
	if err != nil {
		return err
	}
	if *file == "" && len(cfg.Issuers) == 0 {
		return config.Errorf("issuers", "at least one is required: name a configuration file with --config (see authority --help)")
	}
	if err := cfg.Log.Check("log"); err != nil {
		return err
	}
	logger := cfg.Log.Logger(p.Stderr)
	if len(ignored) > 0 {
		logger.Warn("environment variables that name no key", "names", ignored)
	}
	return Run(ctx, cfg, Options{
		Logger: logger, Files: source.Files(cfg),
		Reload: func() (Config, error) {
			cfg, _, err := load()
			return cfg, err
		},
	})
}

// clientSecret prints YAML, so that the second line can be pasted as it is.
func clientSecret(_ context.Context, p cli.Process, args []string) error {
	if _, err := cli.NewFlags(nil).Parse(args); err != nil {
		return err
	}
	secret, hash := client.NewSecret()
	_, err := fmt.Fprintf(p.Stdout, "# for the client; it is not kept anywhere:\nsecret: %s\n"+
		"# for the authority's configuration, under clients:\nsecret_sha256: %s\n", secret, hash)
	return err
}
