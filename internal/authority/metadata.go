package authority

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// metadata is RFC 8414's, for as much of an authorization server as this is.
type metadata struct {
	Issuer string `json:"issuer"`
	// Section 3.2 has claims without elements left out. But the first of these is required,
	// and to leave out the second says that there are two.
	ResponseTypes        []string `json:"response_types_supported"`
	GrantTypes           []string `json:"grant_types_supported"`
	Revocation           string   `json:"revocation_endpoint,omitzero"`
	RevocationMethods    []string `json:"revocation_endpoint_auth_methods_supported,omitzero"`
	RevocationAlgorithms []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitzero"`
	Introspection        string   `json:"introspection_endpoint,omitzero"`
	IntrospectMethods    []string `json:"introspection_endpoint_auth_methods_supported,omitzero"`
	IntrospectAlgorithms []string `json:"introspection_endpoint_auth_signing_alg_values_supported,omitzero"`
	GlobalRevocation     string   `json:"global_token_revocation_endpoint,omitzero"`
	ServiceDocumentation string   `json:"service_documentation"`
}

const metadataPath = "/.well-known/oauth-authorization-server"

func (a *Authority) serveMetadata(w http.ResponseWriter, r *http.Request) {
	base, ok := a.baseURL(r)
	if !ok {
		writeError(w, http.StatusNotFound, "not_found", "public_url is not configured, and what clients call this by could be anything")
		return
	}
	m := metadata{Issuer: base, ResponseTypes: []string{}, GrantTypes: []string{}, ServiceDocumentation: base + openAPIPath}
	if a.speaksRFC7009 {
		methods, algorithms := a.clients.Methods(), a.clients.Algorithms()
		m.Revocation, m.RevocationMethods, m.RevocationAlgorithms = base+rfc7009.revoke[0], methods, algorithms
		m.Introspection, m.IntrospectMethods, m.IntrospectAlgorithms = base+rfc7009.introspect[0], methods, algorithms
	}
	if len(a.transmitters) > 0 && a.publicURL != "" {
		m.GlobalRevocation = base + globalPath
	}
	writeJSON(w, http.StatusOK, m)
}

// baseURL is what clients call the authority by: as configured, or else as this one did
// on the machine itself. From elsewhere a Host header is no more than somebody's word, and
// clients send secrets to where the metadata says.
func (a *Authority) baseURL(r *http.Request) (string, bool) {
	if a.publicURL != "" {
		return a.publicURL, true
	}
	u := url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	ip, err := netip.ParseAddr(u.Hostname())
	u.Host = strings.TrimSuffix(u.Host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	return u.String(), u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
