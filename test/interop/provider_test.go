//go:build interop

package interop

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// The clients of idp.mjs, at the authority by the same names and secrets, and one
// that may revoke for subjects.
var (
	one     = harness.Client{ID: "one", Secret: "secret-one"}
	two     = harness.Client{ID: "two", Secret: "secret-two"}
	support = harness.Client{ID: "support", Secret: "secret-support", Revoke: []string{"subject"}}
)

// refusedWithin bounds how long a revocation may take to reach all sidecars on a
// busy machine; what it takes is in the log.
const refusedWithin = 2 * time.Second

// provider is idp.mjs, as authority and sidecar know it.
type provider struct {
	harness.Trust
	t     *testing.T
	port  string
	kill  context.CancelFunc
	ended chan struct{}
}

// newProvider chooses where idp.mjs will be.
func newProvider(t *testing.T) *provider {
	t.Helper()
	address := harness.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	return &provider{t: t, port: port, ended: make(chan struct{}), Trust: harness.Trust{
		Issuer: "http://" + address, JWKSURI: "http://" + address + "/jwks", Algorithms: []string{"RS256", "ES256"},
	}}
}

func startProvider(t *testing.T) harness.Trust {
	t.Helper()
	p := newProvider(t)
	p.start()
	return p.Trust
}

// start starts idp.mjs, with further arguments, and waits until it answers.
func (p *provider) start(args ...string) {
	p.t.Helper()
	ctx, kill := context.WithCancel(p.t.Context())
	p.kill = kill
	var out bytes.Buffer
	script := exec.CommandContext(ctx, node(p.t), append([]string{"idp.mjs", p.port}, args...)...)
	script.Stdout, script.Stderr = &out, &out
	if err := script.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = script.Wait()
	}()
	p.t.Cleanup(func() {
		p.end()
		if p.t.Failed() {
			p.t.Logf("output of idp.mjs:\n%s", out.Bytes())
		}
	})
	for deadline := time.Now().Add(harness.ReadyTimeout); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(p.JWKSURI); err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal("idp.mjs doesn't answer")
		}
		select {
		case <-p.ended:
			p.t.Fatal("idp.mjs ended")
		default:
		}
	}
}

// end kills idp.mjs and waits for its end.
func (p *provider) end() {
	p.kill()
	<-p.ended
}

// clientCredentials gets an access token. scope es: signed with ES256.
func clientCredentials(t *testing.T, idp harness.Trust, client harness.Client, scope string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
	token, _ := postForm(t, client, idp.Issuer+"/token", form).object(t)["access_token"].(string)
	if strings.Count(token, ".") != 2 {
		t.Fatalf("the provider issued %q, not a JWT", token)
	}
	return token
}

// call calls an API through a sidecar.
func call(t *testing.T, sidecar *harness.Process, token string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sidecar.URL+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	return do(t, request)
}

// accepts and refuses are the two answers of a sidecar to a call.
func accepts(a answer) bool { return a.status == http.StatusOK && a.body == "42 orders" }

func refuses(a answer) bool {
	return a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == `Bearer error="invalid_token"`
}

// refusedByAll calls until every sidecar refuses the token, and returns how long
// after since the last one did so for the first time.
func refusedByAll(t *testing.T, sidecars []*harness.Process, token string, since time.Time) time.Duration {
	t.Helper()
	took := make([]time.Duration, len(sidecars))
	var calling sync.WaitGroup
	for i, sidecar := range sidecars {
		calling.Go(func() {
			for took[i] == 0 && time.Since(since) < refusedWithin {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sidecar.URL, nil)
				if err != nil {
					return
				}
				request.Header.Set("Authorization", "Bearer "+token)
				resp, err := http.DefaultClient.Do(request)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusUnauthorized {
					took[i] = time.Since(since)
				}
			}
		})
	}
	calling.Wait()
	last := took[0]
	for i, sidecar := range sidecars {
		if got := call(t, sidecar, token); took[i] == 0 || !refuses(got) {
			t.Fatalf("sidecar %d: %d %v %s %v after the revoke's answer", i, got.status, got.header, got.body, time.Since(since))
		}
		last = max(last, took[i])
	}
	return last
}

// TestRealIdentityProviderAndProcesses is the story of the README between real
// processes, with tokens of a real OpenID provider.
func TestRealIdentityProviderAndProcesses(t *testing.T) {
	idp := startProvider(t)
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{idp}, Clients: []harness.Client{one, two, support},
	})
	sidecars := startSidecars(t, authority, idp, 3)
	everywhere := func(what, token string, want func(answer) bool) {
		t.Helper()
		for i, sidecar := range sidecars {
			if got := call(t, sidecar, token); !want(got) {
				t.Fatalf("sidecar %d, %s: %d %v %s", i, what, got.status, got.header, got.body)
			}
		}
	}

	first, second := clientCredentials(t, idp, one, "read"), clientCredentials(t, idp, one, "es")
	others := clientCredentials(t, idp, two, "read")
	for _, token := range []string{first, second, others} {
		everywhere("before", token, accepts)
	}

	// One token.
	postForm(t, one, authority.URL+"/oauth2/revoke", url.Values{"token": {first}, "token_type_hint": {"access_token"}})
	took := refusedByAll(t, sidecars, first, time.Now())
	t.Logf("POST /oauth2/revoke: the last of %d sidecars refused %v after its answer", len(sidecars), took)
	everywhere("second token of the same client", second, accepts)
	everywhere("token of another client", others, accepts)

	// All of a subject's tokens up to now. The subject of client_credentials is the client.
	body := `{"issuer": "` + idp.Issuer + `", "selector": {"sub": "one"}, "reason": "lost device"}`
	said := post(t, support, authority.URL+"/v1/revocations", "application/json", body).object(t)
	took = refusedByAll(t, sidecars, second, time.Now())
	t.Logf("POST /v1/revocations {sub}: the last of %d sidecars refused %v after its answer", len(sidecars), took)
	everywhere("token revoked twice", first, refuses)
	everywhere("token of another subject", others, accepts)

	// Signing in again. Cut-offs and iat count in whole seconds.
	cutoff, err := time.Parse(time.RFC3339, said["issued_before"].(string))
	if err != nil {
		t.Fatal(err)
	}
	var again string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		again = clientCredentials(t, idp, one, "read")
		got := call(t, sidecars[0], again)
		if accepts(got) {
			break
		}
		if !refuses(got) || time.Now().After(deadline) {
			t.Fatalf("token of %v, cut-off %v: %d %s", time.Now(), cutoff, got.status, got.body)
		}
	}
	everywhere("token issued after the cut-off", again, accepts)
	everywhere("token issued before it", second, refuses)

	for _, p := range append(sidecars, authority) {
		exit := p.Terminate(5 * time.Second)
		t.Logf("%s ended %v after SIGTERM", p.Name, exit.Took)
		if exit.Code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM", p.Name, exit.Code)
		}
	}
}
