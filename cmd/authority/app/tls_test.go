package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/token/tokentest"
)

// ca is an authority of certificates.
type ca struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newAuthorityOfCertificates(t *testing.T) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{key: key, pool: x509.NewCertPool()}
	if c.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	c.pool.AddCert(c.certificate)
	return c
}

func (c *ca) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.certificate.Raw}))
}

// issue makes a certificate for a name, as PEM.
func (c *ca) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, private.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// pair is issue for the TLS of this process.
func (c *ca) pair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	cert, key := c.issue(t, name)
	made, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// files writes a server's certificate, and returns the configuration for it.
func (c *ca) files(t *testing.T, dir, name string) string {
	t.Helper()
	cert, key := c.issue(t, name)
	return "tls: {cert_file: " + write(t, filepath.Join(dir, "cert.pem"), cert) + ", key_file: " + write(t, filepath.Join(dir, "key.pem"), key) + "}\n"
}

// caller is a client of an authority with TLS.
func (c *ca) caller(certificates ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			RootCAs: c.pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8),
			// Shown whatever the server asks for, as a client may.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certificates) == 0 {
					return &tls.Certificate{}, nil
				}
				return &certificates[0], nil
			},
		},
	}}
}

func TestTLSFilesAreNamedByKey(t *testing.T) {
	dir := t.TempDir()
	c := newAuthorityOfCertificates(t)
	c.files(t, dir, "a.example")
	in := func(name string) string { return filepath.Join(dir, name) }
	_, otherKey := c.issue(t, "a.example")
	write(t, in("other.pem"), otherKey)
	write(t, in("rubbish.pem"), "rubbish")
	write(t, in("ca.pem"), c.pem())
	good := TLS{CertFile: in("cert.pem"), KeyFile: in("key.pem"), ClientCAFile: in("ca.pem")}
	if err := (&certificates{}).load(good); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string][]func(*TLS){
		"tls.cert_file": {
			func(x *TLS) { x.CertFile = in("missing") }, func(x *TLS) { x.CertFile = in("rubbish.pem") }, func(x *TLS) { x.CertFile = x.KeyFile },
			func(x *TLS) { x.KeyFile = in("other.pem") }, func(x *TLS) { x.KeyFile = in("rubbish.pem") },
		},
		"tls.key_file":       {func(x *TLS) { x.KeyFile = in("missing") }, func(x *TLS) { x.KeyFile = dir }},
		"tls.client_ca_file": {func(x *TLS) { x.ClientCAFile = in("missing") }, func(x *TLS) { x.ClientCAFile = in("rubbish.pem") }, func(x *TLS) { x.ClientCAFile = in("key.pem") }},
	} {
		for _, f := range change {
			wrong := good
			f(&wrong)
			err := (&certificates{}).load(wrong)
			if e, ok := errors.AsType[*config.Error](err); !ok || e.Key != key || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v: %v, want %s", wrong, err, key)
			}
			cfg := testConfig(t)
			cfg.TLS = wrong
			if err := Run(t.Context(), cfg, Options{}); err == nil || !strings.HasPrefix(err.Error(), "config: "+key+": ") {
				t.Errorf("Run: %v", err)
			}
			if _, err := os.Stat(cfg.DataDir); err == nil {
				t.Error("a bad certificate touched the disk")
			}
		}
	}
	for _, incomplete := range []TLS{{CertFile: "x"}, {KeyFile: "x"}, {ClientCAFile: "x"}} {
		cfg := testConfig(t)
		cfg.TLS = incomplete
		if err := Run(t.Context(), cfg, Options{}); err == nil || !strings.HasPrefix(err.Error(), "config: tls: ") {
			t.Errorf("%+v: %v", incomplete, err)
		}
	}
}

// withTLS is an authority with a certificate and clients that show one, and a signed
// token of each.
func withTLS(t *testing.T, c *ca) (cfg Config, tokenOf func(id string) string) {
	t.Helper()
	dir := t.TempDir()
	c.files(t, dir, "revoke.example")
	key := tokentest.NewKey("k", "ES256")
	jwks := httptest.NewServer(tokentest.NewIdP(key))
	t.Cleanup(jwks.Close)
	cfg = testConfig(t)
	cfg.Issuers = []Issuer{NewIssuer("https://idp.example", jwks.URL)}
	cfg.TLS = TLS{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: write(t, filepath.Join(dir, "ca.pem"), c.pem()),
	}
	cfg.Clients = []Client{
		{ID: "web", Auth: []string{"tls_client_auth"}, TLSSANDNS: "web.example"},
		{ID: "robot", Auth: []string{"tls_client_auth"}, TLSSubjectDN: "CN=robot.example"},
		{ID: "spa", Auth: []string{"none"}},
		{ID: "both", Auth: []string{"none", "tls_client_auth"}, TLSSANDNS: "both.example", Revoke: []string{"any"}},
	}
	return cfg, func(id string) string {
		return key.Token(map[string]any{
			"iss": "https://idp.example", "jti": rand.Text(), "client_id": id, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
	}
}

// revoking asks for a revocation with nothing but an id and a certificate. Its status is
// 0 where there is no connection.
func revoking(t *testing.T, client *http.Client, at, id, token string) (status int, body string) {
	t.Helper()
	resp, err := client.PostForm("https://"+at+"/oauth2/revoke", url.Values{"client_id": {id}, "token": {token}})
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestTLSClientAuthentication(t *testing.T) {
	c, other := newAuthorityOfCertificates(t), newAuthorityOfCertificates(t)
	cfg, tokenOf := withTLS(t, c)
	addrs, _ := start(t, cfg)
	for _, x := range []struct {
		name   string
		client *http.Client
		id     string
		owner  string
		status int
		says   string
	}{
		{"the right name", c.caller(c.pair(t, "web.example")), "web", "web", 200, ""},
		{"the right subject", c.caller(c.pair(t, "robot.example")), "robot", "robot", 200, ""},
		{"another client's token", c.caller(c.pair(t, "web.example")), "web", "spa", 400, "invalid_grant"},
		{"another client's name", c.caller(c.pair(t, "robot.example")), "web", "web", 401, "invalid_client"},
		{"a name within the name", c.caller(c.pair(t, "x.web.example")), "web", "web", 401, "invalid_client"},
		{"no certificate", c.caller(), "web", "web", 401, "invalid_client"},
		{"of another authority", c.caller(other.pair(t, "web.example")), "web", "web", 0, "certificate"},
		{"nobody's id", c.caller(c.pair(t, "web.example")), "who", "web", 401, "invalid_client"},
		{"a public client", c.caller(), "spa", "spa", 200, ""},
		{"a public client with somebody's certificate", c.caller(c.pair(t, "web.example")), "spa", "spa", 200, ""},
		{"a public client is no more for it", c.caller(c.pair(t, "web.example")), "spa", "web", 400, "invalid_grant"},
		{"either: by its certificate", c.caller(c.pair(t, "both.example")), "both", "web", 200, ""},
		{"either: by its id alone", c.caller(), "both", "both", 200, ""},
		{"either: an id has no grants", c.caller(), "both", "web", 400, "invalid_grant"},
		{"either: another's certificate has none", c.caller(c.pair(t, "web.example")), "both", "web", 400, "invalid_grant"},
	} {
		t.Run(x.name, func(t *testing.T) {
			status, body := revoking(t, x.client, addrs.HTTP, x.id, tokenOf(x.owner))
			if status != x.status || !strings.Contains(body, x.says) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestTLSServes(t *testing.T) {
	c := newAuthorityOfCertificates(t)
	cfg, _ := withTLS(t, c)
	cfg.TLS.ClientCAFile, cfg.Clients = "", nil
	addrs, stop := start(t, cfg)
	resp, err := c.caller(c.pair(t, "web.example")).Get("https://" + addrs.HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 1 || resp.TLS.Version < tls.VersionTLS12 {
		t.Errorf("%s %s %x", resp.Proto, resp.Status, resp.TLS.Version)
	}
	if code, _ := get(t, "http://"+addrs.HTTP+"/readyz"); code != http.StatusBadRequest {
		t.Errorf("without TLS: %d", code)
	}
	old := c.caller()
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if resp, err := old.Get("https://" + addrs.HTTP + "/readyz"); err == nil {
		_ = resp.Body.Close()
		t.Error("TLS 1.1 is served")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A new certificate is served, and a new authority of clients' counts, from the next
// connection on, also where it takes up an old session.
func TestTLSCertificatesAreSwapped(t *testing.T) {
	c, next := newAuthorityOfCertificates(t), newAuthorityOfCertificates(t)
	cfg, tokenOf := withTLS(t, c)
	cfg = cfg.complete()
	a := &assembled{}
	a.parts = assembleWith(t, cfg, io.Discard)
	server := httptest.NewUnstartedServer(a.face)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelWarn)
	server.Listener = a.tls.wrap(server.Listener)
	server.Start()
	t.Cleanup(server.Close)
	at := server.Listener.Addr().String()

	served := func(client *http.Client) string {
		t.Helper()
		resp, err := client.Get("https://" + at + "/healthz")
		if err != nil {
			return err.Error()
		}
		_ = resp.Body.Close()
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	web := c.caller(c.pair(t, "web.example"))
	if name := served(web); name != "revoke.example" {
		t.Error(name)
	}
	if status, body := revoking(t, web, at, "web", tokenOf("spa")); status == 401 || status == 0 {
		t.Error(status, body)
	}
	c.files(t, filepath.Dir(cfg.TLS.CertFile), "renewed.example")
	if !a.changed() {
		t.Error("a new certificate is not seen")
	}
	a.reloader.reload()
	if name := served(web); name != "renewed.example" && name != "revoke.example" { // a session may be taken up
		t.Error(name)
	}
	if name := served(c.caller()); name != "renewed.example" {
		t.Error(name)
	}
	// Half of a pair, as it lies there between two writes, is not taken.
	cert, key := c.issue(t, "third.example")
	write(t, cfg.TLS.CertFile, cert)
	a.reloader.reload()
	if name := served(c.caller()); name != "renewed.example" {
		t.Error(name)
	}
	write(t, cfg.TLS.KeyFile, key)
	if !a.changed() {
		t.Error("the other half is not seen")
	}
	a.reloader.reload()
	if name := served(c.caller()); name != "third.example" {
		t.Error(name)
	}
	write(t, cfg.TLS.ClientCAFile, next.pem())
	a.reloader.reload()
	if status, body := revoking(t, web, at, "web", tokenOf("web")); status != 0 && status != 401 {
		t.Errorf("a client of the authority that was: %d %s", status, body)
	}
	fresh := c.caller(next.pair(t, "web.example"))
	if status, body := revoking(t, fresh, at, "web", tokenOf("spa")); status == 401 || status == 0 {
		t.Errorf("a client of the new authority: %d %s", status, body)
	}
}
