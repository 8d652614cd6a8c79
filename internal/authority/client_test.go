package authority

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestBasicSpellings(t *testing.T) {
	encodeAll := func(s string) string { // as oauth4webapi does, to the last byte
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
		return b.String()
	}
	for _, c := range []Client{
		{ID: "web", SecretSHA256: hash(webSecret)},
		{ID: "with space", SecretSHA256: hash("a b")},
		{ID: "plus+plus", SecretSHA256: hash("a+b")},
		{ID: "percent%20", SecretSHA256: hash("100%")},
		{ID: "percent%41", SecretSHA256: hash("%41")},
		{ID: "dash-dot.", SecretSHA256: hash("a-b.c_d~e")},
		{ID: "secret-with-colon", SecretSHA256: hash(":a:b:")},
		{ID: "id:with:colon", SecretSHA256: hash("x:y")},
		{ID: "\u00fcml\u00e4ut", SecretSHA256: hash("\u65e5\u672c")},
	} {
		secrets := map[string]string{
			hash(webSecret): webSecret, hash("a b"): "a b", hash("a+b"): "a+b", hash("100%"): "100%", hash("%41"): "%41",
			hash("a-b.c_d~e"): "a-b.c_d~e", hash(":a:b:"): ":a:b:", hash("x:y"): "x:y", hash("\u65e5\u672c"): "\u65e5\u672c",
		}
		secret := secrets[c.SecretSHA256]
		all, err := newClients([]Client{c, {ID: "percentA", SecretSHA256: hash("other")}})
		if err != nil {
			t.Fatal(err)
		}
		for spelling, header := range map[string]string{
			"raw":         basic(c.ID, secret),
			"form":        basic(url.QueryEscape(c.ID), url.QueryEscape(secret)),
			"path":        basic(url.PathEscape(strings.ReplaceAll(c.ID, ":", "%3A")), url.PathEscape(secret)),
			"every byte":  basic(encodeAll(c.ID), encodeAll(secret)),
			"wrong: case": basic(c.ID, strings.ToUpper(secret)+"x"),
			"wrong: cut":  basic(c.ID, secret[1:]),
		} {
			if strings.Contains(c.ID, ":") && (spelling == "raw" || spelling == "path") {
				continue // RFC 7617 has no such id; only the encoded spelling can carry it
			}
			if strings.Contains(c.ID+secret, "%") && spelling == "path" {
				continue
			}
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set("Authorization", header)
			creds, sent, bad := basicCredentials(r)
			if !sent || bad != "" {
				t.Fatal(sent, bad)
			}
			got := all.authenticate(creds)
			if wrong := strings.HasPrefix(spelling, "wrong"); (got == nil) != wrong || got != nil && got.id != c.ID {
				t.Errorf("client %q, secret %q, %s spelling: authenticated as %+v", c.ID, secret, spelling, got)
			}
		}
	}
}

// An unknown client costs what a wrong secret does: the same hash and the same
// constant-time comparison, against a hash that nothing is known to match.
func TestUnknownClientCostsTheSame(t *testing.T) {
	all, err := newClients(testClients())
	if err != nil {
		t.Fatal(err)
	}
	if all.nobody.secret == [sha256.Size]byte{} {
		t.Error("nobody has a secret that can be known")
	}
	for _, method := range []string{AuthBasic, AuthPost} {
		wrong := credentials{method: method, logins: []login{{"web", "wrong"}, {"web", "wro ng"}}}
		unknown := credentials{method: method, logins: []login{{"who", "wrong"}, {"who", "wro ng"}}}
		if a, b := testing.AllocsPerRun(100, func() { all.authenticate(wrong) }),
			testing.AllocsPerRun(100, func() { all.authenticate(unknown) }); a != b {
			t.Errorf("%s: %v allocations for a wrong secret, %v for an unknown client", method, a, b)
		}
		// Even whoever knows nobody's secret is nobody.
		sum := sha256.Sum256([]byte("found out"))
		all.nobody.secret = sum
		if got := all.authenticate(credentials{method: method, logins: []login{{"", "found out"}, {"who", "found out"}}}); got != nil {
			t.Errorf("%s: authenticated as %+v", method, got)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	all, err := newClients(testClients())
	if err != nil {
		b.Fatal(err)
	}
	for _, id := range []string{"web", "who"} {
		b.Run(map[string]string{"web": "wrong secret", "who": "unknown client"}[id], func(b *testing.B) {
			for b.Loop() {
				all.authenticate(credentials{method: AuthBasic, logins: []login{{id, "wrong"}}})
			}
		})
	}
}

func TestNewClientSecret(t *testing.T) {
	secret, sum := NewClientSecret()
	if b, err := base64.RawURLEncoding.DecodeString(secret); err != nil || len(b) != 32 {
		t.Errorf("%q: %v", secret, err)
	}
	if sum != hash(secret) {
		t.Errorf("%s is not the hash of %s", sum, secret)
	}
	if again, _ := NewClientSecret(); again == secret {
		t.Error("the same secret twice")
	}
	all, err := newClients([]Client{{ID: "c", SecretSHA256: strings.ToUpper(sum)}})
	if err != nil || all.authenticate(credentials{method: AuthPost, logins: []login{{"c", secret}}}) == nil {
		t.Errorf("the pair doesn't work: %v", err)
	}
}

func TestConfigMistakesNameTheKey(t *testing.T) {
	good := Client{ID: "c", SecretSHA256: hash("x")}
	change := func(f func(*Client)) []Client { c := good; f(&c); return []Client{c} }
	cases := map[string]struct {
		clients []Client
		issuers []Issuer
		want    string
	}{
		"no id":             {clients: change(func(c *Client) { c.ID = "" }), want: "clients[0].id"},
		"a long id":         {clients: change(func(c *Client) { c.ID = strings.Repeat("x", maxClientID+1) }), want: "clients[0].id"},
		"id twice":          {clients: []Client{good, good}, want: "clients[1].id"},
		"no secret":         {clients: change(func(c *Client) { c.SecretSHA256 = "" }), want: "clients[0].secret_sha256"},
		"a short hash":      {clients: change(func(c *Client) { c.SecretSHA256 = "00" }), want: "clients[0].secret_sha256"},
		"no hash":           {clients: change(func(c *Client) { c.SecretSHA256 = strings.Repeat("g", 64) }), want: "clients[0].secret_sha256"},
		"an unused secret":  {clients: change(func(c *Client) { c.Auth = []string{AuthNone} }), want: "clients[0].secret_sha256"},
		"an unknown method": {clients: change(func(c *Client) { c.Auth = []string{"basic"} }), want: "clients[0].auth"},
		"an unknown grant":  {clients: change(func(c *Client) { c.Revoke = []string{"all"} }), want: "clients[0].revoke"},
		"a public admin":    {clients: []Client{{ID: "c", Auth: []string{AuthNone}, Revoke: []string{GrantOwn, GrantAny}}}, want: "clients[0].revoke"},
		"no issuers":        {issuers: []Issuer{}, want: "issuers"},
		"no issuer":         {issuers: []Issuer{{}}, want: "issuers[0].issuer"},
		"issuer twice":      {issuers: []Issuer{{Issuer: "a"}, {Issuer: "a"}}, want: "issuers[1].issuer"},
		"negative lifetime": {issuers: []Issuer{{Issuer: "a", MaxTokenLifetime: -1}}, want: "issuers[0].max_token_lifetime"},
		"an empty claim":    {issuers: []Issuer{{Issuer: "a", ClientClaims: []string{""}}}, want: "issuers[0].client_claims"},
	}
	for name, c := range cases {
		if c.issuers == nil {
			c.issuers = []Issuer{{Issuer: issuer}}
		}
		_, err := New(Config{Log: &fakeLog{}, Tokens: testTokens, Issuers: c.issuers, Clients: c.clients})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to begin with %s", name, err, c.want)
		}
	}
	if _, err := New(Config{Issuers: []Issuer{{Issuer: issuer}}}); err == nil {
		t.Error("an authority without a log")
	}
}
