package client

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/token/tokentest"
)

func TestConfigMistakesNameTheKey(t *testing.T) {
	good := Config{ID: "c", SecretSHA256: hash("x")}
	signing := withKeys("c", es256())
	certified := Config{ID: "c", Auth: []string{TLSClientAuth}, TLSSANDNS: "a.example"}
	change := func(c Config, f func(*Config)) []Config { f(&c); return []Config{c} }
	cases := map[string]struct {
		clients []Config
		want    string
	}{
		"no id":             {change(good, func(c *Config) { c.ID = "" }), "clients[0].id"},
		"a long id":         {change(good, func(c *Config) { c.ID = strings.Repeat("x", maxClientID+1) }), "clients[0].id"},
		"id twice":          {[]Config{good, good}, "clients[1].id"},
		"no secret":         {change(good, func(c *Config) { c.SecretSHA256 = "" }), "clients[0].secret_sha256"},
		"a short hash":      {change(good, func(c *Config) { c.SecretSHA256 = "00" }), "clients[0].secret_sha256"},
		"no hash":           {change(good, func(c *Config) { c.SecretSHA256 = strings.Repeat("g", 64) }), "clients[0].secret_sha256"},
		"an unused secret":  {change(good, func(c *Config) { c.Auth = []string{None} }), "clients[0].secret_sha256"},
		"an unknown method": {change(good, func(c *Config) { c.Auth = []string{"basic"} }), "clients[0].auth"},
		"an unknown grant":  {change(good, func(c *Config) { c.Revoke = []string{"all"} }), "clients[0].revoke"},
		"a public admin":    {[]Config{{ID: "c", Auth: []string{None}, Revoke: []string{GrantOwn, GrantAny}}}, "clients[0].revoke"},

		"keys without the method":       {change(good, func(c *Config) { c.JWKS = signing.JWKS }), "clients[0].jwks_file"},
		"a key URI without the method":  {change(good, func(c *Config) { c.JWKSURI = jwksURI }), "clients[0].jwks_uri"},
		"algorithms without the method": {change(good, func(c *Config) { c.Algorithms = []string{"RS256"} }), "clients[0].algorithms"},
		"no keys":                       {change(signing, func(c *Config) { c.JWKS = nil }), "clients[0].jwks_uri"},
		"keys from two places":          {change(signing, func(c *Config) { c.JWKSURI = jwksURI }), "clients[0].jwks_file"},
		"no key set":                    {change(signing, func(c *Config) { c.JWKS = []byte("{}") }), "clients[0].jwks_file"},
		"an empty key file":             {change(signing, func(c *Config) { c.JWKS = []byte{} }), "clients[0].jwks_file"},
		"a relative key URI":            {change(signing, func(c *Config) { c.JWKS, c.JWKSURI = nil, "jwks" }), "clients[0].jwks_uri"},
		"a password in a key URI":       {change(signing, func(c *Config) { c.JWKS, c.JWKSURI = nil, "https://a:b@c/jwks" }), "clients[0].jwks_uri"},
		"a shared secret's algorithm":   {change(signing, func(c *Config) { c.Algorithms = []string{"HS256"} }), "clients[0].algorithms"},
		"no algorithm":                  {change(signing, func(c *Config) { c.Algorithms = []string{"none"} }), "clients[0].algorithms"},
		"a secret beside keys":          {change(signing, func(c *Config) { c.SecretSHA256 = hash("x") }), "clients[0].secret_sha256"},

		"no certificate":         {change(certified, func(c *Config) { c.TLSSANDNS = "" }), "clients[0].tls_client_auth_subject_dn"},
		"two certificates":       {change(certified, func(c *Config) { c.TLSSubjectDN = "CN=a" }), "clients[0].tls_client_auth_san_dns"},
		"a DN without the other": {change(good, func(c *Config) { c.TLSSubjectDN = "CN=a" }), "clients[0].tls_client_auth_subject_dn"},
		"a DNS name without":     {change(good, func(c *Config) { c.TLSSANDNS = "a" }), "clients[0].tls_client_auth_san_dns"},
		"a URI without":          {change(good, func(c *Config) { c.TLSSANURI = "a:b" }), "clients[0].tls_client_auth_san_uri"},
		"an IP without":          {change(good, func(c *Config) { c.TLSSANIP = "::1" }), "clients[0].tls_client_auth_san_ip"},
		"an email without":       {change(good, func(c *Config) { c.TLSSANEmail = "a@b" }), "clients[0].tls_client_auth_san_email"},
		"no DN":                  {change(certified, func(c *Config) { c.TLSSANDNS, c.TLSSubjectDN = "", "web" }), "clients[0].tls_client_auth_subject_dn"},
		"no URI":                 {change(certified, func(c *Config) { c.TLSSANDNS, c.TLSSANURI = "", "web" }), "clients[0].tls_client_auth_san_uri"},
		"a URI in no spelling":   {change(certified, func(c *Config) { c.TLSSANDNS, c.TLSSANURI = "", "HTTPS://a" }), "clients[0].tls_client_auth_san_uri"},
		"no IP":                  {change(certified, func(c *Config) { c.TLSSANDNS, c.TLSSANIP = "", "a" }), "clients[0].tls_client_auth_san_ip"},
		"a zone":                 {change(certified, func(c *Config) { c.TLSSANDNS, c.TLSSANIP = "", "fe80::1%eth0" }), "clients[0].tls_client_auth_san_ip"},

		"a negative rate": {change(good, func(c *Config) { c.Rate = -1 }), "clients[0].rate"},
		"no rate":         {change(good, func(c *Config) { c.Rate = math.NaN() }), "clients[0].rate"},
		"any rate":        {change(good, func(c *Config) { c.Rate = math.Inf(1) }), "clients[0].rate"},
		"negative quota":  {change(good, func(c *Config) { c.MaxEntries = -1 }), "clients[0].max_entries"},
		"a huge quota":    {change(good, func(c *Config) { c.MaxEntries = math.MaxInt64 }), "clients[0].max_entries"},
	}
	for _, o := range []string{
		"", "*", "null", "a.example", "//a.example", "https://", "https://a.example/", "https://a.example/x", "https://a.example?", "https://a.example#",
		"https://*.example", "https://u@a.example", "https://A.example", "HTTPS://a.example", "https://a.example:443", "http://a.example:80",
		"https://a.example:", "https://a.example:x", "https://ä.example", "https:a.example", " https://a.example", "https://a.example, https://b.example",
	} {
		cases["origin "+o] = struct {
			clients []Config
			want    string
		}{change(good, func(c *Config) { c.AllowedOrigins = []string{"https://ok.example", o} }), "clients[0].allowed_origins[1] "}
	}
	for name, c := range cases {
		_, err := New(c.clients, Options{Audiences: []string{audience}})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want it to begin with %s", name, err, c.want)
		}
	}
	if _, err := New([]Config{signing}, Options{}); err == nil || !strings.HasPrefix(err.Error(), "clients[0].auth") {
		t.Errorf("assertions for nobody: %v", err)
	}
	if _, err := New(nil, Options{Audiences: []string{""}}); err == nil {
		t.Error("an empty audience")
	}
}

func TestClientMayHaveSeveralMethods(t *testing.T) {
	all := Config{
		ID: "all", Auth: []string{None, PrivateKeyJWT, TLSClientAuth, SecretPost}, SecretSHA256: hash("s"),
		JWKS: tokentest.Document(es256()), TLSSANDNS: "a.example", Revoke: []string{GrantAny},
		AllowedOrigins: []string{"https://app.example", "http://localhost:3000", "http://[::1]:8080", "app://x"},
	}
	r := registry(t, Options{}, Config{ID: "spa", Auth: []string{None}}, all)
	if got, want := r.Methods(), []string{SecretPost, PrivateKeyJWT, TLSClientAuth, None}; !slices.Equal(got, want) {
		t.Errorf("methods %v, want %v", got, want)
	}
	for _, o := range all.AllowedOrigins {
		if !r.AllowsOrigin(o) {
			t.Errorf("%s is not allowed", o)
		}
	}
	for _, o := range []string{"", "null", "https://app.example.evil", "http://app.example", "https://app.example:8443"} {
		if r.AllowsOrigin(o) {
			t.Errorf("%s is allowed", o)
		}
	}
	// By its id alone it has no grants worth having, whatever else it can do.
	for method, admin := range map[string]bool{SecretPost: true, None: false} {
		secret := map[string]string{SecretPost: "s"}[method]
		got, err := r.Authenticate(t.Context(), byName(method, "all", secret), now)
		if err != nil || got.May(GrantAny) != admin {
			t.Errorf("%s: %+v, %v", method, got, err)
		}
	}
	if _, err := r.Authenticate(t.Context(), byName(SecretBasic, "all", "s"), now); err == nil {
		t.Error("a method that it hasn't")
	}
	// The registry keeps nothing that its caller may change.
	all.Auth[3], all.JWKS[0] = SecretBasic, 0
	if _, err := r.Authenticate(t.Context(), byName(SecretPost, "all", "s"), now); err != nil {
		t.Error(err)
	}
	start(t, r)
	if _, err := r.Authenticate(t.Context(), byAssertion(assertion(es256(), map[string]any{"iss": "all", "sub": "all"})), now); err != nil {
		t.Error(err)
	}
}

func TestClaimedTellsKnownIDsAlone(t *testing.T) {
	r := registry(t, Options{}, withKeys("svc", es256()), Config{ID: "web", SecretSHA256: hash("x")})
	for _, c := range []struct {
		Credentials
		want string
	}{
		{byName(SecretPost, "web", "wrong"), "web"},
		{byName(SecretPost, "a secret", "web"), ""},
		{Credentials{Logins: []Login{{ID: "x"}, {ID: "svc"}}}, "svc"},
		{byAssertion(assertion(other(), nil)), "svc"},
		{byAssertion(assertion(other(), map[string]any{"iss": "who"})), ""},
		{byAssertion("svc"), ""},
		{Credentials{}, ""},
	} {
		if got := r.Claimed(c.Credentials); got != c.want {
			t.Errorf("%+v: %q, want %q", c.Credentials, got, c.want)
		}
	}
}
