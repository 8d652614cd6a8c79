package client

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// strangers are wrong credentials of a client there is, by method, and the same of one
// there isn't, and a registry that refuses both.
func strangers(t testing.TB) (*Registry, map[string][2]Credentials) {
	t.Helper()
	certificates := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "x", Organization: []string{"Example"}, Country: []string{"DE"}}, DNSNames: []string{"x.example"}})
	all := map[string][2]Credentials{
		SecretBasic: {byName(SecretBasic, "web", "wrong"), byName(SecretBasic, "who", "wrong")},
		SecretPost: {
			{Method: SecretPost, Logins: []Login{{"web", "wrong"}, {"web", "wro ng"}}},
			{Method: SecretPost, Logins: []Login{{"who", "wrong"}, {"who", "wro ng"}}},
		},
	}
	for name, id := range map[string]string{"subject": "dn", "DNS": "dns"} {
		all[TLSClientAuth+" "+name] = [2]Credentials{
			{Method: TLSClientAuth, Certificates: certificates, Logins: []Login{{ID: id}}},
			{Method: TLSClientAuth, Certificates: certificates, Logins: []Login{{ID: "who"}}},
		}
	}
	list := []Config{
		{ID: "web", SecretSHA256: hash("x")},
		{ID: "dn", Auth: []string{TLSClientAuth}, TLSSubjectDN: "CN=web,O=Example,C=DE"},
		{ID: "dns", Auth: []string{TLSClientAuth}, TLSSANDNS: "web.example"},
	}
	for _, k := range []*tokentest.Key{rs256(), ps256(), es256(), eddsa()} {
		id := strings.ToLower(k.Alg)
		list = append(list, withKeys(id, k))
		wrong := func(id string) Credentials { // the signature is of other bytes
			signed, unsigned := assertion(k, map[string]any{"iss": id, "sub": id}), assertion(k, map[string]any{"iss": id, "sub": id, "jti": "j-2"})
			return byAssertion(signed[:strings.LastIndex(signed, ".")] + unsigned[strings.LastIndex(unsigned, "."):])
		}
		all[PrivateKeyJWT+" "+k.Alg] = [2]Credentials{wrong(id), wrong("w" + id[1:])}
	}
	r := registry(t, Options{}, list...)
	start(t, r)
	return r, all
}

// An unknown client costs what wrong credentials do: as many allocations where nothing
// but our own code runs, and about as much time.
func TestUnknownClientCostsTheSame(t *testing.T) {
	r, all := strangers(t)
	for name, pair := range all {
		try := func(i int) {
			if _, err := r.Authenticate(t.Context(), pair[i], now); err != ErrFailed { // the very same error
				t.Fatalf("%s: %v", name, err)
			}
		}
		if !strings.HasPrefix(name, PrivateKeyJWT) {
			if a, b := testing.AllocsPerRun(100, func() { try(0) }), testing.AllocsPerRun(100, func() { try(1) }); a != b {
				t.Errorf("%s: %v allocations for wrong credentials, %v for an unknown client", name, a, b)
			}
		}
		const rounds, calls = 151, 4
		var took [2][]time.Duration
		for range rounds { // in turns, so that whatever else runs here hits both
			for i := range took {
				began := time.Now()
				for range calls {
					try(i)
				}
				took[i] = append(took[i], time.Since(began))
			}
		}
		slices.Sort(took[0])
		slices.Sort(took[1])
		known, unknown := took[0][rounds/2], took[1][rounds/2]
		t.Logf("%s: %v for wrong credentials, %v for an unknown client", name, known/calls, unknown/calls)
		if known > 2*unknown || unknown > 2*known {
			t.Errorf("%s: %v for wrong credentials, %v for an unknown client", name, known/calls, unknown/calls)
		}
	}
}

func TestNobodyIsNoClient(t *testing.T) {
	r := registry(t, Options{}, Config{ID: "web", SecretSHA256: hash("s3cret")})
	if r.nobody.secret == [sha256.Size]byte{} {
		t.Error("nobody has a secret that can be known")
	}
	if r.nobody.certificate == (certificateName{}) {
		t.Error("nobody has no certificate")
	}
	// Even whoever knows nobody's secret is nobody.
	r.nobody.secret = sha256.Sum256([]byte("found out"))
	r.nobody.certificate.dns = "found.example"
	for _, id := range []string{"", "who"} {
		for _, method := range []string{SecretBasic, SecretPost, None, ""} {
			if got, err := r.Authenticate(t.Context(), byName(method, id, "found out"), now); !errors.Is(err, ErrFailed) {
				t.Errorf("%s of %q: authenticated as %+v", method, id, got)
			}
		}
		c := Credentials{Method: TLSClientAuth, Certificates: leaf(t, x509.Certificate{DNSNames: []string{"found.example"}}), Logins: []Login{{ID: id}}}
		if got, err := r.Authenticate(t.Context(), c, now); !errors.Is(err, ErrFailed) {
			t.Errorf("certificate of %q: authenticated as %+v", id, got)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	r, all := strangers(b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		pair := all[name]
		for i, what := range []string{"wrong", "unknown client"} {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _ = r.Authenticate(b.Context(), pair[i], now)
				}
			})
		}
	}
}
