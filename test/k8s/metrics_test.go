package k8s

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

func ask(t *testing.T, r *http.Request, status int) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(r.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d, not %d: %v\n%s", r.Method, r.URL, resp.StatusCode, status, err, body)
	}
	return string(body)
}

// eventually waits until something is so: an authority measures its log every 15 s.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(harness.ReadyTimeout); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain, for %v: %s", harness.ReadyTimeout, what)
		}
	}
}

func request(t *testing.T, method, at, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, at, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// onACluster is an authority whose log is in a NATS server that it can ask how it is.
func onACluster(t *testing.T, idp harness.Trust) *harness.Process {
	t.Helper()
	nats, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, HTTPHost: "127.0.0.1", HTTPPort: -1, JetStream: true, SyncAlways: true, StoreDir: t.TempDir(), NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() {
		nats.Shutdown()
		nats.WaitForShutdown()
	})
	if !nats.ReadyForConnections(harness.ReadyTimeout) {
		t.Fatal("the NATS server did not start")
	}
	p := harness.StartAuthority(t, harness.AuthorityOptions{Issuers: []harness.Trust{idp}, Edit: func(config map[string]any) {
		config["nats"] = map[string]any{
			"url": nats.ClientURL(), "verifier_url": nats.ClientURL(), "replicas": 1,
			"monitor_urls": []string{"http://" + nats.MonitorAddr().String()},
		}
	}})
	eventually(t, "its server was asked", func() bool {
		return strings.Contains(ask(t, request(t, http.MethodGet, p.URL+"/metrics", ""), http.StatusOK), "\nrevcast_nats_server_syncs{")
	})
	return p
}

// scrapes are /metrics of an authority, of one on a cluster, of a sidecar, and of one that finds
// no authority, after requests of every kind that counts.
func scrapes(t *testing.T) (all []string) {
	t.Helper()
	idp, stranger, gone := harness.NewIssuer(t), harness.NewIssuer(t), harness.NewIssuer(t)
	gone.JWKSURI = "http://" + harness.FreeAddress(t)
	web := harness.Client{ID: "web", Secret: "secret-of-web"}
	once := harness.Client{ID: "once", Secret: "secret-of-once"}
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{idp.Trust, gone.Trust}, Clients: []harness.Client{web, once},
		Edit: func(config map[string]any) {
			config["clients"].([]any)[1].(map[string]any)["max_entries"] = 1
			config["transmitters"] = []any{map[string]any{
				"issuer": idp.Issuer, "jwks_uri": idp.JWKSURI, "audiences": []string{"revcast"},
				"poll_url": "http://" + harness.FreeAddress(t) + "/poll",
			}}
		},
	})
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(api.Close)
	sidecar := harness.StartSidecar(t, harness.SidecarOptions{
		Authority: authority.URL, Upstream: api.URL, Issuers: []harness.Trust{idp.Trust},
	})
	lost := harness.StartSidecar(t, harness.SidecarOptions{
		Authority: "http://" + harness.FreeAddress(t), Upstream: api.URL, Issuers: []harness.Trust{idp.Trust}, NoWait: true,
	})

	post := func(path string, as harness.Client, token string, status int) {
		t.Helper()
		r := request(t, http.MethodPost, authority.URL+path, url.Values{"token": {token}}.Encode())
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(as.ID, as.Secret)
		ask(t, r, status)
	}
	now, made := time.Now(), 0
	claims := func(owner string) map[string]any {
		made++
		return map[string]any{
			"sub": "alice", "aud": "api", "jti": fmt.Sprint("t", made), "client_id": owner,
			"iat": now.Add(20 * time.Second).Unix(), "exp": now.Add(time.Hour).Unix(), // a clock that is ahead
		}
	}
	const revoke = "/oauth2/revoke"
	token := idp.Token(claims("web"))
	use := func(p *harness.Process, status int) {
		t.Helper()
		r := request(t, http.MethodGet, p.URL+"/", "")
		r.Header.Set("Authorization", "Bearer "+token)
		ask(t, r, status)
	}
	use(sidecar, http.StatusOK)
	post("/oauth2/introspect", web, token, http.StatusOK)
	post(revoke, web, token, http.StatusOK)
	eventually(t, "the revocation arrives", func() bool { return sidecar.Metric(t, "revcast_feed_propagation_seconds_count") == 1 })
	use(sidecar, http.StatusUnauthorized)
	eventually(t, "the other sidecar listens", func() bool {
		resp, err := http.Get(lost.OpsURL + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	use(lost, http.StatusServiceUnavailable)

	post(revoke, harness.Client{ID: "web", Secret: "guess"}, token, http.StatusUnauthorized)
	post(revoke, web, idp.Token(claims("other")), http.StatusBadRequest)
	post(revoke, web, stranger.Token(claims("web")), http.StatusOK)
	post(revoke, web, gone.Token(claims("web")), http.StatusServiceUnavailable)
	post(revoke, once, idp.Token(claims("once")), http.StatusOK)
	post(revoke, once, idp.Token(claims("once")), http.StatusTooManyRequests)
	other := claims("web")
	other["iss"] = idp.Issuer
	foreign, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(other)).SignedString(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	post(revoke, web, foreign, http.StatusOK)
	r := request(t, http.MethodPost, authority.URL+"/v1/revocations", fmt.Sprintf(`{"issuer":%q,"selector":{"sub":"alice"}}`, idp.Issuer))
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(web.ID, web.Secret)
	ask(t, r, http.StatusForbidden)
	ask(t, request(t, http.MethodGet, authority.URL+"/v1/snapshot", ""), http.StatusOK)

	clustered := onACluster(t, idp.Trust)

	eventually(t, "the log's size is known", func() bool { return authority.Metrics(t)["revcast_log_max_bytes"] > 0 })
	for _, p := range []*harness.Process{authority, clustered, sidecar, lost} {
		all = append(all, ask(t, request(t, http.MethodGet, p.OpsURL+"/metrics", ""), http.StatusOK))
	}
	return all
}

// TestMetricsKeepTheConventions of Prometheus, as promlint has them.
func TestMetricsKeepTheConventions(t *testing.T) {
	for _, text := range scrapes(t) {
		if out, err := promtool(t, t.TempDir(), text, "check", "metrics"); err != nil || out != "" {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// served are the labels of metrics, and their values.
type served map[string]map[string]map[string]bool

func newServed(t *testing.T, scrapes []string) served {
	t.Helper()
	all := served{}
	for _, text := range scrapes {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for name, family := range families {
			names := []string{name}
			if family.GetMetric()[0].GetHistogram() != nil {
				names = []string{name, name + "_bucket", name + "_sum", name + "_count"}
			}
			for _, name := range names {
				if all[name] == nil {
					all[name] = map[string]map[string]bool{}
				}
				for _, metric := range family.GetMetric() {
					for _, label := range metric.GetLabel() {
						if all[name][label.GetName()] == nil {
							all[name][label.GetName()] = map[string]bool{}
						}
						all[name][label.GetName()][label.GetValue()] = true
					}
				}
			}
		}
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\brevcast_[a-z0-9_]+`)
	selector   = regexp.MustCompile(`\b(revcast_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcher    = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without) \(([^)]*)\)`)
	shownLabel = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?(\w+) ?\}\}`)

	// attached are the labels that Prometheus adds when it finds a pod.
	attached = []string{"namespace", "pod", "app_kubernetes_io_name"}
)

// names fails where an expression names a metric, a label or a label's value that nobody
// serves, or where its texts show a label that its metrics lack.
func (s served) names(t *testing.T, where, expr, texts string) {
	t.Helper()
	labels := slices.Clone(attached)
	for _, found := range selector.FindAllStringSubmatch(expr, -1) {
		metric, ok := s[found[1]]
		if !ok {
			t.Errorf("%s: nobody serves %s", where, found[1])
			continue
		}
		labels = slices.AppendSeq(labels, maps.Keys(metric))
		for _, m := range matcher.FindAllStringSubmatch(found[2], -1) {
			if slices.Contains(attached, m[1]) {
				continue
			}
			for _, value := range strings.Split(m[2], "|") {
				if !metric[m[1]][value] {
					t.Errorf("%s: no %s has %s=%q", where, found[1], m[1], value)
				}
			}
		}
	}
	shown := shownLabel.FindAllStringSubmatch(texts, -1)
	for _, group := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(group[1], ",") {
			if label = strings.TrimSpace(label); label != "le" {
				shown = append(shown, []string{"", label})
			}
		}
	}
	for _, label := range shown {
		if !slices.Contains(labels, label[1]) {
			t.Errorf("%s: %s is a label of none of its metrics", where, label[1])
		}
	}
}

// TestEveryMetricThatIsNamedExists, in the rules, on the dashboard and in the documentation,
// with the labels that are asked of it; and PromQL can read every expression.
func TestEveryMetricThatIsNamedExists(t *testing.T) {
	all := newServed(t, scrapes(t))
	_, rules := alerts(t)
	for _, rule := range rules {
		all.names(t, rule.Alert, rule.Expr.String(), rule.Annotations["summary"]+rule.Annotations["description"])
	}
	d := grafana(t)
	substitute := strings.NewReplacer("$namespace", ".*", "$__rate_interval", "1m")
	text := strings.Builder{}
	text.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all.names(t, p.Title, target.Expr, target.LegendFormat)
			expr := substitute.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%q: a variable that there isn't: %s", p.Title, expr)
			}
			fmt.Fprintf(&text, "  - {record: panel%d:%s, expr: %q}\n", p.ID, strings.ToLower(target.RefID), expr)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "dashboard.yaml"), text.String())
	if out, err := promtool(t, dir, "", "check", "rules", "--lint=all", "--lint-fatal", "dashboard.yaml"); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, &text)
	}
	for _, v := range d.Templating.List {
		all.names(t, "variable "+v.Name, fmt.Sprint(v.Query), "")
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		for _, name := range metricName.FindAllString(read(t, page), -1) {
			all.names(t, filepath.Base(page), name, "")
		}
	}
}
