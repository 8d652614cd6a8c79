//go:build doors

package doors

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/revcast/revcast/test/harness"
)

// startCheck starts a sidecar that knows a public path and lets preflights through. It
// has no authority: who needs a token is refused.
func startCheck(t *testing.T) (url string) {
	return harness.StartSidecar(t, harness.SidecarOptions{
		Authority: "http://" + harness.FreeAddress(t), Upstream: "http://" + harness.FreeAddress(t), NoWait: true,
		Issuers: []harness.Trust{newIssuer(t).Trust},
		Edit: func(config map[string]any) {
			config["log"] = map[string]any{"level": "error"}
			config["cors_preflight"] = true
			config["routes"] = []any{map[string]any{"path": "/public/*", "public": true}}
		},
	}).OpsURL
}

// inFrontsOfCheck puts each proxy between a client and an API, with a real /check.
func inFrontsOfCheck(t *testing.T, do func(*stage)) {
	check := startCheck(t)
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			s := newStage(t)
			s.proxy = f.start(t, s.api.URL, check)
			// A sidecar that has just begun answers nobody.
			(&site{T: t}).soon("/check answers", func() bool {
				return s.send("", "GET /public/a HTTP/1.1", "Host: api.example").StatusCode == http.StatusOK
			})
			do(s)
		})
	}
}

// notInPreflights are headers that no browser sends with a preflight.
var notInPreflights = []string{
	"Authorization: Bearer token", "Cookie: session=1", "X-HTTP-Method: DELETE", "X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE",
}

const toWebSocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

var preflightLines = []string{"OPTIONS /private HTTP/1.1", "Host: api.example", "Origin: https://app.example", "Access-Control-Request-Method: PUT"}

// TestProxyLetsPreflightsThroughOnly: the real /check hears of all that makes it refuse
// what looks like a preflight.
func TestProxyLetsPreflightsThroughOnly(t *testing.T) {
	inFrontsOfCheck(t, func(s *stage) {
		if got := s.send("", preflightLines...); got.StatusCode != http.StatusOK || len(got.seen) != 1 {
			s.Errorf("a preflight: %d, the API was asked %d times", got.StatusCode, len(got.seen))
		}
		for _, line := range append(slices.Clone(notInPreflights), toWebSocket, "Origin: https://other.example", "Cookie:") {
			got := s.send("", append(slices.Clone(preflightLines), line)...)
			if len(got.seen) > 0 && line == toWebSocket && got.seen[0].Header.Get("Upgrade") == "" {
				continue // to the API it is none
			}
			if got.StatusCode/100 != 4 || len(got.seen) != 0 {
				s.Errorf("with %q: %d, the API was asked %d times", line, got.StatusCode, len(got.seen))
			}
		}
		if got := s.send("", "GET /private HTTP/1.1", "Host: api.example", preflightLines[2], preflightLines[3]); got.StatusCode/100 != 4 || len(got.seen) != 0 {
			s.Errorf("GET: %d, the API was asked %d times", got.StatusCode, len(got.seen))
		}
	})
}

// TestPreflightsWhereNoProxyRuns: of what Traefik and Envoy are told to tell /check, the
// same is refused. Traefik never tells Upgrade.
func TestPreflightsWhereNoProxyRuns(t *testing.T) {
	s := &site{T: t}
	check := startCheck(t)
	told := map[string][]string{"traefik.yaml": tellsTraefik(t), "envoy.yaml": tellsEnvoy(t)}
	for file, names := range told {
		ask := func(lines ...string) string {
			h := http.Header{"X-Forwarded-Uri": {"/private"}, "X-Forwarded-Method": {"OPTIONS"}}
			for _, line := range slices.Concat(preflightLines[2:], lines) {
				name, value, _ := strings.Cut(line, ": ")
				if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
					h.Add(name, value)
				}
			}
			said, _ := s.do(http.MethodGet, check+"/check", h, "")
			return said
		}
		s.soon("/check answers", func() bool { return ask() == "200" })
		lines := slices.Clone(notInPreflights)
		if file == "envoy.yaml" {
			lines = append(lines, "Upgrade: websocket")
		}
		for _, line := range lines {
			if said := ask(line); !strings.HasPrefix(said, "4") {
				t.Errorf("%s, with %q: %s", file, line, said)
			}
		}
	}
}

func tellsTraefik(t *testing.T) []string {
	var config struct {
		HTTP struct {
			Middlewares struct {
				Revcast struct {
					ForwardAuth struct {
						AuthRequestHeaders []string `json:"authRequestHeaders"`
					} `json:"forwardAuth"`
				} `json:"revcast"`
			} `json:"middlewares"`
		} `json:"http"`
	}
	readDeployed(t, "traefik.yaml", &config)
	return config.HTTP.Middlewares.Revcast.ForwardAuth.AuthRequestHeaders
}

// tellsEnvoy: Envoy tells Authorization by itself.
func tellsEnvoy(t *testing.T) []string {
	var config any
	readDeployed(t, "envoy.yaml", &config)
	names := []string{"authorization"}
	var find func(v any, inside bool)
	find = func(v any, inside bool) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				find(e, inside)
			}
		case map[string]any:
			for key, e := range v {
				if name, ok := e.(string); ok && inside && key == "exact" {
					names = append(names, name)
				}
				find(e, inside || key == "allowed_headers")
			}
		}
	}
	find(config, false)
	return names
}

func readDeployed(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployed, name))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = yaml.YAMLToJSON(text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

// TestProxyPassesNoTokenThatNobodyLookedAt: on a public path of Authorization only Basic
// reaches the API, whatever the client says about it; elsewhere /check's word decides.
func TestProxyPassesNoTokenThatNobodyLookedAt(t *testing.T) {
	public := func(s *stage, path string) {
		for _, c := range []struct {
			lines []string
			want  string
		}{
			{nil, ""},
			{[]string{"Authorization: Bearer token"}, ""},
			{[]string{"Authorization: token"}, ""},
			{[]string{"Authorization: Basic dTpw"}, "Basic dTpw"},
			{[]string{"authorization: bAsIc dTpw"}, "bAsIc dTpw"},
			{[]string{"Authorization: Basic dTpw, Bearer token"}, ""},
			{[]string{"Authorization: Basic dTpw Bearer token"}, ""},
			{[]string{"Authorization: Basic dTpw\tBearer token"}, ""},
			{[]string{"Authorization: Bearer token", "X-Revcast-Public: 0"}, ""},
		} {
			got := s.send("", append([]string{"GET " + path + " HTTP/1.1", "Host: api.example"}, c.lines...)...)
			if len(got.seen) != 1 || strings.Join(got.seen[0].Header["Authorization"], "+") != c.want {
				s.Errorf("%s with %q: %d, the API got %v, want %q", path, c.lines, got.StatusCode, got.seen, c.want)
			}
		}
		// Of two nginx takes the first, which is as well: it is the only one that arrives.
		for _, lines := range [][]string{
			{"Authorization: Basic dTpw", "Authorization: Bearer token"}, {"Authorization: Bearer token", "Authorization: Basic dTpw"},
		} {
			got := s.send("", append([]string{"GET " + path + " HTTP/1.1", "Host: api.example"}, lines...)...)
			for _, seen := range got.seen {
				if all := strings.Join(seen.Header["Authorization"], "+"); all != "" && all != "Basic dTpw" {
					s.Errorf("%s with %q: the API got %q", path, lines, all)
				}
			}
		}
	}
	inFrontsOfCheck(t, func(s *stage) {
		public(s, "/public/a")
		if got := s.send("", "GET /private HTTP/1.1", "Host: api.example", "X-Revcast-Public: 1"); got.StatusCode/100 != 4 || len(got.seen) != 0 {
			s.Errorf("a client that says it is public: %d, the API was asked %d times", got.StatusCode, len(got.seen))
		}
		// What passes for its path is that which /check was asked about.
		got := s.send("", "GET /public/a HTTP/1.1", "Host: api.example", "X-Rewrite-URL: /admin", "X-Original-URL: /admin", "X-Rewrite.URL: /admin")
		if len(got.seen) != 1 {
			s.Fatalf("/public/a: %d, the API was asked %d times", got.StatusCode, len(got.seen))
		}
		for name, values := range got.seen[0].Header {
			if strings.Contains(strings.Join(values, " "), "/admin") {
				s.Errorf("the API got %s: %s", name, values)
			}
		}
	})
	inFrontsOf(t, func(s *stage, _ front) {
		got := s.send("", "GET /a HTTP/1.1", "Host: api.example", token, "X-Revcast-Public: 1", "X_Revcast_Public: 1")
		if len(got.seen) != 1 || got.seen[0].Header.Get("Authorization") != "Bearer token" {
			s.Errorf("a client that says it is public loses its token: %d, %v", got.StatusCode, got.seen)
		}
	})
}
