package client

import (
	"encoding/base64"
	"strings"
	"testing"
)

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
