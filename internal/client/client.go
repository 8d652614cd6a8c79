// Package client knows who may call the authority: how each client authenticates,
// what it may revoke, and how much.
//
// Invariants:
//
//   - A failure looks and lasts the same for a client that doesn't exist and one
//     whose credentials are wrong.
//   - What is known of a client's id alone (method none) is worth its own tokens and
//     nothing else.
//   - Secrets are kept as hashes of random 256-bit values and compared in constant
//     time. None is logged, nor what was presented in its place.
package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Methods of client authentication, in the words of RFC 7591.
const (
	SecretBasic = "client_secret_basic" // raw or form-encoded (RFC 6749 section 2.3.1)
	SecretPost  = "client_secret_post"
	None        = "none" // a public client: its client_id alone
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
	authMethods = []string{SecretBasic, SecretPost, None}
	grants      = []string{GrantOwn, GrantSubject, GrantSession, GrantClient, GrantIssuer, GrantAny}
)

const maxClientID = 256

// Config is a client as the configuration has it.
type Config struct {
	ID string
	// SecretSHA256 is the hexadecimal SHA-256 of a random secret, see [NewSecret].
	// Empty for a client without one. A plain hash is enough for 256 random bits and
	// for nothing that a person made up.
	SecretSHA256 string
	// Auth are the methods it may use. Empty: SecretBasic and SecretPost.
	Auth []string
	// Revoke are its grants. Empty: GrantOwn. A client that authenticates with
	// None uses no other.
	Revoke []string
}

// NewSecret makes a secret of 256 random bits, as base64url, and the hash of
// it for [Config].
func NewSecret() (secret, sha256hex string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, hex.EncodeToString(sum[:])
}

// Client is a known client. Immutable.
type Client struct {
	id     string
	secret [sha256.Size]byte
	auth   []string
	grants []string
}

// ID returns its client_id.
func (c *Client) ID() string { return c.id }

// May reports whether the client has one of some grants.
func (c *Client) May(some ...string) bool {
	return slices.ContainsFunc(some, func(g string) bool { return slices.Contains(c.grants, g) })
}

// Registry holds the clients. Safe for concurrent use.
type Registry struct {
	byID map[string]*Client
	// nobody stands in for a client that doesn't exist, so that asking for one takes
	// as long as a wrong secret. Its hash is random: nothing is known to match it.
	nobody Client
}

// New makes a registry. An error names the field that is wrong, in the words of the
// configuration file.
func New(list []Config) (*Registry, error) {
	all := &Registry{byID: make(map[string]*Client, len(list))}
	_, _ = rand.Read(all.nobody.secret[:])
	for i, given := range list {
		c, err := given.check()
		if err != nil {
			return nil, fmt.Errorf("clients[%d].%w", i, err)
		}
		if all.byID[c.id] != nil {
			return nil, fmt.Errorf("clients[%d].id: %q is there twice", i, c.id)
		}
		all.byID[c.id] = c
	}
	return all, nil
}

// check errs with the name of the field that is wrong, first.
func (c Config) check() (*Client, error) {
	made := &Client{id: c.ID, auth: c.Auth, grants: c.Revoke}
	if len(made.auth) == 0 {
		made.auth = []string{SecretBasic, SecretPost}
	}
	if len(made.grants) == 0 {
		made.grants = []string{GrantOwn}
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
	confidential := slices.ContainsFunc(made.auth, func(m string) bool { return m != None })
	switch {
	case confidential && c.SecretSHA256 == "":
		return nil, fmt.Errorf("secret_sha256 is missing; a client without one needs auth: [%s]", None)
	case !confidential && c.SecretSHA256 != "":
		return nil, fmt.Errorf("secret_sha256 is of no use to a client with auth: [%s]", None)
	case !confidential && slices.ContainsFunc(made.grants, func(g string) bool { return g != GrantOwn }):
		return nil, fmt.Errorf("revoke: a client with auth: [%s] may revoke only its own tokens", None)
	case confidential:
		b, err := hex.DecodeString(c.SecretSHA256)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("secret_sha256 must be %d hexadecimal digits", 2*sha256.Size)
		}
		made.secret = [sha256.Size]byte(b)
	}
	return made, nil
}

// Login is one reading of an id and a secret.
type Login struct{ ID, Secret string }

// Credentials are what a request says about its client, not yet believed.
type Credentials struct {
	// Method is one of the methods above; "" where there are none to be used.
	Method       string
	Assertion    string
	Certificates []*x509.Certificate
	Logins       []Login // the readings of what was sent; the id alone, where the method has no secret
	// Challenge says that the answer to a failure tells how to authenticate: the
	// request used the Authorization header, or nothing (RFC 6749 section 5.2, RFC
	// 9110 section 15.5.2).
	Challenge bool
}

// What Authenticate can't do.
var (
	ErrFailed      = errors.New("client authentication failed")
	ErrUnavailable = errors.New("the client can't be authenticated now")
)

// Authenticate returns the client that the credentials belong to, by a method that
// it may use. It errs with [ErrFailed], the same for every reason, or with
// [ErrUnavailable].
func (r *Registry) Authenticate(ctx context.Context, c Credentials, now time.Time) (*Client, error) {
	var found *Client
	for _, l := range c.Logins {
		known := r.byID[l.ID]
		candidate := known
		if known == nil {
			candidate = &r.nobody
		}
		sum := sha256.Sum256([]byte(l.Secret))
		same := subtle.ConstantTimeCompare(sum[:], candidate.secret[:]) == 1
		if c.Method == None {
			same = l.Secret == ""
		}
		if same && known != nil && slices.Contains(known.auth, c.Method) {
			found = known
		}
	}
	if found == nil {
		return nil, ErrFailed
	}
	if c.Method == None { // its id is no secret, so its grants must not be worth having
		return &Client{id: found.id, grants: []string{GrantOwn}}, nil
	}
	return found, nil
}

// Claimed returns the id that the credentials name, where it is known: what else
// stands there may be a secret in the wrong place, and is not to be logged.
func (r *Registry) Claimed(c Credentials) string {
	for _, l := range c.Logins {
		if r.byID[l.ID] != nil {
			return l.ID
		}
	}
	return ""
}
