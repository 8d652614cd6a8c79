package k8s

import (
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// inDirectory writes files into a directory of a checkout, as users do, and builds it.
func inDirectory(t *testing.T, at string, files map[string]string) (objects []runtime.Object) {
	t.Helper()
	dir := t.TempDir()
	deploy, err := filepath.Abs("../../deploy")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(deploy, filepath.Join(dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, at, name), text)
	}
	made, err := kustomize(filepath.Join(dir, at))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range made {
		objects = append(objects, decode(t, at, text))
	}
	return objects
}

// TestComponentAddsTheSidecar to every Deployment and StatefulSet that doesn't say no, first
// among what starts, and leaves the rest as it is.
func TestComponentAddsTheSidecar(t *testing.T) {
	const template = `
spec:
  selector: {matchLabels: {app: a}}
  serviceName: a
  template:
    metadata: {labels: {app: a}}
    spec:
      initContainers:
        - name: migrate
          image: migrate:1
      containers:
        - name: api
          image: api:1
      volumes:
        - name: own
          emptyDir: {}
`
	objects := inDirectory(t, "mine", map[string]string{
		"api.yaml": "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: asked, labels: {revcast/sidecar: \"true\"}}" + template +
			"---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: silent}" + template +
			"---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: not, labels: {revcast/sidecar: \"false\"}}" + template,
		"kustomization.yaml": `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: mine
resources: [api.yaml]
components: [../deploy/k8s/sidecar]
configMapGenerator: [{name: revcast-sidecar, literals: [sidecar.yaml=]}]
`,
	})
	var settings string
	for _, o := range objects {
		if c, ok := o.(*corev1.ConfigMap); ok {
			settings = c.Name
		}
	}
	for _, o := range objects {
		s, ok := o.(*appsv1.StatefulSet)
		if !ok {
			continue
		}
		pod := s.Spec.Template.Spec
		if s.Name == "not" {
			if len(pod.InitContainers) != 1 || len(pod.Volumes) != 1 || len(s.Spec.Template.Labels) != 1 {
				t.Errorf("%s has a sidecar: %+v", s.Name, pod)
			}
			continue
		}
		if len(pod.InitContainers) != 2 || pod.InitContainers[0].Name != "revcast" || pod.InitContainers[1].Image != "migrate:1" ||
			len(pod.Containers) != 1 || len(pod.Volumes) != 3 || s.Spec.Template.Labels["revcast/verifier"] != "true" {
			t.Errorf("%s: %+v", s.Name, s.Spec.Template)
		}
		found := false
		for _, v := range pod.Volumes {
			found = found || v.ConfigMap != nil && v.ConfigMap.Name == settings
		}
		if !found {
			t.Errorf("%s: the sidecar does not get %s", s.Name, settings)
		}
	}
	if len(objects) != 4 {
		t.Errorf("%d objects", len(objects))
	}
}
