package readme

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Every metric that docs/operations.md tells operators to watch is served by the program
// that it names.
func TestOperationsMetricsAreServed(t *testing.T) {
	idp, web := harness.NewIssuer(t), harness.Client{ID: "web", Secret: "secret-of-web"}
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{idp.Trust}, Clients: []harness.Client{web},
		Edit: func(config map[string]any) {
			config["transmitters"] = []any{map[string]any{
				"issuer": idp.Issuer, "jwks_uri": idp.JWKSURI, "audiences": []string{"revcast"}, "poll_url": "http://127.0.0.1:1/poll",
			}}
		},
	})
	sidecar := harness.StartSidecar(t, harness.SidecarOptions{Authority: authority.URL, Upstream: authority.URL, Issuers: []harness.Trust{idp.Trust}})
	// What has labels is there once it has happened, and issuers' clocks are ahead in the
	// tests of internal/authority.
	post := func(path, secret string) {
		r, err := http.NewRequest(http.MethodPost, authority.URL+path, strings.NewReader(url.Values{"token": {"x.y.z"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(web.ID, secret)
		answer(t, r)
	}
	post("/oauth2/introspect", web.Secret)
	post("/oauth2/revoke", "guess")
	happened := map[string]bool{"revcast_issuer_clock_ahead_seconds": true}

	served := map[string]string{"authority": "", "sidecar": ""}
	for _, p := range []*harness.Process{authority, sidecar} {
		r, err := http.NewRequest(http.MethodGet, p.OpsURL+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		served[p.Name] = "\n" + answer(t, r)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| ((?:.revcast_[a-z_]+.(?:, )?)+) \| (sidecar|authority|both) \|`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 15 {
		t.Fatalf("%d rows of metrics", len(rows))
	}
	for _, row := range rows {
		for program, metrics := range served {
			if row[2] != program && row[2] != "both" {
				continue
			}
			for _, name := range regexp.MustCompile(`revcast_[a-z_]+`).FindAllString(row[1], -1) {
				if !happened[name] && !regexp.MustCompile(`\n`+name+`(_count)?[ {]`).MatchString(metrics) {
					t.Errorf("the %s serves no %s", program, name)
				}
			}
		}
	}
}

func answer(t *testing.T, r *http.Request) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
