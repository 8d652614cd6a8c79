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
