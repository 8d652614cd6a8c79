package recipes

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	auth0 "github.com/revcast/revcast/examples/recipes/auth0"
	chi "github.com/revcast/revcast/examples/recipes/chi"
	echo "github.com/revcast/revcast/examples/recipes/echo"
	gin "github.com/revcast/revcast/examples/recipes/gin"
	golangjwt "github.com/revcast/revcast/examples/recipes/golangjwt"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/validator"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

const (
	issuer = "https://idp.example"
	decoy  = "revoked, spelled as JSON around a decoy"
)

var (
	key    = tokentest.NewKey("k1", "ES256")
	forger = tokentest.NewKey("k1", "ES256")
)

// recipe is one of them, as the tests start it.
type recipe struct {
	name   string
	start  func(t *testing.T, list *denylist.List, keys string) http.Handler
	status map[string]int // where a library has an answer of its own
	routes bool           // /health, /events and /admin are there, too
}

// alone are the answers of those without package verifier to what is no good request.
var alone = map[string]int{"two headers": 401, "two headers, one good": 401, decoy: 401}

var recipes = []recipe{
	{name: "golangjwt", status: alone,
		start: func(_ *testing.T, list *denylist.List, _ string) http.Handler {
			// One that gives any algorithm what it asks for: the recipe must not rely on it.
			keys := func(token *jwt.Token) (any, error) {
				switch token.Method.Alg() {
				case "HS256":
					return publicDER(), nil
				case "none":
					return jwt.UnsafeAllowNoneSignatureType, nil
				}
				return key.Private.Public(), nil
			}
			return golangjwt.Protect(list, keys, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				subject, _ := golangjwt.Claims(r.Context()).GetSubject()
				fmt.Fprintln(w, "hello,", subject)
			}))
		}},
	{name: "auth0", status: alone,
		start: func(t *testing.T, list *denylist.List, keys string) http.Handler {
			u, err := url.Parse(keys)
			if err != nil {
				t.Fatal(err)
			}
			h, err := auth0.Protect(list, u, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintln(w, "hello,", jwtmiddleware.MustGetClaims[*validator.ValidatedClaims](r.Context()).RegisteredClaims.Subject)
			}))
			if err != nil {
				t.Fatal(err)
			}
			return h
		}},
	{name: "gin", routes: true, start: func(t *testing.T, list *denylist.List, keys string) http.Handler {
		return gin.Router(newVerifier(t, list, keys))
	}},
	{name: "echo", routes: true, start: func(t *testing.T, list *denylist.List, keys string) http.Handler {
		return echo.Router(newVerifier(t, list, keys))
	}},
	{name: "chi", routes: true, start: func(t *testing.T, list *denylist.List, keys string) http.Handler {
		return chi.Router(newVerifier(t, list, keys))
	}},
}

func newVerifier(t *testing.T, list *denylist.List, keys string) *verifier.Verifier {
	v, err := verifier.New(verifier.Config{
		Denylist: list, Logger: slog.New(slog.DiscardHandler),
		Issuers: []verifier.Issuer{{Issuer: issuer, JWKSURI: keys, Algorithms: []string{"ES256"}, Audiences: []string{"api"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// serve starts a recipe over a socket, and says where.
func (r recipe) serve(t *testing.T, list *denylist.List) string {
	t.Helper()
	idp := httptest.NewServer(tokentest.NewIdP(key))
	t.Cleanup(idp.Close)
	api := httptest.NewServer(r.start(t, list, idp.URL))
	t.Cleanup(api.Close)
	return api.URL
}

func claims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": "alice", "aud": "api", "client_id": "web", "jti": "t-1", "scope": "read",
		"iat": now.Unix() - 10, "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// revoke adds what the authority would send.
func revoke(t *testing.T, list *denylist.List, claim, value string, issuedBefore time.Time) {
	t.Helper()
	r := denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(claim, value), Expires: time.Now().Add(2 * time.Hour), IssuedBefore: issuedBefore,
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	list.Add(r.Entry())
}

func revokeFingerprint(t *testing.T, list *denylist.List, raw string) {
	t.Helper()
	revoke(t, list, denylist.Fingerprint, denylist.FingerprintOf(raw[:strings.LastIndexByte(raw, '.')]), time.Time{})
}

func publicDER() []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Private.Public())
	if err != nil {
		panic(err)
	}
	return der
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// swapped is a token under another header, as it would be signed by sign.
func swapped(t *testing.T, raw, header string, sign func(input string) []byte) string {
	t.Helper()
	parts := strings.Split(raw, ".")
	input := encode(header) + "." + parts[1]
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

func TestEveryRecipeLetsOnlyGoodTokensThrough(t *testing.T) {
	good := key.Token(claims(nil))
	nameless := key.Token(claims(map[string]any{"jti": nil, "sub": "bob"}))
	parts := strings.Split(good, ".")
	fresh := func(l *denylist.List) { l.Advance(time.Now()) }
	bearer := func(tokens ...string) (values []string) {
		for _, token := range tokens {
			values = append(values, "Bearer "+token)
		}
		return values
	}
	for _, c := range []struct {
		name  string
		send  []string // Authorization headers
		state func(*denylist.List)
		want  int
	}{
		{"good", bearer(good), fresh, 200},
		{"good, another's is revoked", bearer(good), func(l *denylist.List) {
			fresh(l)
			revoke(t, l, "jti", "t-2", time.Time{})
			revoke(t, l, "sub", "bob", time.Now())
			revoke(t, l, "sub", "alice", time.Now().Add(-time.Minute)) // and those before this one
		}, 200},
		{"no header", nil, fresh, 401},
		{"no token at all", []string{"Bearer"}, fresh, 401},
		{"two headers", bearer(good, good), fresh, 400},
		{"two headers, one good", bearer(good, forger.Token(claims(nil))), fresh, 400},
		{"expired", bearer(key.Token(claims(map[string]any{"exp": time.Now().Unix() - 60}))), fresh, 401},
		{"without exp", bearer(key.Token(claims(map[string]any{"exp": nil}))), fresh, 401},
		{"longer-lived than revocations", bearer(key.Token(claims(map[string]any{"exp": time.Now().Unix() + 48*3600}))), fresh, 401},
		{"wrong audience", bearer(key.Token(claims(map[string]any{"aud": "other"}))), fresh, 401},
		{"another issuer", bearer(key.Token(claims(map[string]any{"iss": "https://evil.example"}))), fresh, 401},
		{"forged", bearer(forger.Token(claims(nil))), fresh, 401},
		{"alg none", bearer(swapped(t, good, `{"alg":"none","typ":"at+jwt"}`, func(string) []byte { return nil })), fresh, 401},
		{"HS256 with the public key", bearer(swapped(t, good, `{"alg":"HS256","typ":"at+jwt","kid":"k1"}`, func(input string) []byte {
			s, err := jwt.SigningMethodHS256.Sign(input, publicDER())
			if err != nil {
				t.Fatal(err)
			}
			return s
		})), fresh, 401},
		{"revoked by jti", bearer(good), func(l *denylist.List) { fresh(l); revoke(t, l, "jti", "t-1", time.Time{}) }, 401},
		{"revoked by sub", bearer(good), func(l *denylist.List) { fresh(l); revoke(t, l, "sub", "alice", time.Now()) }, 401},
		{"revoked by fingerprint", bearer(nameless), func(l *denylist.List) { fresh(l); revokeFingerprint(t, l, nameless) }, 401},
		{"revoked, with another signature text", bearer(nameless + "="), func(l *denylist.List) { fresh(l); revokeFingerprint(t, l, nameless) }, 401},
		{decoy, bearer(fmt.Sprintf(`{"x":"%s.%s.","protected":"%s","payload":"%s","signature":"%s"}`,
			parts[0], encode(`{"iss":"`+issuer+`","exp":9999999999}`), parts[0], parts[1], parts[2])),
			func(l *denylist.List) { fresh(l); revoke(t, l, "jti", "t-1", time.Time{}) }, 400},
		{"revoked, on a stale list", bearer(good), func(l *denylist.List) {
			l.Advance(time.Now().Add(-time.Hour))
			revoke(t, l, "jti", "t-1", time.Time{})
		}, 401},
		{"stale", bearer(good), func(l *denylist.List) { l.Advance(time.Now().Add(-time.Hour)) }, 503},
		{"loading", bearer(good), func(*denylist.List) {}, 503},
	} {
		for _, r := range recipes {
			t.Run(c.name+"/"+r.name, func(t *testing.T) {
				list, want := denylist.New(), c.want
				c.state(list)
				if other := r.status[c.name]; other != 0 {
					want = other
				}
				got := get(t, r.serve(t, list)+"/hello", c.send)
				if got.status != want || (got.body == "hello, alice\n") != (want == 200) {
					t.Errorf("%d %q, want %d", got.status, got.body, want)
				}
				if want == 401 && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("no challenge: %v", got.header)
				}
				if want == 503 && got.header.Get("Retry-After") == "" {
					t.Errorf("no Retry-After: %v", got.header)
				}
			})
		}
	}
}

// A client can't tell a revoked token from any other bad one.
func TestRevokedIsRefusedAsAnyBadToken(t *testing.T) {
	list := denylist.New()
	list.Advance(time.Now())
	revoke(t, list, "jti", "t-1", time.Time{})
	for _, r := range recipes {
		api := r.serve(t, list)
		var want string
		for name, token := range map[string]string{
			"revoked": key.Token(claims(nil)), "forged": forger.Token(claims(nil)), "no token": "x.y.z",
			"expired":        key.Token(claims(map[string]any{"exp": time.Now().Unix() - 60})),
			"without exp":    key.Token(claims(map[string]any{"exp": nil})),
			"wrong audience": key.Token(claims(map[string]any{"aud": "other"})),
		} {
			a := get(t, api+"/hello", []string{"Bearer " + token})
			got := fmt.Sprint(a.status, a.header["Www-Authenticate"], a.body)
			if want == "" {
				want = got
			}
			if got != want || a.status != http.StatusUnauthorized {
				t.Errorf("%s: %s: %s, and another: %s", r.name, name, got, want)
			}
		}
	}
}

func TestScopesAndRoutesForAnyone(t *testing.T) {
	list := denylist.New()
	list.Advance(time.Now())
	user, admin := key.Token(claims(nil)), key.Token(claims(map[string]any{"scope": "read admin"}))
	for _, r := range recipes {
		if !r.routes {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			api := r.serve(t, list)
			for _, c := range []struct {
				path, token string
				want        int
			}{
				{"/health", "", 200}, {"/admin/hello", "", 401}, {"/admin/hello", user, 403}, {"/admin/hello", admin, 200}, {"/hello", admin, 200},
			} {
				var send []string
				if c.token != "" {
					send = []string{"Bearer " + c.token}
				}
				if got := get(t, api+c.path, send); got.status != c.want {
					t.Errorf("%s: %d %q, want %d", c.path, got.status, got.body, c.want)
				}
			}
		})
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, url string, authorization []string) answer {
	t.Helper()
	resp := open(t, http.DefaultClient, url, authorization)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func open(t *testing.T, client *http.Client, url string, authorization []string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Authorization"] = authorization
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
