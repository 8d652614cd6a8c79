package smuggling

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience is how long an answer may take.
const patience = 10 * time.Second

// token is what a case may present.
type token struct {
	sub, scope string
	audience   []string
	good       bool
	expired    bool
}

var tokens = map[string]token{
	"user":    {sub: "alice", scope: "read", audience: []string{"api"}, good: true},
	"admin":   {sub: "root", scope: "read admin", audience: []string{"api"}, good: true},
	"finance": {sub: "bob", audience: []string{"api", "finance"}, good: true},
	"revoked": {sub: "mallory", scope: "read admin", audience: []string{"api", "finance"}},
	"expired": {sub: "trudy", scope: "read admin", audience: []string{"api", "finance"}, expired: true},
	// Those after whom others could be taken for somebody else.
	"newline":  {sub: "alice\r\nX-Auth-Scope: admin", scope: "read", good: true},
	"comma":    {sub: "eve,root", scope: "read", good: true},
	"percent":  {sub: "eve%2Croot", scope: "read", good: true},
	"unicode":  {sub: "al\u0456ce\u2028\u00a0", scope: "read", good: true},
	"spaced":   {sub: " alice ", scope: "read", good: true},
	"nul":      {sub: "alice\x00", scope: "read", good: true},
	"tabbed":   {sub: "alice\t", scope: "read\tadmin", good: true},
	"scopeful": {sub: "carol", scope: "read,admin", good: true},
}

// world is what the cases are run in.
type world struct {
	api      *upstream
	sidecars map[string]*harness.Process // by what stands before the door
	raw      map[string]string           // of tokens, by name
}

var client = harness.Client{ID: "web", Secret: "secret-of-web"}

func newWorld(t *testing.T) *world {
	t.Helper()
	issuer := harness.NewIssuer(t)
	trust := []harness.Trust{issuer.Trust}
	authority := harness.StartAuthority(t, harness.AuthorityOptions{Issuers: trust, Clients: []harness.Client{client}})
	w := &world{newUpstream(t), map[string]*harness.Process{}, map[string]string{}}
	var routes []any
	for _, r := range rules {
		one := map[string]any{"path": r.path}
		if r.below {
			one["path"] = r.path + "/*"
		}
		switch {
		case r.public:
			one["public"] = true
		case r.path == "/finance":
			one["audiences"] = []string{"finance"}
		default:
			one["scopes"] = []string{"admin"}
		}
		routes = append(routes, one)
	}
	for _, name := range []string{"", "plain ", "preflight "} {
		w.sidecars[name] = harness.StartSidecar(t, harness.SidecarOptions{
			Authority: authority.URL, Upstream: w.api.URL, Issuers: trust,
			Edit: func(config map[string]any) {
				config["identity"] = []any{
					map[string]any{"claim": "sub", "header": "X-Auth-Sub"}, map[string]any{"claim": "scope", "header": "X-Auth-Scope"},
				}
				config["cors_preflight"] = name == "preflight "
				if name != "plain " {
					config["routes"] = routes
				}
			},
		})
	}
	for name, k := range tokens {
		expires := time.Now().Add(time.Hour)
		if k.expired {
			expires = time.Now().Add(-time.Hour)
		}
		claims := map[string]any{
			"sub": k.sub, "client_id": client.ID, "jti": name, "iat": expires.Add(-2 * time.Hour).Unix(), "exp": expires.Unix(),
		}
		if k.scope != "" {
			claims["scope"] = k.scope
		}
		if k.audience != nil {
			claims["aud"] = k.audience
		}
		w.raw[name] = issuer.Token(claims)
	}
	w.revoke(t, authority.URL)
	return w
}

// revoke revokes the token of that name, and waits until all sidecars know.
func (w *world) revoke(t *testing.T, authority string) {
	t.Helper()
	form := url.Values{"token": {w.raw["revoked"]}, "client_id": {client.ID}, "client_secret": {client.Secret}}
	resp, err := http.PostForm(authority+"/oauth2/revoke", form)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %s", resp.Status)
	}
	for name, p := range w.sidecars {
		probe := fmt.Sprintf("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", w.raw["revoked"])
		for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			answers, err := send(strings.TrimPrefix(p.URL, "http://"), probe, 1)
			if err == nil && len(answers) == 1 && answers[0].StatusCode == http.StatusUnauthorized {
				break
			}
			if time.Since(began) > patience {
				t.Fatalf("the sidecar %q doesn't learn of the revocation: %v", name, err)
			}
		}
	}
}

func (w *world) byRaw(raw string) (token, bool) {
	for name, r := range w.raw {
		if r == raw {
			return tokens[name], true
		}
	}
	return token{}, false
}

var blank = regexp.MustCompile(`\{\{(\w+) ([^}]*)\}\}`)

// expand puts in what differs from run to run.
func (w *world) expand(text string) (s string, err error) {
	s = blank.ReplaceAllStringFunc(text, func(p string) string {
		m := blank.FindStringSubmatch(p)
		switch m[1] {
		case "token":
			if raw, known := w.raw[m[2]]; known {
				return raw
			}
		case "repeat":
			count, what, _ := strings.Cut(m[2], " ")
			if n, err := strconv.Atoi(count); err == nil {
				return strings.Repeat(what, n)
			}
		}
		err = fmt.Errorf("%s names nothing to fill in", p)
		return ""
	})
	return s, err
}

// send writes bytes to an address and reads that many answers, and any that come beyond.
func send(address, raw string, n int) (answers []*http.Response, err error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	wrote := make(chan struct{})
	go func() { // an answer may come before the end
		defer close(wrote)
		_, _ = io.WriteString(conn, raw)
	}()
	defer func() {
		_ = conn.Close()
		<-wrote
	}()
	in := bufio.NewReader(conn)
	for {
		if len(answers) == n {
			// An end before would have cancelled what is under way.
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		resp, err := http.ReadResponse(in, nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return answers, nil
		}
		if err != nil {
			return answers, fmt.Errorf("read answer %d: %w", len(answers)+1, err)
		}
		if resp.StatusCode/100 == 1 {
			continue
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return answers, fmt.Errorf("read the body of answer %d: %w", len(answers)+1, err)
		}
		answers = append(answers, resp)
	}
}

// TestSmuggling runs every case.
func TestSmuggling(t *testing.T) {
	w := newWorld(t)
	cases := loadCases(t, w.expand)
	if len(cases) < 60 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { w.run(t, &c) })
	}
	for name, p := range w.sidecars {
		for _, raw := range w.raw {
			if strings.Contains(p.Output(), raw) || strings.Contains(p.Output(), "panic") {
				t.Errorf("the sidecar %q logs a token, or panics", name)
			}
		}
	}
}

func (w *world) run(t *testing.T, c *testCase) {
	prefix, isCheck := strings.CutSuffix(c.to, "check")
	if !isCheck {
		prefix = strings.TrimSuffix(c.to, "proxy")
	}
	p := w.sidecars[prefix]
	if p == nil {
		t.Fatalf("there is no door %q", c.to)
	}
	address := strings.TrimPrefix(p.URL, "http://")
	if isCheck {
		address = strings.TrimPrefix(p.OpsURL, "http://")
	}
	w.api.reset()
	var statuses []string
	var answers []*http.Response
	if c.isTwo {
		status, err := sendTwo(address, c)
		if err != nil {
			t.Error(err)
		}
		statuses = []string{status}
	} else {
		var err error
		if answers, err = send(address, c.request, len(c.statuses)); err != nil {
			t.Error(err)
		}
		for _, a := range answers {
			statuses = append(statuses, strconv.Itoa(a.StatusCode))
		}
	}
	if !answeredAs(statuses, c.statuses) {
		t.Errorf("answered %v and not %v", statuses, c.statuses)
	}
	if len(answers) > 0 {
		hold(t, "the answer", c.answered, func(name string) []string { return answers[0].Header.Values(name) })
	}
	w.checkUpstream(t, c)
	if isCheck && len(answers) == 1 && answers[0].StatusCode == http.StatusOK {
		w.checkChecked(t, c, answers[0])
	}
}

// answeredAs compares statuses. The last answer may be lost: a connection that is closed with
// something unread is reset.
func answeredAs(got, want []string) bool {
	if n := len(want); len(got) == n-1 && want[n-1][0] >= '4' {
		want = want[:n-1]
	}
	return slices.EqualFunc(got, want, func(g, w string) bool { return slices.Contains(strings.Split(w, "/"), g) })
}

// hold compares headers with what a case says of them.
func hold(t *testing.T, what string, want []string, values func(string) []string) {
	t.Helper()
	for _, line := range want {
		name, value, ok := strings.Cut(line, ":")
		got, value := values(name), strings.TrimPrefix(value, " ")
		if !ok || (value == "" && len(got) > 0) || (value != "" && (len(got) != 1 || got[0] != value)) {
			t.Errorf("%s has %q, and not %q", what, got, line)
		}
	}
}

func (w *world) checkUpstream(t *testing.T, c *testCase) {
	t.Helper()
	requests, raw, problems := w.api.take()
	if n := len(c.upstream); n > 0 && c.upstream[n-1].cut {
		// Nobody waits for the end of what breaks off, and it may do so before it arrives.
		for began := time.Now(); len(requests) < n && time.Since(began) < 200*time.Millisecond; time.Sleep(5 * time.Millisecond) {
			requests, raw, problems = w.api.take()
		}
		if len(requests) == n-1 {
			c.upstream = c.upstream[:n-1]
		}
	}
	for _, p := range problems {
		t.Errorf("the API can read in two ways: %s", p)
	}
	read, whole := 0, 0
	for _, b := range raw {
		read += goReads(b)
		if strings.Contains(string(b), w.raw["revoked"]) && !c.passesOn {
			t.Error("a revoked token is passed on")
		}
	}
	for _, g := range requests {
		whole++
		w.checkRequest(t, g, c)
	}
	if read != whole {
		t.Errorf("net/http reads %d requests, and there are %d", read, whole)
	}
	if len(requests) != len(c.upstream) {
		t.Errorf("%d requests reached the API, and not %d", len(requests), len(c.upstream))
		for _, g := range requests {
			t.Logf("%s %s %v %q", g.method, g.target, g.header, g.body)
		}
		return
	}
	for i, g := range requests {
		want := c.upstream[i]
		if got := g.method + " " + g.target; got != want.line || g.cut != want.cut {
			t.Errorf("the API gets %s (cut: %t), and not %s", got, g.cut, want.line)
		}
		hold(t, "the API", want.headers, g.values)
	}
}

// checkChecked holds what /check lets through to the invariants: whichever URI of those
// that the question names is the right one.
func (w *world) checkChecked(t *testing.T, c *testCase, a *http.Response) {
	t.Helper()
	head, _, _ := strings.Cut(c.request, "\r\n\r\n")
	var k *token
	var targets []string
	for i, l := range strings.Split(head, "\r\n") {
		if i == 0 {
			target := strings.Split(l, " ")[1]
			if below, ok := strings.CutPrefix(target, "/check/"); ok {
				targets = append(targets, "/"+below)
			}
			continue
		}
		name, value, _ := strings.Cut(l, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "authorization":
			_, raw, _ := strings.Cut(value, " ")
			one, known := w.byRaw(strings.TrimSpace(raw))
			if known && one.good {
				k = &one
			}
		case "x-forwarded-uri", "x-original-uri":
			targets = append(targets, value)
		case "x-original-url":
			_, rest, _ := strings.Cut(value, "://")
			_, below, _ := strings.Cut(rest, "/")
			targets = append(targets, "/"+below)
		}
	}
	for _, target := range targets {
		if broken := breaks(target, k); broken != "" && !strings.HasPrefix(c.to, "p") {
			t.Error(broken)
		}
	}
	if sub := a.Header.Get("X-Auth-Sub"); sub != "" && (k == nil || sub != told(k.sub)) {
		t.Errorf("X-Auth-Sub: %q", sub)
	}
}
