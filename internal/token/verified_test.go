package token

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

func TestValidAt(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	const leeway, life = 30 * time.Second, 24 * time.Hour
	config := Issuer{MaxLifetime: life, Leeway: leeway}
	pinned := config
	pinned.Audiences = []string{"api", "web"}
	for _, c := range []struct {
		name string
		v    Verified
		want error
	}{
		{"good", Verified{config: &config, Expires: at(time.Hour), IssuedAt: now}, nil},
		{"expired within leeway", Verified{config: &config, Expires: at(-leeway + 1), IssuedAt: at(-time.Hour)}, nil},
		{"expired", Verified{config: &config, Expires: at(-leeway), IssuedAt: at(-time.Hour)}, ErrExpired},
		{"nbf within leeway", Verified{config: &config, Expires: at(time.Hour), NotBefore: at(leeway)}, nil},
		{"nbf ahead", Verified{config: &config, Expires: at(time.Hour), NotBefore: at(leeway + 1)}, ErrNotYetValid},
		{"iat within leeway", Verified{config: &config, Expires: at(time.Hour), IssuedAt: at(leeway)}, nil},
		{"iat ahead", Verified{config: &config, Expires: at(time.Hour), IssuedAt: at(leeway + 1)}, ErrNotYetValid},
		{"longest life", Verified{config: &config, Expires: at(life + leeway), IssuedAt: now}, nil},
		{"too long a life", Verified{config: &config, Expires: at(life + leeway + 1), IssuedAt: now}, ErrLifetime},
		{"too long a life, nearly over", Verified{config: &config, Expires: at(time.Hour), IssuedAt: at(-life)}, ErrLifetime},
		{"no iat, longest left", Verified{config: &config, Expires: at(life + leeway)}, nil},
		{"no iat, too long left", Verified{config: &config, Expires: at(life + leeway + 1)}, ErrLifetime},
		{"exp in the year 9999", Verified{config: &config, Expires: time.Unix(yearTenThousand-1, 0)}, ErrLifetime},
		{"no audience wanted", Verified{config: &config, Expires: at(time.Hour), Audience: []string{"x"}}, nil},
		{"audience", Verified{config: &pinned, Expires: at(time.Hour), Audience: []string{"x", "web"}}, nil},
		{"another audience", Verified{config: &pinned, Expires: at(time.Hour), Audience: []string{"x", "API"}}, ErrAudience},
		{"no audience", Verified{config: &pinned, Expires: at(time.Hour)}, ErrAudience},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.v.meant = c.v.config.meantFor(c.v.Audience)
			if err := c.v.ValidAt(now); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := testing.AllocsPerRun(10, func() { c.v.ValidAt(now) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// TestGraceCoversLeeway: a denylist entry outlives the last instant at which its
// token is accepted.
func TestGraceCoversLeeway(t *testing.T) {
	if denylist.MaxLeeway >= denylist.Grace {
		t.Error("an entry is dropped while its token is still accepted")
	}
}

func TestIssuerConfig(t *testing.T) {
	good := Issuer{Issuer: issuerA, JWKSURI: jwksURI, Algorithms: []string{"RS256"}}
	change := func(f func(*Issuer)) []Issuer { i := good; f(&i); return []Issuer{good, i} }
	for _, c := range []struct {
		name    string
		issuers []Issuer
		want    string
	}{
		{"none", nil, "Issuers must hold"},
		{"the same twice", []Issuer{good, good}, "Issuers[1].Issuer names"},
		{"no issuer", change(func(i *Issuer) { i.Issuer = "" }), "Issuers[1].Issuer is missing"},
		{"no URI", change(func(i *Issuer) { i.JWKSURI = "" }), "Issuers[1].JWKSURI is missing"},
		{"relative URI", change(func(i *Issuer) { i.JWKSURI = "/jwks" }), "Issuers[1].JWKSURI must be"},
		{"file URI", change(func(i *Issuer) { i.JWKSURI = "file:///jwks" }), "Issuers[1].JWKSURI must be"},
		{"bad URI", change(func(i *Issuer) { i.JWKSURI = "http://a b/" }), "Issuers[1].JWKSURI must be"},
		{"password in URI", change(func(i *Issuer) { i.JWKSURI = "https://u:hunter2@a.example/" }), "Issuers[1].JWKSURI must not"},
		{"no algorithm", change(func(i *Issuer) { i.Algorithms = nil }), "Issuers[1].Algorithms must"},
		{"HS256", change(func(i *Issuer) { i.Algorithms = []string{"RS256", "HS256"} }), "shared secret"},
		{"none", change(func(i *Issuer) { i.Algorithms = []string{"none"} }), `Issuers[1].Algorithms can't hold "none"`},
		{"lower case", change(func(i *Issuer) { i.Algorithms = []string{"rs256"} }), `can't hold "rs256"`},
		{"empty audience", change(func(i *Issuer) { i.Audiences = []string{""} }), "Issuers[1].Audiences"},
		{"negative lifetime", change(func(i *Issuer) { i.MaxLifetime = -1 }), "Issuers[1].MaxLifetime"},
		{"negative leeway", change(func(i *Issuer) { i.Leeway = -1 }), "Issuers[1].Leeway"},
		{"too much leeway", change(func(i *Issuer) { i.Leeway = denylist.MaxLeeway + 1 }), "Issuers[1].Leeway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewReader(c.issuers, nil, silent)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

func TestReason(t *testing.T) {
	if Reason(nil) != "" || Reason(errors.New("x")) != "other" {
		t.Error("nil or a foreign error has another label")
	}
	seen := map[string]bool{}
	for _, r := range reasons {
		if got := Reason(r.err); got != r.label || seen[got] {
			t.Errorf("%v: label %q", r.err, got)
		}
		seen[r.label] = true
	}
}
