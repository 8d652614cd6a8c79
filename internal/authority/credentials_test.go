package authority

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

func TestBasicSpellings(t *testing.T) {
	encodeAll := func(s string) string { // as oauth4webapi does, to the last byte
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
		return b.String()
	}
	for _, c := range []client.Config{
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
		all, err := client.New([]client.Config{c, {ID: "percentA", SecretSHA256: hash("other")}}, client.Options{})
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
			got, _ := all.Authenticate(t.Context(), creds, now)
			if wrong := strings.HasPrefix(spelling, "wrong"); (got == nil) != wrong || got != nil && got.ID() != c.ID {
				t.Errorf("client %q, secret %q, %s spelling: authenticated as %+v", c.ID, secret, spelling, got)
			}
		}
	}
}

func TestConfigMistakesNameTheKey(t *testing.T) {
	cases := map[string]struct {
		issuers []Issuer
		want    string
	}{
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
		_, err := New(Config{Log: &fakeLog{}, List: denylist.New(), Tokens: testTokens, Clients: registry(t), Issuers: c.issuers})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to begin with %s", name, err, c.want)
		}
	}
	if _, err := New(Config{Issuers: []Issuer{{Issuer: issuer}}}); err == nil {
		t.Error("an authority without a log")
	}
}
