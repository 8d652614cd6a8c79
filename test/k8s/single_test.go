package k8s

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	authority "github.com/revcast/revcast/cmd/authority/app"
)

// TestEmbeddedLogIsOnAVolumeThatStays when its pod goes.
func TestEmbeddedLogIsOnAVolumeThatStays(t *testing.T) {
	all := ours(t, build(t, "overlays/single"))
	if len(all) != 1 {
		t.Fatalf("%d kinds of containers of ours", len(all))
	}
	cfg := authority.NewConfig()
	load(t, all[0].text, &cfg)
	if cfg.NATS.URL != "" {
		t.Errorf("its log is at %s", cfg.NATS.URL)
	}
	mounted := ""
	for _, m := range all[0].container.VolumeMounts {
		if m.MountPath == cfg.DataDir {
			mounted = m.Name
		}
	}
	if !slices.ContainsFunc(all[0].spec.Volumes, func(v corev1.Volume) bool { return v.Name == mounted && v.PersistentVolumeClaim != nil }) {
		t.Errorf("%s is on %q, which is no claim", cfg.DataDir, mounted)
	}
}

// TestSingleAuthorityIsFoundWhileItIsNotReady, so that verifiers go on being told.
func TestSingleAuthorityIsFoundWhileItIsNotReady(t *testing.T) {
	if service := find[*corev1.Service](t, build(t, "overlays/single")); !service.Spec.PublishNotReadyAddresses {
		t.Error("there is no other, and its Service leads nowhere")
	}
}

// TestRestoreReachesTheVolumeAndNothingElse: the pod that puts files into the authority's volume
// is not applied with the rest, may do what the authority may, and nobody can talk to it.
func TestRestoreReachesTheVolumeAndNothingElse(t *testing.T) {
	objects := build(t, "overlays/single")
	made, ok := decode(t, "restore.yaml", []byte(read(t, filepath.Join(root, "overlays/single/restore.yaml")))).(*corev1.Pod)
	if !ok || made.Name != "restore" || made.Namespace != "revcast" {
		t.Fatalf("%+v", made)
	}
	restore := pod{of: "Pod restore", namespace: made.Namespace, labels: made.Labels, spec: &made.Spec}
	restricted(t, restore)
	all := ours(t, objects)
	if len(all) != 1 || len(made.Spec.Containers) != 1 || len(made.Spec.Volumes) != 1 {
		t.Fatalf("%d authorities, %+v", len(all), made.Spec)
	}
	cfg := authority.NewConfig()
	load(t, all[0].text, &cfg)
	claim := find[*corev1.PersistentVolumeClaim](t, objects)
	if v := made.Spec.Volumes[0].PersistentVolumeClaim; v == nil || v.ClaimName != claim.Name || claim.Namespace != made.Namespace {
		t.Errorf("its volume is %+v, and the authority's %s/%s", v, claim.Namespace, claim.Name)
	}
	c := made.Spec.Containers[0]
	if m := c.VolumeMounts; len(m) != 1 || m[0].MountPath != cfg.DataDir || m[0].ReadOnly {
		t.Errorf("mounts %+v", m)
	}
	own, theirs := made.Spec.SecurityContext, all[0].spec.SecurityContext
	if *own.RunAsUser != *theirs.RunAsUser || *own.RunAsGroup != *theirs.RunAsGroup || *own.FSGroup != *theirs.FSGroup {
		t.Errorf("what it writes is %d's, and the authority is %d", *own.RunAsUser, *theirs.RunAsUser)
	}
	if !slices.Equal(c.Command, []string{"sleep", "86400"}) || c.Image != "busybox:1.37" {
		t.Errorf("runs %v of %s", c.Command, c.Image)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
		if request.IsZero() || limit.IsZero() || request.Cmp(limit) > 0 {
			t.Errorf("%s from %s to %s", name, request.String(), limit.String())
		}
	}
	if made.Spec.AutomountServiceAccountToken == nil || *made.Spec.AutomountServiceAccountToken {
		t.Error("has a token of the API server")
	}

	w := newWorld(t, "overlays/single", "monitoring")
	w.pods = append(w.pods, restore)
	for _, arrow := range w.arrows(t) {
		if strings.Contains(arrow, "restore") && !strings.HasPrefix(arrow, "restore > kube-dns:53") {
			t.Errorf("allows %s", arrow)
		}
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Pod:
			t.Errorf("%s is applied with the rest", o.Name)
		case *corev1.Service:
			if labels.SelectorFromSet(o.Spec.Selector).Matches(labels.Set(made.Labels)) {
				t.Errorf("the Service %s leads to it", o.Name)
			}
		}
	}
}
