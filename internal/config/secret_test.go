package config

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := strings.Repeat("s3cret! ", 8)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte(secret)}))
	for name, c := range map[string]struct{ text, want, err string }{
		"bare":                    {secret, secret, ""},
		"a line":                  {secret + "\n", secret, ""},
		"a line of Windows":       {secret + "\r\n", secret, ""},
		"two line ends":           {secret + "\n\n", secret + "\n", ""},
		"a space is the secret's": {" " + secret + " ", " " + secret + " ", ""},
		"16 KiB":                  {strings.Repeat("x", 16384), strings.Repeat("x", 16384), ""},
		"more":                    {strings.Repeat("x", 16385), "", "is larger than 16 KiB"},
		"empty":                   {"", "", "is empty"},
		"a line end alone":        {"\n", "", "is empty"},
		"short, with a line end":  {secret[:31] + "\n", "", "has 31 bytes, and HS256 needs 32 or more"},
		"a key":                   {key, "", "is a key in PEM, DER or JWK form"},
	} {
		t.Run(name, func(t *testing.T) {
			i := Issuer{Issuer: "a", SecretFile: write("secret", c.text), Algorithms: []string{"HS256"}}
			got, err := i.Secret("issuers[3]")
			if c.err == "" {
				if err != nil || string(got) != c.want {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "config: issuers[3].secret_file: ") || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "xx") || strings.Contains(err.Error(), "\n") {
				t.Errorf("it holds the secret: %v", err)
			}
		})
	}
	missing := Issuer{SecretFile: filepath.Join(dir, "missing")}
	if _, err := missing.Secret("i"); err == nil || !strings.HasPrefix(err.Error(), "config: i.secret_file: ") {
		t.Errorf("a missing file: %v", err)
	}
	if got, err := (&Issuer{}).Secret("i"); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
}
