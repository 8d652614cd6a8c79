package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Methods of client authentication, in the words of RFC 7591.
const (
	AuthBasic = "client_secret_basic" // raw or form-encoded (RFC 6749 section 2.3.1)
	AuthPost  = "client_secret_post"
	AuthNone  = "none" // a public client: its client_id alone
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
	authMethods = []string{AuthBasic, AuthPost, AuthNone}
	grants      = []string{GrantOwn, GrantSubject, GrantSession, GrantClient, GrantIssuer, GrantAny}
)

const maxClientID = 256

// Client is who may revoke.
type Client struct {
	ID string
	// SecretSHA256 is the hexadecimal SHA-256 of a random secret, see
	// [NewClientSecret]. Empty for a public client. A plain hash is enough for 256
	// random bits and for nothing that a person made up.
	SecretSHA256 string
	// Auth are the methods it may use. Empty: AuthBasic and AuthPost.
	Auth []string
	// Revoke are its grants. Empty: GrantOwn. A client that authenticates with
	// AuthNone uses no other.
	Revoke []string
}

// NewClientSecret makes a secret of 256 random bits, as base64url, and the hash of
// it for [Client].
func NewClientSecret() (secret, sha256hex string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, hex.EncodeToString(sum[:])
}

// client is a Client that was checked.
type client struct {
	id     string
	secret [sha256.Size]byte
	auth   []string
	grants []string
}

// may reports whether the client has one of some grants.
func (c *client) may(some ...string) bool {
	return slices.ContainsFunc(some, func(g string) bool { return slices.Contains(c.grants, g) })
}

// clients is immutable.
type clients struct {
	byID map[string]*client
	// nobody stands in for a client that doesn't exist, so that asking for one takes
	// as long as a wrong secret. Its hash is random: nothing is known to match it.
	nobody client
}

func newClients(list []Client) (*clients, error) {
	all := &clients{byID: make(map[string]*client, len(list))}
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
func (c Client) check() (*client, error) {
	made := &client{id: c.ID, auth: c.Auth, grants: c.Revoke}
	if len(made.auth) == 0 {
		made.auth = []string{AuthBasic, AuthPost}
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
	confidential := slices.ContainsFunc(made.auth, func(m string) bool { return m != AuthNone })
	switch {
	case confidential && c.SecretSHA256 == "":
		return nil, fmt.Errorf("secret_sha256 is missing; a client without one needs auth: [%s]", AuthNone)
	case !confidential && c.SecretSHA256 != "":
		return nil, fmt.Errorf("secret_sha256 is of no use to a client with auth: [%s]", AuthNone)
	case !confidential && slices.ContainsFunc(made.grants, func(g string) bool { return g != GrantOwn }):
		return nil, fmt.Errorf("revoke: a client with auth: [%s] may revoke only its own tokens", AuthNone)
	case confidential:
		b, err := hex.DecodeString(c.SecretSHA256)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("secret_sha256 must be %d hexadecimal digits", 2*sha256.Size)
		}
		made.secret = [sha256.Size]byte(b)
	}
	return made, nil
}

// login is one reading of an id and a secret.
type login struct{ id, secret string }

// credentials are what a request says about its client, not yet believed.
type credentials struct {
	method string  // one of the Auth constants; "" where there are none to be used
	logins []login // the readings of what was sent; of AuthNone, the id alone
	// challenge says that the answer to a failure tells how to authenticate: the
	// request used the Authorization header, or nothing (RFC 6749 section 5.2, RFC
	// 9110 section 15.5.2).
	challenge bool
}

// authenticate returns the client that the credentials belong to, by a method that
// it may use; nil if there is none.
func (all *clients) authenticate(c credentials) (found *client) {
	for _, l := range c.logins {
		known := all.byID[l.id]
		candidate := known
		if known == nil {
			candidate = &all.nobody
		}
		sum := sha256.Sum256([]byte(l.secret))
		same := subtle.ConstantTimeCompare(sum[:], candidate.secret[:]) == 1
		if c.method == AuthNone {
			same = l.secret == ""
		}
		if same && known != nil && slices.Contains(known.auth, c.method) {
			found = known
		}
	}
	if found != nil && c.method == AuthNone { // its id is no secret, so its grants must not be worth having
		return &client{id: found.id, grants: []string{GrantOwn}}
	}
	return found
}

// basicCredentials reads the Authorization header. Where it is no Basic that can be
// read, the credentials are empty and authenticate no one. It errs where there is
// more than one header.
//
// RFC 6749 has both halves form-encoded before RFC 7617 joins them with a colon,
// and half the clients leave that out. So there are two readings, and the secret
// tells which one was meant. An id with a colon needs the encoded spelling.
func basicCredentials(r *http.Request) (c credentials, sent bool, bad string) {
	headers := r.Header.Values("Authorization")
	switch len(headers) {
	case 0:
		return credentials{}, false, ""
	case 1:
	default:
		return credentials{}, true, "there is more than one Authorization header"
	}
	c.challenge = true
	scheme, value, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return c, true, ""
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimLeft(value, " "))
	if err != nil {
		return c, true, ""
	}
	id, secret, ok := strings.Cut(string(b), ":")
	if !ok || secret == "" {
		return c, true, ""
	}
	c.method = AuthBasic
	c.logins = []login{{id, secret}}
	decoded := login{}
	if decoded.id, err = url.QueryUnescape(id); err != nil {
		return c, true, ""
	}
	if decoded.secret, err = url.QueryUnescape(secret); err != nil {
		return c, true, ""
	}
	if decoded != c.logins[0] {
		c.logins = append(c.logins, decoded)
	}
	return c, true, ""
}

// claimedID returns the id that the credentials name, where it is known: what else
// stands there may be a secret in the wrong place, and is not to be logged.
func (all *clients) claimedID(c credentials) string {
	for _, l := range c.logins {
		if all.byID[l.id] != nil {
			return l.id
		}
	}
	return ""
}
