package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// Version is the version of every format of this package but the snapshot.
const Version = 1

// Kind says what a signed message holds.
type Kind byte

const (
	KindBatch     Kind = 'b'
	KindHeartbeat Kind = 'h'
	kindSnapshot  Kind = 's'
)

// A message is magic, version, kind, the signer's key id, the signature, then the
// payload. The signature covers signDomain, the kind and the payload.
const (
	magic        = "RVC"
	headSize     = len(magic) + 1 + 1 + keyIDSize + ed25519.SignatureSize
	keyIDSize    = 8
	signDomain   = "revcast/signed/v1/"
	MaxMessage   = 900 << 10 // below NATS's default payload limit of 1 MiB, headers included
	kindAt       = len(magic) + 1
	keyIDAt      = kindAt + 1
	signatureAt  = keyIDAt + keyIDSize
	chainDomain  = "revcast/chain/v1/"
	pemKeyHeader = "PRIVATE KEY"
)

// Why a message is refused. ErrFormat covers everything that is signed and yet not
// to be read: rubbish, an unknown version, a broken rule.
var (
	ErrSigner    = errors.New("signed by a key that is not the authority's")
	ErrSignature = errors.New("the signature does not hold")
	ErrFormat    = errors.New("malformed")
)

// KeyID names a signing key: the first 8 bytes of SHA-256 over the public key.
type KeyID [keyIDSize]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// KeyIDOf names a public key.
func KeyIDOf(pub ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(pub)
	return KeyID(sum[:keyIDSize])
}

// Signer signs messages. Safe for concurrent use.
type Signer struct {
	key ed25519.PrivateKey
	id  KeyID
}

// NewSigner makes a signer of a private key.
func NewSigner(key ed25519.PrivateKey) Signer {
	return Signer{key: key, id: KeyIDOf(key.Public().(ed25519.PublicKey))}
}

// ParseSigner reads a PKCS #8 PEM file with an Ed25519 key.
func ParseSigner(text []byte) (Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemKeyHeader || len(rest) > 0 {
		return Signer{}, errors.New("not one PEM block of type " + pemKeyHeader)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Signer{}, fmt.Errorf("parse PKCS #8: %w", err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return Signer{}, fmt.Errorf("a %T, not an Ed25519 key", key)
	}
	return NewSigner(ed), nil
}

// MarshalPEM writes what ParseSigner reads.
func (s Signer) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, fmt.Errorf("marshal the signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKeyHeader, Bytes: der}), nil
}

// Public returns the public key.
func (s Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

func (s Signer) sign(kind Kind, payload []byte) []byte {
	return ed25519.Sign(s.key, signed(kind, payload))
}

func signed(kind Kind, payload []byte) []byte {
	b := make([]byte, 0, len(signDomain)+1+len(payload))
	return append(append(append(b, signDomain...), byte(kind)), payload...)
}

// seal makes a message of a payload.
func (s Signer) seal(kind Kind, payload []byte) []byte {
	b := make([]byte, 0, headSize+len(payload))
	b = append(append(b, magic...), Version, byte(kind))
	b = append(append(b, s.id[:]...), s.sign(kind, payload)...)
	return append(b, payload...)
}

// Keyring holds the public keys that a verifier trusts. Read-only once made.
type Keyring map[KeyID]ed25519.PublicKey

// NewKeyring makes a keyring.
func NewKeyring(keys ...ed25519.PublicKey) Keyring {
	ring := Keyring{}
	for _, k := range keys {
		ring[KeyIDOf(k)] = k
	}
	return ring
}

func (ring Keyring) verify(id KeyID, kind Kind, payload, signature []byte) error {
	key, ok := ring[id]
	if !ok {
		return ErrSigner
	}
	if !ed25519.Verify(key, signed(kind, payload), signature) {
		return ErrSignature
	}
	return nil
}

// parse takes a message apart, without a look at its signature.
func parse(message []byte) (Kind, []byte, error) {
	if len(message) < headSize || len(message) > MaxMessage || string(message[:len(magic)]) != magic {
		return 0, nil, fmt.Errorf("%w: not a message", ErrFormat)
	}
	if v := message[len(magic)]; v != Version {
		return 0, nil, fmt.Errorf("%w: version %d is not known here", ErrFormat, v)
	}
	return Kind(message[kindAt]), message[headSize:], nil
}

// Opened is a message whose signature holds: one of its fields is set.
type Opened struct {
	Batch     *Batch
	Heartbeat *Heartbeat
}

// Epoch returns the epoch that the message names; empty where nothing was opened.
func (o Opened) Epoch() string {
	switch {
	case o.Batch != nil:
		return o.Batch.Epoch
	case o.Heartbeat != nil:
		return o.Heartbeat.Epoch
	}
	return ""
}

// Open checks and decodes a batch, a mark or a heartbeat.
func (ring Keyring) Open(message []byte) (Opened, error) {
	kind, payload, err := parse(message)
	if err != nil {
		return Opened{}, err
	}
	if err := ring.verify(KeyID(message[keyIDAt:signatureAt]), kind, payload, message[signatureAt:headSize]); err != nil {
		return Opened{}, err
	}
	return decode(kind, payload)
}

// Reopen decodes a message that was opened before, and kept where nobody else
// writes.
func Reopen(message []byte) (Opened, error) {
	kind, payload, err := parse(message)
	if err != nil {
		return Opened{}, err
	}
	return decode(kind, payload)
}

func decode(kind Kind, payload []byte) (Opened, error) {
	switch kind {
	case KindBatch:
		b, err := decodeBatch(payload)
		return Opened{Batch: b}, err
	case KindHeartbeat:
		h, err := decodeHeartbeat(payload)
		return Opened{Heartbeat: h}, err
	}
	return Opened{}, fmt.Errorf("%w: kind %q is not known here", ErrFormat, byte(kind))
}

// Derive makes a value of the private key that tells nothing about it, the same
// each time for a label.
func (s Signer) Derive(label string) string {
	sum := sha256.Sum256(append([]byte("revcast/derive/v1/"+label+"/"), s.key.Seed()...))
	return hex.EncodeToString(sum[:16])
}
