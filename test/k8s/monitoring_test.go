package k8s

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// promtool runs it in a directory, and returns all that it prints.
func promtool(t *testing.T, dir, stdin string, args ...string) (printed string, err error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is missing: install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// only is the one object of a type among some.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) (found T) {
	t.Helper()
	n := 0
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = o
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d objects of type %T", n, found)
	}
	return found
}

func alerts(t *testing.T) (spec monitoringv1.PrometheusRuleSpec, all []monitoringv1.Rule) {
	t.Helper()
	spec = only[*monitoringv1.PrometheusRule](t, build(t, "monitoring")).Spec
	for _, group := range spec.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("%d rules", len(all))
	}
	return spec, all
}

// TestAlertsFireAndDoNot has promtool try each alert: one case that it is for, and one that
// is close to it and no trouble, and two hours in which all is well.
func TestAlertsFireAndDoNot(t *testing.T) {
	spec, rules := alerts(t)
	dir := t.TempDir()
	text, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "rules.yaml"), string(text))
	if out, err := promtool(t, dir, "", "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cases, err := filepath.Glob("testdata/alerts-*.yaml")
	if err != nil || len(cases) < 3 {
		t.Fatal(cases, err)
	}
	tried := map[string][2]int{} // in vain, and not
	args := []string{"test", "rules"}
	for _, name := range cases {
		text := read(t, name)
		write(t, filepath.Join(dir, filepath.Base(name)), text)
		args = append(args, filepath.Base(name))
		for alert, n := range triedIn(t, text) {
			tried[alert] = [2]int{tried[alert][0] + n[0], tried[alert][1] + n[1]}
		}
	}
	if out, err := promtool(t, dir, "", args...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	quiet := read(t, "testdata/alerts-quiet.yaml")
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := ""
	for _, page := range pages {
		docs += read(t, page)
	}
	for _, rule := range rules {
		if n := tried[rule.Alert]; n[0] == 0 || n[1] == 0 {
			t.Errorf("%s: %d cases in which it doesn't fire, %d in which it does", rule.Alert, n[0], n[1])
		}
		delete(tried, rule.Alert)
		for _, metric := range metricName.FindAllString(rule.Expr.String(), -1) {
			if !strings.Contains(quiet, "series: "+metric+"{") {
				t.Errorf("%s: nobody knows whether it is quiet, without %s", rule.Alert, metric)
			}
		}
		if s := rule.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", rule.Alert, s)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" ||
			rule.Annotations["runbook"] != "docs/operations.md#"+strings.ToLower(rule.Alert) || !strings.Contains(docs, "# "+rule.Alert+"\n") {
			t.Errorf("%s: tells nobody what to do: %q", rule.Alert, rule.Annotations)
		}
	}
	for alert := range tried {
		t.Errorf("%s is tried, and there is no such alert", alert)
	}
}

// triedIn counts the cases of a file of promtool's, by alert: those in which it must not fire, and
// those in which it must.
func triedIn(t *testing.T, text string) map[string][2]int {
	t.Helper()
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string            `json:"alertname"`
				ExpAlerts []json.RawMessage `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	tried := map[string][2]int{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			n := tried[c.AlertName]
			n[min(1, len(c.ExpAlerts))]++
			tried[c.AlertName] = n
		}
	}
	return tried
}

// TestPrometheusFindsEveryPodOnce, of those that run Revcast, at a port that it has.
func TestPrometheusFindsEveryPodOnce(t *testing.T) {
	var monitors []*monitoringv1.PodMonitor
	for _, o := range build(t, "monitoring") {
		if m, ok := o.(*monitoringv1.PodMonitor); ok {
			monitors = append(monitors, m)
		}
	}
	_, rules := alerts(t)
	scraped := rules[slices.IndexFunc(rules, func(r monitoringv1.Rule) bool { return r.Alert == "RevcastNotScraped" })].Expr.String()
	jobs := regexp.MustCompile(`job=~"([^"]+)"`).FindStringSubmatch(scraped)
	for _, m := range monitors { // the operator's name for what it scrapes, and for a label that it hands on
		if !slices.Equal(m.Spec.PodTargetLabels, []string{"app.kubernetes.io/name"}) {
			t.Errorf("of %s the rules don't know which API it is: %v", m.Name, m.Spec.PodTargetLabels)
		}
		if job := m.Namespace + "/" + m.Name; jobs == nil || !regexp.MustCompile("^(?:"+jobs[1]+")$").MatchString(job) {
			t.Errorf("RevcastNotScraped is not about %s", job)
		}
	}
	seen := map[string]bool{}
	for _, dir := range kustomizations(t) {
		for _, p := range pods(build(t, dir)) {
			var at []string
			for _, m := range monitors {
				in := m.Spec.NamespaceSelector.Any || slices.Contains(append(m.Spec.NamespaceSelector.MatchNames, m.Namespace), p.namespace)
				if !in || !selects(t, &m.Spec.Selector, p) {
					continue
				}
				at, seen[m.Name] = append(at, m.Name), true
				for _, label := range m.Spec.PodTargetLabels {
					if p.labels[label] == "" {
						t.Errorf("%s: %s has no %s", dir, p.of, label)
					}
				}
				for _, e := range m.Spec.PodMetricsEndpoints {
					if e.Port == nil || !slices.ContainsFunc(containers(p), func(c corev1.Container) bool { return hasPort(&c, *e.Port) }) {
						t.Errorf("%s: %s has no port for %s", dir, p.of, m.Name)
					}
				}
			}
			want := 0
			for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
				if strings.HasPrefix(c.Image, "revcast/") {
					want = 1
				}
			}
			if len(at) != want {
				t.Errorf("%s: %s is scraped %d times, by %q", dir, p.of, len(at), at)
			}
		}
	}
	if len(monitors) != 2 || len(seen) != len(monitors) {
		t.Errorf("of %d PodMonitors, %d find pods", len(monitors), len(seen))
	}
}

// dashboard is what the tests read of one of Grafana's.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
	Panels []struct {
		ID                       int
		Title, Description, Type string
		GridPos                  struct{ X, Y, W, H int }
		FieldConfig              struct{ Defaults struct{ Unit string } }
		Targets                  []struct{ RefID, Expr, LegendFormat string }
	}
}

func grafana(t *testing.T) (d dashboard) {
	t.Helper()
	c := only[*corev1.ConfigMap](t, build(t, "monitoring"))
	if c.Labels["grafana_dashboard"] != "1" {
		t.Errorf("Grafana doesn't find it by %q", c.Labels)
	}
	if err := json.Unmarshal([]byte(c.Data["revcast.json"]), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardShowsWhatMatters, each in a panel that says what it is, beside the others.
func TestDashboardShowsWhatMatters(t *testing.T) {
	d := grafana(t)
	if d.UID != "revcast" || d.Title == "" {
		t.Errorf("%q, %q", d.UID, d.Title)
	}
	ids, taken, shown := map[int]bool{}, map[[2]int]string{}, ""
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" || p.Description == "" || p.Type == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q: lacks something, or there are two", p.ID, p.Title)
		}
		ids[p.ID] = true
		at := p.GridPos
		if at.W < 1 || at.H < 1 || at.X < 0 || at.X+at.W > 24 {
			t.Errorf("%q: is at %+v", p.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Expr == "" {
				t.Errorf("%q: two targets of the name %q, or an empty one", p.Title, target.RefID)
			}
			refs[target.RefID] = true
			shown += p.Title + ": " + target.Expr + "\n"
		}
	}
	for _, topic := range []string{
		`Staleness: revcast_list_staleness_seconds\b`,
		`Applied position.*: .*revcast_feed_position\b`,
		`Propagation.*: histogram_quantile\(0.99, .*revcast_feed_propagation_seconds_bucket\b`,
		`Refusals by reason: sum by \(reason\) .*revcast_decisions_total\b.*outcome!="allowed"`,
		`Revoke calls by outcome: sum by \(outcome\) .*revcast_revoke_requests_total\b`,
		`Live entries: revcast_list_entries\b`,
		`NATS servers: .*revcast_nats_server_healthy\b`,
		`NATS servers: .*revcast_nats_server_syncs\b`,
		`Snapshot age: time\(\) - revcast_snapshot_timestamp_seconds\b`,
	} {
		if !regexp.MustCompile(`(?m)^` + topic).MatchString(shown) {
			t.Errorf("no panel shows %s", topic)
		}
	}
}
