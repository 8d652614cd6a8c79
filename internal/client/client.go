package client

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"
)

// NewSecret makes a secret of 256 random bits, as base64url, and the hash of
// it for [Config].
func NewSecret() (secret, sha256hex string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, hex.EncodeToString(sum[:])
}

// Client is a known client. What it is doesn't change, and goes on counting when the
// registry's list is replaced; its account does. Safe for concurrent use.
type Client struct {
	id          string
	secret      [sha256.Size]byte
	auth        []string
	grants      []string
	algorithms  []string // of its assertions
	certificate certificateName
	limits      limits
	keys        *keys // nil without PrivateKeyJWT
	account     *account
	public      bool // authenticated with None
}

// ID returns its client_id.
func (c *Client) ID() string { return c.id }

// May reports whether the client has one of some grants.
func (c *Client) May(some ...string) bool {
	return slices.ContainsFunc(some, func(g string) bool { return slices.Contains(c.grants, g) })
}

func (c *Client) uses(method string) bool { return slices.Contains(c.auth, method) }

// Reserve is [Quota.Reserve], of the client's revocations.
func (c *Client) Reserve(expires []time.Time, now time.Time) (release func(), retryAfter time.Duration, ok bool) {
	return c.account.Reserve(expires, now)
}

// Public reports whether nothing but its id speaks for the client.
func (c *Client) Public() bool { return c.public }
