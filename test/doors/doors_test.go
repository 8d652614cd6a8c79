//go:build doors

package doors

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/test/harness"
)

// words are how a door says each decision.
type words map[decision]string

var (
	// spoken is by RFC 6750.
	spoken = words{
		allowed: "200", refused: `401 Bearer error="invalid_token"`, missing: "401 Bearer", ambiguous: `400 Bearer error="invalid_request"`,
		unavailable: "503",
	}
	// checked is the same where a 5xx might let a request through.
	checked = words{
		allowed: spoken[allowed], refused: spoken[refused], missing: spoken[missing], ambiguous: spoken[ambiguous],
		unavailable: "403",
	}
	introspected = words{allowed: "200 active", refused: "200 not active", unavailable: "503"}
)

// door is one way to ask.
type door struct {
	name  string
	words words
	// open starts what the door needs at a site, and returns how to ask there. What it
	// answers is one of the words, if all is well.
	open func(*site) func(request) string
	// tokens: it is handed a token, not a request.
	tokens bool
	// pathless: its requests have no query.
	pathless bool
	// own: a proxy refuses some requests by itself, or changes them.
	own bool
}

// fits reports whether a request means anything to a door.
func (d door) fits(r request) bool {
	return !(d.tokens && r.token == "" || d.pathless && r.query != "")
}

// doors is the table of all doors. A door more is a row.
var doors = slices.Concat([]door{
	{name: "proxy", words: spoken, open: (*site).proxy},
	{name: "/check", words: checked, open: (*site).check},
	{name: "introspection", words: introspected, open: (*site).introspection, tokens: true},
	{name: "ext_authz", words: checked, open: (*site).extAuthz},
	{name: "Go middleware", words: spoken, open: (*site).middleware},
	{name: "gRPC unary", words: called, open: (*site).unary, pathless: true},
	{name: "gRPC stream", words: called, open: (*site).stream, pathless: true},
}, frontDoors())

func frontDoors() (rows []door) {
	for _, f := range fronts {
		rows = append(rows, door{name: f.name, words: checked, own: true, open: func(s *site) func(request) string {
			return s.over(f.start(s.T, s.api.URL, s.sidecar.OpsURL))
		}})
	}
	return rows
}

// site is a sidecar and a Go service that follow one authority, and the API behind
// both.
type site struct {
	*testing.T
	sidecar  *harness.Process
	extauthz string
	list     *denylist.List
	verifier *verifier.Verifier
	api      *httptest.Server
	ask      []func(request) string // beside doors
}

// freshness says what a site does about old lists.
type freshness struct {
	max    time.Duration
	policy verifier.StalePolicy
}

// newSite opens every door to what an authority says. Where nothing is at its URL, it
// doesn't wait for it.
func newSite(t *testing.T, trusted []harness.Trust, authority string, f freshness, wait bool) *site {
	t.Helper()
	s := &site{T: t, extauthz: harness.FreeAddress(t)}
	s.api = httptest.NewServer(api)
	t.Cleanup(s.api.Close)
	s.sidecar = harness.StartSidecar(t, harness.SidecarOptions{
		Authority: authority, Upstream: s.api.URL, Issuers: trusted, NoWait: true,
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "error"} // else a line for each refusal
			config["extauthz_listen"] = s.extauthz
			config["freshness"] = map[string]any{
				"max_staleness": f.max.String(), "on_stale": map[verifier.StalePolicy]string{verifier.Deny: "deny", verifier.Allow: "allow"}[f.policy],
			}
			for _, i := range config["issuers"].([]any) {
				i.(map[string]any)["audiences"] = []string{audience}
			}
		},
	})

	s.list = denylist.New(denylist.MaxStaleness(f.max))
	tokentest.Run(t, func(ctx context.Context) { _ = feed.Follow(ctx, s.list, feed.Config{Authority: authority}) })
	var issuers []verifier.Issuer
	for _, i := range trusted {
		one := verifier.Issuer{Issuer: i.Issuer, JWKSURI: i.JWKSURI, Algorithms: i.Algorithms, Audiences: []string{audience}}
		if i.SecretFile != "" {
			secret, err := os.ReadFile(i.SecretFile)
			if err != nil {
				t.Fatal(err)
			}
			one.Secret = secret
		}
		issuers = append(issuers, one)
	}
	var err error
	if s.verifier, err = verifier.New(verifier.Config{
		Denylist: s.list, Issuers: issuers, OnStale: f.policy, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.verifier.Close)
	if wait {
		s.sidecar.WaitReady()
		s.soon("the Go service is ready", func() bool { return s.verifier.Ready() == nil })
	}
	for _, d := range doors {
		s.ask = append(s.ask, d.open(s))
	}
	return s
}

const apiSays = "the API's own words"

var api = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, apiSays) })

// soon waits for what takes a moment.
func (s *site) soon(what string, done func() bool) {
	s.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			s.Fatalf("not so after 20 s: %s", what)
		}
	}
}

func (s *site) proxy() func(request) string { return s.over(host(s.T, s.sidecar.URL)) }

func (s *site) middleware() func(request) string {
	service := httptest.NewServer(s.verifier.Middleware(api))
	s.Cleanup(service.Close)
	return s.over(host(s.T, service.URL))
}

// over asks as a client of the API, whose answer shows that the request got there.
func (s *site) over(address string) func(request) string {
	return func(r request) string {
		target := "http://" + address + "/things/1"
		if r.query != "" {
			target += "?" + r.query
		}
		said, body := s.do(http.MethodGet, target, http.Header{"Authorization": r.authorization}, "")
		if got := body == apiSays; got != (said == "200") {
			return fmt.Sprintf("%s, and the API was reached: %v", said, got)
		}
		return said
	}
}

func (s *site) check() func(request) string {
	return func(r request) string {
		h := http.Header{"Authorization": r.authorization, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/things/1"}}
		if r.query != "" {
			h.Set("X-Forwarded-Uri", "/things/1?"+r.query)
		}
		said, _ := s.do(http.MethodGet, s.sidecar.OpsURL+"/check", h, "")
		return said
	}
}

func (s *site) introspection() func(request) string {
	return func(r request) string {
		h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		said, body := s.do(http.MethodPost, s.sidecar.OpsURL+"/oauth2/introspect", h, url.Values{"token": {r.token}}.Encode())
		if said != "200" {
			return said
		}
		var answer map[string]any
		switch err := json.Unmarshal([]byte(body), &answer); {
		case err != nil:
			return said + " " + body
		case answer["active"] == true && answer["sub"] != nil:
			return "200 active"
		case answer["active"] == false && len(answer) == 1:
			return "200 not active"
		}
		return said + " " + body
	}
}

// extAuthz asks as Envoy does, which joins a header's values with commas.
func (s *site) extAuthz() func(request) string {
	connection, err := grpc.NewClient(s.extauthz, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = connection.Close() })
	client := authv3.NewAuthorizationClient(connection)
	return func(r request) string {
		h := map[string]string{":method": "GET", ":path": "/things/1", ":authority": "api.example"}
		if len(r.authorization) > 0 {
			h["authorization"] = strings.Join(r.authorization, ",")
		}
		if r.query != "" {
			h[":path"] += "?" + r.query
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		answer, err := client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Method: h[":method"], Path: h[":path"], Host: h[":authority"], Headers: h, Scheme: "http"},
		}}}, grpc.WaitForReady(true))
		if err != nil {
			return err.Error()
		}
		denied := answer.GetDeniedResponse()
		if ok := answer.GetStatus().GetCode() == int32(codes.OK); ok || denied == nil {
			if ok && answer.GetOkResponse() != nil {
				return "200"
			}
			return answer.String()
		}
		said := fmt.Sprint(int(denied.GetStatus().GetCode()))
		for _, o := range denied.GetHeaders() {
			if strings.EqualFold(o.GetHeader().GetKey(), "WWW-Authenticate") {
				said += " " + value(o.GetHeader())
			}
		}
		return said
	}
}

func value(h *corev3.HeaderValue) string {
	if h.GetValue() != "" {
		return h.GetValue()
	}
	return string(h.GetRawValue())
}

// client keeps connections, and doesn't follow redirects.
var client = &http.Client{
	Timeout:       30 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// do sends a request and returns its status, with the challenge if there is one, and the
// body.
func (s *site) do(method, target string, h http.Header, body string) (said, answer string) {
	if broken(h) {
		return s.doBroken(method, target, h)
	}
	r, err := http.NewRequestWithContext(s.Context(), method, target, strings.NewReader(body))
	if err != nil {
		return err.Error(), ""
	}
	r.Header = h
	resp, err := client.Do(r)
	if err != nil {
		return err.Error(), ""
	}
	return read(resp)
}

// doBroken writes a header as it stands, line breaks and all.
func (s *site) doBroken(method, target string, h http.Header) (said, answer string) {
	u, err := url.Parse(target)
	if err != nil {
		return err.Error(), ""
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err.Error(), ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	lines := []string{method + " " + u.RequestURI() + " HTTP/1.1", "Host: " + u.Host, "Connection: close"}
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		return err.Error(), ""
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error(), ""
	}
	return read(resp)
}

func read(resp *http.Response) (said, answer string) {
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error(), ""
	}
	return strings.Join(append([]string{fmt.Sprint(resp.StatusCode)}, resp.Header.Values("WWW-Authenticate")...), " "), string(b)
}
