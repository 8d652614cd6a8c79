package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

// introspection asks about a token as a client, at a path; secret "" is a public one.
func introspection(path, id, secret, token string) *http.Request {
	return postAs(path, id, secret, url.Values{"token": {token}})
}

const introspectPath = "/oauth2/introspect"

// fresh is a list that was complete a moment ago.
func fresh(entries ...denylist.Entry) *denylist.List {
	list := denylist.New(denylist.MaxStaleness(time.Minute))
	list.Add(entries...)
	list.Advance(now)
	return list
}

// A token is active where a verifier would accept it, and of one that is not nothing is
// said but that.
func TestIntrospection(t *testing.T) {
	key, stranger := tokentest.NewKey("k1", "ES256"), tokentest.NewKey("k1", "ES256")
	reader := realReader(t, key)
	entry := func(selector map[string]string, before, expires time.Time) denylist.Entry {
		s, err := denylist.NewSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		r := denylist.Revocation{Issuer: issuer, Selector: s, IssuedBefore: before, Expires: expires, At: now}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		return r.Entry()
	}
	end := now.Add(lifetime).Truncate(time.Second)
	list := fresh(
		entry(map[string]string{"jti": "revoked"}, time.Time{}, end),
		entry(map[string]string{"sub": "bob"}, now.Truncate(time.Second), end),
	)
	signed := func(change map[string]any) string { return key.Token(ordinary(now, change)) }
	payload, err := json.Marshal(ordinary(now, nil))
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour).Unix() // an iat before the keys were fetched, so that they are known to be the issuer's
	for _, c := range []struct {
		name, id, secret, token string
		active                  bool
	}{
		{"a token", "web", webSecret, signed(nil), true},
		{"another's token", "basic-only", "b", signed(map[string]any{"client_id": "spa"}), true},
		{"a public client's own", "spa", "", signed(map[string]any{"client_id": "spa"}), true},
		{"signed in again after a cut-off", "web", webSecret, signed(map[string]any{"sub": "bob", "iat": now.Add(time.Second).Unix()}), true},
		{"for several audiences", "web", webSecret, signed(map[string]any{"aud": []string{"other", "api"}}), true},
		{"a leeway after its end", "web", webSecret, signed(map[string]any{"exp": now.Add(-time.Second).Unix()}), true},

		{"a public client, another's", "spa", "", signed(nil), false},
		{"a public client, nobody's", "spa", "", signed(map[string]any{"client_id": nil}), false},
		{"expired", "web", webSecret, signed(map[string]any{"exp": now.Add(-time.Minute).Unix()}), false},
		{"not valid yet", "web", webSecret, signed(map[string]any{"nbf": now.Add(time.Minute).Unix()}), false},
		{"issued in the future", "web", webSecret, signed(map[string]any{"iat": now.Add(time.Minute).Unix()}), false},
		{"lives too long", "web", webSecret, signed(map[string]any{"exp": now.Add(2 * lifetime).Unix()}), false},
		{"for another audience", "web", webSecret, signed(map[string]any{"aud": "other"}), false},
		{"revoked by jti", "web", webSecret, signed(map[string]any{"jti": "revoked"}), false},
		{"revoked by sub", "web", webSecret, signed(map[string]any{"sub": "bob"}), false},
		{"revoked by sub, without iat", "web", webSecret, signed(map[string]any{"sub": "bob", "iat": nil}), false},
		{"forged", "web", webSecret, stranger.Token(ordinary(now, map[string]any{"iat": long})), false},
		{"of an unknown issuer", "web", webSecret, signed(map[string]any{"iss": issuer + "/"}), false},
		{"a refresh token", "web", webSecret, key.Sign(`{"alg":"ES256","kid":"k1","typ":"rt+jwt"}`, string(payload)), false},
		{"a claim twice", "web", webSecret, key.Sign(`{"alg":"ES256","kid":"k1"}`, `{"iss":"`+issuer+`","jti":"a","jti":"b"}`), false},
		{"opaque", "web", webSecret, "mF_9.B5f-4.1JqM.x", false},
		{"over 8 KiB", "web", webSecret, pad("x", token.MaxSize+1), false},
	} {
		for _, path := range []string{introspectPath, "/t/bifrost/oauth2/introspect", "/oidc/token/introspection", "/oauth/token/introspection"} {
			t.Run(c.name+path, func(t *testing.T) {
				var lines bytes.Buffer
				a := newAuthority(t, &fakeLog{}, logged(&lines), func(config *Config) { config.Tokens, config.List = reader, list })
				got := checkJSON(t, do(a, introspection(path, c.id, c.secret, c.token)), 200, "")
				if got["active"] != c.active || !c.active && len(got) != 1 {
					t.Errorf("%v", got)
				}
				if lines.Len() > 0 {
					t.Errorf("the log: %s", &lines)
				}
			})
		}
	}
}

// Of an active token some claims are repeated, as they are, and no others.
func TestIntrospectedClaims(t *testing.T) {
	all := map[string]any{
		"iss": issuer, "sub": "alice", "aud": []any{"a", "b"}, "exp": 1788268800.0, "iat": 1788264000.0, "nbf": 1788264000.0, "jti": "j1",
		"client_id": "web", "scope": "read write", "username": "al", "sid": "s1", "azp": "web", "act": map[string]any{"sub": "bot"},
	}
	said := func(secret map[string]any, change func(*Issuer)) map[string]any {
		t.Helper()
		values := with(all, secret)
		// The reader alone makes tokens that can be judged.
		key := tokentest.NewKey("k1", "ES256")
		values["exp"], values["iat"], values["nbf"] = now.Add(lifetime).Unix(), now.Unix(), now.Unix()
		values["aud"] = []string{"api", "b"}
		reader := realReader(t, key)
		a := newAuthority(t, &fakeLog{}, func(c *Config) {
			c.Tokens, c.List = reader, fresh()
			if change != nil {
				change(&c.Issuers[0])
			}
		})
		return checkJSON(t, do(a, introspection(introspectPath, "web", webSecret, key.Token(values))), 200, "")
	}
	want := maps.Clone(all)
	want["active"], want["token_type"] = true, "Bearer"
	want["exp"], want["iat"], want["nbf"] = float64(now.Add(lifetime).Unix()), float64(now.Unix()), float64(now.Unix())
	want["aud"] = []any{"api", "b"}
	if got := said(map[string]any{"tenant": "t", "email": "a@b", "active": false, "token_type": "x", "nonce": "n"}, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// Whoever is told Bearer might not ask for the proof.
	bound := map[string]any{"cnf": map[string]any{"jkt": "thumbprint"}}
	if got := said(bound, nil); got["token_type"] != nil || !reflect.DeepEqual(got["cnf"], bound["cnf"]) {
		t.Errorf("%v", got)
	}
	// Whose token it is, is said as client_id, whichever claim says so.
	if got := said(map[string]any{"client_id": nil}, nil); got["client_id"] != "web" {
		t.Errorf("%v", got)
	}
	if got := said(map[string]any{"client_id": nil, "azp": nil}, nil); got["client_id"] != nil {
		t.Errorf("%v", got)
	}
	if got := said(map[string]any{"client_id": nil, "app": "seven"}, func(i *Issuer) { i.ClientClaims = []string{"app"} }); got["client_id"] != "seven" {
		t.Errorf("%v", got)
	}
}

// "I don't know" is no answer that a resource server could mistake for one.
func TestFreshOrUnknownIntrospection(t *testing.T) {
	key := tokentest.NewKey("k1", "ES256")
	reader := realReader(t, key)
	raw := key.Token(ordinary(now, nil))
	for name, list := range map[string]*denylist.List{
		"never loaded": denylist.New(denylist.MaxStaleness(time.Minute)),
		"stale": func() *denylist.List {
			l := denylist.New(denylist.MaxStaleness(time.Minute))
			l.Advance(now.Add(-2 * time.Minute))
			return l
		}(),
	} {
		a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Tokens, c.List = reader, list })
		body := checkJSON(t, do(a, introspection(introspectPath, "web", webSecret, raw)), 503, "temporarily_unavailable")
		if _, said := body["active"]; said {
			t.Errorf("%s: %v", name, body)
		}
		if w := get(a, "/metrics"); !strings.Contains(w.Body.String(), `revcast_introspect_requests_total{dialect="rfc7009",outcome="unavailable"} 1`) {
			t.Errorf("%s: not counted", name)
		}
	}
	for _, name := range []string{"keys.away", "key.maybe", "forged.maybe", "other.failure"} {
		var lines bytes.Buffer
		a := newAuthority(t, &fakeLog{}, logged(&lines), func(c *Config) { c.List = fresh() })
		checkJSON(t, do(a, introspection(introspectPath, "web", webSecret, name)), 503, "temporarily_unavailable")
		if !strings.Contains(lines.String(), `"client":"web"`) || strings.Count(lines.String(), "\n") != 1 {
			t.Errorf("%s: %s", name, &lines)
		}
	}
	// What is revoked stays so, however old the list.
	list := denylist.New(denylist.MaxStaleness(time.Minute))
	list.Add(denylist.Revocation{
		Issuer: issuer, Selector: denylist.One(denylist.JTI, "j1"), Expires: now.Add(lifetime).Truncate(time.Second), ExactExpiry: true, At: now,
	}.Entry())
	a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Tokens, c.List = reader, list })
	if got := checkJSON(t, do(a, introspection(introspectPath, "web", webSecret, raw)), 200, ""); len(got) != 1 || got["active"] != false {
		t.Errorf("%v", got)
	}
}

// A key that the issuer has withdrawn still verifies here, for revoking, and makes no
// token active.
func TestIntrospectionOfARetiredKey(t *testing.T) {
	old, next := tokentest.NewKey("k1", "ES256"), tokentest.NewKey("k2", "ES256")
	idp := tokentest.NewIdP(old)
	synctest.Test(t, func(t *testing.T) {
		reader := readerOf(t, idp, token.Issuer{Issuer: issuer}, token.ForRevoking())
		list := denylist.New()
		list.Advance(time.Now())
		log := &fakeLog{}
		a := newAuthority(t, log, func(c *Config) { c.Tokens, c.List, c.Now = reader, list, time.Now })
		active := func(key *tokentest.Key) bool {
			t.Helper()
			got := checkJSON(t, do(a, introspection(introspectPath, "web", webSecret, key.Token(ordinary(time.Now(), nil)))), 200, "")
			return got["active"] == true
		}
		if !active(old) {
			t.Error("not active before")
		}
		raw := old.Token(ordinary(time.Now(), nil))
		time.Sleep(10 * time.Second)
		idp.Serve(next)
		if !active(next) {
			t.Error("the new key's is not active")
		}
		if active(old) {
			t.Error("active by a key that was withdrawn")
		}
		speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, raw)), revoked)
	})
}

// Nobody is told of a token who is not a client.
func TestIntrospectionAuthenticates(t *testing.T) {
	for _, path := range []string{introspectPath, "/t/bifrost/oauth2/introspect", "/oidc/token/introspection", "/oauth/token/introspection"} {
		var lines bytes.Buffer
		a := newAuthority(t, &fakeLog{}, logged(&lines), func(c *Config) {
			c.List = fresh()
			c.Tokens = fakeTokens{"own": func() (*token.Verified, error) {
				t.Error("the token of someone unknown was read")
				return nil, errors.New("read")
			}}
		})
		for name, r := range map[string]*http.Request{
			"a wrong secret":               introspection(path, "web", "wrong", "own"),
			"an unknown client":            introspection(path, "who", webSecret, "own"),
			"an unknown public client":     introspection(path, "who", "", "own"),
			"a confidential client's id":   introspection(path, "web", "", "own"),
			"nobody":                       postForm(path, "token=own"),
			"a method that it may not use": introspection(path, "post-only", "p", "own"),
		} {
			w := do(a, r)
			checkJSON(t, w, 401, "invalid_client")
			if got := w.Header().Get("WWW-Authenticate") != ""; got != (r.Header.Get("Authorization") != "" || name == "nobody") {
				t.Errorf("%s %s: challenged: %v", path, name, got)
			}
		}
		checkJSON(t, do(a, introspection(path, "web", webSecret, "")), 400, "invalid_request")
		checkJSON(t, do(a, postForm(path, "token=own&token=own&client_id=spa")), 400, "invalid_request")
		checkJSON(t, do(a, postForm(path+"?token=own", "client_id=spa")), 400, "invalid_request")
		checkJSON(t, do(a, postForm(path, pad("token=own&client_id=spa&x=", maxBody+1))), 413, "invalid_request")
		checkSilent(t, "the log", lines.String(), webSecret, "own")
	}
}

// Each dialect reads credentials as its clients send them.
func TestIntrospectionInDialects(t *testing.T) {
	key := tokentest.NewKey("k1", "ES256")
	reader := realReader(t, key)
	raw := key.Token(ordinary(now, nil))
	const genauthPath, asgardeoPath = "/oidc/token/introspection", "/t/bifrost/oauth2/introspect"
	inForm := url.Values{"token": {raw}, "client_id": {"web"}, "client_secret": {webSecret}}.Encode()
	for _, c := range []struct {
		name, path, body, authorization string
		status                          int
	}{
		{"GenAuth, twice", genauthPath, inForm, basic("web", webSecret), 200},
		{"GenAuth, twice, contradictory", genauthPath, inForm, basic("web", "wrong"), 400},
		{"GenAuth, beside a foreign header", genauthPath, inForm, "Bearer x", 200},
		{"RFC 7662, twice", introspectPath, inForm, basic("web", webSecret), 400},
		{"RFC 7662, beside a foreign header", introspectPath, inForm, "Bearer x", 400},
		{"Asgardeo, a secret that is not encoded", asgardeoPath, "token=" + raw + "&token_type=access_token&client_id=" + url.QueryEscape(plusID) + "&client_secret=a+b%", "", 400},
		{"Asgardeo, a plus that is not encoded", asgardeoPath, "token=" + raw + "&token_type=access_token&client_id=" + plusID + "&client_secret=a+b", "", 200},
		{"RFC 7662, a plus that is not encoded", introspectPath, "token=" + raw + "&client_id=" + plusID + "&client_secret=a+b", "", 401},
	} {
		a := newAuthority(t, &fakeLog{}, func(config *Config) {
			config.Tokens, config.List = reader, fresh()
			list := testClients()
			list = append(list, list[0])
			list[len(list)-1].ID, list[len(list)-1].SecretSHA256 = plusID, hash("a+b")
			config.Clients = registry(t, list...)
		})
		r := postForm(c.path, c.body)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		w := do(a, r)
		if w.Code != c.status || c.status == 200 && !strings.Contains(w.Body.String(), `"active":true`) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
	// Where a dialect has no introspection, there is none.
	a := newAuthority(t, &fakeLog{}, func(c *Config) { c.Dialects = []string{"rfc7009", "edgetag"} })
	if w := do(a, introspection(genauthPath, "web", webSecret, raw)); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

const plusID = "plus"
