package client

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/revcast/revcast/internal/token"
)

// Methods of client authentication, in the words of RFC 7591 and RFC 8705.
const (
	SecretBasic   = "client_secret_basic" // raw or form-encoded (RFC 6749 section 2.3.1)
	SecretPost    = "client_secret_post"
	PrivateKeyJWT = "private_key_jwt" // an assertion (RFC 7523, OpenID Connect Core section 9)
	TLSClientAuth = "tls_client_auth" // a certificate of a trusted CA (RFC 8705 section 2.1)
	None          = "none"            // a public client: its client_id alone
)

// Grants say what a client may revoke.
const (
	GrantOwn     = "own"     // tokens that belong to it, by presenting them; every client has it
	GrantSubject = "subject" // {sub}, and {sub} with a client
	GrantSession = "session" // {sid}
	GrantClient  = "client"  // {client_id} or {azp}
	GrantIssuer  = "issuer"  // the three above, {} and {kid}, and any token by presenting it
	GrantAny     = "any"     // every selector
)

var (
	authMethods = []string{SecretBasic, SecretPost, PrivateKeyJWT, TLSClientAuth, None}
	grants      = []string{GrantOwn, GrantSubject, GrantSession, GrantClient, GrantIssuer, GrantAny}
)

// Defaults of a [Config].
const (
	DefaultRate       = 1000
	DefaultMaxEntries = 2_000_000
)

const (
	maxClientID   = 256
	maxRate       = 1_000_000
	maxMaxEntries = 1 << 40
)

// Config is a client as the configuration has it.
type Config struct {
	ID string
	// SecretSHA256 is the hexadecimal SHA-256 of a random secret, see [NewSecret].
	// Empty for a client that uses neither SecretBasic nor SecretPost. A plain hash is
	// enough for 256 random bits and for nothing that a person made up.
	SecretSHA256 string
	// Auth are the methods it may use. Empty: SecretBasic and SecretPost.
	Auth []string
	// Revoke are its grants. Empty: GrantOwn. A client that authenticates with
	// None uses no other.
	Revoke []string

	// JWKSURI is where the keys of a client with PrivateKeyJWT are, and JWKS are the
	// keys themselves, as a JWK Set. It has one of them.
	JWKSURI string
	JWKS    []byte
	// Algorithms are what its assertions may be signed with. Empty: RS256, ES256, PS256,
	// EdDSA.
	Algorithms []string

	// One of these names the certificate of a client with TLSClientAuth (RFC 8705
	// section 2.1.2). All are compared exactly: letter case and order count.
	TLSSubjectDN string // as in RFC 4514: CN=web,O=Example,C=DE for a subject that begins with C=DE
	TLSSANDNS    string
	TLSSANURI    string
	TLSSANIP     string
	TLSSANEmail  string

	// AllowedOrigins are the web origins that the client's scripts come from.
	AllowedOrigins []string
	// Rate is how many requests a second it may make; at once, those of two seconds. 0:
	// DefaultRate.
	Rate float64
	// MaxEntries is how many revocations of it may be outstanding: made and not yet
	// expired. 0: DefaultMaxEntries.
	MaxEntries int64
}

// check errs with the name of the field that is wrong, first. What it returns has
// neither keys nor an account yet.
func (c Config) check() (*Client, error) {
	made := &Client{
		id: c.ID, auth: slices.Clone(c.Auth), grants: slices.Clone(c.Revoke), algorithms: slices.Clone(c.Algorithms),
		limits: limits{c.Rate, c.MaxEntries},
	}
	if len(made.auth) == 0 {
		made.auth = []string{SecretBasic, SecretPost}
	}
	if len(made.grants) == 0 {
		made.grants = []string{GrantOwn}
	}
	if len(made.algorithms) == 0 {
		made.algorithms = []string{"RS256", "ES256", "PS256", "EdDSA"}
	}
	if c.Rate == 0 {
		made.limits.rate = DefaultRate
	}
	if c.MaxEntries == 0 {
		made.limits.entries = DefaultMaxEntries
	}
	if c.ID == "" || len(c.ID) > maxClientID || !utf8.ValidString(c.ID) {
		return nil, fmt.Errorf("id must be 1 to %d bytes of UTF-8", maxClientID)
	}
	for _, m := range made.auth {
		if !slices.Contains(authMethods, m) {
			return nil, fmt.Errorf("auth can't hold %q: it must be one of %s", m, strings.Join(authMethods, ", "))
		}
	}
	for _, g := range made.grants {
		if !slices.Contains(grants, g) {
			return nil, fmt.Errorf("revoke can't hold %q: it must be one of %s", g, strings.Join(grants, ", "))
		}
	}
	public := !slices.ContainsFunc(made.auth, func(m string) bool { return m != None })
	if public && slices.ContainsFunc(made.grants, func(g string) bool { return g != GrantOwn }) {
		return nil, fmt.Errorf("revoke: a client with auth: [%s] may revoke only its own tokens", None)
	}
	for _, check := range []func(*Client) error{c.checkSecret, c.checkKeys, c.checkCertificate, c.checkLimits} {
		if err := check(made); err != nil {
			return nil, err
		}
	}
	for i, o := range c.AllowedOrigins {
		if err := checkOrigin(o); err != nil {
			return nil, fmt.Errorf("allowed_origins[%d] %w", i, err)
		}
	}
	return made, nil
}

func (c Config) checkSecret(made *Client) error {
	switch needed := made.uses(SecretBasic) || made.uses(SecretPost); {
	case needed && c.SecretSHA256 == "":
		return fmt.Errorf("secret_sha256 is missing; a client without one needs another method in auth, such as [%s]", None)
	case !needed && c.SecretSHA256 != "":
		return fmt.Errorf("secret_sha256 is of no use to a client with auth: [%s]", strings.Join(made.auth, ", "))
	case !needed:
		return nil
	}
	b, err := hex.DecodeString(c.SecretSHA256)
	if err != nil || len(b) != sha256.Size {
		return fmt.Errorf("secret_sha256 must be %d hexadecimal digits", 2*sha256.Size)
	}
	made.secret = [sha256.Size]byte(b)
	return nil
}

// checkKeys leaves what is said of the keys themselves to the maker of their reader.
func (c Config) checkKeys(made *Client) error {
	has := c.JWKSURI != "" || c.JWKS != nil
	switch {
	case !made.uses(PrivateKeyJWT) && c.JWKSURI != "":
		return fmt.Errorf("jwks_uri is of no use to a client without %s in auth", PrivateKeyJWT)
	case !made.uses(PrivateKeyJWT) && c.JWKS != nil:
		return fmt.Errorf("jwks_file is of no use to a client without %s in auth", PrivateKeyJWT)
	case !made.uses(PrivateKeyJWT) && len(c.Algorithms) > 0:
		return fmt.Errorf("algorithms are of no use to a client without %s in auth", PrivateKeyJWT)
	case made.uses(PrivateKeyJWT) && !has:
		return fmt.Errorf("jwks_uri is missing, or jwks_file: a client with %s needs one", PrivateKeyJWT)
	}
	for _, a := range made.algorithms {
		if !slices.Contains(token.Algorithms(), a) {
			return fmt.Errorf("algorithms can't hold %q: it must be one of %s", a, strings.Join(token.Algorithms(), ", "))
		}
	}
	return nil
}

func (c Config) checkCertificate(made *Client) error {
	field := ""
	for _, a := range []struct{ field, value string }{
		{"tls_client_auth_subject_dn", c.TLSSubjectDN}, {"tls_client_auth_san_dns", c.TLSSANDNS}, {"tls_client_auth_san_uri", c.TLSSANURI},
		{"tls_client_auth_san_ip", c.TLSSANIP}, {"tls_client_auth_san_email", c.TLSSANEmail},
	} {
		switch {
		case a.value == "":
		case !made.uses(TLSClientAuth):
			return fmt.Errorf("%s is of no use to a client without %s in auth", a.field, TLSClientAuth)
		case field != "":
			return fmt.Errorf("%s can't be given beside %s: one name of the certificate counts", a.field, field)
		default:
			field = a.field
		}
	}
	if made.uses(TLSClientAuth) && field == "" {
		return fmt.Errorf("tls_client_auth_subject_dn is missing, or another tls_client_auth_…: a client with %s needs one", TLSClientAuth)
	}
	name, err := newCertificateName(c)
	if err != nil {
		return fmt.Errorf("%s must be %w", field, err)
	}
	made.certificate = name
	return nil
}

func (c Config) checkLimits(made *Client) error {
	if !(made.limits.rate > 0 && made.limits.rate <= maxRate) { // NaN too
		return fmt.Errorf("rate must lie between 0 and %d requests a second; 0 is the default, %d", maxRate, DefaultRate)
	}
	if made.limits.entries < 0 || made.limits.entries > maxMaxEntries {
		return fmt.Errorf("max_entries must lie between 0 and %d; 0 is the default, %d", int64(maxMaxEntries), DefaultMaxEntries)
	}
	return nil
}

// checkOrigin accepts what a browser sends (RFC 6454 section 6.2), since it is
// compared with that: anything else would never be met.
func checkOrigin(o string) error {
	u, err := url.Parse(o)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.Scheme+"://"+u.Host != o || strings.ContainsAny(o, "* ") ||
		strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("must be an origin, scheme://host or scheme://host:port, and nothing else")
	}
	if o != strings.ToLower(o) || strings.ContainsFunc(o, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return fmt.Errorf("must be in lower case and ASCII, as browsers send it")
	}
	if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return fmt.Errorf("must leave out the port that its scheme has anyway, as browsers do")
	}
	return nil
}
