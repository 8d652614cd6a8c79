package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

func hashed(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// write writes a file at once, as `mv` does, and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := replaceFile(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return name
}

const base = "issuers: [{issuer: 'https://idp.example', jwks_uri: 'http://127.0.0.1:1/jwks'}]\npublic_url: https://revoke.example\n"

// secrets is a configuration of clients and their secrets.
func secrets(all ...string) string {
	text := "clients:\n"
	for i := 0; i < len(all); i += 2 {
		text += fmt.Sprintf("  - {id: %s, secret_sha256: %s}\n", all[i], hashed(all[i+1]))
	}
	return text
}

// assembleWith is assemble with a log, and nothing to read again but files that are
// named.
func assembleWith(t *testing.T, cfg Config, lines io.Writer) parts {
	t.Helper()
	p, err := assemble(cfg, &pendingLog{}, denylist.New(), Options{Logger: slog.New(slog.NewTextHandler(lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	tokentest.Run(t, p.reader.Run)
	for p.reader.Ready() != nil {
		runtime.Gosched()
	}
	return p
}

// assembled is an authority without network and log, whose configuration can be read
// again.
type assembled struct {
	parts
	lines *logLines
}

func assembleFrom(t *testing.T, source config.Source) *assembled {
	t.Helper()
	load := func() (Config, error) {
		cfg := NewConfig()
		_, err := config.Load(&cfg, source)
		return cfg, err
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.complete()
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	a := &assembled{lines: &logLines{}}
	logger := slog.New(slog.NewTextHandler(a.lines, nil))
	if a.parts, err = assemble(cfg, &pendingLog{}, denylist.New(), Options{Logger: logger, Reload: load, Files: source.Files(NewConfig())}); err != nil {
		t.Fatal(err)
	}
	return a
}

func fromFile(file string, env ...string) config.Source {
	return config.Source{File: file, Prefix: prefix, Env: env}
}

// changed reports whether there is something to reload.
func (a *assembled) changed() bool {
	_, changed := a.reloader.changed()
	return changed
}

// knows reports whether a client's secret is accepted.
func (a *assembled) knows(t *testing.T, id, secret string) bool {
	t.Helper()
	return a.accepts(t, url.Values{"client_id": {id}, "client_secret": {secret}})
}

// accepts reports whether credentials are accepted: they are, where what is wrong is the
// token.
func (a *assembled) accepts(t *testing.T, credentials url.Values) bool {
	t.Helper()
	credentials.Set("token", "opaque")
	r := httptest.NewRequest("POST", "/oauth2/revoke", strings.NewReader(credentials.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	a.face.ServeHTTP(w, r)
	switch {
	case w.Code == http.StatusUnauthorized:
		return false
	case w.Code == http.StatusBadRequest && strings.Contains(w.Body.String(), "unsupported_token_type"):
		return true
	}
	t.Fatal(w.Code, w.Body)
	return false
}

// checkReloads checks how often was read again, and that a failure is one line.
func (a *assembled) checkReloads(t *testing.T, ok, failed int) {
	t.Helper()
	w := httptest.NewRecorder()
	a.face.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for result, n := range map[string]int{"ok": ok, "failed": failed} {
		if line := fmt.Sprintf("\nrevcast_reloads_total{result=%q} %d\n", result, n); !strings.Contains(w.Body.String(), line) {
			t.Errorf("not %s: %s", line, regexp.MustCompile(`(?m)^revcast_reloads.*`).FindAllString(w.Body.String(), -1))
		}
	}
	if n := strings.Count(a.lines.String(), "all stays as it was"); n != failed {
		t.Errorf("%d failures are logged, of %d: %s", n, failed, a.lines)
	}
}

// checkLast checks whether the last change is said to have been taken over.
func (a *assembled) checkLast(t *testing.T, good int) {
	t.Helper()
	w := httptest.NewRecorder()
	a.face.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if line := fmt.Sprintf("\nrevcast_last_reload_successful %d\n", good); !strings.Contains(w.Body.String(), line) {
		t.Errorf("not %q", line)
	}
}

func TestReloadReplacesClients(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "authority.yaml"), base+secrets("web", "one", "gone", "two"))
	a := assembleFrom(t, fromFile(file))
	if a.changed() || !a.knows(t, "web", "one") || !a.knows(t, "gone", "two") || a.knows(t, "fresh", "three") {
		t.Fatal("not what the file says")
	}
	write(t, file, base+secrets("web", "another", "fresh", "three"))
	if !a.changed() || !a.knows(t, "web", "one") {
		t.Error("the change is not seen, or taken over before it was read")
	}
	a.reloader.reload()
	for _, c := range []struct {
		id, secret string
		want       bool
	}{{"web", "one", false}, {"web", "another", true}, {"gone", "two", false}, {"fresh", "three", true}} {
		if a.knows(t, c.id, c.secret) != c.want {
			t.Errorf("%+v", c)
		}
	}
	if a.changed() {
		t.Error("still changed")
	}
	a.checkReloads(t, 1, 0)
	a.checkLast(t, 1)
	if strings.Contains(a.lines.String(), "takes a restart") {
		t.Errorf("clients alone changed: %s", a.lines)
	}
	// A grant counts from the next request on.
	r := httptest.NewRequest("GET", "/v1/revocations?issuer=https://idp.example&sub=alice", nil)
	r.SetBasicAuth("web", "another")
	w := httptest.NewRecorder()
	if a.face.ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Error(w.Code, w.Body)
	}
	write(t, file, base+strings.ReplaceAll(secrets("web", "another"), "}", ", revoke: [subject]}"))
	a.reloader.reload()
	w = httptest.NewRecorder()
	if a.face.ServeHTTP(w, r); w.Code != http.StatusServiceUnavailable { // the log is not open
		t.Error(w.Code, w.Body)
	}
}

// What is wrong with the files changes nothing, and is one line.
func TestReloadOfABrokenFileChangesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "authority.yaml")
	ca := newAuthorityOfCertificates(t)
	tls := ca.files(t, dir, "old.example")
	good := base + tls + secrets("web", "one")
	write(t, file, good)
	a := assembleFrom(t, fromFile(file))
	before := a.tls.current.Load()
	for name, text := range map[string]string{
		"no YAML":                    "issuers: [",
		"empty":                      "",
		"an unknown key":             good + "bogus: 1\n",
		"a key twice":                good + secrets("web", "two"),
		"no issuers":                 secrets("web", "two"),
		"a client twice":             base + tls + secrets("web", "two", "web", "three"),
		"a hash that is none":        base + tls + "clients: [{id: web, secret_sha256: abc}]\n",
		"no clients any more":        base + tls,
		"an unknown grant":           base + tls + "clients: [{id: web, secret_sha256: " + hashed("two") + ", revoke: [all]}]\n",
		"a file of keys that is not": base + tls + "clients: [{id: web, auth: [private_key_jwt], jwks_file: " + filepath.Join(dir, "missing") + "}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			ca.files(t, dir, "new.example") // a good certificate beside
			write(t, file, text)
			a.lines.reset()
			a.reloader.reload()
			got := a.lines.String()
			if !a.knows(t, "web", "one") || a.knows(t, "web", "two") {
				t.Error("the clients changed")
			}
			if a.tls.current.Load() != before {
				t.Error("the certificate changed")
			}
			if strings.Count(got, "\n") != 1 || !strings.Contains(got, "all stays as it was") || !strings.Contains(got, "level=ERROR") {
				t.Errorf("log: %s", got)
			}
			if a.changed() {
				t.Error("it would be read again and again")
			}
			a.checkLast(t, 0)
		})
	}
	// A bad certificate keeps new clients out too.
	write(t, file, base+tls+secrets("web", "two"))
	write(t, filepath.Join(dir, "cert.pem"), "rubbish")
	a.reloader.reload()
	if !a.knows(t, "web", "one") || a.tls.current.Load() != before {
		t.Error("half of it was taken")
	}
	ca.files(t, dir, "new.example")
	if !a.changed() {
		t.Error("that it is whole again is not seen")
	}
	a.reloader.reload()
	if !a.knows(t, "web", "two") || a.tls.current.Load() == before {
		t.Error("what is whole again is not taken")
	}
	a.checkLast(t, 1)
}

func TestReloadWarnsOfWhatTakesARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authority.yaml")
	for name, c := range map[string]struct {
		text string
		warn bool
	}{
		"nothing":           {base + secrets("web", "one"), false},
		"clients":           {base + secrets("web", "two"), false},
		"a default spelled": {base + secrets("web", "two") + "data_dir: data\nlisten: 127.0.0.1:8700\n", false},
		"another listen":    {base + secrets("web", "two") + "listen: 127.0.0.1:9999\n", true},
		"another issuer":    {strings.ReplaceAll(base, "idp.example", "other.example") + secrets("web", "two"), true},
		"another algorithm": {strings.ReplaceAll(base, "jwks_uri", "algorithms: [ES384], jwks_uri") + secrets("web", "two"), true},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, file, base+secrets("web", "one"))
			a := assembleFrom(t, fromFile(file))
			write(t, file, c.text)
			a.reloader.reload()
			if got := strings.Contains(a.lines.String(), "that takes a restart"); got != c.warn {
				t.Errorf("warned %v: %s", got, a.lines)
			}
			if a.knows(t, "web", "two") != strings.Contains(c.text, hashed("two")) {
				t.Error("the clients are not what the file says")
			}
			a.checkReloads(t, 1, 0)
		})
	}
}

// Kubernetes swaps a link to a directory: neither name nor size nor time of the file
// need differ.
func TestReloadSeesASwappedLink(t *testing.T) {
	dir := t.TempDir()
	when := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	swap := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		name := write(t, filepath.Join(dir, version, "clients"), text)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	list := func(secret string) string { return "[{id: web, secret_sha256: " + hashed(secret) + "}]" }
	swap("..1", list("one"))
	clients := filepath.Join(dir, "clients")
	if err := os.Symlink(filepath.Join("..data", "clients"), clients); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "authority.yaml"), base+secrets("nobody", "x"))
	a := assembleFrom(t, fromFile(file, "AUTHORITY_CLIENTS_FILE="+clients))
	if !a.knows(t, "web", "one") || a.knows(t, "nobody", "x") {
		t.Fatal("AUTHORITY_CLIENTS_FILE does not win")
	}
	swap("..2", list("two"))
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	if !a.changed() {
		t.Fatal("the swap is not seen")
	}
	a.reloader.reload()
	if a.knows(t, "web", "one") || !a.knows(t, "web", "two") {
		t.Errorf("the clients are the old ones: %s", a.lines)
	}
	if a.changed() {
		t.Error("still changed")
	}
}

// A client's keys are read from their file again, also where the file comes later than
// the configuration that names it.
func TestReloadReadsFilesOfKeys(t *testing.T) {
	dir := t.TempDir()
	file, jwks := filepath.Join(dir, "authority.yaml"), filepath.Join(dir, "jwks.json")
	write(t, file, base+secrets("web", "one"))
	a := assembleFrom(t, fromFile(file))
	tokentest.Run(t, a.clients.Run)

	write(t, file, base+secrets("web", "one")+"  - {id: robot, auth: [private_key_jwt], jwks_file: "+jwks+"}\n")
	a.reloader.reload()
	if !strings.Contains(a.lines.String(), "clients[1].jwks_file") || a.changed() {
		t.Fatalf("changed %v: %s", a.changed(), a.lines)
	}
	first, second := tokentest.NewKey("k", "ES256"), tokentest.NewKey("k", "ES256")
	n := 0
	asserted := func(key *tokentest.Key) url.Values {
		n++
		return url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion": {key.Sign(`{"alg":"ES256","kid":"k"}`, fmt.Sprintf(
				`{"iss":"robot","sub":"robot","aud":"https://revoke.example","jti":"%d","iat":%d,"exp":%d}`, n, time.Now().Unix(), time.Now().Add(time.Minute).Unix()))},
		}
	}
	write(t, jwks, string(tokentest.Document(first)))
	if !a.changed() {
		t.Fatal("a file that was missing is not looked for")
	}
	a.reloader.reload()
	if a.changed() || !a.accepts(t, asserted(first)) || a.accepts(t, asserted(second)) {
		t.Fatalf("not the keys of the file: %s", a.lines)
	}
	write(t, jwks, string(tokentest.Document(second)))
	if !a.changed() {
		t.Fatal("new keys are not seen")
	}
	a.reloader.reload()
	if a.accepts(t, asserted(first)) || !a.accepts(t, asserted(second)) {
		t.Errorf("not the new keys of the file: %s", a.lines)
	}
	write(t, jwks, "rubbish")
	a.reloader.reload()
	if !a.accepts(t, asserted(second)) {
		t.Error("keys were lost to a broken file")
	}
	a.checkReloads(t, 2, 2)
}

// Nobody need ask: the files are looked at every second, and what two looks in a row
// show is taken over.
func TestReloadHappensByItself(t *testing.T) {
	prime := make(chan os.Signal, 1) // the loop of os/signal must not begin in a bubble
	signal.Notify(prime, syscall.SIGHUP)
	defer signal.Stop(prime)
	file := write(t, filepath.Join(t.TempDir(), "authority.yaml"), base+secrets("web", "one"))
	a := assembleFrom(t, fromFile(file))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.reloader.run(ctx) })
		defer running.Wait()
		defer cancel()
		time.Sleep(time.Hour)
		synctest.Wait()
		a.checkReloads(t, 0, 0)
		write(t, file, base+secrets("web", "another"))
		time.Sleep(watchEvery)
		synctest.Wait()
		if !a.knows(t, "web", "one") {
			t.Error("taken over at first sight")
		}
		time.Sleep(watchEvery)
		synctest.Wait()
		if !a.knows(t, "web", "another") || a.knows(t, "web", "one") {
			t.Error("not taken over")
		}
		// A file that is being written is not all of it.
		write(t, file, base)
		time.Sleep(watchEvery)
		write(t, file, base+secrets("web", "another"))
		time.Sleep(time.Hour)
		synctest.Wait()
		a.checkReloads(t, 1, 0)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		a.checkReloads(t, 1, 1)
		if !a.knows(t, "web", "another") {
			t.Error("lost with the file")
		}
	})
}

// logLines is a log that can be waited for.
type logLines struct {
	mu   sync.Mutex
	more chan struct{} // closed when there is more
	text string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(p)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(p), nil
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func (l *logLines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = ""
}

// await returns what a pattern matches first in what was not awaited yet.
func (l *logLines) await(t *testing.T, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	limit := time.After(time.Minute)
	for {
		l.mu.Lock()
		found := expression.FindStringSubmatch(l.text)
		if found != nil {
			l.text = l.text[strings.Index(l.text, found[0])+len(found[0]):]
			l.mu.Unlock()
			return found
		}
		more := l.more
		if more == nil {
			more = make(chan struct{})
			l.more = more
		}
		l.mu.Unlock()
		select {
		case <-more:
		case <-limit:
			t.Fatalf("no line matches %s", pattern)
		}
	}
}

// The whole binary: SIGHUP has it read the files that its variables name.
func TestReloadOnSIGHUP(t *testing.T) {
	dir := t.TempDir()
	clients := write(t, filepath.Join(dir, "clients"), "[{id: web, secret_sha256: "+hashed("one")+"}]")
	file := write(t, filepath.Join(dir, "authority.yaml"), base+"listen: 127.0.0.1:0\nnats: {listen: 127.0.0.1:0}\ndata_dir: "+filepath.Join(dir, "data")+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	lines := &logLines{}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, cli.Process{
			Name: name, Args: []string{"serve", "--config", file}, Env: []string{"AUTHORITY_CLIENTS_FILE=" + clients}, Stdout: lines, Stderr: lines,
		})
	}()
	defer func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Error("exit code", code)
		}
	}()
	at := lines.await(t, `authority is ready" http=(\S+)`)[1]
	status := func(secret string) int {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.PostForm("http://"+at+"/oauth2/revoke", url.Values{"client_id": {"web"}, "client_secret": {secret}, "token": {"opaque"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	hup := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if got := [2]int{status("one"), status("two")}; got != [2]int{400, 401} {
		t.Error(got)
	}
	write(t, clients, "[{id: web, secret_sha256: "+hashed("two")+"}]")
	hup()
	lines.await(t, `were read again" clients=1`)
	if got := [2]int{status("one"), status("two")}; got != [2]int{401, 400} {
		t.Error("after SIGHUP:", got)
	}
	write(t, clients, "[{id: web, secret_sha256: x}]")
	hup()
	lines.await(t, `could not be read again: all stays as it was" why="config: clients\[0\]\.secret_sha256`)
	if got := [2]int{status("one"), status("two")}; got != [2]int{401, 400} {
		t.Error("after a broken file:", got)
	}
}

// What clients have outstanding is known from the first request after a restart on, and
// what was under way at the end is in it.
func TestBoundedQuotasSurviveARestart(t *testing.T) {
	key := tokentest.NewKey("k", "ES256")
	jwks := httptest.NewServer(tokentest.NewIdP(key))
	t.Cleanup(jwks.Close)
	cfg := testConfig(t)
	cfg.Issuers = []Issuer{NewIssuer("https://idp.example", jwks.URL)}
	cfg.Clients = []Client{{ID: "web", SecretSHA256: hashed("one"), MaxEntries: 2}, {ID: "other", SecretSHA256: hashed("one"), MaxEntries: 2}}
	token := func(id, jti string) string {
		return key.Token(map[string]any{
			"iss": "https://idp.example", "jti": jti, "client_id": id, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
	}
	var addrs Addrs
	check := func(id, token string, want int) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.PostForm("http://"+addrs.HTTP+"/oauth2/revoke", url.Values{"client_id": {id}, "client_secret": {"one"}, "token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || (want == http.StatusTooManyRequests) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %d %v, want %d", id, resp.StatusCode, resp.Header, want)
		}
	}
	file := filepath.Join(cfg.DataDir, "quotas.json")
	first := token("web", "1")
	addrs, stop := start(t, cfg)
	check("web", first, 200)
	check("web", token("web", "2"), 200)
	check("web", token("web", "3"), 429)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	addrs, stop = start(t, cfg)
	check("web", token("web", "3"), 429)
	check("other", token("other", "4"), 200)
	check("web", first, 200) // the log has it: to say it again costs nothing
	if _, metrics := get(t, "http://"+addrs.HTTP+"/metrics"); !regexp.MustCompile(`(?m)^revcast_client_revocations_outstanding\{client="web"\} 2$`).MatchString(metrics) {
		t.Errorf("outstanding: %s", regexp.MustCompile(`(?m)^revcast_.*outstanding.*`).FindAllString(metrics, -1))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// A file that can't be read is no reason to serve nobody.
	write(t, file, "rubbish")
	addrs, stop = start(t, cfg)
	check("web", token("web", "5"), 200)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), `"id":"web"`) {
		t.Errorf("%s %v", b, err)
	}
}

func TestQuotasAreLoadedBeforeAnyoneIsServed(t *testing.T) {
	cfg := testConfig(t)
	cfg.Clients = []Client{{ID: "web", SecretSHA256: hashed("one"), MaxEntries: 2}}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).Truncate(10 * time.Minute).Unix()
	write(t, filepath.Join(cfg.DataDir, "quotas.json"), fmt.Sprintf(`{"version":1,"clients":[{"id":"web","buckets":[[%d,2]]}]}`+"\n", end))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan string, 1)
	err := Run(ctx, cfg, Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Listening: func(a Addrs) {
		// HTTP is bound and not served yet: the answer comes as soon as it is.
		go func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Get("http://" + a.HTTP + "/metrics")
			if err != nil {
				answered <- err.Error()
				return
			}
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			answered <- fmt.Sprint(string(b), err)
		}()
	}, Ready: func(Addrs) { cancel() }})
	if err != nil {
		t.Fatal(err)
	}
	if metrics := <-answered; !regexp.MustCompile(`(?m)^revcast_client_revocations_outstanding\{client="web"\} 2$`).MatchString(metrics) {
		t.Errorf("outstanding: %s", regexp.MustCompile(`(?m)^.*outstanding.*`).FindAllString(metrics, -1))
	}
}
