package app

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/authority"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// Config is the authority's configuration file. Start from [NewConfig].
type Config struct {
	// Listen is the address of the HTTP face. Default 127.0.0.1:8700: behind a
	// server that ends TLS. Port 0 lets the system choose.
	Listen string `yaml:"listen"`

	// PublicURL is what clients call the authority by, such as https://revoke.example:
	// the issuer in its metadata, and the audience of what is signed for it. Default: none.
	// Then only callers on the machine itself get metadata, and neither private_key_jwt nor
	// global token revocation works.
	PublicURL string `yaml:"public_url"`

	// TLS ends TLS in the authority itself. Default: none, behind a server that does.
	TLS TLS `yaml:"tls"`

	// DataDir holds what must survive: the log (embedded NATS) and the signing key.
	// Default ./data. Revocations are as durable as its disk. One process uses it.
	DataDir string `yaml:"data_dir"`

	// SigningKeyFile is the Ed25519 key, as PKCS #8 PEM, that signs all that
	// verifiers apply. Default: feed.key in DataDir. Made on first start, where it
	// isn't there. Whoever reads it can revoke anything; whoever loses it must start a
	// new log. Authorities that share a cluster share this key.
	SigningKeyFile string `yaml:"signing_key_file"`

	// NATS is where the log lives.
	NATS NATS `yaml:"nats"`

	// Issuers are those whose tokens can be revoked. At least one.
	Issuers []Issuer `yaml:"issuers"`

	// Clients are those who may revoke. Default none: an authority that only serves
	// its log.
	Clients []Client `yaml:"clients"`

	// Transmitters are identity providers that may say that tokens are over: by security
	// events (Shared Signals), pushed to /v1/events or fetched, and by global token
	// revocation. Default none.
	Transmitters []Transmitter `yaml:"transmitters"`

	// Dialects are the revoke endpoints to serve at their own paths, by name. Default:
	// all there are.
	Dialects []string `yaml:"dialects"`

	// Mounts are more places for them: under a prefix, or at one host only.
	Mounts []Mount `yaml:"mounts"`

	// OpaqueTokens says what becomes of tokens that are no JWTs. Default: they are
	// refused (unsupported_token_type).
	OpaqueTokens OpaqueTokens `yaml:"opaque_tokens"`

	// Log says what is logged.
	Log config.Log `yaml:"log"`
}

// TLS is a certificate and who may show one. The files are read again when they change.
type TLS struct {
	// CertFile is the certificate with its chain, as PEM.
	CertFile string `yaml:"cert_file"`
	// KeyFile is its private key, as PEM.
	KeyFile string `yaml:"key_file"`
	// ClientCAFile holds the authorities whose certificates clients may show, for
	// tls_client_auth (RFC 8705). Default none: nobody is asked for one.
	ClientCAFile string `yaml:"client_ca_file"`
}

// Mount is one more place for a dialect.
type Mount struct {
	// Dialect is its name.
	Dialect string `yaml:"dialect"`
	// Host is a name, without a port: only requests to it find the dialect here.
	Host string `yaml:"host"`
	// Prefix is put before the dialect's own paths, such as /idp.
	Prefix string `yaml:"prefix"`
}

// OpaqueTokens says what becomes of tokens that are no JWTs.
type OpaqueTokens struct {
	// Issuer is the one of issuers under which they are revoked, by the SHA-256 of their
	// bytes. Nobody can tell whose they are: any client revokes any. Default none: they
	// are refused.
	Issuer string `yaml:"issuer"`
	// Lifetime is how long such a revocation is kept. Default: max_token_lifetime of the
	// issuer.
	Lifetime time.Duration `yaml:"lifetime"`
}

// NATS is either an embedded server (Listen) or a cluster elsewhere (URL).
type NATS struct {
	// Listen is where the embedded server takes verifiers, who may subscribe and do
	// nothing else. Default 127.0.0.1:4222.
	Listen string `yaml:"listen"`

	// Advertise is the host:port that verifiers are told to connect to, where it is
	// not Listen: behind a load balancer or a port mapping. Default Listen, with the
	// host that the verifier reached the authority by where Listen is 0.0.0.0 or [::].
	Advertise string `yaml:"advertise"`

	// URL is a cluster with JetStream, "nats://a:4222,nats://b:4222", instead of the
	// embedded server: more moving parts, and no single disk to lose. Its servers must
	// run with sync_interval: always. May hold user and password.
	URL string `yaml:"url"`
	// User and PasswordFile are the authority's at URL, where that holds none. The file is
	// read for each connection. Default none.
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
	// CredentialsFile is a NATS credentials file for URL. Default none.
	CredentialsFile string `yaml:"credentials_file"`
	// Replicas is how many servers of the cluster keep the log. Default 3. One means
	// one disk, and more than five mean slow answers.
	Replicas int `yaml:"replicas"`
	// VerifierURL is what verifiers are told to connect to, with a user that may only
	// subscribe to revcast.live.>. Default: URL, if the authority needs no user there.
	VerifierURL string `yaml:"verifier_url"`
	// VerifierUser and VerifierPasswordFile are that user, where VerifierURL holds none.
	// Verifiers are told within a minute when the file changes. Default none.
	VerifierUser         string `yaml:"verifier_user"`
	VerifierPasswordFile string `yaml:"verifier_password_file"`
	// MonitorURLs are the servers' monitoring addresses (http://host:8222), to ask whether
	// they fsync before they acknowledge, and are well. Default none: unproven, with a warning.
	MonitorURLs []string `yaml:"monitor_urls"`

	// MaxBytes bounds the log on disk. Default 4 GiB, some ten million revocations.
	// A full log refuses revocations (503) rather than forget one.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Issuer is one token issuer.
type Issuer struct {
	config.Issuer `yaml:",inline"`

	// ClientClaims say whose a token is: the first that it has names the client.
	// Default [client_id, azp].
	ClientClaims []string `yaml:"client_claims"`

	// GrantClaims link a refresh token that is a JWT to its access tokens: revoking it
	// revokes those of the same client that share the first of them that it has. Default
	// [sid].
	GrantClaims []string `yaml:"grant_claims"`

	// ClockSkew is added to our clock where everything issued so far is revoked. With
	// less than the issuer's clock is ahead, tokens of the last moments escape; with
	// more, a user who signs in again within it is refused. Default 0s: for clocks that
	// are kept in step. See revcast_issuer_clock_ahead_seconds.
	ClockSkew time.Duration `yaml:"clock_skew"`

	// TokensCarrySID says that access tokens carry the sid of their session. Then the end
	// of a session ends its tokens; otherwise it ends all of the user's. Default false.
	TokensCarrySID bool `yaml:"tokens_carry_sid"`

	// LogoutAudiences are the client ids whose OpenID Connect logout tokens are taken at
	// /backchannel-logout. Default none: they are refused.
	LogoutAudiences []string `yaml:"logout_audiences"`

	// Relay puts the authority in front of the issuer's own revocation endpoint. Default
	// none.
	Relay Relay `yaml:"relay"`
}

// Relay sends revoke requests on to the issuer, who authenticates the client, and
// revokes what the issuer has revoked.
type Relay struct {
	// RevocationEndpoint is the issuer's.
	RevocationEndpoint string `yaml:"revocation_endpoint"`
	// LocalFirst revokes before the issuer is asked, so that it works while the issuer is
	// down. It takes clients that are configured here. Default false: then it is 503.
	LocalFirst bool `yaml:"local_first"`
	// OverruleUnsupported revokes a JWT though the issuer answers unsupported_token_type.
	// Only for an issuer that authenticates the client before it says so. Default false.
	OverruleUnsupported bool `yaml:"overrule_unsupported"`
}

// NewIssuer returns an issuer with the defaults.
func NewIssuer(issuer, jwksURI string) Issuer {
	i := Issuer{Issuer: config.Issuer{Issuer: issuer, JWKSURI: jwksURI}}
	i.Default()
	return i
}

// Default sets the defaults.
func (i *Issuer) Default() {
	i.Issuer.Default()
	i.ClientClaims = []string{"client_id", "azp"}
	i.GrantClaims = []string{"sid"}
}

// Client is who may revoke.
type Client struct {
	// ID is its client_id.
	ID string `yaml:"id"`
	// SecretSHA256 is the hexadecimal SHA-256 of its secret. `authority client-secret`
	// makes both; a secret that a person made up is too weak for a plain hash. None
	// for a public client.
	SecretSHA256 string `yaml:"secret_sha256"`
	// Auth are the ways it may authenticate: client_secret_basic, client_secret_post,
	// private_key_jwt, tls_client_auth, or none for a public client. Default the first
	// two.
	Auth []string `yaml:"auth"`
	// JWKSURI is where its public keys are, for private_key_jwt.
	JWKSURI string `yaml:"jwks_uri"`
	// JWKSFile holds them instead, as a JSON Web Key Set.
	JWKSFile string `yaml:"jwks_file"`
	// Algorithms pins those of its assertions. Default [RS256, ES256, PS256, EdDSA].
	Algorithms []string `yaml:"algorithms"`
	// What its certificate must hold, for tls_client_auth: one of these (RFC 8705 section
	// 2.1.2).
	TLSSubjectDN string `yaml:"tls_client_auth_subject_dn"`
	TLSSANDNS    string `yaml:"tls_client_auth_san_dns"`
	TLSSANURI    string `yaml:"tls_client_auth_san_uri"`
	TLSSANIP     string `yaml:"tls_client_auth_san_ip"`
	TLSSANEmail  string `yaml:"tls_client_auth_san_email"`
	// Revoke is what it may revoke: own (tokens that belong to it), subject, session,
	// client, issuer, any. Default [own]. Each of the others reaches tokens of other
	// clients.
	Revoke []string `yaml:"revoke"`
	// AllowedOrigins are the web pages that may call from a browser (CORS), such as
	// https://app.example. Default none.
	AllowedOrigins []string `yaml:"allowed_origins"`
	// Rate is how many requests a second it may make; a burst of two seconds' worth is
	// let through. Default 1000.
	Rate int `yaml:"rate"`
	// MaxEntries is how many revocations of its making may be live at once. Default
	// 2000000.
	MaxEntries int64 `yaml:"max_entries"`
}

// Transmitter is an identity provider that sends security events.
type Transmitter struct {
	// Issuer is the exact iss of what it signs.
	Issuer string `yaml:"issuer"`
	// JWKSURI is where its keys are.
	JWKSURI string `yaml:"jwks_uri"`
	// Algorithms pins its signature algorithms. Default [RS256, ES256].
	Algorithms []string `yaml:"algorithms"`
	// Audiences are what its events call this authority by: one of them must be in aud.
	Audiences []string `yaml:"audiences"`
	// Issuers are those of issuers about whose tokens it may speak. A subject that names
	// none is of the first. Default: its own.
	Issuers []string `yaml:"issuers"`
	// PushTokenSHA256 is the hexadecimal SHA-256 of the bearer token that it shows when
	// it pushes. Default none: its signature is enough.
	PushTokenSHA256 string `yaml:"push_token_sha256"`
	// PollURL is where its events are fetched (RFC 8936). Default none: it pushes.
	PollURL string `yaml:"poll_url"`
	// PollTokenFile holds the bearer token to show there. Default none.
	PollTokenFile string `yaml:"poll_token_file"`
}

// Default sets the defaults.
func (t *Transmitter) Default() { t.Algorithms = []string{"RS256", "ES256"} }

const (
	defaultListen     = "127.0.0.1:8700"
	defaultNATSListen = "127.0.0.1:4222"
	defaultDataDir    = "data"
	defaultReplicas   = 3
	defaultMaxBytes   = 4 << 30
	minBytes          = 16 << 20
)

// NewConfig returns the defaults: all but the issuers.
func NewConfig() Config {
	return Config{
		Listen: defaultListen, DataDir: defaultDataDir,
		NATS: NATS{Replicas: defaultReplicas, MaxBytes: defaultMaxBytes},
		Log:  config.DefaultLog(),
	}
}

// complete fills in what depends on other keys.
func (c Config) complete() Config {
	if c.SigningKeyFile == "" {
		c.SigningKeyFile = filepath.Join(c.DataDir, "feed.key")
	}
	if c.NATS.URL == "" && c.NATS.Listen == "" {
		c.NATS.Listen = defaultNATSListen
	}
	c.Transmitters = slices.Clone(c.Transmitters)
	for i, t := range c.Transmitters {
		if len(t.Issuers) == 0 {
			c.Transmitters[i].Issuers = []string{t.Issuer}
		}
	}
	return c
}

// storeDir is where the embedded server keeps the log.
func (c Config) storeDir() string { return filepath.Join(c.DataDir, "jetstream") }

// audiences are what clients may sign assertions for: the authority, and its
// endpoints.
func (c Config) audiences() (all []string) {
	if c.PublicURL == "" {
		return nil
	}
	all = []string{c.PublicURL}
	for _, path := range authority.Endpoints() {
		all = append(all, c.PublicURL+path)
	}
	return all
}

// maxLifetime is the longest that a token of any issuer lives.
func (c Config) maxLifetime() (longest time.Duration) {
	for _, i := range c.Issuers {
		longest = max(longest, i.MaxTokenLifetime)
	}
	return longest
}

// check reports the first thing that is wrong with a complete configuration,
// without a look at disk or network. Clients and dialects are checked by package
// authority.
func (c Config) check() error {
	if err := config.Check(
		config.Address("listen", c.Listen), config.Required("data_dir", c.DataDir), c.NATS.check(), c.Log.Check("log"),
	); err != nil {
		return err
	}
	if c.PublicURL != "" {
		if err := config.HTTPURL("public_url", c.PublicURL); err != nil {
			return err
		}
		if strings.HasSuffix(c.PublicURL, "/") {
			return config.Errorf("public_url", "must not end with a slash")
		}
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") || c.TLS.ClientCAFile != "" && c.TLS.CertFile == "" {
		return config.Errorf("tls", "needs cert_file and key_file")
	}
	for i, client := range c.Clients {
		switch key := fmt.Sprintf("clients[%d].auth", i); {
		case slices.Contains(client.Auth, "private_key_jwt") && c.PublicURL == "":
			return config.Errorf(key, "private_key_jwt needs public_url: it is what assertions are signed for")
		case slices.Contains(client.Auth, "tls_client_auth") && c.TLS.ClientCAFile == "":
			return config.Errorf(key, "tls_client_auth needs tls.client_ca_file")
		}
	}
	if len(c.Issuers) == 0 {
		return config.Errorf("issuers", "at least one is required")
	}
	for i, issuer := range c.Issuers {
		key := fmt.Sprintf("issuers[%d]", i)
		if err := config.Check(
			issuer.Check(key), config.Each(key+".client_claims", issuer.ClientClaims, config.Required),
			config.Each(key+".grant_claims", issuer.GrantClaims, config.Required),
			config.Each(key+".logout_audiences", issuer.LogoutAudiences, config.Required),
			config.Between(key+".clock_skew", issuer.ClockSkew, 0, denylist.MaxLeeway),
		); err != nil {
			return err
		}
		switch relay := issuer.Relay; {
		case relay.RevocationEndpoint != "":
			if err := config.Endpoint(key+".relay.revocation_endpoint", relay.RevocationEndpoint); err != nil {
				return err
			}
		case relay.LocalFirst || relay.OverruleUnsupported:
			return config.Errorf(key+".relay.revocation_endpoint", "is required")
		}
		if slices.ContainsFunc(c.Issuers[:i], func(o Issuer) bool { return o.Issuer.Issuer == issuer.Issuer.Issuer }) {
			return config.Errorf(key+".issuer", "%q is there twice", issuer.Issuer.Issuer)
		}
	}
	for i, t := range c.Transmitters {
		key := fmt.Sprintf("transmitters[%d]", i)
		// It has the checks of an issuer, and none of its times.
		if err := config.Check(
			config.Required(key+".issuer", t.Issuer), config.Endpoint(key+".jwks_uri", t.JWKSURI),
			config.Each(key+".algorithms", t.Algorithms, func(key, v string) error { return config.OneOf(key, v, token.Algorithms()...) }),
		); err != nil {
			return err
		}
		if len(t.Algorithms) == 0 {
			return config.Errorf(key+".algorithms", "is required")
		}
		if slices.ContainsFunc(c.Transmitters[:i], func(o Transmitter) bool { return o.Issuer == t.Issuer }) {
			return config.Errorf(key+".issuer", "%q is there twice", t.Issuer)
		}
		if t.PollURL != "" {
			if err := config.Endpoint(key+".poll_url", t.PollURL); err != nil {
				return err
			}
		} else if t.PollTokenFile != "" {
			return config.Errorf(key+".poll_token_file", "needs poll_url")
		}
	}
	return nil
}

func (n NATS) check() error {
	switch {
	case n.Listen != "" && n.URL != "":
		return config.Errorf("nats", "either listen, for the embedded server, or url, for a cluster elsewhere")
	case n.MaxBytes < minBytes:
		return config.Errorf("nats.max_bytes", "must be at least %d, not %d", minBytes, n.MaxBytes)
	case n.URL == "":
		for _, k := range [...]struct {
			key string
			set bool
		}{
			{"user", n.User != ""}, {"password_file", n.PasswordFile != ""}, {"credentials_file", n.CredentialsFile != ""},
			{"verifier_url", n.VerifierURL != ""}, {"verifier_user", n.VerifierUser != ""},
			{"verifier_password_file", n.VerifierPasswordFile != ""}, {"monitor_urls", len(n.MonitorURLs) > 0},
		} {
			if k.set {
				return config.Errorf("nats."+k.key, "is for a cluster elsewhere, and needs nats.url")
			}
		}
		if n.Advertise != "" {
			if err := config.Address("nats.advertise", n.Advertise); err != nil {
				return err
			}
		}
		return config.Address("nats.listen", n.Listen)
	case n.Replicas < 1 || n.Replicas > 5:
		return config.Errorf("nats.replicas", "must be from 1 to 5, not %d", n.Replicas)
	case n.Advertise != "":
		return config.Errorf("nats.advertise", "is for the embedded server; a cluster's is nats.verifier_url")
	}
	if n.VerifierURL == "" && (config.HasUser(n.URL) || n.User != "" || n.CredentialsFile != "") {
		// Handing our own user to verifiers would let each of them write the log.
		return config.Errorf("nats.verifier_url", "is required where the authority itself needs a user")
	}
	if n.VerifierURL != "" {
		if err := config.NATSURL("nats.verifier_url", n.VerifierURL); err != nil {
			return err
		}
	}
	if n.User != "" && n.CredentialsFile != "" {
		return config.Errorf("nats.user", "either a user or nats.credentials_file")
	}
	for _, theirs := range append(config.Users(n.VerifierURL), n.VerifierUser) {
		if theirs != "" && slices.Contains(append(config.Users(n.URL), n.User), theirs) {
			return config.Errorf("nats.verifier_user", "must not be the authority's own: each verifier could write the log")
		}
	}
	if err := config.Check(
		login("nats.", n.User, n.PasswordFile, n.URL), login("nats.verifier_", n.VerifierUser, n.VerifierPasswordFile, n.VerifierURL),
	); err != nil {
		return err
	}
	return config.Check(
		config.NATSURL("nats.url", n.URL), config.Each("nats.monitor_urls", n.MonitorURLs, config.HTTPURL),
	)
}

// login checks the user and password_file at a prefix, for a URL.
func login(prefix, user, passwordFile, url string) error {
	switch {
	case (user == "") != (passwordFile == ""):
		return config.Errorf(prefix+"user", "goes with %spassword_file: both, or none", prefix)
	case user != "" && config.HasUser(url):
		return config.Errorf(prefix+"user", "%surl holds a user already", prefix)
	}
	return nil
}

// password reads a password file whenever it is asked for.
func password(key, file string) func() (string, error) {
	return func() (string, error) {
		b, err := config.SecretFile(key, file)
		return string(b), err
	}
}
