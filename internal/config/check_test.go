package config

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token"
)

func TestChecks(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{HTTPURL("u", "foo"), `config: u: not an http(s) URL: "foo"`},
		{HTTPURL("u", "ftp://h"), `config: u: not an http(s) URL: "ftp://h"`},
		{HTTPURL("u", "http://"), `config: u: not an http(s) URL: "http://"`},
		{HTTPURL("u", ""), `config: u: is required`},
		{HTTPURL("u", "http://a:hunter2@h"), `config: u: a URL here must not hold credentials`},
		{HTTPURL("u", "http://a:%zz@h"), `config: u: a URL here must not hold credentials`},
		{HTTPURL("u", "http://h/?q"), `config: u: a URL here has no query and no fragment: "http://h/?q"`},
		{HTTPURL("u", "https://h:1/p"), ""},
		{HTTPURL("u", "https://h:1/p@2"), ""},
		{Endpoint("u", "https://h/p?owner=ops@a.example"), ""},
		{Endpoint("u", "https://a@h/p?q"), `config: u: a URL here must not hold credentials`},
		{Endpoint("u", "https://h/p?q#f"), `config: u: a URL here has no fragment: "https://h/p?q#f"`},
		{NATSURL("u", "nats://a:4222,tls://b:4222"), ""},
		{NATSURL("u", "http://a"), `config: u: not a URL such as nats://host:4222, or several with commas between`},
		{Address("l", "127.0.0.1:0"), ""},
		{Address("l", ":8700"), ""},
		{Address("l", "8700"), `config: l: not host:port, such as 127.0.0.1:8700: "8700"`},
		{Address("l", "h:http"), `config: l: not host:port, such as 127.0.0.1:8700: "h:http"`},
		{OneOf("w", "c", "a", "b"), `config: w: must be one of a, b, not "c"`},
		{Between("d", 0, time.Second, 48*time.Hour), `config: d: must be from 1s to 48h, not 0s`},
		{Each("l", []string{"a", "a"}, Required), `config: l[1]: "a" is there twice`},
		{Required("r", strings.Repeat("x", 9)), ""},
	} {
		got := ""
		if c.err != nil {
			got = c.err.Error()
		}
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestIssuerCheck(t *testing.T) {
	change := func(f func(*Issuer)) error {
		i := NewIssuer("https://idp.example", "https://idp.example/jwks")
		f(&i)
		return i.Check("issuers[0]")
	}
	for _, c := range []struct {
		change func(*Issuer)
		want   string
	}{
		{func(*Issuer) {}, "<nil>"},
		{func(i *Issuer) { i.Issuer = "" }, `config: issuers[0].issuer: is required`},
		{func(i *Issuer) { i.JWKSURI = "foo" }, `config: issuers[0].jwks_uri: not an http(s) URL: "foo"`},
		{func(i *Issuer) { i.Algorithms = nil }, `config: issuers[0].algorithms: is required`},
		{
			func(i *Issuer) { i.Algorithms = []string{"RS256", "HS256"} },
			`config: issuers[0].algorithms[1]: must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, not "HS256"`,
		},
		{func(i *Issuer) { i.SecretFile = "s" }, `config: issuers[0].secret_file: can't be given beside jwks_uri`},
		{
			func(i *Issuer) { i.JWKSURI, i.SecretFile = "", "s" },
			`config: issuers[0].algorithms[0]: must be one of HS256, HS384, HS512, not "RS256"`,
		},
		{func(i *Issuer) { i.JWKSURI, i.SecretFile, i.Algorithms = "", "s", []string{"HS512", "HS256"} }, "<nil>"},
		{func(i *Issuer) { i.JWKSURI = "" }, `config: issuers[0].jwks_uri: is required`},
		{func(i *Issuer) { i.Audiences = []string{""} }, `config: issuers[0].audiences[0]: is required`},
		{func(i *Issuer) { i.MaxTokenLifetime = 0 }, `config: issuers[0].max_token_lifetime: must be from 1s to 87600h, not 0s`},
		{func(i *Issuer) { i.Leeway = time.Hour }, `config: issuers[0].leeway: must be from 1s to 2m, not 1h`},
	} {
		if got := fmt.Sprint(change(c.change)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// What a file leaves out means the same to every part that can be asked.
func TestIssuerDefaultsAreTheReaders(t *testing.T) {
	i := NewIssuer("https://idp.example", "https://idp.example/jwks")
	if i.MaxTokenLifetime != token.DefaultMaxLifetime || i.Leeway != token.DefaultLeeway {
		t.Errorf("%+v", i)
	}
	for _, name := range token.Algorithms() {
		if i.Algorithms = []string{name}; i.Check("i") != nil {
			t.Errorf("%s can be read, but not configured", name)
		}
	}
}

func TestListen(t *testing.T) {
	ln, err := Listen(t.Context(), "listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	busy := ln.Addr().(*net.TCPAddr).String()
	for address, want := range map[string]string{
		busy:          "config: listen: " + busy + " is already in use",
		"192.0.2.1:0": "config: listen: 192.0.2.1:0 is not an address of this machine",
	} {
		if _, err := Listen(t.Context(), "listen", address); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
