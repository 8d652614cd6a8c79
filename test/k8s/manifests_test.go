package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// each calls f with the objects of each kustomization.
func each(t *testing.T, f func(t *testing.T, objects []runtime.Object)) {
	for _, dir := range kustomizations(t) {
		t.Run(dir, func(t *testing.T) { f(t, build(t, dir)) })
	}
}

// TestMisspelledFieldIsRefused, in whatever kind of object.
func TestMisspelledFieldIsRefused(t *testing.T) {
	for _, c := range []struct{ dir, file, field string }{
		{"base", "authority/namespace.yaml", "labels"},
		{"base", "authority/deployment.yaml", "automountServiceAccountToken"},
		{"base", "authority/deployment.yaml", "readOnlyRootFilesystem"},
		{"base", "authority/service.yaml", "targetPort"},
		{"base", "authority/policies.yaml", "namespaceSelector"},
		{"base", "nats/statefulset.yaml", "volumeClaimTemplates"},
		{"base", "base/disruption.yaml", "maxUnavailable"},
		{"base", "authority/deployment.yaml", "defaultMode"},
		{"overlays/single", "overlays/single/one.yaml", "claimName"}, // of a patch
		{"base", "base/kustomization.yaml", "configMapGenerator"},
		{"overlays/single", "overlays/single/volume.yaml", "accessModes"},
		{"monitoring", "monitoring/monitors.yaml", "podMetricsEndpoints"},
		{"monitoring", "monitoring/rules.yaml", "alert"},
		{"examples/ingress-nginx", "examples/ingress-nginx/ingress.yaml", "pathType"},
		{"examples/envoy-gateway", "examples/envoy-gateway/gateway.yaml", "gatewayClassName"},
		{"examples/envoy-gateway", "examples/envoy-gateway/gateway.yaml", "parentRefs"},
		{"examples/envoy-gateway", "examples/envoy-gateway/gateway.yaml", "failOpen"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(root)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, c.file)
		text := read(t, name)
		if !strings.Contains(text, c.field+":") {
			t.Fatalf("%s has no %s", c.file, c.field)
		}
		write(t, name, strings.Replace(text, c.field+":", c.field+"s:", 1))
		made, err := kustomize(filepath.Join(dir, c.dir))
		for _, text := range made {
			if _, _, bad := decoder.Decode(text, nil, nil); bad != nil {
				err = bad
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.field+"s") {
			t.Errorf("%s of %s can be misspelled: %v", c.field, c.file, err)
		}
	}
}

// TestNoFieldIsThereTwice: kustomize would take one of them, and not say so.
func TestNoFieldIsThereTwice(t *testing.T) {
	if _, err := yaml.YAMLToJSONStrict([]byte("kind: Pod\nkind: Service\n")); err == nil {
		t.Fatal("a doubled field is not seen")
	}
	seen := 0
	err := filepath.WalkDir(root, func(name string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".yaml" {
			return err
		}
		for text := range strings.SplitSeq(read(t, name), "\n---\n") {
			seen++
			if _, err := yaml.YAMLToJSONStrict([]byte(text)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	if err != nil || seen < 40 {
		t.Errorf("%d documents, %v", seen, err)
	}
}

// TestEveryObjectIsInANamespace that its kustomization names, so that none lands in whatever
// namespace kubectl is set to.
func TestEveryObjectIsInANamespace(t *testing.T) {
	for _, dir := range append(kustomizations(t), parts...) {
		var k types.Kustomization
		if err := k.Unmarshal([]byte(read(t, filepath.Join(root, dir, "kustomization.yaml")))); err != nil {
			t.Error(err)
		}
		if k.Namespace == "" && dir != "check" && dir != "sidecar" { // which are for whatever namespace takes them up
			t.Errorf("%s names no namespace", dir)
		}
	}
	each(t, func(t *testing.T, objects []runtime.Object) {
		if len(objects) == 0 {
			t.Fatal("no objects")
		}
		for _, o := range objects {
			m := o.(metav1.Object)
			if _, ok := o.(*corev1.Namespace); !ok && m.GetNamespace() != "revcast" && m.GetNamespace() != "shop" {
				t.Errorf("%T %s is in %q", o, m.GetName(), m.GetNamespace())
			}
		}
	})
}

// TestPodsAreRestricted by the Pod Security Standard of that name, by the admission
// controller's own checks, and every namespace enforces it.
func TestPodsAreRestricted(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, p := range pods(objects) {
			restricted(t, p)
		}
		for _, o := range objects {
			if n, ok := o.(*corev1.Namespace); ok && n.Labels[psapi.EnforceLevelLabel] != string(psapi.LevelRestricted) {
				t.Errorf("namespace %s enforces %q", n.Name, n.Labels[psapi.EnforceLevelLabel])
			}
		}
	})
}

func restricted(t *testing.T, p pod) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	results := evaluator.EvaluatePod(
		psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()},
		&metav1.ObjectMeta{Labels: p.labels}, p.spec,
	)
	if all := policy.AggregateCheckResults(results); !all.Allowed {
		t.Errorf("%s: %s: %s", p.of, all.ForbiddenReason(), all.ForbiddenDetail())
	}
}

func TestContainersHaveProbesAndBounds(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, p := range pods(objects) {
			if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken {
				t.Errorf("%s: has a token of the API server", p.of)
			}
			for _, c := range containers(p) {
				at := p.of + ", " + c.Name
				if c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil {
					t.Errorf("%s: lacks a probe", at)
				}
				for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
					if probe != nil && (probe.HTTPGet == nil || !hasPort(&c, probe.HTTPGet.Port.StrVal)) {
						t.Errorf("%s: a probe of no port of it", at)
					}
				}
				for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
					if request.IsZero() || limit.IsZero() || request.Cmp(limit) > 0 {
						t.Errorf("%s: %s from %s to %s", at, name, request.String(), limit.String())
					}
				}
				if whole := c.Image == "revcast/authority" || strings.HasPrefix(c.Image, "nats:"); whole && !c.Resources.Requests.Memory().Equal(*c.Resources.Limits.Memory()) {
					t.Errorf("%s: its node promises %s of memory, and it may take %s", at, c.Resources.Requests.Memory(), c.Resources.Limits.Memory())
				}
				for _, e := range c.Env {
					soft, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
					if e.Name == "GOMEMLIMIT" && (err != nil || soft.Cmp(*c.Resources.Limits.Memory()) >= 0) {
						t.Errorf("%s: is killed at %s before it collects at %s", at, c.Resources.Limits.Memory(), e.Value)
					}
				}
				if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: can write its own file system", at)
				}
				switch grace := p.spec.TerminationGracePeriodSeconds; {
				case c.Lifecycle == nil || c.Lifecycle.PreStop == nil:
					t.Errorf("%s: ends while it is still sent requests", at)
				case c.Lifecycle.PreStop.Sleep != nil && grace != nil && c.Lifecycle.PreStop.Sleep.Seconds+10 > *grace:
					t.Errorf("%s: has %d seconds to end, and sleeps", at, *grace)
				}
			}
		}
	})
}

func hasPort(c *corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
}

// secret is what no ConfigMap may hold: a private key, credentials in a URL, or the value of a
// key of such a name, if it isn't a variable's.
var secret = regexp.MustCompile(`PRIVATE KEY|://[^/\s]*@|(?i)\b(password|pass|secret|token)["']?\s*[:=]\s*[^\s$].*`)

// TestSecretsAreFiles, and never in the environment, in arguments or in ConfigMaps.
func TestSecretsAreFiles(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, p := range pods(objects) {
			for _, c := range containers(p) {
				for _, from := range c.EnvFrom {
					if from.SecretRef != nil {
						t.Errorf("%s, %s: the Secret %s as environment", p.of, c.Name, from.SecretRef.Name)
					}
				}
				for _, env := range c.Env {
					if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
						t.Errorf("%s, %s: %s is a secret", p.of, c.Name, env.Name)
					}
					if strings.Contains(env.Value, "@") {
						t.Errorf("%s, %s: credentials in %s", p.of, c.Name, env.Name)
					}
					for _, word := range []string{"PASSWORD", "SECRET", "TOKEN", "KEY"} {
						if strings.Contains(strings.ToUpper(env.Name), word) {
							t.Errorf("%s, %s: is %s a secret?", p.of, c.Name, env.Name)
						}
					}
				}
				for _, arg := range slices.Concat(c.Args, c.Command) {
					if strings.Contains(arg, "@") {
						t.Errorf("%s, %s: credentials in its arguments", p.of, c.Name)
					}
				}
			}
		}
		for _, o := range objects {
			switch o := o.(type) {
			case *corev1.Secret:
				t.Errorf("the Secret %s is in the repository", o.Name)
			case *corev1.ConfigMap:
				for name, text := range o.Data {
					if found := secret.FindString(text); found != "" {
						t.Errorf("ConfigMap %s: %s holds %s", o.Name, name, found)
					}
				}
			}
		}
	})
}

// TestSelectorsFindPods: those of Services and disruption budgets, and Services their ports.
func TestSelectorsFindPods(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		all, kept := pods(objects), map[string]bool{}
		for _, o := range objects {
			switch o := o.(type) {
			case *corev1.Service:
				found := slices.DeleteFunc(slices.Clone(all), func(p pod) bool {
					return p.namespace != o.Namespace || !labels.SelectorFromSet(o.Spec.Selector).Matches(labels.Set(p.labels))
				})
				if len(found) != 1 {
					t.Errorf("Service %s finds %d kinds of pods", o.Name, len(found))
					continue
				}
				for _, port := range o.Spec.Ports {
					if portOf(found[0], port.TargetPort.StrVal, port.TargetPort.IntVal) == 0 {
						t.Errorf("Service %s: its pods have no port %s", o.Name, port.TargetPort.String())
					}
				}
			case *policyv1.PodDisruptionBudget:
				found := slices.DeleteFunc(slices.Clone(all), func(p pod) bool { return p.namespace != o.Namespace || !selects(t, o.Spec.Selector, p) })
				if len(found) != 1 || found[0].replicas < 2 || o.Spec.MaxUnavailable.IntValue() != 1 {
					t.Errorf("PodDisruptionBudget %s finds %d kinds of pods, and keeps one of how many?", o.Name, len(found))
					continue
				}
				kept[found[0].of] = true
			case *networkingv1.Ingress:
				for _, rule := range o.Spec.Rules {
					for _, at := range rule.HTTP.Paths {
						if !hasService(objects, o.Namespace, at.Backend.Service) {
							t.Errorf("Ingress %s: no port %s of a Service %s", o.Name, at.Backend.Service.Port.Name, at.Backend.Service.Name)
						}
					}
				}
			}
		}
		for _, p := range all {
			if p.replicas > 1 && p.labels["app.kubernetes.io/part-of"] == "revcast" && !kept[p.of] {
				t.Errorf("%s: a drain may take all of them at once", p.of)
			}
		}
	})
}

func hasService(objects []runtime.Object, namespace string, backend *networkingv1.IngressServiceBackend) bool {
	return slices.ContainsFunc(objects, func(o runtime.Object) bool {
		s, ok := o.(*corev1.Service)
		return ok && s.Namespace == namespace && s.Name == backend.Name && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return p.Name == backend.Port.Name
		})
	})
}

// portOf is the number of a pod's port, by name or number; 0: it has none such. Names of init
// containers' ports are not found: by Services since Kubernetes 1.33 only, and not by all networks.
func portOf(p pod, name string, number int32) int32 {
	if p.spec == nil {
		return 0
	}
	in := containers(p)
	if name != "" {
		in = p.spec.Containers
	}
	for _, c := range in {
		for _, port := range c.Ports {
			if name != "" && port.Name == name || name == "" && port.ContainerPort == number {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// TestControllersFindTheirOwnPods, and so does what spreads them over nodes and zones.
func TestControllersFindTheirOwnPods(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		all := pods(objects)
		for _, p := range all {
			own := func(what string, s *metav1.LabelSelector) {
				t.Helper()
				for _, o := range all {
					if o.namespace == p.namespace && selects(t, s, o) != (o.of == p.of) {
						t.Errorf("%s: %s selects %s: %v", p.of, what, o.of, o.of != p.of)
					}
				}
			}
			own("the controller", p.selector)
			for _, c := range p.spec.TopologySpreadConstraints {
				own("the spread over "+c.TopologyKey, c.LabelSelector)
			}
			apart := len(p.spec.TopologySpreadConstraints) > 0
			if a := p.spec.Affinity; a != nil {
				for _, term := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
					own("anti-affinity", term.LabelSelector)
					apart = true
				}
			}
			if p.labels["app.kubernetes.io/part-of"] == "revcast" && p.replicas > 1 && !apart {
				t.Errorf("%s: may all be on one node", p.of)
			}
		}
	})
}

// TestVolumesAreThere: each that is mounted is one, each is mounted, and a claim is of one
// process only, of which there are never two.
func TestVolumesAreThere(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		claims := map[string]string{}
		for _, p := range pods(objects) {
			there := slices.Clone(p.claims)
			for _, v := range p.spec.Volumes {
				there = append(there, v.Name)
				if v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil {
					t.Errorf("%s: %s may fill the node's disk", p.of, v.Name)
				}
				if v.PersistentVolumeClaim == nil {
					continue
				}
				claim := v.PersistentVolumeClaim.ClaimName
				if other, taken := claims[claim]; taken {
					t.Errorf("%s and %s both write %s", p.of, other, claim)
				}
				claims[claim] = p.of
				if p.replicas != 1 || !p.alone {
					t.Errorf("%s: two may write %s", p.of, claim)
				}
				if !slices.ContainsFunc(objects, func(o runtime.Object) bool {
					c, ok := o.(*corev1.PersistentVolumeClaim)
					return ok && c.Name == claim && c.Namespace == p.namespace &&
						slices.Equal(c.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce})
				}) {
					t.Errorf("%s: no claim %s for one node", p.of, claim)
				}
			}
			mounted := map[string]bool{}
			for _, c := range containers(p) {
				at := map[string]bool{}
				for _, m := range c.VolumeMounts {
					if !slices.Contains(there, m.Name) || at[m.MountPath] {
						t.Errorf("%s, %s: no volume %s, or a second at %s", p.of, c.Name, m.Name, m.MountPath)
					}
					mounted[m.Name], at[m.MountPath] = true, true
				}
			}
			for _, name := range there {
				if !mounted[name] {
					t.Errorf("%s: nobody mounts %s", p.of, name)
				}
			}
		}
	})
}

// TestEveryImageIsPinned, or is one of ours, which the page tells to pin.
func TestEveryImageIsPinned(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, p := range pods(objects) {
			for _, c := range containers(p) {
				if _, tag, ok := strings.Cut(c.Image, ":"); !strings.HasPrefix(c.Image, "revcast/") && (!ok || tag == "latest") {
					t.Errorf("%s: %s", p.of, c.Image)
				}
				if strings.HasPrefix(c.Image, "nats:") && c.Image != fmt.Sprint("nats:", natsVersion(t)) {
					t.Errorf("%s, and the tests run %s", c.Image, natsVersion(t))
				}
			}
		}
	})
}
