package authority

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token/tokentest"
)

// Metadata names the authority as it is called: as configured, else as by this caller.
func TestMetadataNamesTheAuthority(t *testing.T) {
	for _, c := range []struct {
		public, host string
		tls          bool
		want         string
	}{
		{"", "localhost:8700", false, "http://localhost:8700"},
		{"", "127.0.0.1", false, "http://127.0.0.1"},
		{"", "127.0.0.1:80", false, "http://127.0.0.1"},
		{"", "127.0.0.1:443", false, "http://127.0.0.1:443"},
		{"", "127.0.0.1:443", true, "https://127.0.0.1"},
		{"", "127.0.0.1:80", true, "https://127.0.0.1:80"},
		{"", "127.0.0.1:8443", true, "https://127.0.0.1:8443"},
		{"", "[::1]:443", true, "https://[::1]"},
		{"", "[::1]", false, "http://[::1]"},
		{"https://revoke.example", "127.0.0.1:8700", false, "https://revoke.example"},
		{"https://api.example/revoke", "127.0.0.1:8700", true, "https://api.example/revoke"},
	} {
		a := newAuthority(t, &fakeLog{}, func(config *Config) { config.PublicURL = c.public })
		r := httptest.NewRequest(http.MethodGet, metadataPath, nil)
		r.Host = c.host
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		got := checkJSON(t, do(a, r), 200, "")
		want := map[string]any{
			"issuer": c.want, "response_types_supported": []any{}, "grant_types_supported": []any{},
			"revocation_endpoint": c.want + "/oauth2/revoke", "introspection_endpoint": c.want + "/oauth2/introspect",
			"service_documentation": c.want + "/openapi.yaml",
		}
		for _, endpoint := range []string{"revocation", "introspection"} {
			want[endpoint+"_endpoint_auth_methods_supported"] = got["revocation_endpoint_auth_methods_supported"]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s at %s: %v, want %v", c.public, c.host, got, want)
		}
	}
}

// What only a Host header says is not told to clients, who would send secrets there.
func TestMetadataIsNotForAnyHost(t *testing.T) {
	for _, host := range []string{"revcast.internal:8700", "evil.example", "10.0.0.7:8700", "127.0.0.1.evil.example", "localhost.evil.example:80", ""} {
		r := httptest.NewRequest(http.MethodGet, metadataPath, nil)
		r.Host = host
		if body := checkJSON(t, do(newAuthority(t, &fakeLog{}), r), 404, "not_found"); !strings.Contains(fmt.Sprint(body), "public_url") {
			t.Errorf("%s: %v", host, body)
		}
	}
	a := newAuthority(t, &fakeLog{}, func(c *Config) { c.PublicURL = "https://api.example/revoke" })
	checkJSON(t, get(a, metadataPath+"/revoke"), 200, "") // RFC 8414 section 3.1
}

// Metadata tells of the methods that some client has, and of no other.
func TestMetadataMethods(t *testing.T) {
	secret, public := client.Config{ID: "a", SecretSHA256: hash("a")}, client.Config{ID: "b", Auth: []string{client.None}}
	keyed := client.Config{ID: "c", Auth: []string{client.PrivateKeyJWT}, Algorithms: []string{"ES256", "RS256"}, JWKS: tokentest.Document(tokentest.NewKey("k", "ES256"))}
	certified := client.Config{ID: "d", Auth: []string{client.TLSClientAuth}, TLSSANDNS: "d.example"}
	algorithms := []any{"RS256", "ES256"}
	for _, c := range []struct {
		clients    []client.Config
		methods    any
		algorithms any
	}{
		{nil, nil, nil},
		{[]client.Config{secret}, []any{client.SecretBasic, client.SecretPost}, nil},
		{[]client.Config{public}, []any{client.None}, nil},
		{[]client.Config{keyed}, []any{client.PrivateKeyJWT}, algorithms},
		{[]client.Config{certified, public, keyed, secret, {ID: "e", SecretSHA256: hash("e"), Auth: []string{client.SecretBasic}}},
			[]any{client.SecretBasic, client.SecretPost, client.PrivateKeyJWT, client.TLSClientAuth, client.None}, algorithms},
	} {
		all, err := client.New(c.clients, client.Options{Audiences: []string{"https://revcast.example"}})
		if err != nil {
			t.Fatal(err)
		}
		a := newAuthority(t, &fakeLog{}, func(config *Config) { config.Clients = all })
		got := checkJSON(t, get(a, "http://127.0.0.1"+metadataPath), 200, "")
		for _, endpoint := range []string{"revocation", "introspection"} {
			if methods := got[endpoint+"_endpoint_auth_methods_supported"]; !reflect.DeepEqual(methods, c.methods) {
				t.Errorf("%d clients, %s: methods %v, want %v", len(c.clients), endpoint, methods, c.methods)
			}
			if algs := got[endpoint+"_endpoint_auth_signing_alg_values_supported"]; !reflect.DeepEqual(algs, c.algorithms) {
				t.Errorf("%d clients, %s: algorithms %v, want %v", len(c.clients), endpoint, algs, c.algorithms)
			}
		}
	}
}

// A bearer token for global revocations is for a URL, so without one of ours there is
// no place for them.
func TestMetadataOfGlobalRevocation(t *testing.T) {
	transmitters := []Transmitter{{Issuer: issuer, Audiences: []string{"revcast"}, Issuers: []string{issuer}}}
	for _, c := range []struct {
		public       string
		transmitters []Transmitter
		want         any
	}{
		{"https://revoke.example", transmitters, "https://revoke.example/global-token-revocation"},
		{"", transmitters, nil},
		{"https://revoke.example", nil, nil},
	} {
		a := newAuthority(t, &fakeLog{}, func(config *Config) {
			config.PublicURL, config.Transmitters, config.Events = c.public, c.transmitters, fakeTokens{}
		})
		if got := checkJSON(t, get(a, "http://127.0.0.1"+metadataPath), 200, "")["global_token_revocation_endpoint"]; got != c.want {
			t.Errorf("%q: %v", c.public, got)
		}
	}
}

// Metadata has no endpoint that isn't served where it says.
func TestMetadataWithoutRFC7009(t *testing.T) {
	for _, mounts := range [][]Mount{nil, {{Dialect: "rfc7009", Prefix: "/idp"}}, {{Dialect: "rfc7009", Host: "idp.example"}}} {
		a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Dialects, c.Mounts = []string{"edgetag"}, mounts })
		got := checkJSON(t, get(a, "http://127.0.0.1"+metadataPath), 200, "")
		want := map[string]any{
			"issuer": "http://127.0.0.1", "response_types_supported": []any{}, "grant_types_supported": []any{},
			"service_documentation": "http://127.0.0.1/openapi.yaml",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %v", mounts, got)
		}
	}
	w := get(newAuthority(t, &fakeLog{}), openAPIPath)
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/yaml" || w.Body.String() != string(openAPI) {
		t.Errorf("%d %s", w.Code, w.Header())
	}
}
