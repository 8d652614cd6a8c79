package authority

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// The same endpoint on real tokens, read by the real reader.
func TestRealTokens(t *testing.T) {
	key, stranger := tokentest.NewKey("k1", "ES256"), tokentest.NewKey("k1", "ES256")
	reader := realReader(t, key)
	claims := func(changes map[string]any) map[string]any { return ordinary(now, changes) }
	good := key.Token(claims(nil))
	input := good[:strings.LastIndexByte(good, '.')]
	nameless := key.Token(claims(map[string]any{"jti": nil}))
	for _, c := range []struct {
		name, token string
		want        kind
		selector    string
	}{
		{"a token", good, revoked, "{jti=\"j1\"}"},
		{"another signature of it", key.SignInput(input), revoked, "{jti=\"j1\"}"},
		{"without jti", nameless, revoked, "{fingerprint=\"" + denylist.FingerprintOf(nameless[:strings.LastIndexByte(nameless, '.')]) + "\"}"},
		{"not valid yet", key.Token(claims(map[string]any{"nbf": now.Add(10 * time.Minute).Unix()})), revoked, "{jti=\"j1\"}"},
		{"for another audience", key.Token(claims(map[string]any{"aud": "other"})), revoked, "{jti=\"j1\"}"},
		{"expired", key.Token(claims(map[string]any{"exp": now.Add(-denylist.Grace).Unix()})), nothing, ""},
		{"forged", stranger.Token(claims(map[string]any{"iat": time.Now().Add(-time.Hour).Unix()})), nothing, ""},
		{"of another issuer", key.Token(claims(map[string]any{"iss": issuer + "/"})), unknownIssuer, ""},
		{"a logout token", key.Sign(`{"alg":"ES256","kid":"k1","typ":"logout+jwt"}`, `{"iss":"`+issuer+`"}`), nothing, ""},
		{"unsigned", "eyJhbGciOiJub25lIn0.e30.x", nothing, ""},
		{"jti is a number", key.Token(claims(map[string]any{"jti": 7})), nothing, ""},
		{"two jtis", key.Sign(`{"alg":"ES256","kid":"k1"}`, `{"iss":"`+issuer+`","jti":"a","jti":"b"}`), nothing, ""},
		{"ten years", key.Token(claims(map[string]any{"exp": now.Add(10 * 365 * 24 * time.Hour).Unix()})), badRequest, ""},
		{"another client's", key.Token(claims(map[string]any{"client_id": "spa"})), notOwner, ""},
		{"opaque", "mF_9.B5f-4.1JqM.x", unsupported, ""},
		{"with a line break", good + "\n", unsupported, ""},
		{"over 8 KiB", pad(good, 8<<10+1), badRequest, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			a := newAuthority(t, log, func(config *Config) { config.Tokens = reader })
			w := do(a, speakers["rfc7009"].request("web", webSecret, c.token))
			speakers["rfc7009"].check(t, w, c.want)
			if strings.Contains(w.Body.String(), c.token) {
				t.Errorf("the answer holds the token")
			}
			var selectors []string
			for _, r := range log.all() {
				selectors = append(selectors, r.Selector.String())
			}
			if got := strings.Join(selectors, " "); got != c.selector {
				t.Errorf("stored %s, want %s", got, c.selector)
			}
		})
	}
}

// While an issuer's keys can't be had, nobody is told that a token is dealt with.
func TestKeysUnavailable(t *testing.T) {
	key := tokentest.NewKey("k1", "ES256")
	idp := tokentest.NewIdP()
	idp.Answer(http.StatusServiceUnavailable, "")
	reader, err := token.NewReader([]token.Issuer{{
		Issuer: issuer, JWKSURI: "https://idp.example/jwks", Algorithms: []string{"ES256"},
	}}, idp.Client(), slog.New(slog.NewTextHandler(io.Discard, nil)), token.ForRevoking())
	if err != nil {
		t.Fatal(err)
	}
	log := &fakeLog{}
	a := newAuthority(t, log, func(c *Config) { c.Tokens = reader })
	raw := key.Token(map[string]any{"iss": issuer, "jti": "j", "client_id": "web", "exp": now.Add(time.Minute).Unix()})
	speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, raw)), unavailable)
	if len(log.all()) != 0 {
		t.Error("stored")
	}
}

// Whatever an issuer does to its keys, a token that a verifier accepts by the old
// document or by the new one is stored, or the caller is told to come again.
func TestDurableWhileKeysRotate(t *testing.T) {
	old, fresh := tokentest.NewKey("k1", "ES256"), tokentest.NewKey("k1", "ES256")
	idp := tokentest.NewIdP(old)
	synctest.Test(t, func(t *testing.T) {
		reader := readerOf(t, idp, token.Issuer{Issuer: issuer}, token.ForRevoking())
		log := &fakeLog{}
		a := newAuthority(t, log, func(c *Config) { c.Tokens, c.Now = reader, time.Now })
		revoke := func(key *tokentest.Key, want kind) {
			t.Helper()
			raw := key.Token(map[string]any{
				"iss": issuer, "jti": "j", "client_id": "web", "iat": time.Now().Unix(), "exp": time.Now().Add(lifetime).Unix(),
			})
			speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, raw)), want)
		}
		revoke(old, revoked)
		idp.Serve(fresh)
		revoke(fresh, unavailable) // the keys were fetched just now
		time.Sleep(5 * time.Second)
		revoke(fresh, revoked)
		revoke(old, revoked)
		if n := len(log.all()); n != 3 {
			t.Errorf("stored %d", n)
		}
	})
}

// A token is over for the authority no sooner than its entry is for every verifier,
// whatever their clocks.
func TestDurableUntilTheLastClock(t *testing.T) {
	for left, want := range map[time.Duration]kind{
		0: revoked, -denylist.MaxLeeway: revoked, -denylist.Grace + time.Second: revoked, -denylist.Grace - time.Second: nothing,
	} {
		log := &fakeLog{}
		a := newAuthority(t, log, func(c *Config) {
			c.Tokens = fakeTokens{"t": claims(left, map[string]any{"jti": "j", "client_id": "web"})}
		})
		speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, "t")), want)
		if stored := len(log.all()) == 1; stored != (want == revoked) {
			t.Errorf("%s after exp: stored is %t", -left, stored)
		}
	}
}

// An authority that knows fewer issuers or algorithms than a verifier loses
// revocations. Its answer is 200 (RFC 7009 section 2.2); its operator is told.
func TestNarrowConfigurationIsSeen(t *testing.T) {
	for name, label := range map[string]string{"foreign.issuer": "unknown_issuer", "foreign.alg": "bad_algorithm"} {
		var lines bytes.Buffer
		a := newAuthority(t, &fakeLog{}, logged(&lines))
		checkJSON(t, do(a, speakers["rfc7009"].request("web", webSecret, name)), http.StatusOK, "")
		if got := lines.String(); !strings.Contains(got, `"level":"WARN"`) || !strings.Contains(got, "still accepts it") {
			t.Errorf("%s: logged %s", name, got)
		}
		if metrics := get(a, "/metrics").Body.String(); !strings.Contains(metrics, `outcome="`+label+`"} 1`) {
			t.Errorf("%s is not counted:\n%s", label, metrics)
		}
	}
}
