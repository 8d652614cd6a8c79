package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Client may revoke at an authority.
type Client struct {
	ID     string
	Secret string   // empty for a public client
	Revoke []string // as in the configuration; default [own]
}

// Trust is an issuer as authority and sidecar are told of it.
type Trust struct {
	Issuer, JWKSURI string
	Algorithms      []string // default: theirs
	SecretFile      string   // in place of JWKSURI
}

// AuthorityOptions say which authority to start.
type AuthorityOptions struct {
	Issuers []Trust
	Clients []Client
	// Dir is where the data goes. Default: a directory of the test's.
	Dir string
	// Edit, where set, changes the configuration, a JSON object, before it is written.
	Edit func(config map[string]any)
	// NoWait returns without waiting until it is ready.
	NoWait bool
}

// StartAuthority starts an authority with an embedded NATS server, on free ports.
func StartAuthority(t testing.TB, o AuthorityOptions) *Process {
	t.Helper()
	p := newProcess(t, "authority", o.Dir)
	listen, nats := FreeAddress(t), FreeAddress(t)
	p.URL, p.NATSURL = "http://"+listen, "nats://"+nats
	p.OpsURL = p.URL
	clients := []any{}
	for _, c := range o.Clients {
		one := map[string]any{"id": c.ID}
		if c.Secret == "" {
			one["auth"] = []string{"none"}
		} else {
			sum := sha256.Sum256([]byte(c.Secret))
			one["secret_sha256"] = hex.EncodeToString(sum[:])
		}
		if len(c.Revoke) > 0 {
			one["revoke"] = c.Revoke
		}
		clients = append(clients, one)
	}
	p.begin(map[string]any{
		"listen": listen, "data_dir": filepath.Join(p.Dir, "data"),
		"nats":    map[string]any{"listen": nats},
		"issuers": issuers(o.Issuers), "clients": clients,
	}, o.Edit, o.NoWait)
	return p
}

// SidecarOptions say which sidecar to start.
type SidecarOptions struct {
	// Authority and Upstream are the URLs of both.
	Authority, Upstream string
	Issuers             []Trust
	// Dir is where the state and keys files go. Default: a directory of the test's.
	Dir string
	// Edit, where set, changes the configuration, a JSON object, before it is written.
	Edit func(config map[string]any)
	// NoWait returns without waiting until it is ready.
	NoWait bool
}

// StartSidecar starts a sidecar on free ports.
func StartSidecar(t testing.TB, o SidecarOptions) *Process {
	t.Helper()
	p := newProcess(t, "sidecar", o.Dir)
	listen, check, extAuthz := FreeAddress(t), FreeAddress(t), FreeAddress(t)
	p.URL, p.OpsURL, p.ExtAuthz = "http://"+listen, "http://"+check, extAuthz
	p.begin(map[string]any{
		"listen": listen, "check_listen": check, "extauthz_listen": extAuthz, "authority": o.Authority, "upstream": o.Upstream,
		"issuers": issuers(o.Issuers), "state_file": filepath.Join(p.Dir, "sidecar.state"),
		"keys_file": filepath.Join(p.Dir, "sidecar.keys"),
	}, o.Edit, o.NoWait)
	return p
}

func issuers(trusted []Trust) (list []any) {
	for _, i := range trusted {
		one := map[string]any{"issuer": i.Issuer}
		if i.SecretFile != "" {
			one["secret_file"] = i.SecretFile
		} else {
			one["jwks_uri"] = i.JWKSURI
		}
		if len(i.Algorithms) > 0 {
			one["algorithms"] = i.Algorithms
		}
		list = append(list, one)
	}
	return list
}

// begin writes the configuration, JSON being YAML too, and starts the process.
func (p *Process) begin(config map[string]any, edit func(map[string]any), noWait bool) {
	p.t.Helper()
	if edit != nil {
		edit(config)
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(p.Config, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.Start()
	if !noWait {
		p.WaitReady()
	}
}

// Advertise returns the URL of a reverse proxy to an authority, which puts another
// NATS URL into its discovery document: that of a relay, for a sidecar whose live
// connection is to be disturbed.
func Advertise(t testing.TB, authority, natsURL string) string {
	t.Helper()
	target, err := url.Parse(authority)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, FlushInterval: -1,
		ErrorLog: log.New(io.Discard, "", 0), // a client that was cut off is what tests are for
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/revcast" {
			proxy.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		body := answer.Body.Bytes()
		var d map[string]any
		if json.Unmarshal(body, &d) == nil {
			if live, ok := d["live"].(map[string]any); ok {
				live["url"] = natsURL
			}
			if changed, err := json.Marshal(d); err == nil {
				body = changed
			}
		}
		for name, values := range answer.Header() {
			if !strings.EqualFold(name, "Content-Length") {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections() // long-polls
		server.Close()
	})
	return server.URL
}
