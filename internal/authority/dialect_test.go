package authority

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// speaker is how the cases below are put in a dialect, and how it answers.
type speaker struct {
	request func(id, secret, token string) *http.Request // secret "": a public client
	check   func(t *testing.T, w *httptest.ResponseRecorder, want kind)
}

// inForm speaks a dialect of RFC 6749's kind: credentials as Basic, or client_id alone.
func inForm(path, hint string, success string) speaker {
	return speaker{
		request: func(id, secret, token string) *http.Request {
			return postAs(path, id, secret, url.Values{"token": {token}, hint: {"access_token"}})
		},
		check: func(t *testing.T, w *httptest.ResponseRecorder, want kind) {
			t.Helper()
			if status := kinds[want].status; status != http.StatusOK {
				checkJSON(t, w, status, kinds[want].code)
			} else if got := strings.TrimSpace(w.Body.String()); w.Code != status || got != success || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d, %s: %s", w.Code, w.Header().Get("Content-Type"), got)
			}
		},
	}
}

// speakers has one row per row of dialects.
var speakers = map[string]speaker{
	"rfc7009":  inForm("/oauth2/revoke", "token_type_hint", "{}"),
	"edgetag":  inForm("/v1/oauth-app/client/revoke", "token_type_hint", "{}"),
	"asgardeo": inForm("/t/bifrost/oauth2/revoke", "token_type", "{}"),
	"genauth":  inForm("/oidc/token/revocation", "token_type_hint", "true"),
	"voucherify": {
		request: func(id, secret, token string) *http.Request {
			r := postForm("/v1/oauth/token/revoke", url.Values{"access_token": {token}}.Encode())
			r.Header.Set("X-App-Id", id)
			r.Header.Set("X-App-Token", secret)
			return r
		},
		check: func(t *testing.T, w *httptest.ResponseRecorder, want kind) {
			t.Helper()
			status := http.StatusNotFound
			switch {
			case want == revoked:
				status = http.StatusNoContent
			case !want.done() && want != notOwner && want != unsupported:
				checkJSON(t, w, kinds[want].status, kinds[want].code)
				return
			}
			if w.Code != status || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "" {
				t.Errorf("%d %q, want %d and nothing else", w.Code, w.Body, status)
			}
		},
	},
}

func postForm(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// postAs posts a form as a client: by Basic, or, where secret is "", by client_id alone.
func postAs(path, id, secret string, form url.Values) *http.Request {
	if secret == "" {
		form.Set("client_id", id)
		return postForm(path, form.Encode())
	}
	r := postForm(path, form.Encode())
	r.Header.Set("Authorization", basic(id, secret))
	return r
}

func TestDialects(t *testing.T) {
	byJTI := func(jti string) denylist.Selector { return denylist.One(denylist.JTI, jti) }
	byFingerprint := denylist.One(denylist.Fingerprint, denylist.FingerprintOf("header.payload"))
	cases := []struct {
		name              string
		id, secret, token string
		logErr            error
		want              kind
		stored            denylist.Selector // where revoked
		says              string            // in the description
	}{
		{name: "own token", id: "web", secret: webSecret, token: "own", want: revoked, stored: byJTI("j1")},
		{name: "own token without jti", id: "web", secret: webSecret, token: "own.nojti", want: revoked, stored: byFingerprint},
		{name: "own token with an empty jti", id: "web", secret: webSecret, token: "own.emptyjti", want: revoked, stored: byFingerprint},
		{name: "own token by azp", id: "web", secret: webSecret, token: "own.azp", want: revoked, stored: byJTI("j2")},
		{name: "public client, own token", id: "spa", token: "spa's", want: revoked, stored: byJTI("j7")},
		{name: "expired, but a verifier's clock and leeway may accept it", id: "web", secret: webSecret, token: "within.grace", want: revoked, stored: byJTI("j9")},
		{name: "an issuer's clock is ahead", id: "web", secret: webSecret, token: "skewed", want: revoked, stored: byJTI("j10")},
		{name: "grant any, another's token", id: client.GrantAny, secret: adminSecret, token: "other", want: revoked, stored: byJTI("j4")},
		{name: "grant any, nobody's token", id: client.GrantAny, secret: adminSecret, token: "nobody's", want: revoked, stored: byJTI("j5")},
		{name: "grant issuer, another's token", id: client.GrantIssuer, secret: adminSecret, token: "other", want: revoked, stored: byJTI("j4")},

		{name: "expired", id: "web", secret: webSecret, token: "expired", want: nothing},
		{name: "forged", id: "web", secret: webSecret, token: "forged", want: nothing},
		{name: "garbage", id: "web", secret: webSecret, token: "garbage", want: nothing},
		{name: "foreign type", id: "web", secret: webSecret, token: "foreign.type", want: nothing},
		{name: "foreign issuer", id: "web", secret: webSecret, token: "foreign.issuer", want: unknownIssuer},
		{name: "foreign algorithm", id: "web", secret: webSecret, token: "foreign.alg", want: badAlgorithm},
		{name: "foreign key", id: "web", secret: webSecret, token: "foreign.key", want: nothing},

		{name: "opaque", id: "web", secret: webSecret, token: "opaque", want: unsupported},
		{name: "over 8 KiB", id: "web", secret: webSecret, token: "huge", want: badRequest},
		{name: "lives too long", id: "web", secret: webSecret, token: "long.lived", want: badRequest, says: "max_token_lifetime"},
		{name: "keys never loaded", id: "web", secret: webSecret, token: "keys.away", want: unavailable},
		{name: "key may be new", id: "web", secret: webSecret, token: "key.maybe", want: unavailable},
		{name: "key without a name may be new", id: "web", secret: webSecret, token: "forged.maybe", want: unavailable},
		{name: "a failure of a new kind", id: "web", secret: webSecret, token: "other.failure", want: unavailable},
		{name: "issuer is known to the reader only", id: "web", secret: webSecret, token: "unconfigured", want: unavailable},

		{name: "another's token", id: "web", secret: webSecret, token: "other", want: notOwner},
		{name: "nobody's token", id: "web", secret: webSecret, token: "nobody's", want: notOwner},
		{name: "client_id and azp contradict", id: "web", secret: webSecret, token: "contradictory", want: notOwner},
		{name: "client_id is no string", id: "web", secret: webSecret, token: "odd.client", want: notOwner},
		{name: "grant subject, another's token", id: client.GrantSubject, secret: adminSecret, token: "other", want: notOwner},
		{name: "public client, another's token", id: "spa", token: "own", want: notOwner},
		{name: "grant any is not for an id alone", id: "both", token: "own", want: notOwner},

		{name: "wrong secret", id: "web", secret: "wrong", token: "own", want: badClient},
		{name: "unknown client", id: "who", secret: webSecret, token: "own", want: badClient},
		{name: "secret of another", id: "basic-only", secret: webSecret, token: "own", want: badClient},
		{name: "confidential client by id alone", id: "web", token: "own", want: badClient},
		{name: "public client with a secret", id: "spa", secret: "s", token: "spa's", want: badClient},
		{name: "unknown public client", id: "who", token: "own", want: badClient},

		{name: "the log fails", id: "web", secret: webSecret, token: "own", logErr: errors.New("disk of 10.0.0.7 is full"), want: unavailable},
	}
	for _, d := range dialects {
		s, ok := speakers[d.name]
		if !ok {
			t.Errorf("dialect %s has no speaker", d.name)
			continue
		}
		for _, c := range cases {
			if d.name == "voucherify" && c.secret == "" { // it has no public clients
				c.want = badClient
			}
			t.Run(d.name+"/"+c.name, func(t *testing.T) {
				var lines bytes.Buffer
				log := &fakeLog{err: c.logErr}
				a := newAuthority(t, log, logged(&lines))
				w := do(a, s.request(c.id, c.secret, c.token))
				s.check(t, w, c.want)
				if !strings.Contains(w.Body.String(), c.says) {
					t.Errorf("the answer doesn't name %s: %s", c.says, w.Body)
				}
				if n := counter(t, a, "revcast_revoke_requests_total", d.name, c.want.String()); n != 1 {
					t.Errorf("counted %v times as %s", n, c.want)
				}
				checkSilent(t, "the answer", w.Body.String(), "10.0.0.7", `"j1"`, webSecret)
				checkSilent(t, "the log", lines.String(), webSecret, adminSecret, `j1"`, "alice", denylist.FingerprintOf("header.payload"))
				if n := strings.Count(lines.String(), "\n"); n != 1 {
					t.Errorf("%d lines in the log: %s", n, &lines)
				}
				all := log.all()
				if c.want != revoked {
					if len(all) != 0 {
						t.Errorf("stored %v", all)
					}
					return
				}
				if len(all) != 1 {
					t.Fatalf("stored %d revocations", len(all))
				}
				v, _ := testTokens[c.token]()
				got := all[0]
				exact, stored, expires := true, c.stored.String(), v.Expires
				if sub := v.Text("sub"); d.user && sub != "" { // the user's tokens of that client
					exact, stored, expires = false, fmt.Sprintf("{client_id=%q sub=%q}", v.Text("client_id"), sub), now.Truncate(time.Second).Add(lifetime)
				}
				if got.Selector.String() != stored || got.Issuer != issuer || !got.Expires.Equal(expires) ||
					got.ExactExpiry != exact || got.IssuedBefore.IsZero() != exact || got.By != c.id || !got.At.Equal(now) || got.Reason == "" {
					t.Errorf("stored %+v", got)
				}
				if err := got.Validate(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Retrying is harmless, and recovery needs nothing but the log's.
func TestDurableRetryAfterFailure(t *testing.T) {
	log := &fakeLog{err: errors.New("disk full")}
	a := newAuthority(t, log)
	s := speakers["rfc7009"]
	s.check(t, do(a, s.request("web", webSecret, "own")), unavailable)
	log.mu.Lock()
	log.err = nil
	log.mu.Unlock()
	for range 2 {
		s.check(t, do(a, s.request("web", webSecret, "own")), revoked)
	}
	all := log.all()
	if len(all) != 2 || all[0].Entry() != all[1].Entry() {
		t.Errorf("stored %v", all)
	}
}

func TestChooseDialects(t *testing.T) {
	for _, c := range []struct {
		names  []string
		mounts []Mount
		want   string
	}{
		{names: []string{"rfc7009", "rfc7009"}, want: "dialects[1]"},
		{names: []string{"rfc7010"}, want: "dialects[0]"},
		{names: []string{""}, want: "dialects[0]"},
		{mounts: []Mount{{Dialect: "rfc7010", Prefix: "/x"}}, want: "mounts[0].dialect"},
		{mounts: []Mount{{Dialect: "rfc7009"}}, want: "mounts[0]"},
		{mounts: []Mount{{Dialect: "rfc7009", Prefix: "x"}}, want: "mounts[0].prefix"},
		{mounts: []Mount{{Dialect: "rfc7009", Prefix: "/x/"}}, want: "mounts[0].prefix"},
		{mounts: []Mount{{Dialect: "rfc7009", Prefix: "/{x}"}}, want: "mounts[0].prefix"},
		{mounts: []Mount{{Dialect: "rfc7009", Host: "http://x"}}, want: "mounts[0].host"},
		{mounts: []Mount{{Dialect: "rfc7009", Prefix: "/x"}, {Dialect: "rfc7009", Prefix: "/x"}}, want: "mounts"},
	} {
		_, err := New(Config{
			Log: &fakeLog{}, List: denylist.New(), Tokens: testTokens, Clients: registry(t), Issuers: []Issuer{{Issuer: issuer}},
			Dialects: c.names, Mounts: c.mounts,
		})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want it to begin with %s", err, c.want)
		}
	}
	a := newAuthority(t, &fakeLog{}, func(c *Config) {
		c.Dialects = []string{"rfc7009"}
		c.Mounts = []Mount{{Dialect: "edgetag", Host: "api.example", Prefix: "/e"}}
	})
	speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, "own")), revoked)
	r := speakers["edgetag"].request("web", webSecret, "own")
	if w := do(a, r); w.Code != http.StatusNotFound {
		t.Errorf("a dialect that was not chosen: %d", w.Code)
	}
	r = speakers["edgetag"].request("web", webSecret, "own")
	r.URL.Path, r.Host = "/e"+r.URL.Path, "api.example:8700"
	speakers["edgetag"].check(t, do(a, r), revoked)
	r = speakers["edgetag"].request("web", webSecret, "own")
	r.URL.Path = "/e" + r.URL.Path
	if w := do(a, r); w.Code != http.StatusNotFound {
		t.Errorf("at another host: %d", w.Code)
	}
}
