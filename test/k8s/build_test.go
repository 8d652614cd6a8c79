package k8s

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const root = "../../deploy/k8s"

// parts can't be applied by themselves: others take them up.
var parts = []string{"authority", "nats", "sidecar", "check", "examples/api"}

// decoder knows every type that deploy/k8s may use, and no unknown or doubled field.
var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme, monitoringv1.AddToScheme, gatewayv1.Install, egv1a1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// kustomizations are the directories below root that hold one, without the parts.
func kustomizations(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "kustomization.yaml" {
			dir, _ := filepath.Rel(root, filepath.Dir(path))
			if !slices.Contains(parts, dir) {
				all = append(all, dir)
			}
		}
		return err
	})
	if err != nil || len(all) < 5 {
		t.Fatal(all, err)
	}
	return all
}

// texts are what kustomize has made of a directory, before it is decoded.
var texts = map[string][][]byte{}

// build makes the objects of a kustomization.
func build(t *testing.T, dir string) (objects []runtime.Object) {
	t.Helper()
	made, ok := texts[dir]
	if !ok {
		var err error
		if made, err = kustomize(filepath.Join(root, dir)); err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		texts[dir] = made
	}
	for _, text := range made {
		objects = append(objects, decode(t, dir, text))
	}
	return objects
}

func kustomize(dir string) (texts [][]byte, err error) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func decode(t *testing.T, from string, text []byte) runtime.Object {
	t.Helper()
	object, _, err := decoder.Decode(text, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v\n%s", from, err, text)
	}
	return object
}

// secrets are what secrets.sh prints, with the same values throughout a test.
func secrets(t *testing.T) (all []*corev1.Secret) {
	t.Helper()
	if made.of != t {
		made.of, made.text = t, run(t, filepath.Join(root, "secrets.sh"))
	}
	return secretsOf(t, made.text)
}

var made struct {
	of   *testing.T
	text string
}

func secretsOf(t *testing.T, text string) (all []*corev1.Secret) {
	t.Helper()
	for text := range strings.SplitSeq(text, "\n---\n") {
		secret, ok := decode(t, "secrets.sh", []byte(text)).(*corev1.Secret)
		if !ok {
			t.Fatalf("%s", text)
		}
		all = append(all, secret)
	}
	return all
}

// pod is one that an object makes, or that somebody else does.
type pod struct {
	of        string
	namespace string
	labels    map[string]string
	spec      *corev1.PodSpec // nil: somebody else's

	selector *metav1.LabelSelector
	replicas int32
	alone    bool     // the old one ends before the new one begins
	claims   []string // volumes that each of the pods has for itself
}

// pods are those that objects make.
func pods(objects []runtime.Object) (all []pod) {
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			all = append(all, pod{
				of: "Deployment " + o.Name, namespace: o.Namespace, labels: o.Spec.Template.Labels, spec: &o.Spec.Template.Spec,
				selector: o.Spec.Selector, replicas: *o.Spec.Replicas, alone: o.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType,
			})
		case *appsv1.StatefulSet:
			p := pod{
				of: "StatefulSet " + o.Name, namespace: o.Namespace, labels: o.Spec.Template.Labels, spec: &o.Spec.Template.Spec,
				selector: o.Spec.Selector, replicas: *o.Spec.Replicas,
			}
			for _, c := range o.Spec.VolumeClaimTemplates {
				p.claims = append(p.claims, c.Name)
			}
			all = append(all, p)
		}
	}
	return all
}

// claimed are the sizes, in bytes, of the volumes that each pod of an object has for itself.
func claimed(o runtime.Object) (sizes []int64) {
	if s, ok := o.(*appsv1.StatefulSet); ok {
		for _, c := range s.Spec.VolumeClaimTemplates {
			sizes = append(sizes, c.Spec.Resources.Requests.Storage().Value())
		}
	}
	return sizes
}

func containers(p pod) []corev1.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// run runs a program, which must succeed, and returns what it prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	return finish(t, exec.CommandContext(t.Context(), program, args...))
}

// finish runs a command, which must succeed, and returns what it prints.
func finish(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, &complaint)
	}
	return string(out)
}

// natsVersion is that of the server that the tests run.
func natsVersion(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(strings.TrimSpace(run(t, "go", "list", "-m", "-f", "{{.Version}}", "github.com/nats-io/nats-server/v2")), "v")
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}
