package verifier

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// DefaultCacheSize is how many tokens the signature cache holds.
const DefaultCacheSize = 100_000

// StalePolicy says what happens to a token that is not revoked as far as a stale
// list knows.
type StalePolicy uint8

const (
	Deny  StalePolicy = iota // it is unavailable: nobody knows
	Allow                    // it is allowed
)

// Config is what a [Verifier] needs.
type Config struct {
	// Denylist says what is revoked, and how fresh it is: see [denylist.MaxStaleness].
	Denylist *denylist.List
	// Issuers are those whose tokens are accepted. At least one.
	Issuers []Issuer
	// OnStale says what to do when the list is stale. A list that is still loading
	// allows nothing either way.
	OnStale StalePolicy
	// OutliveExpiry lets requests go on that are open when their token expires. Otherwise
	// they are ended then, as they are when it is revoked: see [Verifier.Hold].
	OutliveExpiry bool
	// CacheSize bounds the signature cache, in tokens of up to 1 KiB; a longer one
	// counts once for each KiB. Such a token takes about 2 KiB of memory, and 3 where
	// somebody asks for its [Claims.Raw], so a full cache of the default size 200 to 300
	// MB; it fills with validly signed tokens only. 0: [DefaultCacheSize].
	CacheSize int
	// HTTPClient fetches the issuers' keys; only its Transport is used. nil: one of
	// the verifier's own.
	HTTPClient *http.Client
	// Logger gets a line for each refusal. nil: [slog.Default].
	Logger *slog.Logger
	// KeysFile keeps the last good key documents over restarts, so that one is possible
	// while an issuer is away; "" is none. One verifier uses it. Whoever can write it
	// can have tokens of his own accepted.
	KeysFile string
	// Now is the clock by which tokens and the list's age are judged. nil: time.Now.
	Now func() time.Time
}

// Issuer says which tokens of one issuer are accepted.
type Issuer struct {
	// Issuer is the exact iss of its tokens.
	Issuer string
	// JWKSURI is where its keys are, an absolute http or https URL. They are fetched
	// at once, every five minutes, and when a token names an unknown key. No failure
	// takes away those known before.
	JWKSURI string
	// Secret, in place of JWKSURI, is what it signs with by HMAC: 32 bytes or more for
	// HS256, 48 for HS384, 64 for HS512. Whoever has it can sign tokens.
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

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Denylist == nil:
		return c, errors.New("no list: Denylist is missing")
	case c.OnStale != Deny && c.OnStale != Allow:
		return c, errors.New("bad policy: OnStale must be Deny or Allow")
	case c.CacheSize < 0:
		return c, errors.New("CacheSize must not be negative")
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultCacheSize
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func (c Config) reader() (*token.Reader, error) {
	issuers := make([]token.Issuer, len(c.Issuers))
	for n, i := range c.Issuers {
		issuers[n] = token.Issuer{
			Issuer: i.Issuer, JWKSURI: i.JWKSURI, Secret: i.Secret, Algorithms: i.Algorithms, Audiences: i.Audiences,
			MaxLifetime: i.MaxLifetime, Leeway: i.Leeway,
		}
	}
	r, err := token.NewReader(issuers, c.HTTPClient, c.Logger, token.Persist(c.KeysFile))
	if err != nil {
		return nil, fmt.Errorf("verifier.Config: %w", err)
	}
	return r, nil
}
