package client

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// An unknown client costs what a wrong secret does: the same hash and the same
// constant-time comparison, against a hash that nothing is known to match.
func TestUnknownClientCostsTheSame(t *testing.T) {
	all, err := New([]Config{{ID: "web", SecretSHA256: hash("s3cret")}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if all.nobody.secret == [sha256.Size]byte{} {
		t.Error("nobody has a secret that can be known")
	}
	for _, method := range []string{SecretBasic, SecretPost} {
		wrong := Credentials{Method: method, Logins: []Login{{"web", "wrong"}, {"web", "wro ng"}}}
		unknown := Credentials{Method: method, Logins: []Login{{"who", "wrong"}, {"who", "wro ng"}}}
		if a, b := testing.AllocsPerRun(100, func() { _, _ = all.Authenticate(t.Context(), wrong, now) }),
			testing.AllocsPerRun(100, func() { _, _ = all.Authenticate(t.Context(), unknown, now) }); a != b {
			t.Errorf("%s: %v allocations for a wrong secret, %v for an unknown client", method, a, b)
		}
		// Even whoever knows nobody's secret is nobody.
		sum := sha256.Sum256([]byte("found out"))
		all.nobody.secret = sum
		if got, err := all.Authenticate(t.Context(), Credentials{Method: method, Logins: []Login{{"", "found out"}, {"who", "found out"}}}, now); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: authenticated as %+v", method, got)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	all, err := New([]Config{{ID: "web", SecretSHA256: hash("s3cret")}}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, id := range []string{"web", "who"} {
		b.Run(map[string]string{"web": "wrong secret", "who": "unknown client"}[id], func(b *testing.B) {
			for b.Loop() {
				_, _ = all.Authenticate(b.Context(), Credentials{Method: SecretBasic, Logins: []Login{{id, "wrong"}}}, now)
			}
		})
	}
}

func TestNewSecret(t *testing.T) {
	secret, sum := NewSecret()
	if b, err := base64.RawURLEncoding.DecodeString(secret); err != nil || len(b) != 32 {
		t.Errorf("%q: %v", secret, err)
	}
	if sum != hash(secret) {
		t.Errorf("%s is not the hash of %s", sum, secret)
	}
	if again, _ := NewSecret(); again == secret {
		t.Error("the same secret twice")
	}
	all, err := New([]Config{{ID: "c", SecretSHA256: strings.ToUpper(sum)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := all.Authenticate(t.Context(), Credentials{Method: SecretPost, Logins: []Login{{"c", secret}}}, now); err != nil {
		t.Errorf("the pair doesn't work: %v", err)
	}
}

func TestConfigMistakesNameTheKey(t *testing.T) {
	good := Config{ID: "c", SecretSHA256: hash("x")}
	change := func(f func(*Config)) []Config { c := good; f(&c); return []Config{c} }
	for name, c := range map[string]struct {
		clients []Config
		want    string
	}{
		"no id":             {change(func(c *Config) { c.ID = "" }), "clients[0].id"},
		"a long id":         {change(func(c *Config) { c.ID = strings.Repeat("x", maxClientID+1) }), "clients[0].id"},
		"id twice":          {[]Config{good, good}, "clients[1].id"},
		"no secret":         {change(func(c *Config) { c.SecretSHA256 = "" }), "clients[0].secret_sha256"},
		"a short hash":      {change(func(c *Config) { c.SecretSHA256 = "00" }), "clients[0].secret_sha256"},
		"no hash":           {change(func(c *Config) { c.SecretSHA256 = strings.Repeat("g", 64) }), "clients[0].secret_sha256"},
		"an unused secret":  {change(func(c *Config) { c.Auth = []string{None} }), "clients[0].secret_sha256"},
		"an unknown method": {change(func(c *Config) { c.Auth = []string{"basic"} }), "clients[0].auth"},
		"an unknown grant":  {change(func(c *Config) { c.Revoke = []string{"all"} }), "clients[0].revoke"},
		"a public admin":    {[]Config{{ID: "c", Auth: []string{None}, Revoke: []string{GrantOwn, GrantAny}}}, "clients[0].revoke"},
	} {
		if _, err := New(c.clients, Options{}); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to begin with %s", name, err, c.want)
		}
	}
}
