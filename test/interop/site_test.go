//go:build interop

package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// site is an authority that serves every dialect, with an issuer, and a sidecar
// before an API.
type site struct {
	issuer             *harness.Issuer
	authority, sidecar *harness.Process
}

// startSite starts a site. edit may change the authority's configuration: clients
// and the issuer stand in it in order.
func startSite(t *testing.T, clients []harness.Client, edit func(config map[string]any)) site {
	t.Helper()
	issuer := harness.NewIssuer(t)
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{issuer.Trust}, Clients: clients,
		Edit: func(config map[string]any) {
			config["public_url"] = "http://" + config["listen"].(string)
			if edit != nil {
				edit(config)
			}
		},
	})
	return site{issuer, authority, startSidecars(t, authority, issuer.Trust, 1)[0]}
}

// startSidecars starts some sidecars before an API that answers as accepts wants it.
func startSidecars(t *testing.T, authority *harness.Process, issuer harness.Trust, n int) (sidecars []*harness.Process) {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "42 orders")
	}))
	t.Cleanup(api.Close)
	for range n {
		sidecars = append(sidecars, harness.StartSidecar(t, harness.SidecarOptions{
			Authority: authority.URL, Upstream: api.URL, Issuers: []harness.Trust{issuer}, NoWait: true,
		}))
	}
	for _, sidecar := range sidecars {
		sidecar.WaitReady()
	}
	return sidecars
}

// part is the n-th client or issuer of a configuration.
func part(config map[string]any, name string, n int) map[string]any {
	return config[name].([]any)[n].(map[string]any)
}

var serial atomic.Int64

// token issues a token to a client, for a user.
func (s site) token(client, user string) string {
	now := time.Now()
	return s.issuer.Token(map[string]any{
		"jti": "token-" + strconv.FormatInt(serial.Add(1), 10), "sub": user, "client_id": client,
		"iat": now.Add(-time.Second).Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	})
}

// passes wants the sidecar to accept a token.
func (s site) passes(t *testing.T, what, token string) {
	t.Helper()
	if got := call(t, s.sidecar, token); !accepts(got) {
		t.Fatalf("%s: %d %v %s", what, got.status, got.header, got.body)
	}
}

// ends wants the sidecar to refuse a token by now, or soon.
func (s site) ends(t *testing.T, token string) {
	t.Helper()
	refusedByAll(t, []*harness.Process{s.sidecar}, token, time.Now())
}
