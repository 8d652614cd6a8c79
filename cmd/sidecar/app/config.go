package app

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/sidecar"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

// Config is the sidecar's configuration file. Start from [NewConfig].
type Config struct {
	// Listen is the address of the reverse proxy. Default 127.0.0.1:8710; "" in the file
	// for none, where other proxies ask. Whoever can reach the upstream past it is not
	// checked.
	Listen string `yaml:"listen"`

	// CheckListen is the address for other proxies' questions (/check), introspection by
	// local callers, health, readiness and metrics. Nobody is authenticated at it. Default
	// 127.0.0.1:8711.
	CheckListen string `yaml:"check_listen"`

	// ExtAuthzListen is the address for Envoy's external authorization over gRPC. Default
	// 127.0.0.1:8712; "" in the file for none.
	ExtAuthzListen string `yaml:"extauthz_listen"`

	// Authority is the URL of the authority; everything else about it is found there.
	// Required. Over plain http, whoever is on the path can pose as the authority,
	// unless AuthorityKeys are given.
	Authority string `yaml:"authority"`

	// AuthorityKeys pins the authority's signing keys, each the x of its discovery
	// document. Default none: those that discovery names are trusted.
	AuthorityKeys []string `yaml:"authority_keys"`

	// Upstream is the URL of the API behind the proxy: http, https, or h2c for HTTP/2
	// without TLS, as gRPC servers speak it. Its path is put before that of each request, and
	// Host is passed on as the client sent it. unix:///run/api.sock is a socket. Required
	// for the proxy.
	Upstream string `yaml:"upstream"`

	// UpstreamTimeout is how long the upstream may take to begin its answer; then the
	// client gets 504. Default 1m.
	UpstreamTimeout time.Duration `yaml:"upstream_timeout"`

	// Issuers are those whose tokens are let through. At least one.
	Issuers []config.Issuer `yaml:"issuers"`

	// Routes are paths that need less or more than a good token. Of those that match, the
	// longest counts. Default none: every path needs a good token.
	Routes []Route `yaml:"routes"`

	// Identity says which claims the API is told, in which headers. What clients send in
	// them is dropped. Default none.
	Identity []Identity `yaml:"identity"`

	// CORSPreflight lets CORS preflights through to the API: a browser sends no token with
	// them. Default false.
	CORSPreflight bool `yaml:"cors_preflight"`

	// OutliveExpiry lets requests go on that are open when their token expires. Default
	// false: they are ended then, as they are when it is revoked.
	OutliveExpiry bool `yaml:"outlive_expiry"`

	// Freshness is what to do while the authority is out of reach.
	Freshness Freshness `yaml:"freshness"`

	// StateFile keeps the list over restarts, so that one is possible while the
	// authority is away. Default ./sidecar.state; "" in the file keeps none. One
	// process uses it.
	StateFile string `yaml:"state_file"`

	// KeysFile keeps the issuers' keys over restarts, so that one is possible while an
	// issuer is away. Default ./sidecar.keys; "" in the file keeps none. One process
	// uses it, and nobody else may write it: he could make tokens.
	KeysFile string `yaml:"keys_file"`

	// CacheSize is how many verified signatures are remembered, at about 2 KiB each, or 3
	// where there is an identity to tell. Default 100000. More saves processor time, and nothing else depends on it.
	CacheSize int `yaml:"cache_size"`

	// Log says what is logged.
	Log config.Log `yaml:"log"`
}

// Freshness says how old the list may be, and what happens when it is older.
type Freshness struct {
	// MaxStaleness is how long after the last contact the list still counts. Default
	// 5m. Shorter: a short outage is felt sooner. Longer: a token revoked during an
	// outage is accepted for longer.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// OnStale is deny (503 until the authority is back) or allow (tokens pass unless
	// the old list denies them). Default deny. A list that was never loaded allows
	// nothing either way.
	OnStale string `yaml:"on_stale"`
}

// Route is what requests for some paths need.
type Route struct {
	// Path is a path, such as /status, or a path and all below it, such as /admin/*.
	Path string `yaml:"path"`
	// Public lets anyone through. No token is looked at, and none is passed on.
	Public bool `yaml:"public"`
	// Audiences, where given, are values of which aud must hold one, besides one of the
	// issuer's.
	Audiences []string `yaml:"audiences"`
	// Scopes must all be among the token's.
	Scopes []string `yaml:"scopes"`
	// OnStale is deny or allow in place of freshness.on_stale. Default: that one.
	OnStale string `yaml:"on_stale"`
}

func (r Route) check(key string) error {
	if err := config.Check(
		config.Required(key+".path", r.Path), config.Each(key+".audiences", r.Audiences, config.Required),
		config.Each(key+".scopes", r.Scopes, config.Required),
	); err != nil {
		return err
	}
	if r.OnStale != "" {
		if err := config.OneOf(key+".on_stale", r.OnStale, "deny", "allow"); err != nil {
			return err
		}
	}
	if r.Public && (len(r.Audiences) > 0 || len(r.Scopes) > 0 || r.OnStale != "") {
		return config.Errorf(key, "is public, so nothing else can be asked")
	}
	return nil
}

// Identity is a claim that the API is told.
type Identity struct {
	Claim  string `yaml:"claim"`
	Header string `yaml:"header"`
}

// routes makes the sidecar's of the configured ones; v decides on them.
func (c Config) routes(v *verifier.Verifier) (all []sidecar.Route) {
	for _, r := range c.Routes {
		one := sidecar.Route{Path: r.Path, Public: r.Public}
		if v != nil {
			one.Decider = v.Requiring(r.requirement())
		}
		all = append(all, one)
	}
	return all
}

func (c Config) identity() (all []sidecar.Identity) {
	for _, i := range c.Identity {
		all = append(all, sidecar.Identity(i))
	}
	return all
}

func (r Route) requirement() verifier.Requirement {
	need := verifier.Requirement{Audiences: r.Audiences, Scopes: r.Scopes}
	if r.OnStale != "" {
		need.OnStale = new(policy(r.OnStale))
	}
	return need
}

func policy(onStale string) verifier.StalePolicy {
	if onStale == "allow" {
		return verifier.Allow
	}
	return verifier.Deny
}

// maxCacheSize: room for each is there from the start, if not for what is remembered.
const maxCacheSize = 100_000_000

const maxStaleness = 7 * 24 * time.Hour

// NewConfig returns the defaults: all but the authority, the upstream and the
// issuers.
func NewConfig() Config {
	return Config{
		Listen: "127.0.0.1:8710", CheckListen: "127.0.0.1:8711", ExtAuthzListen: "127.0.0.1:8712",
		UpstreamTimeout: sidecar.DefaultUpstreamTimeout,
		Freshness:       Freshness{denylist.DefaultMaxStaleness, "deny"},
		StateFile:       "./sidecar.state", KeysFile: "./sidecar.keys", CacheSize: verifier.DefaultCacheSize,
		Log: config.DefaultLog(),
	}
}

// check reports the first thing that is wrong with a configuration.
func (c Config) check() error {
	if err := config.Check(
		config.Address("check_listen", c.CheckListen), config.HTTPURL("authority", c.Authority), c.checkProxy(),
		config.Between("upstream_timeout", c.UpstreamTimeout, time.Millisecond, 24*time.Hour),
		config.Between("freshness.max_staleness", c.Freshness.MaxStaleness, time.Second, maxStaleness),
		config.OneOf("freshness.on_stale", c.Freshness.OnStale, "deny", "allow"),
		config.Each("authority_keys", c.AuthorityKeys, checkKey), c.Log.Check("log"),
	); err != nil {
		return err
	}
	if c.ExtAuthzListen != "" {
		if err := config.Address("extauthz_listen", c.ExtAuthzListen); err != nil {
			return err
		}
	}
	for i, r := range c.Routes {
		if err := r.check(fmt.Sprintf("routes[%d]", i)); err != nil {
			return err
		}
	}
	if wrong, ok := errors.AsType[*sidecar.ConfigError](sidecar.Check(c.routes(nil), c.identity())); ok {
		return config.Errorf(wrong.Key, "%s", wrong.Problem)
	}
	if c.CacheSize < 1 || c.CacheSize > maxCacheSize {
		return config.Errorf("cache_size", "must be between 1 and %d, not %d", maxCacheSize, c.CacheSize)
	}
	if len(c.Issuers) == 0 {
		return config.Errorf("issuers", "at least one is required")
	}
	for i, issuer := range c.Issuers {
		key := fmt.Sprintf("issuers[%d]", i)
		if err := issuer.Check(key); err != nil {
			return err
		}
		if slices.ContainsFunc(c.Issuers[:i], func(o config.Issuer) bool { return o.Issuer == issuer.Issuer }) {
			return config.Errorf(key+".issuer", "%q is there twice", issuer.Issuer)
		}
	}
	if c.KeysFile != "" && c.StateFile != "" && filepath.Clean(c.KeysFile) == filepath.Clean(c.StateFile) {
		return config.Errorf("keys_file", "%s is the state_file already", c.KeysFile)
	}
	return config.Check(inDirectory("state_file", c.StateFile), inDirectory("keys_file", c.KeysFile))
}

// inDirectory asks for a file, there or not, in a directory that is.
func inDirectory(key, file string) error {
	dir := filepath.Dir(file)
	if info, err := os.Stat(dir); file != "" && (err != nil || !info.IsDir()) {
		return config.Errorf(key, "%s is not a directory", dir)
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return config.Errorf(key, "%s is a directory", file)
	}
	return nil
}

// checkProxy asks for an address and an upstream, or neither.
func (c Config) checkProxy() error {
	switch {
	case c.Listen != "":
		return config.Check(config.Address("listen", c.Listen), checkUpstream(c.Upstream))
	case c.Upstream != "":
		return config.Errorf("listen", `is "", so nothing leads to the upstream: leave one of them out`)
	}
	return nil
}

// checkUpstream asks for an HTTP URL, or one that is read as such.
func checkUpstream(upstream string) error {
	if socket, ok := strings.CutPrefix(upstream, "unix://"); ok {
		if !filepath.IsAbs(socket) || strings.ContainsAny(socket, "?#%") {
			return config.Errorf("upstream", "must be unix:// and the absolute path of a socket, such as unix:///run/api.sock, not %q", upstream)
		}
		return nil
	}
	if rest, ok := strings.CutPrefix(upstream, "h2c://"); ok {
		upstream = "http://" + rest
	}
	if err := config.HTTPURL("upstream", upstream); err != nil {
		return err
	}
	if u, err := url.Parse(upstream); err == nil && u.Port() != "" {
		if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
			return config.Errorf("upstream", "%s is not a port", u.Port())
		}
	}
	return nil
}

func checkKey(key, x string) error {
	if _, err := wire.ParseKey(x); err != nil {
		return config.Errorf(key, "%v", err)
	}
	return nil
}

// keys are the pinned keys of a checked configuration.
func (c Config) keys() (keys []ed25519.PublicKey) {
	for _, x := range c.AuthorityKeys {
		if key, err := wire.ParseKey(x); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}
