package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Reader reads tokens of the configured issuers. Safe for concurrent use.
type Reader struct {
	issuers map[string]*issuer
	order   []*issuer
	owned   *http.Client // closed when Run ends; nil where the caller gave a client
	log     *slog.Logger
	store   *store // nil: no keys are kept on disk
}

type issuer struct {
	Issuer
	allowed map[string]bool
	keys    *keySet
}

// Option is a choice of a [Reader]'s maker.
type Option func(*Reader)

// ForRevoking makes a reader for an authority. Verifiers learn of an issuer's new
// keys at different times, and an authority must read whatever one of them may still
// accept, or it would drop a revocation that matters. So, unlike a verifier's:
//
//   - Keys that the issuer has withdrawn go on verifying until what they signed has
//     expired, at most 16 of them; [Verified.KeyRetired] says so.
//   - A token without a kid may be signed by any key that fits.
//   - ErrSignature, and ErrAlgorithm of a known key, are definite only where the
//     issuer's document was fetched after the call, or within the 5 seconds before it
//     and after the token's iat. Read may wait for that, two seconds at most; where
//     fetches have come too often, fail or hang, it adds ErrKeysUnavailable.
func ForRevoking() Option {
	return func(r *Reader) {
		for _, i := range r.order {
			i.keys.keep = i.MaxLifetime + denylist.Grace
		}
	}
}

// NewReader makes a reader of the tokens of some issuers. A mistake in them is a
// [ConfigError]. client fetches keys; its Transport is used, and nothing else of
// it. nil stands for a client of the reader's own, and a nil log for
// [slog.Default]. Keys are had once [Reader.Run] runs.
func NewReader(issuers []Issuer, client *http.Client, log *slog.Logger, options ...Option) (*Reader, error) {
	r := &Reader{issuers: make(map[string]*issuer, len(issuers))}
	if len(issuers) == 0 {
		return nil, errors.New("no issuer: Issuers must hold at least one")
	}
	if log == nil {
		log = slog.Default()
	}
	r.log = log
	if client == nil {
		client = NewHTTPClient()
		r.owned = client
	}
	client = Restrict(client)
	for n, given := range issuers {
		checked, err := given.check(n)
		if err != nil {
			return nil, err
		}
		if r.issuers[checked.Issuer] != nil {
			return nil, &ConfigError{n, "Issuer", "names an issuer for the second time"}
		}
		i := &issuer{Issuer: checked, allowed: map[string]bool{}, keys: newKeySet(checked, client, log)}
		for _, name := range checked.Algorithms {
			i.allowed[name] = true
		}
		r.issuers[checked.Issuer] = i
		r.order = append(r.order, i)
		if IsPlain(checked.JWKSURI) {
			log.Warn("keys are fetched over plain http: whoever is on the way can replace them",
				"issuer", checked.Issuer, "jwks_uri", checked.JWKSURI)
		}
	}
	for _, choose := range options {
		choose(r)
	}
	return r, nil
}

// Run fetches the keys of all issuers, and keeps them up to date until ctx ends.
// It is called once, and returns when nothing of it runs any more.
func (r *Reader) Run(ctx context.Context) {
	var running, writing sync.WaitGroup
	fetched := make(chan struct{})
	if r.store != nil {
		r.store.wake = make(chan struct{}, 1)
		writing.Go(func() { r.store.run(fetched) })
	}
	for _, i := range r.order {
		running.Go(func() { i.keys.run(ctx) })
	}
	running.Wait()
	close(fetched)
	writing.Wait()
	if r.owned != nil {
		r.owned.CloseIdleConnections()
	}
}

// Ready is nil once the keys of at least one issuer are loaded; else it says why
// none are.
func (r *Reader) Ready() error {
	var why []string
	for _, i := range r.order {
		err := i.keys.status()
		if err == nil {
			return nil
		}
		why = append(why, fmt.Sprintf("keys of %q were never loaded: %s", i.Issuer.Issuer, err))
	}
	return errors.New(strings.Join(why, "; "))
}

// KeyStatus is what is known of an issuer's keys.
type KeyStatus struct {
	Issuer string
	Keys   int       // usable ones
	Loaded time.Time // when the last good document was fetched, if by an earlier process; zero: never; now: a secret
	Err    error     // of the last fetch; nil if it succeeded
}

// KeyStatuses returns the state of each issuer's keys, as configured in order.
func (r *Reader) KeyStatuses() []KeyStatus {
	all := make([]KeyStatus, 0, len(r.order))
	for _, i := range r.order {
		st := KeyStatus{Issuer: i.Issuer.Issuer}
		if current := i.keys.current.Load(); current != nil {
			st.Keys = len(current.keys)
		}
		i.keys.mu.Lock()
		st.Loaded, st.Err = i.keys.loaded, i.keys.lastErr
		i.keys.mu.Unlock()
		if i.keys.secret {
			st.Loaded = time.Now()
		}
		all = append(all, st)
	}
	return all
}

// Kind is what a JWT is for. A token of one kind is never read as one of another,
// but where both have no typ of their own: then their claims must tell.
type Kind uint8

// The kinds of JWT.
const (
	AccessToken   Kind = iota
	Revocable          // an access token, or a refresh token that is a JWT: what an authority is asked to revoke
	LogoutToken        // OpenID Connect Back-Channel Logout 1.0 section 2.4
	SecurityEvent      // RFC 8417, explicitly typed; the only kind that needs no exp
	Assertion          // RFC 7523, for client authentication
)

// Read is [Reader.ReadAs] for access tokens.
func (r *Reader) Read(ctx context.Context, raw string) (*Verified, error) {
	return r.ReadAs(ctx, AccessToken, raw)
}

// ReadAs checks everything about a token that time and audience don't change: its
// format, its issuer and its signature. Its errors wrap this package's sentinels.
// It may wait up to two seconds for the key of a token that names an unknown one.
// What it returns is not to be accepted before [Verified.ValidAt] agrees, or what
// else the kind asks for.
func (r *Reader) ReadAs(ctx context.Context, kind Kind, raw string) (*Verified, error) {
	o, err := open(kind, raw)
	if err != nil {
		return nil, err
	}
	iss, err := peekIssuer(o.payload)
	if err != nil {
		return nil, err
	}
	i := r.issuers[iss]
	if i == nil {
		return nil, fmt.Errorf("%w: %.128q", ErrUnknownIssuer, iss)
	}
	if !i.allowed[o.header.alg] {
		return nil, fmt.Errorf("%w: %.16q of %.128q", ErrAlgorithm, o.header.alg, iss)
	}
	k, err := i.verify(ctx, o.header, o.SigningInput, o.payload, o.signature)
	if err != nil {
		return nil, err
	}
	c, err := decodeClaims(o.payload, kind)
	if err != nil {
		return nil, err
	}
	if c.issuer != iss {
		return nil, fmt.Errorf("%w: iss reads in two ways", ErrMalformed)
	}
	return &Verified{
		Issuer: i.Issuer.Issuer, Type: o.header.typ, KeyID: k.id, Alg: o.header.alg, Audience: c.audience,
		Expires: c.expires, IssuedAt: c.issued, NotBefore: c.notBefore,
		Values: c.values, Fingerprint: denylist.FingerprintOf(o.SigningInput),
		config: &i.Issuer, key: k, meant: i.meantFor(c.audience),
	}, nil
}

// opened is a token in the strict format, of which nothing is verified.
type opened struct {
	Compact
	header             header
	payload, signature []byte
}

func open(kind Kind, raw string) (o opened, err error) {
	if o.Compact, err = Split(raw); err != nil {
		return o, err
	}
	head, err := decodeSegment("header", o.Header)
	if err != nil {
		return o, err
	}
	if o.payload, err = decodeSegment("payload", o.Payload); err != nil {
		return o, err
	}
	if o.signature, err = decodeSegment("signature", o.Signature); err != nil {
		return o, err
	}
	o.header, err = decodeHeader(head, kind)
	return o, err
}

// ClaimsOf reads the claims of an access token that somebody else has verified, as a
// Reader would. KeyID is what the header says.
func ClaimsOf(raw string) (denylist.Claims, error) {
	o, err := open(AccessToken, raw)
	if err != nil {
		return denylist.Claims{}, err
	}
	c, err := decodeClaims(o.payload, AccessToken)
	if err != nil {
		return denylist.Claims{}, err
	}
	return denylist.Claims{
		Issuer: c.issuer, Expires: c.expires, IssuedAt: c.issued, KeyID: o.header.kid,
		Fingerprint: denylist.FingerprintOf(o.SigningInput), Values: c.values,
	}, nil
}

// verify checks the signature, and returns the key that made it.
func (i *issuer) verify(ctx context.Context, h header, signed string, payload, signature []byte) (*key, error) {
	if i.Secret != nil {
		return i.verifySecret(h, signed, signature)
	}
	if i.keys.keep > 0 {
		return i.verifyAny(ctx, h, signed, payload, signature)
	}
	method := algorithms[h.alg].method
	k, err := i.keys.lookup(ctx, h)
	if err != nil {
		return nil, err
	}
	if method.Verify(signed, signature, k.public) == nil {
		return k, nil
	}
	if h.hasKID {
		return nil, fmt.Errorf("%w: key %.64q of %.128q", ErrSignature, k.id, i.Issuer.Issuer)
	}
	// Without a kid nothing says that the issuer has changed its key but this.
	why := i.keys.refresh(ctx)
	if now, err := i.keys.current.Load().find(h); err == nil && now != nil && now != k &&
		method.Verify(signed, signature, now.public) == nil {
		return now, nil
	}
	if why != nil {
		return nil, fmt.Errorf("%w: no kid, and the key may be new (%w: %w)", ErrSignature, ErrKeysUnavailable, why)
	}
	return nil, fmt.Errorf("%w: the only key of %.128q", ErrSignature, i.Issuer.Issuer)
}

// verifyAny is verify for an authority: see [ForRevoking].
func (i *issuer) verifyAny(ctx context.Context, h header, signed string, payload, signature []byte) (*key, error) {
	method := algorithms[h.alg].method
	tried := 0
	try := func(s *snapshot) *key {
		all := s.candidates(h, time.Now())
		tried = len(all)
		for _, k := range all {
			if method.Verify(signed, signature, k.public) == nil {
				return k
			}
		}
		return nil
	}
	before := i.keys.current.Load()
	if k := try(before); k != nil {
		return k, nil
	}
	why := i.keys.settle(ctx, peekIssued(payload))
	now := i.keys.current.Load()
	if now == nil {
		return nil, i.keys.neverLoaded(why)
	}
	if now != before {
		if k := try(now); k != nil {
			return k, nil
		}
	}
	wrong := ErrSignature
	if tried == 0 {
		wrong = ErrUnknownKey
		switch _, err := now.find(h); {
		case errors.Is(err, ErrAlgorithm):
			wrong = ErrAlgorithm
		case err != nil: // the issuer may mend its document
			why = fmt.Errorf("%w: %w", errUnusable, err)
		}
	}
	if why != nil {
		return nil, fmt.Errorf("%w: kid %.64q of %.128q (%w: %w)", wrong, h.kid, i.Issuer.Issuer, ErrKeysUnavailable, why)
	}
	return nil, fmt.Errorf("%w: kid %.64q of %.128q", wrong, h.kid, i.Issuer.Issuer)
}
