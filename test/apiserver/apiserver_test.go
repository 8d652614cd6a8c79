package apiserver

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const root = "../.."

// parts can't be applied by themselves: others take them up.
var parts = []string{"authority", "nats", "sidecar", "check", "examples/api"}

// after are those that need another first.
var after = map[string]string{"monitoring": "base"}

// kustomizations are the directories below deploy/k8s that can be applied.
func kustomizations(t *testing.T) (all []string) {
	t.Helper()
	top := filepath.Join(root, "deploy/k8s")
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "kustomization.yaml" {
			dir, _ := filepath.Rel(top, filepath.Dir(path))
			if !slices.Contains(parts, dir) {
				all = append(all, dir)
			}
		}
		return err
	})
	if err != nil || len(all) < 6 {
		t.Fatal(all, err)
	}
	return all
}

// build makes the objects of a kustomization, in the order that kubectl applies them in.
func build(t *testing.T, dir string) (objects []*unstructured.Unstructured) {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, "deploy/k8s", dir))
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	for _, r := range made.Resources() {
		text, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, parse(t, string(text)))
	}
	return objects
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return o
}

// start runs a server with the definitions of others, for one test.
func start(t *testing.T) (*Server, *Client) {
	t.Helper()
	dir := t.TempDir()
	s, err := Start(context.Background(), dir) // t.Context() ends before it is stopped
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.ended(); err != nil {
			t.Error(err)
		}
		s.Stop()
	})
	if err := Define(t.Context(), s, dir); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// apply applies objects, and wants no warning. It returns what they are now.
func apply(t *testing.T, c *Client, objects []*unstructured.Unstructured) (now []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range objects {
		is, err := c.Apply(t.Context(), o)
		if err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
		if o.GetKind() == "Namespace" { // what a controller would do
			err := c.Create(t.Context(), parse(t, `{"apiVersion": "v1", "kind": "ServiceAccount",
				"metadata": {"name": "default", "namespace": "`+o.GetName()+`"}}`), false)
			if err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
		for _, w := range c.Warnings() {
			t.Errorf("%s %s: the server warns: %s", o.GetKind(), o.GetName(), w)
		}
		now = append(now, is)
	}
	return now
}

// content is an object without what the server keeps of changes to it.
func content(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	return o.Object
}

// pod is the first that the controller of a workload would make, or nil.
func pod(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	template, ok, _ := unstructured.NestedMap(o.Object, "spec", "template")
	if !ok {
		return nil
	}
	p := &unstructured.Unstructured{Object: template}
	p.SetAPIVersion("v1")
	p.SetKind("Pod")
	p.SetNamespace(o.GetNamespace())
	p.SetName(o.GetName() + "-0")
	labels := p.GetLabels()
	labels["pod-template-hash"] = "0"
	p.SetLabels(labels)
	volumes, _, _ := unstructured.NestedSlice(p.Object, "spec", "volumes")
	claims, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	for _, claim := range claims {
		name, _, _ := unstructured.NestedString(claim.(map[string]any), "metadata", "name")
		volumes = append(volumes, map[string]any{
			"name": name, "persistentVolumeClaim": map[string]any{"claimName": name + "-" + p.GetName()},
		})
	}
	if err := unstructured.SetNestedSlice(p.Object, volumes, "spec", "volumes"); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestManifestsAreAccepted by an API server that was empty: every object, with no warning, and
// every pod that would come of them. Applied again, nothing changes.
func TestManifestsAreAccepted(t *testing.T) {
	for _, dir := range kustomizations(t) {
		t.Run(dir, func(t *testing.T) {
			_, c := start(t)
			if first, ok := after[dir]; ok {
				apply(t, c, build(t, first))
			}
			objects := build(t, dir)
			made, again, more := apply(t, c, objects), apply(t, c, objects), apply(t, c, objects)
			for i, o := range objects {
				if once, twice := content(made[i]), content(again[i]); !reflect.DeepEqual(once, twice) {
					t.Errorf("%s %s: applied again, it is %v, and was %v", o.GetKind(), o.GetName(), twice, once)
				}
				// The first update stores a status that was a default before: of a claim, of a Gateway.
				if was, is := again[i].GetResourceVersion(), more[i].GetResourceVersion(); was != is {
					t.Errorf("%s %s: applied again, its version is %s, and was %s", o.GetKind(), o.GetName(), is, was)
				}
				p := pod(t, o)
				if p == nil {
					continue
				}
				if err := c.Create(t.Context(), p, true); err != nil {
					t.Errorf("the pod of %s %s: %v", o.GetKind(), o.GetName(), err)
				}
				for _, w := range c.Warnings() {
					t.Errorf("the pod of %s %s: the server warns: %s", o.GetKind(), o.GetName(), w)
				}
			}
			t.Logf("%d objects", len(objects))
		})
	}
}

// TestWrongManifestsAreRefused: the server that accepts ours does look at them.
func TestWrongManifestsAreRefused(t *testing.T) {
	_, c := start(t)
	base, envoy := build(t, "base"), build(t, "examples/envoy-gateway")
	apply(t, c, base)
	apply(t, c, envoy)
	for _, wrong := range []struct {
		kind   string
		change []string // the words that lead to it
		to     any
		refuse string
	}{
		{"Deployment", []string{"spec", "replicass"}, int64(2), "replicass"},
		{"Deployment", []string{"spec", "template", "spec", "securityContext", "runAsNonRot"}, true, "runAsNonRot"},
		{"SecurityPolicy", []string{"spec", "extAuth", "failOpn"}, true, "failOpn"},
		{"SecurityPolicy", []string{"spec", "extAuth", "http"}, map[string]any{}, "one of grpc or http"},
	} {
		t.Run(strings.Join(wrong.change, "."), func(t *testing.T) {
			for _, o := range slices.Concat(base, envoy) {
				if o.GetKind() != wrong.kind {
					continue
				}
				o = o.DeepCopy()
				if err := unstructured.SetNestedField(o.Object, wrong.to, wrong.change...); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Apply(t.Context(), o); err == nil || !strings.Contains(err.Error(), wrong.refuse) {
					t.Errorf("accepted, or not for %q: %v", wrong.refuse, err)
				}
				return
			}
			t.Errorf("no %s", wrong.kind)
		})
	}
	for _, o := range base {
		p := pod(t, o)
		if p == nil {
			continue
		}
		volumes, _, _ := unstructured.NestedSlice(p.Object, "spec", "volumes")
		for name, broken := range map[string]any{
			"securityContext": map[string]any{},
			"hostNetwork":     true,
			"volumes":         append(volumes, map[string]any{"name": "host", "hostPath": map[string]any{"path": "/"}}),
		} {
			p := p.DeepCopy()
			if err := unstructured.SetNestedField(p.Object, broken, "spec", name); err != nil {
				t.Fatal(err)
			}
			err := c.Create(t.Context(), p, true)
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
				t.Errorf("the pod of %s with another spec.%s: %v", o.GetName(), name, err)
			}
		}
	}
}

// TestKubectlApplies each with nothing to complain of, sees no difference then, and creates the
// Secrets once.
func TestKubectlApplies(t *testing.T) {
	bin, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	kubectl := filepath.Join(bin, "kubectl")
	for _, dir := range kustomizations(t) {
		t.Run(dir, func(t *testing.T) {
			s, _ := start(t)
			env := append(os.Environ(), "KUBECONFIG="+s.Kubeconfig, "KUBECACHEDIR="+t.TempDir())
			run := func(input, name string, args ...string) (out, wrong string, err error) {
				cmd := exec.CommandContext(t.Context(), name, args...)
				cmd.Dir, cmd.Env = root, env
				var stdout, stderr bytes.Buffer
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
				err = cmd.Run()
				return stdout.String(), stderr.String(), err
			}
			for _, dir := range []string{after[dir], dir} {
				if dir == "" {
					continue
				}
				out, wrong, err := run("", kubectl, "apply", "-k", "deploy/k8s/"+dir)
				if err != nil || wrong != "" || strings.Count(out, "\n") != strings.Count(out, " created\n") {
					t.Fatalf("apply -k %s: %v\n%s%s", dir, err, out, wrong)
				}
				t.Log("\n" + out)
				out, wrong, err = run("", kubectl, "diff", "-k", "deploy/k8s/"+dir)
				if err != nil || out+wrong != "" {
					t.Errorf("diff -k %s: %v\n%s%s", dir, err, out, wrong)
				}
			}
			if dir != "base" {
				return
			}
			for _, want := range []string{" created\n", "already exists"} {
				secrets, wrong, err := run("", "deploy/k8s/secrets.sh")
				if err != nil {
					t.Fatalf("secrets.sh: %v: %s", err, wrong)
				}
				out, wrong, err := run(secrets, kubectl, "create", "-f", "-")
				if (err == nil) != (wrong == "") || strings.Count(out+wrong, want) != 2 {
					t.Errorf("wanted 2 times %q: %v\n%s%s", want, err, out, wrong)
				}
			}
		})
	}
}
