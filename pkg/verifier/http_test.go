package verifier

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// TestNoToken: what is not one bearer token in one header is not decided on.
func TestNoToken(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		token  string
		why    Reason
	}{
		{"none", nil, "", Missing},
		{"empty", []string{""}, "", Missing},
		{"another scheme", []string{"Basic dTpw"}, "", Missing},
		{"scheme alone", []string{"Bearer"}, "", Missing},
		{"scheme and space", []string{"Bearer  "}, "", Missing},
		{"no space", []string{"Bearerabc"}, "", Missing},
		{"tab", []string{"Bearer\tabc"}, "", Missing},
		{"token alone", []string{"abc"}, "", Missing},
		{"good", []string{"Bearer abc"}, "abc", ""},
		{"lower case", []string{"bearer abc"}, "abc", ""},
		{"more spaces", []string{"BEARER   abc "}, "abc", ""},
		{"two headers", []string{"Bearer abc", "Bearer def"}, "", Ambiguous},
		{"two equal headers", []string{"Bearer abc", "Bearer abc"}, "", Ambiguous},
		{"two schemes", []string{"Basic dTpw", "Bearer abc"}, "", Ambiguous},
		{"two headers joined", []string{"Bearer abc, Bearer def"}, "", Ambiguous},
		{"two tokens", []string{"Bearer abc def"}, "", Ambiguous},
		{"comma", []string{"Bearer abc,def"}, "", Ambiguous},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Authorization": c.values}
			if token, why := BearerToken(h, ""); token != c.token || why != c.why {
				t.Errorf("got %q, %s", token, why)
			}
			r := newRig(t, nil).fresh()
			if d := r.DecideRequest(t.Context(), h, ""); c.why != "" && d.Reason != c.why || d.Outcome != Refused {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// TestTwoPlacesForAToken: a token in the query beside that of the header is ambiguous
// (RFC 6750 section 2), however its name is spelled.
func TestTwoPlacesForAToken(t *testing.T) {
	with, without := http.Header{"Authorization": {"Bearer abc"}}, http.Header{}
	for query, twice := range map[string]bool{
		"": false, "a=b&c": false, "x=access_token": false, "access_tokens=x": false, "xaccess_token=x": false, "%zz=1": false, "access_toke%": false,
		"access_token=x": true, "a=1&access_token=": true, "access_token": true, "ACCESS_Token=x": true, "access%5Ftoken=x": true,
		"access%5ftoke%6E=x": true, "a;access_token=x": true, "access_token[]=x": true, "access_token[0]=x": true, "access.token=x": true, "access+token=x": true,
		"access%20token=x": true, "access[token=x": true,
	} {
		want := Reason("")
		if twice {
			want = Ambiguous
		}
		if _, why := BearerToken(with, query); why != want {
			t.Errorf("%s: %q, want %q", query, why, want)
		}
		if token, why := BearerToken(without, query); token != "" || why != Missing {
			t.Errorf("%s alone: %q %q", query, token, why)
		}
	}
}

// TestMiddleware renders every outcome, and holds bad, expired and revoked to the
// same bytes.
func TestMiddleware(t *testing.T) {
	r := newRig(t, nil).fresh()
	r.list.Add(revocation("jti", "revoked"))
	loading := newRig(t, nil)
	noKeys := tokentest.NewIdP()
	noKeys.Hang()
	unavailable := newRig(t, func(c *Config) { c.HTTPClient = noKeys.Client() }).fresh()
	good := es256().Token(claims(nil))
	expired := es256().Token(claims(map[string]any{"iat": 1_700_000_000, "exp": 1_700_000_100}))
	const invalid = `Bearer error="invalid_token"`
	var invalidBody string
	for _, c := range []struct {
		name, token string
		v           *rig
		status      int
		challenge   string
		error       string
	}{
		{"good", good, r, 200, "", ""},
		{"opaque", "x", r, 401, invalid, "invalid_token"},
		{"forged", good[:len(good)-20] + strings.Repeat("A", 20), r, 401, invalid, "invalid_token"},
		{"expired", expired, r, 401, invalid, "invalid_token"},
		{"revoked", es256().Token(claims(map[string]any{"jti": "revoked"})), r, 401, invalid, "invalid_token"},
		{"another audience", es256().Token(claims(map[string]any{"aud": "x"})), r, 401, invalid, "invalid_token"},
		{"unknown key", other().Token(claims(nil)), r, 401, invalid, "invalid_token"},
		{"missing", "", r, 401, "Bearer", "missing_token"},
		{"ambiguous", "a b", r, 400, `Bearer error="invalid_request"`, "invalid_request"},
		{"loading", good, loading, 503, "", "temporarily_unavailable"},
		{"no keys", good, unavailable, 503, "", "temporarily_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := c.v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Write([]byte(FromContext(r.Context()).Subject))
			}))
			request := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			if c.token != "" {
				request.Header.Set("Authorization", "Bearer "+c.token)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, request)
			if w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.challenge {
				t.Errorf("got %d, %v", w.Code, w.Header())
			}
			if c.status == 200 {
				if w.Body.String() != "alice" {
					t.Errorf("got %q", w.Body)
				}
				return
			}
			var body struct {
				Error       string
				Description string `json:"error_description"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error != c.error || body.Description == "" {
				t.Errorf("got %s, %v", w.Body, err)
			}
			if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" ||
				(w.Header().Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("got %v", w.Header())
			}
			if c.error == "invalid_token" {
				if invalidBody == "" {
					invalidBody = w.Body.String()
				}
				if w.Body.String() != invalidBody {
					t.Errorf("the body tells more: %s", w.Body)
				}
			}
		})
	}
}

// TestCacheSafeMiddleware is the guarantee as a client sees it.
func TestCacheSafeMiddleware(t *testing.T) {
	r := newRig(t, nil).fresh()
	api := r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	request := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	request.Header.Set("Authorization", "Bearer "+rsaKey().Token(claims(nil)))
	get := func() int {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, request)
		return w.Code
	}
	if get() != 200 {
		t.Fatal("not let in")
	}
	for range 1000 {
		if get() != 200 {
			t.Fatal("not let in")
		}
	}
	r.list.Add(revocation("sub", "alice"))
	if got := get(); got != 401 {
		t.Errorf("first request after the revocation: %d", got)
	}
	r.clock.forward(time.Hour)
	if got := get(); got != 401 {
		t.Errorf("revoked, on a stale list: %d", got)
	}
	if hits := r.Stats().CacheHits; hits != 1002 {
		t.Errorf("%d hits", hits)
	}
}

func TestWriteRefusalOfAnAllowedDecision(t *testing.T) {
	w := httptest.NewRecorder()
	WriteRefusal(w, Decision{Outcome: Allowed})
	if w.Code < 400 {
		t.Errorf("got %d", w.Code)
	}
}

func TestFromContextOutside(t *testing.T) {
	if c := FromContext(t.Context()); c != nil {
		t.Errorf("got %v", c)
	}
}
