package dialects

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// dialect is a directory of testdata.
type dialect struct {
	name, system string
	// also are the other paths of the dialect: every case is run there too.
	also []replacement
}

type replacement struct{ old, other string }

// dialects has one row per row of the README's table.
var dialects = []dialect{
	{name: "rfc7009", system: "RFC 7009"},
	{name: "edgetag", system: "EdgeTag"},
	{name: "asgardeo", system: "Asgardeo"},
	{name: "genauth", system: "GenAuth", also: []replacement{{"/oidc/token/", "/oauth/token/"}}},
	{name: "voucherify", system: "Voucherify"},
}

// clients are who calls, beside [keyed]. The last ones have the ids, and where there is one the
// secret, that the vendors' pages show.
var clients = []harness.Client{
	{ID: "web", Secret: "web-secret"},
	{ID: "odd/1", Secret: "a+b%41/c=="}, // reads differently form-encoded and not
	{ID: "other", Secret: "other-secret"},
	{ID: "admin", Secret: "admin-secret", Revoke: []string{"any"}},
	{ID: "spa"},
	{ID: "Wsoq8t4nHW80gSnPfyDvRbiC__Ea"},
	{ID: "d0272c42-7ecc-4899-a1a7-0801a8a9da2f", Secret: "d0272c42-7ecc-4899-a1a7-0801a8a9da2f"},
}

const (
	origin        = "https://app.example" // that of spa's scripts
	opaqueKept    = time.Hour
	tokenLifetime = 24 * time.Hour
)

// world is what the cases are run in.
type world struct {
	issuer, forger, elsewhere *harness.Issuer
	authorities               map[string]*authority
	clientKey                 *tokentest.Key // of the client keyed
	tags                      []string       // of all fixtures: in each jti and each sub
}

func newWorld(t *testing.T) *world {
	w := &world{
		issuer: harness.NewIssuer(t), forger: harness.NewIssuer(t), elsewhere: harness.NewIssuer(t),
		authorities: map[string]*authority{}, clientKey: tokentest.NewKey("", "ES256"),
	}
	jwksFile := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(jwksFile, tokentest.Document(w.clientKey), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "opaque"} {
		w.authorities[name] = &authority{Process: harness.StartAuthority(t, harness.AuthorityOptions{
			Issuers: []harness.Trust{w.issuer.Trust}, Clients: clients,
			Edit: func(config map[string]any) {
				var mounts []any
				for _, d := range dialects {
					mounts = append(mounts, map[string]any{"dialect": d.name, "prefix": "/mounted"},
						map[string]any{"dialect": d.name, "host": d.name + ".example", "prefix": "/at/host"})
				}
				config["mounts"] = mounts
				config["public_url"] = "https://revcast.example"
				config["clients"] = append(config["clients"].([]any), map[string]any{
					"id": keyed, "auth": []string{"private_key_jwt"}, "jwks_file": jwksFile,
				})
				config["issuers"].([]any)[0].(map[string]any)["max_token_lifetime"] = tokenLifetime.String()
				for _, c := range config["clients"].([]any) {
					switch c := c.(map[string]any); c["id"] {
					case "spa":
						c["allowed_origins"] = []string{origin}
					case "admin":
						c["rate"] = 100_000 // it is the one who asks what is active
					}
				}
				if name == "opaque" {
					config["opaque_tokens"] = map[string]any{"issuer": w.issuer.Issuer, "lifetime": opaqueKept.String()}
				}
			},
		})}
	}
	return w
}

// TestDialects runs every case, at every path of its dialect. Nothing secret of any may
// be in what the authorities write.
func TestDialects(t *testing.T) {
	w := newWorld(t)
	cases := loadCases(t)
	secrets := []string{"eyJ"} // how every JWT begins
	for _, c := range clients {
		if c.Secret != "" && c.Secret != c.ID {
			secrets = append(secrets, c.Secret)
		}
	}
	t.Cleanup(func() {
		for _, a := range w.authorities {
			for _, secret := range append(secrets, w.tags...) {
				if strings.Contains(a.Output(), secret) {
					t.Errorf("%q is in the log of the authority", secret)
				}
			}
		}
	})
	for _, d := range dialects {
		for _, name := range slices.Sorted(maps.Keys(cases[d.name])) {
			for _, r := range append([]replacement{{}}, d.also...) {
				full := d.name + "/" + name
				if r.other != "" {
					full += " at" + strings.ReplaceAll(r.other, "/", " ")
				}
				t.Run(strings.TrimSpace(full), func(t *testing.T) { w.run(t, cases[d.name][name], r) })
			}
		}
	}
}

func (w *world) run(t *testing.T, c testCase, other replacement) {
	a := w.authorities[c.authority]
	if a == nil {
		t.Fatalf("there is no authority %q", c.authority)
	}
	f := newFixture(w)
	w.tags = append(w.tags, f.tag)
	a.read(t)
	for i, e := range c.exchanges {
		request := e.request
		if other.old != "" {
			request = strings.ReplaceAll(request, other.old, other.other)
		}
		got, err := send(strings.TrimPrefix(a.URL, "http://"), f.expand(t, request))
		if err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
		if want := f.expand(t, e.response); !same(got, want) {
			t.Errorf("request %d:\n%s\nis answered:\n%s\nand not:\n%s", i+1, f.expand(t, request[:min(len(request), 1000)]), got, want)
		}
	}
	// A log that says the same once more says nothing else.
	stored := slices.Compact(a.stored(t, w.issuer.Issuer))
	var want []string
	for _, line := range c.stored {
		want = append(want, f.expand(t, line))
	}
	if !slices.Equal(stored, want) {
		t.Errorf("stored:\n%s\nand not:\n%s", strings.Join(stored, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range c.over {
		if _, known := tokens[name]; !known {
			t.Fatalf("there is no token %q to be over", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		if want := tokens[name].live && !slices.Contains(c.over, name); a.active(t, f.token(name)) != want {
			t.Errorf("the token %s: active is %t", name, !want)
		}
	}
}

// same compares two answers. The members of a JSON object have no order.
func same(got, want string) bool {
	if got == want {
		return true
	}
	gotHead, gotBody, _ := strings.Cut(got, "\n\n")
	wantHead, wantBody, _ := strings.Cut(want, "\n\n")
	if gotHead != wantHead || len(gotBody) != len(wantBody) {
		return false
	}
	var a, b any
	if json.Unmarshal([]byte(gotBody), &a) != nil || json.Unmarshal([]byte(wantBody), &b) != nil {
		return false
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// authority is one that runs, with its log as far as it was read.
type authority struct {
	*harness.Process
	keys     wire.Keyring
	position uint64
}

var caller = &http.Client{Timeout: 5 * time.Second}

func body(t *testing.T, resp *http.Response, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s", resp.Status, err, b)
	}
	return b
}

// read returns what the log has after the position that was read last.
func (a *authority) read(t *testing.T) (batches []*wire.Batch) {
	t.Helper()
	if a.keys == nil {
		resp, err := caller.Get(a.URL + wire.DiscoveryPath)
		if _, a.keys, err = wire.ParseDiscovery(body(t, resp, err)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		nonce := rand.Text()
		resp, err := caller.Get(a.URL + wire.LogPath + "?after=" + strconv.FormatUint(a.position, 10) + "&nonce=" + nonce)
		page, err := a.keys.ReadPage(bytes.NewReader(body(t, resp, err)), a.position, nonce)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			opened, err := a.keys.Open(r.Message)
			if err != nil {
				t.Fatal(err)
			}
			if opened.Batch != nil {
				batches = append(batches, opened.Batch)
			}
			a.position = r.Position
		}
		if a.position >= page.Heartbeat.Position {
			return batches
		}
	}
}

// stored writes down what has come into the log since.
func (a *authority) stored(t *testing.T, issuer string) (lines []string) {
	t.Helper()
	for _, b := range a.read(t) {
		for _, r := range b.Entries {
			line := r.Selector.String() + " by " + r.By
			switch {
			case r.ExactExpiry:
				line += fmt.Sprintf(" until %d", r.Expires.Unix())
			case !r.IssuedBefore.IsZero():
				line += " issued so far"
				if behind := r.At.Sub(r.IssuedBefore); behind < 0 || behind >= time.Second {
					line += fmt.Sprintf(", and not until %s", r.IssuedBefore)
				}
				line += ", for " + r.Expires.Sub(r.IssuedBefore).String()
			default:
				line += " for " + r.Expires.Sub(r.At.Truncate(time.Second)).String()
			}
			if r.Issuer != issuer {
				line += " of " + r.Issuer
			}
			if ago := time.Since(r.At); ago < -time.Second || ago > time.Minute {
				line += " at " + r.At.String()
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// active asks the authority whether a token is.
func (a *authority) active(t *testing.T, raw string) bool {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL+"/oauth2/introspect",
		strings.NewReader(url.Values{"token": {raw}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.SetBasicAuth("admin", "admin-secret")
	var said struct{ Active *bool }
	resp, err := caller.Do(q)
	if b := body(t, resp, err); json.Unmarshal(b, &said) != nil || said.Active == nil {
		t.Fatalf("introspection says %s", b)
	}
	return *said.Active
}
