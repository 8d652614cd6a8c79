package k8s

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// strangers are pods of others: those that policies speak of, with the labels that their own
// manifests, charts and docs/operations.md give them, and some that nobody speaks of.
var strangers = []pod{
	{of: "kube-dns", namespace: "kube-system", labels: map[string]string{"k8s-app": "kube-dns"}},
	{of: "prometheus", namespace: "monitoring", labels: map[string]string{"app.kubernetes.io/name": "prometheus"}},
	{of: "ingress-nginx", namespace: "ingress-nginx", labels: map[string]string{
		"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller",
	}},
	{of: "envoy", namespace: "envoy-gateway-system", labels: map[string]string{
		"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy",
	}},
	{of: "revoker", namespace: "login", labels: map[string]string{"revcast/revoker": "true"}},
	{of: "verifier", namespace: "orders", labels: map[string]string{"revcast/verifier": "true"}},
	{of: "stranger", namespace: "elsewhere", labels: map[string]string{"app.kubernetes.io/name": "stranger"}},
	{of: "impostor", namespace: "elsewhere", labels: map[string]string{"app.kubernetes.io/name": "prometheus", "k8s-app": "kube-dns"}},
	{of: "neighbour", namespace: "shop"},
	{of: "lodger", namespace: "revcast"},
}

// internet is whoever is no pod.
var internet = pod{of: "internet"}

// world is a cluster in which kustomizations are applied together.
type world struct {
	pods     []pod
	policies []*networkingv1.NetworkPolicy
}

func newWorld(t *testing.T, dirs ...string) *world {
	t.Helper()
	w := &world{pods: slices.Clone(strangers)}
	for _, dir := range dirs {
		objects := build(t, dir)
		w.pods = append(w.pods, pods(objects)...)
		for _, o := range objects {
			if p, ok := o.(*networkingv1.NetworkPolicy); ok {
				w.policies = append(w.policies, p)
			}
		}
	}
	return w
}

func selects(t *testing.T, s *metav1.LabelSelector, p pod) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(p.labels))
}

// peer reports whether a peer of a policy in a namespace is a pod, or the internet. An
// ipBlock is all there is: whether it takes in pods is up to the network plugin.
func peer(t *testing.T, at networkingv1.NetworkPolicyPeer, namespace string, p pod) bool {
	t.Helper()
	if at.IPBlock != nil {
		if netip.MustParsePrefix(at.IPBlock.CIDR).Bits() != 0 {
			t.Fatalf("%s: the test knows no parts of the internet", at.IPBlock.CIDR)
		}
		return true
	}
	if p.of == internet.of {
		return false
	}
	in := p.namespace == namespace
	if at.NamespaceSelector != nil {
		in = selects(t, at.NamespaceSelector, pod{labels: map[string]string{"kubernetes.io/metadata.name": p.namespace}})
	}
	return in && (at.PodSelector == nil || selects(t, at.PodSelector, p))
}

// at is where something may listen.
type at struct {
	port     int32
	protocol corev1.Protocol
}

// onPort reports whether ports of a rule hold one of a pod. None at all is any.
func onPort(ports []networkingv1.NetworkPolicyPort, of pod, where at) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && *p.Protocol != where.protocol || p.Protocol == nil && where.protocol != corev1.ProtocolTCP {
			return false
		}
		if p.Port == nil || p.EndPort != nil {
			return true
		}
		if p.Port.StrVal != "" {
			return portOf(of, p.Port.StrVal, 0) == where.port
		}
		return p.Port.IntVal == where.port
	})
}

// allows says whether one may connect to a port of the other, as a cluster that keeps
// NetworkPolicies decides it: where any policy selects a pod for a direction, one of them
// has to allow it.
func (w *world) allows(t *testing.T, from, to pod, where at) bool {
	t.Helper()
	in, out := true, true
	for _, policy := range w.policies {
		for _, kind := range policy.Spec.PolicyTypes {
			switch {
			case kind == networkingv1.PolicyTypeIngress && to.namespace == policy.Namespace && selects(t, &policy.Spec.PodSelector, to):
				in = false
			case kind == networkingv1.PolicyTypeEgress && from.namespace == policy.Namespace && selects(t, &policy.Spec.PodSelector, from):
				out = false
			}
		}
	}
	for _, policy := range w.policies {
		if to.namespace == policy.Namespace && selects(t, &policy.Spec.PodSelector, to) {
			for _, rule := range policy.Spec.Ingress {
				in = in || onPort(rule.Ports, to, where) && (len(rule.From) == 0 ||
					slices.ContainsFunc(rule.From, func(p networkingv1.NetworkPolicyPeer) bool { return peer(t, p, policy.Namespace, from) }))
			}
		}
		if from.namespace == policy.Namespace && selects(t, &policy.Spec.PodSelector, from) {
			for _, rule := range policy.Spec.Egress {
				out = out || onPort(rule.Ports, to, where) && (len(rule.To) == 0 ||
					slices.ContainsFunc(rule.To, func(p networkingv1.NetworkPolicyPeer) bool { return peer(t, p, policy.Namespace, to) }))
			}
		}
	}
	return in && out
}

// arrows are all connections that a world allows from or to pods of ours.
func (w *world) arrows(t *testing.T) (all []string) {
	t.Helper()
	tcp := func(port int32) at { return at{port, corev1.ProtocolTCP} }
	elsewhere := []at{tcp(1), tcp(8443), {53, corev1.ProtocolUDP}} // that pods of ours don't name
	probed := map[string][]at{
		"kube-dns": {tcp(53), {53, corev1.ProtocolUDP}, tcp(9153)},
		"internet": {tcp(443), tcp(80), tcp(8443), tcp(6443), {443, corev1.ProtocolUDP}, {53, corev1.ProtocolUDP}},
	}
	for _, to := range append(slices.Clone(w.pods), internet) {
		ports := probed[to.of]
		if to.spec != nil {
			for _, c := range containers(to) {
				for _, p := range c.Ports {
					ports = append(ports, tcp(p.ContainerPort))
				}
			}
			ports = append(ports, elsewhere...)
		}
		for _, from := range append(slices.Clone(w.pods), internet) {
			if from.spec == nil && to.spec == nil {
				continue
			}
			for _, port := range ports {
				if w.allows(t, from, to, port) {
					arrow := fmt.Sprintf("%s > %s:%d", short(from), short(to), port.port)
					if port.protocol != corev1.ProtocolTCP {
						arrow += "/" + string(port.protocol)
					}
					all = append(all, arrow)
				}
			}
		}
	}
	sort.Strings(all)
	return slices.Compact(all)
}

func short(p pod) string { return p.of[strings.LastIndexByte(p.of, ' ')+1:] }

// TestPoliciesAllowTheArrowsOfTheArchitecture, and DNS, and Prometheus, and nothing else.
func TestPoliciesAllowTheArrowsOfTheArchitecture(t *testing.T) {
	dns := func(who string) []string { return []string{who + " > kube-dns:53", who + " > kube-dns:53/UDP"} }
	authority := slices.Concat(dns("authority"), []string{
		"authority > internet:443", "revoker > authority:8700", "prometheus > authority:8700", "verifier > authority:8700",
	})
	cluster := slices.Concat(authority, dns("nats"), []string{
		"authority > nats:4222", "authority > nats:8222", "nats > nats:6222", "verifier > nats:4222",
	})
	single := append(slices.Clone(authority), "verifier > authority:4222")
	// What an example adds. Both ends decide, and its own is one of them.
	sidecar := func(nats string) []string {
		all := append(dns("api"), "api > authority:8700", "api > "+nats, "api > internet:443", "prometheus > api:8711", "internet > api:8710")
		for _, p := range strangers {
			if p.namespace != "revcast" { // where nothing goes out but along an arrow
				all = append(all, p.of+" > api:8710")
			}
		}
		return all
	}
	check := func(nats, proxy string, port int) []string {
		return append(dns("check"),
			"check > authority:8700", "check > "+nats, "check > internet:443", "prometheus > check:8711",
			proxy+" > api:9000", fmt.Sprintf("%s > check:%d", proxy, port),
		)
	}
	for _, c := range []struct {
		dirs []string
		want []string
	}{
		{[]string{"base", "monitoring", "examples/sidecar"}, slices.Concat(cluster, sidecar("nats:4222"))},
		{[]string{"base", "monitoring", "examples/ingress-nginx"}, slices.Concat(cluster, check("nats:4222", "ingress-nginx", 8711))},
		{[]string{"base", "monitoring", "examples/envoy-gateway"}, slices.Concat(cluster, check("nats:4222", "envoy", 8712))},
		{[]string{"overlays/single", "monitoring", "examples/sidecar"}, slices.Concat(single, sidecar("authority:4222"))},
		{[]string{"overlays/single", "monitoring", "examples/ingress-nginx"}, slices.Concat(single, check("authority:4222", "ingress-nginx", 8711))},
		{[]string{"overlays/single", "monitoring", "examples/envoy-gateway"}, slices.Concat(single, check("authority:4222", "envoy", 8712))},
	} {
		t.Run(strings.Join(c.dirs, " "), func(t *testing.T) {
			got := newWorld(t, c.dirs...).arrows(t)
			for _, arrow := range c.want {
				if !slices.Contains(got, arrow) {
					t.Errorf("lacks %s", arrow)
				}
			}
			for _, arrow := range got {
				if !slices.Contains(c.want, arrow) {
					t.Errorf("allows %s", arrow)
				}
			}
		})
	}
}

// TestEveryPolicySelectsPodsThatExist, at both ends, and ports that they have.
func TestEveryPolicySelectsPodsThatExist(t *testing.T) {
	var objects []runtime.Object
	all := slices.Clone(strangers)
	for _, dir := range kustomizations(t) {
		made := build(t, dir)
		objects, all = append(objects, made...), append(all, pods(made)...)
	}
	seen := 0
	for _, o := range objects {
		policy, ok := o.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		seen++
		of := func(namespace string) func(p pod) bool {
			return func(p pod) bool { return p.namespace == namespace && selects(t, &policy.Spec.PodSelector, p) }
		}
		if !slices.ContainsFunc(all, of(policy.Namespace)) {
			t.Errorf("%s/%s is of no pods", policy.Namespace, policy.Name)
		}
		has := func(who []pod, ports []networkingv1.NetworkPolicyPort) {
			for _, port := range ports {
				if !slices.ContainsFunc(who, func(p pod) bool {
					return p.spec == nil || portOf(p, port.Port.StrVal, port.Port.IntVal) != 0
				}) {
					t.Errorf("%s/%s: nobody has the port %s", policy.Namespace, policy.Name, port.Port)
				}
			}
		}
		matching := func(peers []networkingv1.NetworkPolicyPeer) (found []pod) {
			for _, at := range peers {
				n := len(found)
				for _, p := range append(slices.Clone(all), internet) {
					if peer(t, at, policy.Namespace, p) {
						found = append(found, p)
					}
				}
				if len(found) == n {
					t.Errorf("%s/%s: a peer is no pod: %+v", policy.Namespace, policy.Name, at)
				}
			}
			return found
		}
		var own []pod
		for _, p := range all {
			if of(policy.Namespace)(p) {
				own = append(own, p)
			}
		}
		for _, rule := range policy.Spec.Ingress {
			matching(rule.From)
			has(own, rule.Ports)
		}
		for _, rule := range policy.Spec.Egress {
			has(matching(rule.To), rule.Ports)
		}
	}
	if seen < 10 {
		t.Errorf("%d policies", seen)
	}
}
