package k8s

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	sidecar "github.com/revcast/revcast/cmd/sidecar/app"
)

// find is the one object of a kind.
func find[T runtime.Object](t *testing.T, objects []runtime.Object) (found T) {
	t.Helper()
	n := 0
	for _, o := range objects {
		if one, ok := o.(T); ok {
			found, n = one, n+1
		}
	}
	if n != 1 {
		t.Fatalf("%d of %T", n, found)
	}
	return found
}

// leadsTo is where a port of a Service leads: "api:9000", or "" where it leads nowhere.
func leadsTo(t *testing.T, objects []runtime.Object, service string, port int32) (where string) {
	t.Helper()
	for _, o := range objects {
		s, ok := o.(*corev1.Service)
		if !ok || s.Name != service {
			continue
		}
		for _, p := range s.Spec.Ports {
			for _, to := range pods(objects) {
				if p.Port == port && to.labels["app.kubernetes.io/name"] == s.Spec.Selector["app.kubernetes.io/name"] {
					where += fmt.Sprintf("%s:%d", short(to), portOf(to, p.TargetPort.StrVal, p.TargetPort.IntVal))
				}
			}
		}
	}
	return where
}

// sidecarOf is the configuration of the one sidecar among objects.
func sidecarOf(t *testing.T, objects []runtime.Object) sidecar.Config {
	t.Helper()
	all := ours(t, objects)
	if len(all) != 1 {
		t.Fatalf("%d kinds of containers of ours", len(all))
	}
	cfg := sidecar.NewConfig()
	load(t, all[0].text, &cfg)
	return cfg
}

// TestServiceOfTheAPILeadsToTheSidecar, and to nothing else of the pod; the sidecar goes on to
// the API, which starts after it.
func TestServiceOfTheAPILeadsToTheSidecar(t *testing.T) {
	objects := build(t, "examples/sidecar")
	cfg := sidecarOf(t, objects)
	service := find[*corev1.Service](t, objects)
	if len(service.Spec.Ports) != 1 || "0.0.0.0"+strings.TrimPrefix(leadsTo(t, objects, service.Name, 80), "api") != cfg.Listen {
		t.Errorf("%v leads to %s, and the sidecar listens at %s", service.Spec.Ports, leadsTo(t, objects, service.Name, 80), cfg.Listen)
	}
	p := pods(objects)[0]
	if want := fmt.Sprintf("http://127.0.0.1:%d", portOf(p, "api", 0)); cfg.Upstream != want {
		t.Errorf("the sidecar goes on to %s, not %s", cfg.Upstream, want)
	}
	if first := p.spec.InitContainers; len(first) != 1 || first[0].RestartPolicy == nil || *first[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("the sidecar is not there before the API, and until after it")
	}
}

// TestIngressAsksTheCheck about every path, and takes identity from its answer alone.
func TestIngressAsksTheCheck(t *testing.T) {
	objects := build(t, "examples/ingress-nginx")
	cfg := sidecarOf(t, objects)
	ingress := find[*networkingv1.Ingress](t, objects)
	said := func(name string) string { return ingress.Annotations["nginx.ingress.kubernetes.io/"+name] }
	if got, want := said("auth-url"), "http://check."+ingress.Namespace+".svc.cluster.local:8711/check"; got != want {
		t.Errorf("asks %s, not %s", got, want)
	}
	if got := "0.0.0.0" + strings.TrimPrefix(leadsTo(t, objects, "check", 8711), "check"); got != cfg.CheckListen {
		t.Errorf("the question goes to %s, and is answered at %s", got, cfg.CheckListen)
	}
	if got := said("auth-method"); got != "GET" {
		t.Errorf("asks by %q", got)
	}
	var identity []string
	for _, i := range cfg.Identity {
		identity = append(identity, i.Header)
	}
	if got := strings.Split(said("auth-response-headers"), ","); !slices.Equal(got, identity) {
		t.Errorf("takes %v from the answer, which has %v", got, identity)
	}
	for _, rule := range ingress.Spec.Rules {
		if paths := rule.HTTP.Paths; len(paths) != 1 || paths[0].Path != "/" || *paths[0].PathType != networkingv1.PathTypePrefix {
			t.Errorf("%s: %v: nginx chooses by a path that it has cleaned", rule.Host, paths)
		}
	}
}

// TestGatewayAsksTheCheck about every request of its route, and lets none through where there
// is no answer.
func TestGatewayAsksTheCheck(t *testing.T) {
	objects := build(t, "examples/envoy-gateway")
	cfg := sidecarOf(t, objects)
	gateway, route := find[*gatewayv1.Gateway](t, objects), find[*gatewayv1.HTTPRoute](t, objects)
	security := find[*egv1a1.SecurityPolicy](t, objects)
	if refs := route.Spec.ParentRefs; len(refs) != 1 || string(refs[0].Name) != gateway.Name {
		t.Errorf("the route is of %v", refs)
	}
	for _, rule := range route.Spec.Rules {
		for _, ref := range rule.BackendRefs {
			if leadsTo(t, objects, string(ref.Name), *ref.Port) != "api:9000" {
				t.Errorf("the route leads to %s:%d", ref.Name, *ref.Port)
			}
		}
	}
	if refs := security.Spec.TargetRefs; len(refs) != 1 || refs[0].Kind != "HTTPRoute" || string(refs[0].Name) != route.Name {
		t.Errorf("the policy is of %v", refs)
	}
	ask := security.Spec.ExtAuth
	if ask.FailOpen == nil || *ask.FailOpen || ask.GRPC == nil || len(ask.GRPC.BackendRefs) != 1 || ask.HeadersToExtAuth != nil {
		t.Fatalf("asks by %+v", ask)
	}
	ref := ask.GRPC.BackendRefs[0]
	if got := "0.0.0.0" + strings.TrimPrefix(leadsTo(t, objects, string(ref.Name), *ref.Port), "check"); got != cfg.ExtAuthzListen {
		t.Errorf("the question goes to %s, and is answered at %s", got, cfg.ExtAuthzListen)
	}
}
