package k8s

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"

	authority "github.com/revcast/revcast/cmd/authority/app"
	sidecar "github.com/revcast/revcast/cmd/sidecar/app"
	"github.com/revcast/revcast/internal/config"
)

// files are what a container is given to read, by name: those of ConfigMaps and Secrets,
// which must be there.
func files(t *testing.T, objects []runtime.Object, spec *corev1.PodSpec, c *corev1.Container) map[string]string {
	t.Helper()
	given := map[string]map[string]string{} // by volume
	for _, v := range spec.Volumes {
		all := map[string]string{}
		switch {
		case v.ConfigMap != nil:
			all = data(t, objects, "ConfigMap", v.ConfigMap.Name)
		case v.Secret != nil:
			all = data(t, objects, "Secret", v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				switch {
				case s.ConfigMap != nil:
					pick(t, data(t, objects, "ConfigMap", s.ConfigMap.Name), s.ConfigMap.Items, all)
				case s.Secret != nil:
					pick(t, data(t, objects, "Secret", s.Secret.Name), s.Secret.Items, all)
				}
			}
		}
		given[v.Name] = all
	}
	names := map[string]string{}
	for _, m := range c.VolumeMounts {
		for name, text := range given[m.Name] {
			names[path.Join(m.MountPath, name)] = text
		}
	}
	return names
}

func pick(t *testing.T, from map[string]string, items []corev1.KeyToPath, into map[string]string) {
	t.Helper()
	for _, i := range items {
		text, ok := from[i.Key]
		if !ok {
			t.Errorf("no %s", i.Key)
		}
		into[i.Path] = text
	}
}

// data is that of a ConfigMap or Secret, which must be there.
func data(t *testing.T, objects []runtime.Object, kind, name string) map[string]string {
	t.Helper()
	if kind == "Secret" {
		for _, s := range secrets(t) {
			if s.Name == name {
				return s.StringData
			}
		}
	}
	for _, o := range objects {
		if c, ok := o.(*corev1.ConfigMap); ok && kind == "ConfigMap" && c.Name == name {
			return c.Data
		}
	}
	t.Errorf("no %s %s", kind, name)
	return nil
}

// configured is a container of ours, with its configuration.
type configured struct {
	pod
	container corev1.Container
	text      string
	files     map[string]string
}

// ours are the containers that run a binary of ours.
func ours(t *testing.T, objects []runtime.Object) (all []configured) {
	t.Helper()
	for _, p := range pods(objects) {
		for _, c := range containers(p) {
			if !strings.HasPrefix(c.Image, "revcast/") {
				continue
			}
			given := files(t, objects, p.spec, &c)
			i := slices.Index(c.Args, "--config")
			if i < 0 || given[c.Args[i+1]] == "" {
				t.Errorf("%s, %s: no configuration among %v", p.of, c.Name, slices.Collect(maps.Keys(given)))
				continue
			}
			all = append(all, configured{p, c, given[c.Args[i+1]], given})
		}
	}
	return all
}

// load reads a configuration by the strict decoder of the binary that gets it.
func load(t *testing.T, text string, into any) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, text)
	if _, err := config.Load(into, config.Source{File: file}); err != nil {
		t.Fatal(err)
	}
}

// here puts what a configuration names by path into a directory of the test's: the files
// that are mounted, and the directories that are.
func (c configured) here(t *testing.T) (text string) {
	t.Helper()
	dir := t.TempDir()
	text = c.text
	for name, content := range c.files {
		write(t, filepath.Join(dir, name), content)
	}
	for _, m := range c.container.VolumeMounts {
		at := filepath.Join(dir, m.MountPath)
		write(t, filepath.Join(at, ".here"), "")
		text = strings.ReplaceAll(text, m.MountPath, at)
	}
	return text
}

// TestConfigurationsAreAccepted by the binaries that get them: each is read and checked as
// at a start, up to the first word to the network, with the files that are mounted.
func TestConfigurationsAreAccepted(t *testing.T) {
	found := map[string]int{}
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, c := range ours(t, objects) {
			found[c.container.Image]++
			if err := c.begins(t); err != nil {
				t.Errorf("%s: %v", c.of, err)
			}
		}
	})
	if found["revcast/authority"] < 2 || found["revcast/sidecar"] < 3 {
		t.Errorf("found %v", found)
	}
}

// begins runs what a container would, until it listens.
func (c configured) begins(t *testing.T) error {
	t.Helper()
	errLate := errors.New("it doesn't listen")
	ctx, listening := context.WithTimeoutCause(t.Context(), time.Minute, errLate)
	defer listening()
	here := func(addresses ...*string) {
		for _, a := range addresses {
			if *a != "" {
				*a = "127.0.0.1:0"
			}
		}
	}
	var err error
	switch c.container.Image {
	case "revcast/authority":
		cfg := authority.NewConfig()
		load(t, c.here(t), &cfg)
		here(&cfg.Listen, &cfg.NATS.Listen)
		err = authority.Run(ctx, cfg, authority.Options{Listening: func(authority.Addrs) { listening() }})
	case "revcast/sidecar":
		cfg := sidecar.NewConfig()
		load(t, c.here(t), &cfg)
		here(&cfg.Listen, &cfg.CheckListen, &cfg.ExtAuthzListen)
		err = sidecar.Run(ctx, cfg, sidecar.Options{Listening: func(sidecar.Addrs) { listening() }})
	}
	if context.Cause(ctx) == errLate {
		err = errors.Join(err, errLate)
	}
	return err
}

// TestPortsAreThoseOfTheConfiguration: each that a container names is one that its process
// listens at, and its probes ask what the binaries answer.
func TestPortsAreThoseOfTheConfiguration(t *testing.T) {
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, c := range ours(t, objects) {
			want := map[string]string{}
			if c.container.Image == "revcast/authority" {
				cfg := authority.NewConfig()
				load(t, c.text, &cfg)
				want["http"], want["nats"] = cfg.Listen, cfg.NATS.Listen
			} else {
				cfg := sidecar.NewConfig()
				load(t, c.text, &cfg)
				want["revcast"], want["revcast-check"], want["extauthz"] = cfg.Listen, cfg.CheckListen, cfg.ExtAuthzListen
			}
			got := map[string]string{}
			for _, p := range c.container.Ports {
				got[p.Name] = fmt.Sprintf("0.0.0.0:%d", p.ContainerPort)
			}
			maps.DeleteFunc(want, func(_, address string) bool { return address == "" })
			if !maps.Equal(got, want) {
				t.Errorf("%s: ports %v, and it listens at %v", c.of, got, want)
			}
			asks := func(p *corev1.Probe) string { return p.HTTPGet.Path + " at " + p.HTTPGet.Port.StrVal }
			at := map[string]string{"revcast/authority": "http", "revcast/sidecar": "revcast-check"}[c.container.Image]
			if got := asks(c.container.LivenessProbe); got != "/healthz at "+at {
				t.Errorf("%s: lives by %s", c.of, got)
			}
			if got := asks(c.container.ReadinessProbe); got != "/readyz at "+at {
				t.Errorf("%s: is ready by %s", c.of, got)
			}
			if got := asks(c.container.StartupProbe); got != "/healthz at "+at && got != "/readyz at "+at {
				t.Errorf("%s: has started by %s", c.of, got)
			}
		}
	})
}

// TestBaseIsTwoAuthoritiesOnThreeServers, who know each other by the names that they have.
func TestBaseIsTwoAuthoritiesOnThreeServers(t *testing.T) {
	objects := build(t, "base")
	var nats pod
	counts := map[string]int32{}
	for _, p := range pods(objects) {
		counts[p.of] = p.replicas
		if p.of == "StatefulSet nats" {
			nats = p
		}
	}
	if !maps.Equal(counts, map[string]int32{"StatefulSet nats": 3, "Deployment authority": 2}) {
		t.Fatal(counts)
	}
	all := ours(t, objects)
	if len(all) != 1 {
		t.Fatalf("%d kinds of containers of ours", len(all))
	}
	cfg := authority.NewConfig()
	load(t, all[0].text, &cfg)
	if cfg.NATS.Replicas != 3 {
		t.Errorf("%d replicas", cfg.NATS.Replicas)
	}
	if _, ok := all[0].files[cfg.SigningKeyFile]; !ok {
		t.Errorf("each makes a key of its own: no %s", cfg.SigningKeyFile)
	}
	options, _, _ := natsOptions(t)
	var routes []string
	for _, r := range options.Routes {
		routes = append(routes, r.Scheme+"://"+r.Host)
	}
	if options.ServerName != "nats-0" {
		t.Errorf("the first server's name is %q", options.ServerName)
	}
	for what, urls := range map[string][]string{
		"nats://%s.nats:6222":             routes,
		"nats://%s.nats:4222":             strings.Split(cfg.NATS.URL, ","),
		"http://%s.nats:8222":             cfg.NATS.MonitorURLs,
		"nats://%s.nats.revcast.svc:4222": strings.Split(cfg.NATS.VerifierURL, ","),
	} {
		var want []string
		for i := range 3 {
			want = append(want, fmt.Sprintf(what, "nats-"+strconv.Itoa(i)))
		}
		if !slices.Equal(urls, want) {
			t.Errorf("%v, not %v", urls, want)
		}
		for _, u := range urls {
			at, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			port, _ := strconv.Atoi(at.Port())
			if portOf(nats, "", int32(port)) == 0 {
				t.Errorf("%s: its pods have no such port", u)
			}
		}
	}
	for _, o := range objects {
		if s, ok := o.(*corev1.Service); ok && s.Name == "nats" && s.Spec.ClusterIP == corev1.ClusterIPNone && s.Spec.PublishNotReadyAddresses {
			return
		}
	}
	t.Error("no Service gives each server a name before it is ready")
}

// TestSecretFilesAreThere: each that an authority's configuration names is of a Secret that
// secrets.sh makes, for its group to read; the key that signs in both variants.
func TestSecretFilesAreThere(t *testing.T) {
	found := 0
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, c := range ours(t, objects) {
			if c.container.Image != "revcast/authority" {
				continue
			}
			found++
			cfg := authority.NewConfig()
			load(t, c.text, &cfg)
			named := []string{cfg.SigningKeyFile}
			for _, file := range []string{cfg.NATS.PasswordFile, cfg.NATS.VerifierPasswordFile} {
				if file != "" {
					named = append(named, file)
				}
			}
			if cfg.NATS.URL != "" && len(named) != 3 {
				t.Errorf("%s: connects without passwords: %v", c.of, named)
			}
			for _, file := range named {
				mounted := slices.ContainsFunc(c.container.VolumeMounts, func(m corev1.VolumeMount) bool {
					return m.MountPath == path.Dir(file) && m.ReadOnly && slices.ContainsFunc(c.spec.Volumes, func(v corev1.Volume) bool {
						return v.Name == m.Name && v.Secret != nil && v.Secret.DefaultMode != nil && *v.Secret.DefaultMode == 0o440
					})
				})
				if c.files[file] == "" || !mounted {
					t.Errorf("%s: no Secret has %q", c.of, file)
				}
			}
		}
	})
	if found != 2 {
		t.Errorf("%d authorities", found)
	}
}

// TestSidecarsAskTheAuthority by the name and port of its Service, and follow the issuers
// whose tokens it revokes.
func TestSidecarsAskTheAuthority(t *testing.T) {
	var at string
	var revocable []string
	for _, o := range build(t, "base") {
		if s, ok := o.(*corev1.Service); ok && s.Name == "authority" {
			at = fmt.Sprintf("http://%s.%s.svc:%d", s.Name, s.Namespace, s.Spec.Ports[0].Port)
		}
	}
	for _, c := range ours(t, build(t, "base")) {
		cfg := authority.NewConfig()
		load(t, c.text, &cfg)
		for _, i := range cfg.Issuers {
			revocable = append(revocable, i.Issuer.Issuer)
		}
	}
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, c := range ours(t, objects) {
			if c.container.Image != "revcast/sidecar" {
				continue
			}
			cfg := sidecar.NewConfig()
			load(t, c.text, &cfg)
			if cfg.Authority != at || cfg.Freshness.OnStale != "deny" {
				t.Errorf("%s: asks %s, not %s; on_stale: %s", c.of, cfg.Authority, at, cfg.Freshness.OnStale)
			}
			for _, i := range cfg.Issuers {
				if !slices.Contains(revocable, i.Issuer) {
					t.Errorf("%s: accepts tokens of %s, which nobody can revoke", c.of, i.Issuer)
				}
			}
		}
	})
}

// TestFullSignatureCacheFits beside a million revocations by subject, and in the check, which is
// asked for many, beside five million; what a token takes is in pkg/verifier, the rest on the page.
func TestFullSignatureCacheFits(t *testing.T) {
	const process, token, entry = 30_000_000, 3 << 10, 42
	found := 0
	each(t, func(t *testing.T, objects []runtime.Object) {
		for _, c := range ours(t, objects) {
			if c.container.Image != "revcast/sidecar" {
				continue
			}
			found++
			cfg := sidecar.NewConfig()
			load(t, c.text, &cfg)
			entries := 1_000_000
			if c.of == "Deployment check" {
				entries = 5_000_000
			}
			var soft resource.Quantity
			for _, e := range c.container.Env {
				if e.Name == "GOMEMLIMIT" {
					soft = resource.MustParse(strings.TrimSuffix(e.Value, "B"))
				}
			}
			if needs := int64(process + token*cfg.CacheSize + entry*entries); needs > soft.Value() {
				t.Errorf("%s: needs %d bytes, and collects for its life at %s", c.of, needs, soft.String())
			}
			if limit := c.container.Resources.Limits.Memory(); soft.Cmp(*limit) >= 0 {
				t.Errorf("%s: is killed at %s before it collects at %s", c.of, limit, soft.String())
			}
		}
	})
	if found != 3 {
		t.Errorf("%d sidecars", found)
	}
}
