package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // beyond it a verification takes long enough to be a weapon
	// maxWithdrawn bounds what a token can make an authority try.
	maxWithdrawn = 16
)

// key is a public key of an issuer. It is the same object in every snapshot for
// as long as the issuer's documents hold it unchanged.
type key struct {
	id      string // kid; "" where the document gives none
	alg     string // the one algorithm it is for; "": any that fits
	public  crypto.PublicKey
	retired atomic.Bool // set, and never cleared, when a good document lacks it
}

func (k *key) fits(alg string) bool {
	return (k.alg == "" || k.alg == alg) && algorithms[alg].fits(k.public)
}

func (k *key) same(o *key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.id == o.id && k.alg == o.alg && public.Equal(o.public)
}

// snapshot is the usable part of one key document. Immutable.
type snapshot struct {
	keys []*key
	byID map[string]*key
	// unusable are the kids that the document names and that were left out.
	unusable map[string]error
	// withdrawn are keys of earlier documents, the latest first: see [ForRevoking].
	withdrawn []withdrawn
}

// withdrawn is a key that documents no longer hold.
type withdrawn struct {
	key   *key
	until time.Time // by then, what it signed has expired
}

// remember takes over the keys that old knew and s lacks.
func (s *snapshot) remember(old *snapshot, now time.Time, keep time.Duration) {
	if old == nil {
		return
	}
	for _, k := range old.keys {
		if !slices.Contains(s.keys, k) {
			s.withdrawn = append(s.withdrawn, withdrawn{k, now.Add(keep)})
		}
	}
	for _, w := range old.withdrawn {
		if !slices.ContainsFunc(s.keys, w.key.same) {
			s.withdrawn = append(s.withdrawn, w)
		}
	}
	s.withdrawn = s.withdrawn[:min(len(s.withdrawn), maxWithdrawn)]
}

// candidates are the keys that a verifier, by this document or one before it, may
// take for a token's.
func (s *snapshot) candidates(h header, now time.Time) (found []*key) {
	if s == nil {
		return nil
	}
	fits := func(k *key) bool { return (!h.hasKID || k.id == h.kid) && k.fits(h.alg) }
	for _, k := range s.keys {
		if fits(k) {
			found = append(found, k)
		}
	}
	for _, w := range s.withdrawn {
		if fits(w.key) && now.Before(w.until) {
			found = append(found, w.key)
		}
	}
	return found
}

// find returns the key for a token, or what is in the way: nothing of that name
// (nil error), or a name that can't be used.
func (s *snapshot) find(h header) (*key, error) {
	if s == nil {
		return nil, nil
	}
	if h.hasKID {
		k := s.byID[h.kid]
		if k == nil {
			return nil, s.unusable[h.kid]
		}
		if !k.fits(h.alg) {
			return nil, fmt.Errorf("%w: key %.64q is not for %s", ErrAlgorithm, h.kid, h.alg)
		}
		return k, nil
	}
	var found *key
	for _, k := range s.keys {
		if !k.fits(h.alg) {
			continue
		}
		if found != nil {
			return nil, errors.New("the token has no kid and several keys fit")
		}
		found = k
	}
	return found, nil
}

// errOtherUse marks keys that are fine, only not for signatures.
var errOtherUse = errors.New("not a signature key")

// parseJWKS reads a JWK Set (RFC 7517). Keys that can't be used are left out; it
// errs where none is left, so that the keys known before stay. Keys that old has
// too stay the same objects.
func parseJWKS(document []byte, old *snapshot) (*snapshot, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, errors.New("key document is not a strict JSON Web Key Set")
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("key document has no keys")
	}
	s := &snapshot{byID: map[string]*key{}, unusable: map[string]error{}}
	named := map[string]int{}
	var parsed []*key
	for _, raw := range set.Keys {
		k, err := parseJWK(raw)
		if k.id != "" {
			named[k.id]++
		}
		if err != nil {
			s.unusable[k.id] = err
			continue
		}
		parsed = append(parsed, k)
	}
	for _, k := range parsed {
		if named[k.id] > 1 {
			s.unusable[k.id] = errors.New("several keys have this kid")
			continue
		}
		if old != nil {
			if i := slices.IndexFunc(old.keys, k.same); i >= 0 {
				k = old.keys[i]
			}
		}
		s.keys = append(s.keys, k)
		if k.id != "" {
			s.byID[k.id] = k
		}
	}
	if len(s.keys) == 0 {
		return nil, errors.New("key document has no usable key")
	}
	return s, nil
}

// parseJWK reads one key. Where it errs, the key still has its kid if that could
// be read. Members of private keys are not even decoded.
func parseJWK(raw jsontext.Value) (*key, error) {
	var id struct {
		KID string `json:"kid"`
	}
	if json.Unmarshal(raw, &id) != nil {
		return &key{}, errors.New("not a JWK with a kid that is a string")
	}
	k := &key{id: id.KID}
	var m struct {
		KTY    string    `json:"kty"`
		Use    *string   `json:"use"`
		KeyOps *[]string `json:"key_ops"`
		Alg    *string   `json:"alg"`
		Crv    string    `json:"crv"`
		X      string    `json:"x"`
		Y      string    `json:"y"`
		N      string    `json:"n"`
		E      string    `json:"e"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return k, errors.New("a member has the wrong type")
	}
	switch {
	case m.KTY == "oct":
		return k, errors.New("a shared secret is never used")
	case m.Use != nil && *m.Use != "sig":
		return k, fmt.Errorf("%w: use is %.64q", errOtherUse, *m.Use)
	case m.KeyOps != nil && !slices.Contains(*m.KeyOps, "verify"):
		return k, fmt.Errorf("%w: key_ops lacks verify", errOtherUse)
	}
	if m.Alg != nil {
		if k.alg = *m.Alg; algorithms[k.alg].method == nil {
			return k, fmt.Errorf("%w: alg is %.64q", errOtherUse, k.alg)
		}
	}
	parsed, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{
		KTY: jwkset.KTY(m.KTY), CRV: jwkset.CRV(m.Crv), X: m.X, Y: m.Y, N: m.N, E: m.E,
	}, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return k, fmt.Errorf("couldn't read key material: %w", err)
	}
	k.public = parsed.Key()
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		switch bits := public.N.BitLen(); {
		case bits < minRSABits || bits > maxRSABits:
			return k, fmt.Errorf("an RSA key of %d bits is outside %d to %d", bits, minRSABits, maxRSABits)
		case public.N.Bit(0) == 0 || public.E < 3 || public.E&1 == 0 || public.E > 1<<31-1:
			return k, errors.New("not a valid RSA modulus and exponent")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return k, errOtherUse
	}
	if k.alg != "" && !algorithms[k.alg].fits(k.public) {
		return k, fmt.Errorf("alg %s does not fit the key's type", k.alg)
	}
	return k, nil
}
