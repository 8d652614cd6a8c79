package token

import (
	"bytes"
	"fmt"
	"net/url"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Defaults of an [Issuer].
const (
	DefaultMaxLifetime = 24 * time.Hour
	DefaultLeeway      = 30 * time.Second
)

// Issuer says which tokens of one issuer are accepted.
type Issuer struct {
	// Issuer is the exact iss of its tokens.
	Issuer string
	// JWKSURI is where its keys are, an absolute http or https URL.
	JWKSURI string
	// JWKS are its keys themselves, in place of JWKSURI.
	JWKS []byte
	// Secret, in place of both, is what it signs with by HMAC: as long as the longest
	// of Algorithms' hashes, or longer. Whoever has it can sign tokens.
	Secret []byte
	// Algorithms are the accepted signature algorithms: RS256 to RS512, PS256 to
	// PS512, ES256 to ES512, EdDSA; with a Secret, HS256 to HS512 and no other. At
	// least one.
	Algorithms []string
	// Audiences: a token must be for one of them. Empty: for anyone.
	Audiences []string
	// MaxLifetime is the longest a token may live, from iat to exp. A revocation is
	// kept no longer, so a token that lives longer is refused. 0: 24 hours.
	MaxLifetime time.Duration
	// Leeway is how far the issuer's clock may be off when exp, nbf and iat are
	// read. 0: 30 seconds; at most [denylist.MaxLeeway].
	Leeway time.Duration
}

// ConfigError is a mistake in the configuration of an issuer.
type ConfigError struct {
	Index   int    // of the issuer
	Field   string // as in [Issuer]
	Problem string // reads on from the field's name
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("Issuers[%d].%s %s", e.Index, e.Field, e.Problem)
}

// check returns the issuer with defaults filled in.
func (i Issuer) check(index int) (Issuer, error) {
	bad := func(field, problem string, args ...any) (Issuer, error) {
		return Issuer{}, &ConfigError{index, field, fmt.Sprintf(problem, args...)}
	}
	if i.Issuer == "" {
		return bad("Issuer", "is missing")
	}
	u, err := url.Parse(i.JWKSURI)
	switch {
	case i.Secret != nil && (i.JWKSURI != "" || i.JWKS != nil):
		return bad("Secret", "can't be given beside JWKSURI or JWKS")
	case i.Secret != nil:
	case i.JWKSURI != "" && i.JWKS != nil:
		return bad("JWKS", "can't be given beside JWKSURI")
	case i.JWKS != nil:
		if _, err := parseJWKS(i.JWKS, nil); err != nil {
			return bad("JWKS", "is of no use: %s", err)
		}
	case i.JWKSURI == "":
		return bad("JWKSURI", "is missing")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return bad("JWKSURI", "must be an absolute http or https URL")
	case u.User != nil:
		return bad("JWKSURI", "must not hold credentials")
	}
	if len(i.Algorithms) == 0 {
		return bad("Algorithms", "must name at least one of %s", algorithmNames())
	}
	if i.Secret != nil {
		if err := CheckSecret(i.Secret, i.Algorithms); err != nil {
			return bad("Secret", "%s", err)
		}
	} else {
		for _, name := range i.Algorithms {
			if secretAlgorithms[name] != nil {
				return bad("Algorithms", "can't hold %s: whoever verifies with a shared secret can also sign with it", name)
			}
			if _, ok := algorithms[name]; !ok {
				return bad("Algorithms", "can't hold %q: it must be one of %s", name, algorithmNames())
			}
		}
	}
	for _, audience := range i.Audiences {
		if audience == "" {
			return bad("Audiences", "can't hold an empty string")
		}
	}
	i.Secret = bytes.Clone(i.Secret)
	if i.MaxLifetime == 0 {
		i.MaxLifetime = DefaultMaxLifetime
	}
	if i.MaxLifetime < 0 {
		return bad("MaxLifetime", "must be positive")
	}
	if i.Leeway == 0 {
		i.Leeway = DefaultLeeway
	}
	if i.Leeway < 0 || i.Leeway > denylist.MaxLeeway {
		return bad("Leeway", "must lie between 0 and %s", denylist.MaxLeeway)
	}
	return i, nil
}
