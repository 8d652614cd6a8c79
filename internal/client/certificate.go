package client

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
)

// certificateName is the one name that a client's certificate must have. The rest is
// zero.
type certificateName struct {
	dn              string // canonical, see [canonicalDN]
	dns, uri, email string
	ip              netip.Addr
}

// newCertificateName errs with what the one field that is given must be.
func newCertificateName(c Config) (certificateName, error) {
	n := certificateName{dns: c.TLSSANDNS, uri: c.TLSSANURI, email: c.TLSSANEmail}
	var err error
	if c.TLSSubjectDN != "" {
		if n.dn, err = parseDN(c.TLSSubjectDN); err != nil {
			return n, fmt.Errorf("a distinguished name as in RFC 4514, like CN=web,O=Example: %w", err)
		}
	}
	if n.uri != "" {
		if u, err := url.Parse(n.uri); err != nil || !u.IsAbs() || u.String() != n.uri {
			return n, errors.New("an absolute URI in its usual spelling")
		}
	}
	if c.TLSSANIP != "" {
		if n.ip, err = netip.ParseAddr(c.TLSSANIP); err != nil || n.ip.Zone() != "" {
			return n, errors.New("an IP address")
		}
	}
	return n, nil
}

// randomCertificateName returns a name that no certificate has.
func randomCertificateName() certificateName {
	return certificateName{dn: rand.Text(), dns: rand.Text(), uri: rand.Text(), email: rand.Text()}
}

// in reports whether a certificate has the name. It looks at every kind of name,
// whichever counts, so that this takes as long for each client.
func (n *certificateName) in(leaf *x509.Certificate) bool {
	dn, err := canonicalDN(leaf.RawSubject)
	found := err == nil && n.dn != "" && dn == n.dn
	found = slices.Contains(leaf.DNSNames, n.dns) && n.dns != "" || found
	found = slices.Contains(leaf.EmailAddresses, n.email) && n.email != "" || found
	for _, u := range leaf.URIs {
		found = u.String() == n.uri && n.uri != "" || found
	}
	for _, b := range leaf.IPAddresses {
		ip, ok := netip.AddrFromSlice(b)
		found = ok && ip == n.ip || found
	}
	return found
}
