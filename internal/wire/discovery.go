package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"

	"github.com/go-json-experiment/json"
)

// Paths of the authority's HTTP face that verifiers use. They find all but the
// first through discovery.
const (
	DiscoveryPath = "/.well-known/revcast"
	SnapshotPath  = "/v1/snapshot"
	LogPath       = "/v1/log"
)

// Discovery tells a verifier all it needs, from the authority's URL alone. Unlike
// the other formats it may grow members that older readers pass over.
type Discovery struct {
	Version     int          `json:"version"`
	Epoch       string       `json:"epoch"`
	SigningKeys []SigningKey `json:"signing_keys"`
	Live        Live         `json:"live"`
	Snapshot    string       `json:"snapshot"` // relative to the authority's URL, as Log is
	Log         string       `json:"log"`
}

// Live is the NATS feed and a user that may subscribe to it and do nothing else.
type Live struct {
	URL      string `json:"url"`
	Subject  string `json:"subject"`
	User     string `json:"user,omitzero"`
	Password string `json:"password,omitzero"`
	// HeartbeatMillis is how often a heartbeat is due.
	HeartbeatMillis int64 `json:"heartbeat_ms"`
}

// SigningKey is an Ed25519 public key in the members of RFC 8037.
type SigningKey struct {
	KeyID string `json:"kid"`
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"` // base64url
}

// SigningKeyOf describes a public key.
func SigningKeyOf(pub ed25519.PublicKey) SigningKey {
	return SigningKey{KeyIDOf(pub).String(), "OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(pub)}
}

// ParseKey reads the X of a signing key, in its one spelling: a decoder of base64
// passes over line breaks.
func ParseKey(x string) (ed25519.PublicKey, error) {
	b, err := base64.RawURLEncoding.DecodeString(x)
	if err != nil || len(b) != ed25519.PublicKeySize || base64.RawURLEncoding.EncodeToString(b) != x {
		return nil, errors.New("a signing key is base64url of 32 bytes")
	}
	return b, nil
}

// ParseDiscovery reads a discovery document.
func ParseDiscovery(b []byte) (*Discovery, Keyring, error) {
	var d Discovery
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, nil, fmt.Errorf("%w: discovery: %w", ErrFormat, err)
	}
	if d.Version != Version {
		return nil, nil, fmt.Errorf("%w: discovery: version %d is not known here", ErrFormat, d.Version)
	}
	if d.Epoch == "" || len(d.Epoch) > maxEpoch {
		return nil, nil, fmt.Errorf("%w: discovery: no epoch", ErrFormat)
	}
	ring := Keyring{}
	for _, k := range d.SigningKeys {
		if k.Type != "OKP" || k.Curve != "Ed25519" {
			continue
		}
		pub, err := ParseKey(k.X)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: discovery: %w", ErrFormat, err)
		}
		ring[KeyIDOf(pub)] = pub
	}
	if len(ring) == 0 {
		return nil, nil, fmt.Errorf("%w: discovery: no Ed25519 signing key", ErrFormat)
	}
	for _, ref := range []string{d.Snapshot, d.Log} {
		if u, err := url.Parse(ref); err != nil || ref == "" || u.Host != "" || u.Scheme != "" || ref[0] != '/' {
			return nil, nil, fmt.Errorf("%w: discovery: %q is not a path", ErrFormat, ref)
		}
	}
	return &d, ring, nil
}
