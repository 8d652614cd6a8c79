package config

import (
	"io"
	"log/slog"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// maxLifetime keeps sums of lifetimes and margins far from overflow.
const maxLifetime = 10 * 365 * 24 * time.Hour

// Issuer is one token issuer, and what its tokens must look like. An authority and
// its sidecars should agree on it: a token that one of them reads and the other
// refuses can't be revoked.
type Issuer struct {
	// Issuer is the exact iss of its tokens.
	Issuer string `yaml:"issuer"`
	// JWKSURI is where the issuer publishes its keys. They are fetched at the start
	// and now and then; the last good ones are kept while it is out of reach.
	JWKSURI string `yaml:"jwks_uri"`
	// SecretFile, in place of JWKSURI, holds the secret of an issuer that signs with
	// HS256, HS384 or HS512, which Algorithms must name then. It is read at the start;
	// one line end behind the secret doesn't count. Whoever has the secret can sign
	// tokens, so every sidecar that has it can.
	SecretFile string `yaml:"secret_file"`
	// Algorithms pins the signature algorithms (RFC 8725). Default [RS256, ES256].
	// Pin to what the issuer really uses.
	Algorithms []string `yaml:"algorithms"`
	// Audiences, where given, are the values of which aud must hold one. Default
	// none: any audience, so every API of the issuer accepts every other's tokens.
	Audiences []string `yaml:"audiences"`
	// MaxTokenLifetime is the longest that a token of this issuer is valid; one
	// with a longer life is refused. It bounds how long a revocation is kept, so a
	// larger value costs memory. Default 24h.
	MaxTokenLifetime time.Duration `yaml:"max_token_lifetime"`
	// Leeway is granted to exp, nbf and iat for clocks that disagree. Default 30s,
	// at most 2m: entries outlive their tokens by little more.
	Leeway time.Duration `yaml:"leeway"`
}

// NewIssuer returns an issuer with the defaults.
func NewIssuer(issuer, jwksURI string) Issuer {
	i := Issuer{Issuer: issuer, JWKSURI: jwksURI}
	i.Default()
	return i
}

// Default sets the defaults.
func (i *Issuer) Default() {
	i.Algorithms = []string{"RS256", "ES256"}
	i.MaxTokenLifetime = token.DefaultMaxLifetime
	i.Leeway = token.DefaultLeeway
}

// Check reports the first thing that is wrong with an issuer at the path key.
func (i *Issuer) Check(key string) error {
	if len(i.Algorithms) == 0 {
		return Errorf(key+".algorithms", "is required")
	}
	algorithms, keys := token.Algorithms(), Endpoint(key+".jwks_uri", i.JWKSURI)
	if i.SecretFile != "" {
		algorithms, keys = token.SecretAlgorithms(), nil
		if i.JWKSURI != "" {
			keys = Errorf(key+".secret_file", "can't be given beside jwks_uri")
		}
	}
	return Check(
		Required(key+".issuer", i.Issuer), keys,
		Each(key+".algorithms", i.Algorithms, func(key, v string) error { return OneOf(key, v, algorithms...) }),
		Each(key+".audiences", i.Audiences, Required),
		Between(key+".max_token_lifetime", i.MaxTokenLifetime, time.Second, maxLifetime),
		Between(key+".leeway", i.Leeway, time.Second, denylist.MaxLeeway),
	)
}

// Log says what is logged, to standard error.
type Log struct {
	// Level is the least that is logged: debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is text, for people, or json, for log collectors. Default text.
	Format string `yaml:"format"`
}

// DefaultLog returns the defaults.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// Check reports the first thing that is wrong with a Log at the path key.
func (l Log) Check(key string) error {
	return Check(
		OneOf(key+".level", l.Level, "debug", "info", "warn", "error"),
		OneOf(key+".format", l.Format, "text", "json"),
	)
}

// Logger makes the logger that a checked Log describes.
func (l Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // Check has seen it
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
