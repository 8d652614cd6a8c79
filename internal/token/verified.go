package token

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Verified is a token whose signature and format are right. Treat it as read-only:
// it is shared where it is cached. Safe for concurrent use.
type Verified struct {
	Issuer string
	Type   string // typ in lower case, without "application/"; "" where there is none
	// KeyID is the kid of the key that verified the token, by the issuer's document:
	// leaving kid out of the header does not dodge a revocation by kid. "" where the
	// document names none.
	KeyID       string
	Alg         string
	Audience    []string
	Expires     time.Time      // zero for a SecurityEvent without exp only
	IssuedAt    time.Time      // zero where the token has no iat
	NotBefore   time.Time      // zero where the token has no nbf
	Values      map[string]any // every claim, as JSON decodes it: numbers are float64
	Fingerprint string         // see [denylist.FingerprintOf]

	config *Issuer
	key    *key
	meant  bool // for one of the issuer's configured audiences, or for anyone
}

// RefreshType is the typ by which refresh tokens call themselves, where they do.
const RefreshType = "rt+jwt"

// IsRefresh reports whether the token is a refresh token: because it says so itself,
// or because whoever presents it does and it does not say that it is another one.
func (v *Verified) IsRefresh(hinted bool) bool {
	switch v.Type {
	case RefreshType, "refresh+jwt":
		return true
	case "at+jwt":
		return false
	}
	return hinted || v.Text("typ") == "Refresh" // Keycloak's
}

// MayBe reports whether a JWT of its typ is taken for one of a kind.
func (v *Verified) MayBe(k Kind) bool {
	return v.Type == "" && kinds[k].untyped || slices.Contains(kinds[k].types, v.Type)
}

// Text returns a claim that is a string, and "" for any other.
func (v *Verified) Text(claim string) string {
	s, _ := v.Values[claim].(string)
	return s
}

// KeyRetired reports whether the issuer has withdrawn the key that verified the
// token since. It costs one atomic load.
func (v *Verified) KeyRetired() bool { return v.key.retired.Load() }

// Lasting returns what [Verified.KeyRetired], [Verified.Leeway] and [Verified.ValidAt] need
// of the token, for those who keep many for long.
func (v *Verified) Lasting() *Verified {
	return &Verified{Expires: v.Expires, IssuedAt: v.IssuedAt, NotBefore: v.NotBefore, config: v.config, key: v.key, meant: v.meant}
}

// Leeway returns how far the issuer's clock may be off.
func (v *Verified) Leeway() time.Duration { return v.config.Leeway }

// DenylistToken prepares the token for [denylist.List.CheckToken].
func (v *Verified) DenylistToken() (*denylist.Token, error) {
	t, err := denylist.NewToken(denylist.Claims{
		Issuer: v.Issuer, Expires: v.Expires, IssuedAt: v.IssuedAt,
		KeyID: v.KeyID, Fingerprint: v.Fingerprint, Values: v.Values,
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't prepare the token for the denylist: %w", err)
	}
	return t, nil
}

// ValidAt checks time, lifetime and audience, and allocates nothing for a token
// that passes. It errs with [ErrExpired], [ErrNotYetValid], [ErrLifetime] or
// [ErrAudience].
//
// Only ErrExpired is final. A token that is not valid yet, that another service
// accepts by its own audience, or that has no iat and less left to live tomorrow,
// may be accepted elsewhere or later: who revokes must not drop it for that.
func (v *Verified) ValidAt(now time.Time) error {
	c := v.config
	if !now.Before(v.Expires.Add(c.Leeway)) {
		return ErrExpired
	}
	latest := now.Add(c.Leeway)
	if v.NotBefore.After(latest) || v.IssuedAt.After(latest) {
		return ErrNotYetValid
	}
	from := v.IssuedAt
	if from.IsZero() {
		from = now
	}
	if v.Expires.Sub(from) > c.MaxLifetime+c.Leeway {
		return ErrLifetime
	}
	if !v.meant {
		return ErrAudience
	}
	return nil
}

// meantFor reports whether tokens for these audiences are for one of the issuer's.
func (i *Issuer) meantFor(audience []string) bool {
	return len(i.Audiences) == 0 || slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(i.Audiences, a) })
}

// IsPlain reports whether what is sent to a URL can be read on the way to another
// machine.
func IsPlain(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}
