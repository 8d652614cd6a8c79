package k8s

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	authority "github.com/revcast/revcast/cmd/authority/app"
)

// page is the part of docs/operations.md that people follow.
func page(t *testing.T) string {
	t.Helper()
	_, text, ok := strings.Cut(read(t, "../../docs/operations.md"), "\n## On Kubernetes\n")
	if !ok {
		t.Fatal("the page is not there")
	}
	return text
}

// block is the page's YAML that begins with some words.
func block(t *testing.T, beginning string) string {
	t.Helper()
	_, text, ok := strings.Cut(page(t), "```yaml\n"+beginning)
	text, _, whole := strings.Cut(text, "```\n")
	if !ok || !whole {
		t.Fatalf("the page has no %q", beginning)
	}
	return beginning + text
}

// follow does what the page says about files, and returns them by the directory of theirs.
func follow(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, files := page(t), map[string]map[string]string{}
	put := func(name, content string) {
		dir, file := filepath.Split(name)
		if files[dir] == nil {
			files[dir] = map[string]string{}
		}
		files[dir][file] = content
	}
	for _, m := range regexp.MustCompile("(?s)`(mine/[a-z]+/[a-z]+\\.yaml)`[^`]*(?:`[^`]+` in place of `[^`]+`[^`]*)?:\n\n```yaml\n(.*?)```\n").FindAllStringSubmatch(text, -1) {
		put(m[1], m[2])
	}
	for _, m := range regexp.MustCompile(`(?m)^    cp (\S+) (mine/[a-z]+/)( |$)`).FindAllStringSubmatch(text, -1) {
		put(m[2]+filepath.Base(m[1]), read(t, filepath.Join("../..", m[1])))
	}
	return files
}

// TestPageIsFollowed as it stands: what it has people write builds, with their images and
// their configuration.
func TestPageIsFollowed(t *testing.T) {
	files := follow(t)
	for _, c := range []struct {
		dir, in, from, to, container string
	}{
		{"mine/revcast/", "", "", "", "authority"},
		{"mine/revcast/", "kustomization.yaml", "deploy/k8s/base", "deploy/k8s/overlays/single", "authority"},
		{"mine/shop/", "", "", "", "revcast"},
	} {
		t.Run(c.dir+c.to, func(t *testing.T) {
			these := map[string]string{}
			for name, text := range files[c.dir] {
				if name == c.in {
					text = strings.Replace(text, c.from, c.to, 1)
				}
				if strings.HasPrefix(name, "authority") || strings.HasPrefix(name, "sidecar") {
					text = "# mine\n" + text
				}
				these[name] = text
			}
			if len(these) != 2 {
				t.Fatalf("%d files", len(these))
			}
			objects := inDirectory(t, c.dir, these)
			for _, o := range objects {
				if m, ok := o.(*corev1.ConfigMap); ok && !strings.HasPrefix(m.Name, "nats-") {
					for name, text := range m.Data {
						if !strings.HasPrefix(text, "# mine\n") {
							t.Errorf("%s of %s is not theirs", name, m.Name)
						}
					}
				}
			}
			seen := false
			for _, p := range pods(objects) {
				for _, container := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
					if container.Name == c.container {
						seen = true
						if !strings.HasPrefix(container.Image, "registry.example/revcast/") || !strings.HasSuffix(container.Image, ":v1.0.0") {
							t.Errorf("%s: %s", p.of, container.Image)
						}
					}
				}
			}
			if !seen {
				t.Error("no container", c.container)
			}
		})
	}
}

// TestPageIsFollowedForAnAPIOfOnesOwn, with the component alone.
func TestPageIsFollowedForAnAPIOfOnesOwn(t *testing.T) {
	objects := inDirectory(t, "mine/own/", map[string]string{
		"kustomization.yaml": block(t, "resources: [api.yaml, policies.yaml]"), "sidecar.yaml": "",
		"api.yaml":      read(t, filepath.Join(root, "examples/api/api.yaml")),
		"policies.yaml": read(t, filepath.Join(root, "examples/sidecar/policies.yaml")),
	})
	d := find[*appsv1.Deployment](t, objects)
	if first := d.Spec.Template.Spec.InitContainers; len(first) != 1 || first[0].Name != "revcast" {
		t.Errorf("%+v", first)
	}
}

// TestPagesObjectsAreWhatTheySeem: a cluster takes each; a policy is of pods that there are, and
// a route has the authority answer outside, less what is for verifiers and Prometheus.
func TestPagesObjectsAreWhatTheySeem(t *testing.T) {
	all := append(pods(build(t, "base")), pods(build(t, "overlays/single"))...)
	seen := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(apiVersion: .*?)```\n").FindAllStringSubmatch(page(t), -1) {
		for text := range strings.SplitSeq(m[1], "\n---\n") {
			if strings.Contains("\n"+text, "\nkind: Kustomization\n") {
				continue
			}
			switch o := decode(t, "the page", []byte(text)).(type) {
			case *networkingv1.NetworkPolicy:
				seen++
				of := slices.DeleteFunc(slices.Clone(all), func(p pod) bool { return p.namespace != o.Namespace || !selects(t, &o.Spec.PodSelector, p) })
				if len(of) == 0 {
					t.Errorf("the policy %s/%s is of no pods", o.Namespace, o.Name)
				}
				for _, rule := range o.Spec.Ingress {
					for _, port := range rule.Ports {
						if !slices.ContainsFunc(of, func(p pod) bool { return portOf(p, port.Port.StrVal, port.Port.IntVal) != 0 }) {
							t.Errorf("the policy %s is of pods without a port %s", o.Name, port.Port)
						}
					}
				}
			case *gatewayv1.HTTPRoute:
				checkRoute(t, o)
			}
		}
	}
	if seen == 0 {
		t.Error("the page has no policy")
	}
}

// checkRoute: it leads to the authority, and by no path to what the log, the NATS user for
// verifiers or the names of clients can be read from.
func checkRoute(t *testing.T, route *gatewayv1.HTTPRoute) {
	t.Helper()
	if len(route.Spec.Rules) == 0 {
		t.Errorf("%s leads nowhere", route.Name)
	}
	for _, rule := range route.Spec.Rules {
		for _, ref := range rule.BackendRefs {
			namespace := route.Namespace
			if ref.Namespace != nil {
				namespace = string(*ref.Namespace)
			}
			if ref.Name != "authority" || namespace != "revcast" || ref.Port == nil || *ref.Port != 8700 {
				t.Errorf("%s leads to %s in %s", route.Name, ref.Name, namespace)
			}
		}
		if len(rule.BackendRefs) == 0 || len(rule.Matches) == 0 {
			t.Errorf("%s: a rule that leads nowhere, or has every path: %+v", route.Name, rule)
		}
		for _, match := range rule.Matches {
			if match.Path == nil || match.Path.Value == nil || match.Path.Type != nil && *match.Path.Type == gatewayv1.PathMatchRegularExpression {
				t.Errorf("%s: nobody can tell its paths: %+v", route.Name, match)
				continue
			}
			path := strings.TrimRight(*match.Path.Value, "/") + "/"
			exact := match.Path.Type != nil && *match.Path.Type == gatewayv1.PathMatchExact
			for _, inside := range []string{"/v1/log/", "/v1/snapshot/", "/metrics/", "/.well-known/revcast/"} {
				if strings.HasPrefix(path, inside) || !exact && strings.HasPrefix(inside, path) {
					t.Errorf("%s: %s lets everybody at %s", route.Name, *match.Path.Value, inside)
				}
			}
		}
	}
}

// TestPagesClientsAreClients to the authority's decoder.
func TestPagesClientsAreClients(t *testing.T) {
	text := read(t, filepath.Join(root, "base/authority.yaml"))
	cfg := authority.NewConfig()
	load(t, strings.Replace(text, "clients: []\n", block(t, "clients:\n"), 1), &cfg)
	if len(cfg.Clients) != 1 || cfg.Clients[0].ID != "web" {
		t.Errorf("%+v", cfg.Clients)
	}
}
