//go:build fault

package cluster

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/revcast/revcast/test/harness"
)

var during = flag.Duration("during", 20*time.Second, "how long TestNoRevocationIsLostWhateverDies kills")

func TestMain(m *testing.M) { harness.Main(m) }

var web = harness.Client{ID: "web", Secret: "secret-of-web"}

const patience = 30 * time.Second

// world is the base of deploy/k8s with an issuer and an API, and what a test does with
// them.
type world struct {
	*testing.T
	secrets     secrets
	etc, files  string // where NATS' configuration is, and the authorities' Secret
	nats        []*node
	issuer      *harness.Issuer
	authorities []*harness.Process
	service     string // the URL of whichever authority is there
	api         *httptest.Server
	client      *http.Client
	serial      atomic.Int64
}

// newNATS starts three NATS servers alone. Nothing it starts is left over when the test
// ends.
func newNATS(t *testing.T) *world {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) }) // comes last
	w := &world{T: t, secrets: newSecrets(t), etc: t.TempDir(), files: t.TempDir(), client: &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
	t.Cleanup(w.client.CloseIdleConnections)
	w.nats = startNATS(t, w.secrets, w.etc)
	return w
}

// newWorld starts all of it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newNATS(t)
	w.issuer = harness.NewIssuer(t)
	w.api = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(w.api.Close)
	config := w.authorityConfig()
	var addresses []string
	for range 2 {
		p := w.authority(config)
		w.authorities, addresses = append(w.authorities, p), append(addresses, strings.TrimPrefix(p.URL, "http://"))
	}
	for _, p := range w.authorities {
		p.WaitReady()
	}
	w.service = "http://" + harness.NewRelay(t, addresses...).Address
	return w
}

// authorityConfig is base/authority.yaml, with the names and paths that a cluster gives
// replaced by those that are here.
func (w *world) authorityConfig() (config map[string]any) {
	w.Helper()
	local := names(w.nats)
	w.secrets.write(w.T, "authority", w.files, local)
	text, err := os.ReadFile(filepath.Join(manifests, "base", "authority.yaml"))
	if err != nil {
		w.Fatal(err)
	}
	there := strings.ReplaceAll(local.Replace(string(text)), "/run/secrets/revcast", w.files)
	if err := yaml.Unmarshal([]byte(there), &config); err != nil {
		w.Fatalf("authority.yaml: %v", err)
	}
	for _, key := range []string{"listen", "data_dir", "issuers", "clients"} {
		delete(config, key) // what each installation says for itself
	}
	config["log"].(map[string]any)["level"] = "warn" // else a line for each revocation
	return config
}

func (w *world) authority(config map[string]any) *harness.Process {
	w.Helper()
	return harness.StartAuthority(w, harness.AuthorityOptions{
		Issuers: []harness.Trust{w.issuer.Trust}, Clients: []harness.Client{web}, NoWait: true,
		Edit: func(own map[string]any) { maps.Copy(own, config) },
	})
}

// sidecar starts one that follows the authority at a URL, and doesn't wait for it.
func (w *world) sidecar(authority string) *harness.Process {
	w.Helper()
	return harness.StartSidecar(w, harness.SidecarOptions{
		Authority: authority, Upstream: w.api.URL, Issuers: []harness.Trust{w.issuer.Trust}, NoWait: true,
		Edit: func(config map[string]any) { config["log"] = map[string]any{"level": "error"} }, // else a line for each refusal
	})
}

// token issues one to the client web, good for hours.
func (w *world) token() string {
	now := time.Now()
	return w.issuer.Token(map[string]any{
		"client_id": web.ID, "sub": "nobody", "jti": fmt.Sprintf("token-%d", w.serial.Add(1)),
		"iat": now.Unix(), "exp": now.Add(6 * time.Hour).Unix(),
	})
}

// revoke presents a token to an authority's RFC 7009 endpoint.
func (w *world) revoke(authority, token string) (status int, err error) {
	form := url.Values{"token": {token}}
	r, err := http.NewRequest(http.MethodPost, authority+"/oauth2/revoke", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(web.ID, web.Secret)
	return w.do(r)
}

// call asks for the API through a sidecar.
func (w *world) call(p *harness.Process, token string) (status int, err error) {
	r, err := http.NewRequest(http.MethodGet, p.URL, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return w.do(r)
}

func (w *world) do(r *http.Request) (status int, err error) {
	resp, err := w.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// waitUntil waits until something is so, and returns how long that took.
func (w *world) waitUntil(what string, so func() bool) time.Duration {
	w.Helper()
	began := time.Now()
	for {
		at := time.Now()
		if so() {
			return at.Sub(began)
		}
		if time.Since(began) > patience {
			w.Fatalf("not so after %s: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
