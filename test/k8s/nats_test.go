package k8s

import (
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"

	authority "github.com/revcast/revcast/cmd/authority/app"
	"github.com/revcast/revcast/internal/wire"
)

// natsOptions are those of the first server: read as it does, from its arguments and from the
// files that it is given.
func natsOptions(t *testing.T) (*server.Options, pod, corev1.Container) {
	t.Helper()
	objects := build(t, "base")
	all := pods(objects)
	nats := all[slices.IndexFunc(all, func(p pod) bool { return p.of == "StatefulSet nats" })]
	c := nats.spec.Containers[0]
	dir := t.TempDir()
	given := files(t, objects, nats.spec, &c)
	for name, text := range given {
		write(t, filepath.Join(dir, name), text)
	}
	args := slices.Clone(c.Args)
	for i, arg := range args {
		if given[arg] != "" {
			args[i] = filepath.Join(dir, arg)
		}
	}
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.name" {
			value = "nats-0"
		}
		t.Setenv(e.Name, value)
	}
	options, err := server.ConfigureOptions(flag.NewFlagSet("nats-server", flag.ContinueOnError), args, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return options, nats, c
}

// TestServersAcknowledgeWhatIsOnDisk, in the volume that is theirs.
func TestServersAcknowledgeWhatIsOnDisk(t *testing.T) {
	options, nats, c := natsOptions(t)
	if !options.SyncAlways || !options.JetStream {
		t.Errorf("JetStream: %v, syncs always: %v", options.JetStream, options.SyncAlways)
	}
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.MountPath] = m.Name
	}
	if !slices.Contains(nats.claims, mounts[options.StoreDir]) {
		t.Errorf("%s is no volume of its own, among %v", options.StoreDir, mounts)
	}
	if mounts[filepath.Dir(options.PidFile)] == "" {
		t.Errorf("%s can't be written", options.PidFile)
	}
	if end := c.Lifecycle.PreStop.Exec.Command; !slices.Equal(end, []string{"/nats-server", "--signal", "ldm=" + options.PidFile}) {
		t.Errorf("before its end: %v", end)
	}
	grace := options.LameDuckGracePeriod + options.LameDuckDuration
	if left := float64(*nats.spec.TerminationGracePeriodSeconds) - grace.Seconds(); left < 10 {
		t.Errorf("%v for its clients to leave, and %.0f seconds for the rest", grace, left)
	}
	for name, port := range map[string]int{"client": options.Port, "monitor": options.HTTPPort, "cluster": options.Cluster.Port} {
		if got := portOf(nats, name, 0); int(got) != port {
			t.Errorf("port %s is %d, and it listens at %d", name, got, port)
		}
	}
	var room int64
	for _, o := range build(t, "base") {
		for _, size := range claimed(o) {
			room = size
		}
	}
	cfg := authority.NewConfig()
	if options.JetStreamMaxStore > room || cfg.NATS.MaxBytes > options.JetStreamMaxStore {
		t.Errorf("a log of %d bytes in a store of %d on a volume of %d", cfg.NATS.MaxBytes, options.JetStreamMaxStore, room)
	}
}

// TestVerifiersMayListenAndNothingElse, and nobody is let in without a password.
func TestVerifiersMayListenAndNothingElse(t *testing.T) {
	options, _, _ := natsOptions(t)
	said := map[string]string{}
	for _, s := range secrets(t) {
		for key, text := range s.StringData {
			said[key] = text
		}
	}
	users := map[string]*server.User{}
	for _, u := range options.Users {
		users[u.Username] = u
	}
	if len(users) != 2 || options.NoAuthUser != "" || len(options.Nkeys) > 0 || options.Username != "" || options.Authorization != "" {
		t.Errorf("others may connect, too: %v", users)
	}
	if options.Cluster.Username == "" || !strings.Contains(said["passwords.conf"], options.Cluster.Password) {
		t.Errorf("anybody may join as %q", options.Cluster.Username)
	}
	if len(options.Cluster.Password) < 32 {
		t.Errorf("a server's password is %d long", len(options.Cluster.Password))
	}
	for _, r := range options.Routes {
		if password, _ := r.User.Password(); r.User.Username() != options.Cluster.Username || password != options.Cluster.Password {
			t.Errorf("%s lets nobody in who shows this", r.Redacted())
		}
	}
	for name, want := range map[string]server.Permissions{
		"verifier": {
			Publish:   &server.SubjectPermission{Deny: []string{">"}},
			Subscribe: &server.SubjectPermission{Allow: []string{wire.LiveSubjects}},
		},
		// The log, and of JetStream's API the stream and consumers of it. Not: delete, purge, snapshot, restore, other streams.
		"authority": {
			Publish: &server.SubjectPermission{Allow: []string{
				wire.LogSubjects, wire.LiveHeartbeat,
				"$JS.API.STREAM.INFO." + wire.Stream, "$JS.API.STREAM.CREATE." + wire.Stream, "$JS.API.STREAM.UPDATE." + wire.Stream,
				"$JS.API.STREAM.MSG.GET." + wire.Stream, "$JS.API.DIRECT.GET." + wire.Stream, "$JS.API.DIRECT.GET." + wire.Stream + ".>",
				"$JS.API.CONSUMER.CREATE." + wire.Stream + ".>", "$JS.API.CONSUMER.INFO." + wire.Stream + ".>",
				"$JS.API.CONSUMER.DELETE." + wire.Stream + ".>", "$JS.API.CONSUMER.MSG.NEXT." + wire.Stream + ".>",
			}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		},
	} {
		u := users[name]
		if u == nil || u.Permissions == nil || u.Permissions.Publish == nil || u.Permissions.Subscribe == nil {
			t.Fatalf("%s is not bounded", name)
		}
		if u.Password != said["nats-"+name] || len(u.Password) < 32 {
			t.Errorf("%s: not the password of the Secret", name)
		}
		for what, pair := range map[string][2]*server.SubjectPermission{
			"publish": {u.Permissions.Publish, want.Publish}, "subscribe": {u.Permissions.Subscribe, want.Subscribe},
		} {
			got, want := pair[0], pair[1]
			if !slices.Equal(got.Allow, want.Allow) || !slices.Equal(got.Deny, want.Deny) {
				t.Errorf("%s may %s %v but not %v, and should %v but not %v", name, what, got.Allow, got.Deny, want.Allow, want.Deny)
			}
		}
		if u.Permissions.Response != nil {
			t.Errorf("%s may answer whatever it hears", name)
		}
		if u.Account == nil || u.Account.Name == options.SystemAccount || options.SystemAccount == "" {
			t.Errorf("%s is of the system's account", name)
		}
	}
}
