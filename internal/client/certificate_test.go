package client

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// leaf makes a certificate with these names. Who signed it was asked before.
func leaf(t testing.TB, c x509.Certificate) []*x509.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(1)
	if c.NotAfter.IsZero() {
		c.NotAfter = now.Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{parsed}
}

// rdns is a DER subject of RDNs in the order of the certificate.
func rdns(t testing.TB, sets ...pkix.RelativeDistinguishedNameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(sets))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attribute(oid string, value any) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oidOf(oid), Value: value}
}

func oidOf(name string) asn1.ObjectIdentifier {
	return map[string]asn1.ObjectIdentifier{
		"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "odd": {1, 3, 6, 1, 4, 1, 99},
	}[name]
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestCertificateMustHaveTheOneName(t *testing.T) {
	c, o := attribute("C", "DE"), attribute("O", "Example, Inc.")
	subject := rdns(t, pkix.RelativeDistinguishedNameSET{c}, pkix.RelativeDistinguishedNameSET{o}, pkix.RelativeDistinguishedNameSET{attribute("CN", "web")})
	presented := leaf(t, x509.Certificate{
		RawSubject: subject, DNSNames: []string{"a.example", "web.example"}, EmailAddresses: []string{"web@example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")}, URIs: []*url.URL{mustURL("spiffe://example/web")},
	})
	odd := func(set ...pkix.AttributeTypeAndValue) []*x509.Certificate {
		return leaf(t, x509.Certificate{RawSubject: rdns(t, set)})
	}
	for name, c := range map[string]struct {
		config    Config
		presented []*x509.Certificate
		ok        bool
	}{
		"subject":                      {Config{TLSSubjectDN: `CN=web,O=Example\, Inc.,C=DE`}, presented, true},
		"subject, spelled otherwise":   {Config{TLSSubjectDN: `2.5.4.3=#0c03776562,o=Example\2c Inc.,c=D\45`}, presented, true},
		"subject in the other order":   {Config{TLSSubjectDN: `C=DE,O=Example\, Inc.,CN=web`}, presented, false},
		"a part of the subject":        {Config{TLSSubjectDN: `CN=web`}, presented, false},
		"more than the subject":        {Config{TLSSubjectDN: `UID=1,CN=web,O=Example\, Inc.,C=DE`}, presented, false},
		"subject in another case":      {Config{TLSSubjectDN: `CN=Web,O=Example\, Inc.,C=DE`}, presented, false},
		"one RDN of what are two":      {Config{TLSSubjectDN: `CN=web+O=Example\, Inc.,C=DE`}, presented, false},
		"one RDN, either order":        {Config{TLSSubjectDN: `CN=web+OU=x`}, odd(attribute("OU", "x"), attribute("CN", "web")), true},
		"one RDN, the other":           {Config{TLSSubjectDN: `OU=x+CN=web`}, odd(attribute("OU", "x"), attribute("CN", "web")), true},
		"a value that forges two":      {Config{TLSSubjectDN: `CN=web,O=x`}, odd(attribute("CN", `web,O=x`)), false},
		"an attribute without a name":  {Config{TLSSubjectDN: `1.3.6.1.4.1.99=#130178`}, odd(attribute("odd", "x")), true},
		"no subject":                   {Config{TLSSubjectDN: `CN=web`}, leaf(t, x509.Certificate{RawSubject: rdns(t), DNSNames: []string{"CN=web"}}), false},
		"DNS":                          {Config{TLSSANDNS: "web.example"}, presented, true},
		"another DNS":                  {Config{TLSSANDNS: "b.example"}, presented, false},
		"DNS in another case":          {Config{TLSSANDNS: "Web.example"}, presented, false},
		"a DNS wildcard":               {Config{TLSSANDNS: "*.example"}, presented, false},
		"DNS, by a wildcard":           {Config{TLSSANDNS: "web.example"}, leaf(t, x509.Certificate{DNSNames: []string{"*.example"}}), false},
		"DNS, as the common name":      {Config{TLSSANDNS: "web"}, presented, false},
		"DNS, as an email's":           {Config{TLSSANDNS: "web@example.org"}, presented, false},
		"URI":                          {Config{TLSSANURI: "spiffe://example/web"}, presented, true},
		"another URI":                  {Config{TLSSANURI: "spiffe://example/web/"}, presented, false},
		"IPv4":                         {Config{TLSSANIP: "192.0.2.1"}, presented, true},
		"IPv6":                         {Config{TLSSANIP: "2001:DB8:0::1"}, presented, true},
		"another IP":                   {Config{TLSSANIP: "192.0.2.2"}, presented, false},
		"IP, as DNS":                   {Config{TLSSANIP: "192.0.2.1"}, leaf(t, x509.Certificate{DNSNames: []string{"192.0.2.1"}}), false},
		"email":                        {Config{TLSSANEmail: "web@example.org"}, presented, true},
		"another email":                {Config{TLSSANEmail: "x@example.org"}, presented, false},
		"no names":                     {Config{TLSSANDNS: "web.example"}, leaf(t, x509.Certificate{}), false},
		"no certificate":               {Config{TLSSANDNS: "web.example"}, nil, false},
		"expired since":                {Config{TLSSANDNS: "web.example"}, leaf(t, x509.Certificate{DNSNames: []string{"web.example"}, NotAfter: now.Add(-time.Second)}), false},
		"an issuer's, behind the leaf": {Config{TLSSANDNS: "web.example"}, append(leaf(t, x509.Certificate{}), presented...), false},
	} {
		c.config.ID, c.config.Auth = "web", []string{TLSClientAuth}
		r := registry(t, Options{}, c.config, Config{ID: "secret", SecretSHA256: hash("")})
		credentials := Credentials{Method: TLSClientAuth, Certificates: c.presented, Logins: []Login{{ID: "web"}}}
		got, err := r.Authenticate(t.Context(), credentials, now)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrFailed) || err == nil && got.ID() != "web" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for _, id := range []string{"who", "secret", ""} {
			credentials.Logins = []Login{{ID: id}}
			if got, err := r.Authenticate(t.Context(), credentials, now); !errors.Is(err, ErrFailed) {
				t.Errorf("%s, of %q: %+v, %v", name, id, got, err)
			}
		}
		credentials.Logins = nil
		if got, err := r.Authenticate(t.Context(), credentials, now); !errors.Is(err, ErrFailed) {
			t.Errorf("%s, without an id: %+v, %v", name, got, err)
		}
	}
}

func TestDNIsReadAsRFC4514Says(t *testing.T) {
	for dn, want := range map[string]string{
		`CN=a`:                     `2.5.4.3="a"`,
		`cn=a`:                     `2.5.4.3="a"`,
		`CN=a,C=DE`:                `2.5.4.6="DE",2.5.4.3="a"`,
		`CN=a=b`:                   `2.5.4.3="a=b"`,
		`CN=a  b`:                  `2.5.4.3="a  b"`,
		`CN=a#`:                    `2.5.4.3="a#"`,
		`CN=\#a\ `:                 `2.5.4.3="#a "`,
		`CN=\ a\20`:                `2.5.4.3=" a "`,
		`CN=\",\+\,`:               ``,
		`CN=\"\+\,\;\<\>\\\=`:      `2.5.4.3="\"+,;<>\\="`,
		`CN=Lu\C4\8Di\C4\87`:       `2.5.4.3="Lučić"`,
		`CN=Lučić`:                 `2.5.4.3="Lučić"`,
		`OU=b+CN=a`:                `2.5.4.11="b"+2.5.4.3="a"`,
		`1.3.6.1.4.1.99=x`:         `1.3.6.1.4.1.99="x"`,
		`emailAddress=a@example`:   `1.2.840.113549.1.9.1="a@example"`,
		`CN=#0c0161`:               `2.5.4.3="a"`,
		`CN=#0c0161,C=DE`:          `2.5.4.6="DE",2.5.4.3="a"`,
		`DC=net`:                   `0.9.2342.19200300.100.1.25="net"`,
		``:                         ``,
		`a`:                        ``,
		`CN`:                       ``,
		`CN=`:                      ``,
		`CN=a,`:                    ``,
		`,CN=a`:                    ``,
		`CN=a+`:                    ``,
		`CN=a,,C=DE`:               ``,
		`CN=a, C=DE`:               ``,
		`CN = a`:                   ``,
		`CN= a`:                    ``,
		`CN=a `:                    ``,
		`CN=a;C=DE`:                ``,
		`CN="a"`:                   ``,
		`CN=<a>`:                   ``,
		"CN=a\x00":                 ``,
		`CN=a\`:                    ``,
		`CN=a\g`:                   ``,
		`CN=a\4`:                   ``,
		`CN=\FF`:                   ``,
		`CN=#`:                     ``,
		`CN=#0`:                    ``,
		`CN=#0c0161ff`:             ``,
		`CN=#020107`:               ``,
		`CN=#0c00`:                 ``,
		`XX=a`:                     ``,
		`5=a`:                      ``,
		`02.5.4.3=a`:               ``,
		`2..4=a`:                   ``,
		`2.5.4.99999999999999=a`:   ``,
		`OID.2.5.4.3=a`:            ``,
		strings.Repeat("CN=a,", 3): ``,
	} {
		got, err := parseDN(dn)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v; want %s", dn, got, err, want)
		}
	}
}

func TestSubjectThatIsNotTextHasNoName(t *testing.T) {
	good := rdns(t, pkix.RelativeDistinguishedNameSET{attribute("CN", "web")})
	for name, der := range map[string][]byte{
		"a number":            rdns(t, pkix.RelativeDistinguishedNameSET{attribute("CN", "web"), attribute("odd", 7)}),
		"something behind it": append(good[:len(good):len(good)], 0),
		"cut short":           good[:len(good)-1],
		"nothing":             nil,
	} {
		if got, err := canonicalDN(der); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What Go writes of a certificate's subject is read as that subject.
func FuzzDN(f *testing.F) {
	for _, s := range []string{"web", "Example, Inc.", " a ", "#a", `a\b"c+d=e<f>;`, "Lučić", "\x00", "*", "a+b"} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, cn, ou string) {
		if cn == "" || ou == "" {
			return
		}
		name := pkix.RDNSequence{{attribute("C", "DE")}, {attribute("CN", cn), attribute("OU", ou)}}
		der, err := asn1.Marshal(name)
		if err != nil {
			return // not text
		}
		want, err := canonicalDN(der)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseDN(name.String())
		if strings.ContainsRune(cn+ou, 0) { // must be escaped, and Go doesn't
			return
		}
		if err != nil || got != want {
			t.Errorf("%q reads as %s, %v; want %s", name.String(), got, err, want)
		}
	})
}
