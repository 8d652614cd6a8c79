package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	foreign    = "https://foreign.example" // an issuer that the transmitter may not speak about
	tx         = "https://tx.example"
	publicURL  = "https://revoke.example"
	pushSecret = "push-secret"

	sessionRevoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
	verified       = "https://schemas.openid.net/secevent/ssf/event-type/verification"
	loggedOut      = "http://schemas.openid.net/event/backchannel-logout"
)

// receiver is an authority that providers speak to, on real tokens.
type receiver struct {
	*Authority
	log   *fakeLog
	lines *bytes.Buffer
	// idp signs for the issuer, and sender for the transmitter.
	idp, sender, stranger *tokentest.Key
}

func newReceiver(t *testing.T, change ...func(*Config)) *receiver {
	t.Helper()
	r := &receiver{
		log: &fakeLog{}, lines: &bytes.Buffer{},
		idp: tokentest.NewKey("k1", "EdDSA"), sender: tokentest.NewKey("k1", "EdDSA"), stranger: tokentest.NewKey("k1", "EdDSA"),
	}
	r.Authority = newAuthority(t, r.log, append([]func(*Config){logged(r.lines), func(c *Config) {
		c.Issuers = []Issuer{{Issuer: issuer, MaxTokenLifetime: lifetime, LogoutAudiences: []string{"rp", "rp2"}}, {Issuer: foreign}}
		c.Tokens = realReader(t, r.idp)
		c.Transmitters = []Transmitter{{Issuer: tx, Audiences: []string{publicURL}, Issuers: []string{issuer}, PushTokenSHA256: hash(pushSecret)}}
		c.Events = readerOf(t, tokentest.NewIdP(r.sender), token.Issuer{Issuer: tx})
		c.PublicURL = publicURL
	}}, change...)...)
	return r
}

// away is a reader of tokens of an issuer whose keys can't be had.
var away = unreadable{token.ErrKeysUnavailable}

// with returns claims with some of them changed; nil leaves one out.
func with(base, change values) values {
	all := maps.Clone(base)
	for name, v := range change {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	return all
}

// null is a claim that is there and null.
var null = json.RawMessage("null")

func signAs(key *tokentest.Key, typ string, claims values) string {
	header := values{"alg": key.Alg, "kid": key.KID}
	if typ != "" {
		header["typ"] = typ
	}
	h, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return key.Sign(string(h), string(b))
}

// checkStored checks what was stored, as [told] spells it, and that the log is silent
// about whom it concerns: one line, with no value of the request.
func (r *receiver) checkStored(t *testing.T, by string, want ...string) {
	t.Helper()
	var got []string
	for _, s := range r.log.all() {
		got = append(got, told(s))
		if s.By != by || s.Issuer != issuer || !s.At.Equal(now) || s.Reason == "" || s.Validate() != nil {
			t.Errorf("stored %+v: %v", s, s.Validate())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("stored %q\n  want %q", got, want)
	}
	checkSilent(t, "the log", r.lines.String(), "alice", "s1", "jti-", "eyJ", pushSecret, hash(pushSecret), "someone@")
	if n := strings.Count(r.lines.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log: %s", n, r.lines)
	}
}

// mark of time: in Unix seconds, from now.
func unix(d time.Duration) int64 { return now.Add(d).Unix() }

var logoutClaims = values{
	"iss": issuer, "aud": "rp", "iat": unix(0), "exp": unix(2 * time.Minute), "jti": "jti-1",
	"sub": "alice", "sid": "s1", "events": values{loggedOut: values{}},
}

func (r *receiver) logoutRequest(change values) *http.Request {
	return logoutOf(signAs(r.idp, "logout+jwt", with(logoutClaims, change)))
}

func logoutOf(raw string) *http.Request {
	return postForm("/backchannel-logout", url.Values{"logout_token": {raw}}.Encode())
}

// checkEmpty checks an answer that says nothing but its status.
func checkEmpty(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status || w.Body.Len() > 0 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s, want %d and nothing else", w.Code, w.Header(), w.Body, status)
	}
}

// The rules of OpenID Connect Back-Channel Logout 1.0 section 2.6, one by one.
func TestLogoutTokenRules(t *testing.T) {
	cases := []struct {
		name   string
		change values
		raw    func(*receiver) string // in place of change
		says   string                 // of a refusal
	}{
		{name: "as it should be"},
		{name: "one of several audiences", change: values{"aud": []string{"other", "rp2"}}},
		{name: "a provider's clock within the leeway", change: values{"iat": unix(29 * time.Second)}},
		{name: "expired within the leeway", change: values{"iat": unix(-2 * time.Minute), "exp": unix(-29 * time.Second)}},
		{name: "another event beside", change: values{"events": values{loggedOut: values{}, "urn:x": values{}}}},
		{name: "members in the event", change: values{"events": values{loggedOut: values{"x": 1}}}},
		{name: "claims that are not known", change: values{"x": values{"y": 1}}},
		{name: "typ JWT", raw: func(r *receiver) string { return signAs(r.idp, "JWT", logoutClaims) }},
		{name: "no typ", raw: func(r *receiver) string { return signAs(r.idp, "", logoutClaims) }},

		{name: "1: encrypted", raw: func(*receiver) string { return "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..a.b.c" }, says: "compact JWS"},
		{name: "2: signed by a stranger", raw: func(r *receiver) string { return signAs(r.stranger, "logout+jwt", logoutClaims) }, says: "signature"},
		{name: "2: not signed", raw: func(r *receiver) string {
			return r.idp.Sign(`{"alg":"none","typ":"logout+jwt"}`, `{"iss":"`+issuer+`"}`)
		}, says: "algorithm"},
		{name: "2: an algorithm that is not the issuer's", raw: func(r *receiver) string {
			return r.idp.Sign(`{"alg":"HS256","kid":"k1","typ":"logout+jwt"}`, `{"iss":"`+issuer+`"}`)
		}, says: "algorithm"},
		{name: "2: a claim twice", raw: func(r *receiver) string {
			return r.idp.Sign(`{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}`, `{"iss":"`+issuer+`","exp":`+fmt.Sprint(unix(60*time.Second))+`,"sub":"alice","sub":"bob"}`)
		}, says: "strict format"},
		{name: "3: of an issuer that is not configured", change: values{"iss": issuer + "/"}, says: "issuer"},
		{name: "3: no iss", change: values{"iss": nil}, says: "strict format"},
		{name: "3: for somebody else", change: values{"aud": "other"}, says: "aud"},
		{name: "3: for nobody", change: values{"aud": nil}, says: "aud"},
		{name: "3: an empty aud", change: values{"aud": []string{}}, says: "aud"},
		{name: "3: no iat", change: values{"iat": nil}, says: "iat"},
		{name: "3: iat in the future", change: values{"iat": unix(31 * time.Second)}, says: "iat"},
		{name: "3: iat too long ago", change: values{"iat": unix(-6 * time.Minute)}, says: "iat"},
		{name: "3: no exp", change: values{"exp": nil}, says: "strict format"},
		{name: "3: expired", change: values{"iat": unix(-2 * time.Minute), "exp": unix(-31 * time.Second)}, says: "expired"},
		{name: "4: neither sub nor sid", change: values{"sub": nil, "sid": nil}, says: "sub and sid"},
		{name: "4: an empty sid", change: values{"sid": ""}, says: "identifier"},
		{name: "4: an empty sub", change: values{"sub": "", "sid": nil}, says: "identifier"},
		{name: "4: a sub that is a number", change: values{"sub": 7}, says: "strict format"},
		{name: "5: no events", change: values{"events": nil}, says: "events"},
		{name: "5: events of another kind", change: values{"events": values{sessionRevoked: values{}}}, says: "events"},
		{name: "5: an event that is null", change: values{"events": values{loggedOut: nil}}, says: "events"},
		{name: "5: an event that is a text", change: values{"events": values{loggedOut: "x"}}, says: "events"},
		{name: "5: events in an array", change: values{"events": []string{loggedOut}}, says: "events"},
		{name: "6: a nonce", change: values{"nonce": "n"}, says: "nonce"},
		{name: "6: a nonce that is null", change: values{"nonce": null}, says: "nonce"},
		{name: "7: no jti", change: values{"jti": nil}, says: "jti"},
		{name: "7: an empty jti", change: values{"jti": ""}, says: "jti"},
		{name: "an access token", raw: func(r *receiver) string { return signAs(r.idp, "at+jwt", logoutClaims) }, says: "typ"},
		{name: "a security event", raw: func(r *receiver) string { return signAs(r.idp, "secevent+jwt", logoutClaims) }, says: "typ"},
		{name: "not a token", raw: func(*receiver) string { return "someone@example" }, says: "compact JWS"},
		{name: "over 8 KiB", raw: func(*receiver) string { return strings.Repeat("x", 8<<10+1) }, says: "too large"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newReceiver(t)
			q := r.logoutRequest(c.change)
			if c.raw != nil {
				q = logoutOf(c.raw(r))
			}
			w := do(r, q)
			if c.says == "" {
				checkEmpty(t, w, http.StatusOK)
				cut := "0s"
				if iat, ok := c.change["iat"]; ok {
					cut = fmt.Sprint(time.Duration(iat.(int64)-now.Unix()) * time.Second)
				}
				d, err := time.ParseDuration(cut)
				if err != nil {
					t.Fatal(err)
				}
				r.checkStored(t, issuer, fmt.Sprintf(`{sid="s1"} until %s`, lifetime+min(d, 0)), fmt.Sprintf(`{sub="alice"} before %s until %s`, cut, lifetime+d))
				if n := counter(t, r.Authority, "revcast_revoke_requests_total", "backchannel_logout", "revoked"); n != 1 {
					t.Errorf("counted %v times", n)
				}
				return
			}
			if body := checkJSON(t, w, 400, "invalid_request"); !strings.Contains(fmt.Sprint(body["error_description"]), c.says) {
				t.Errorf("it doesn't name %s: %s", c.says, w.Body)
			}
			checkSilent(t, "the answer", w.Body.String(), "alice", "s1", "jti-")
			r.checkStored(t, issuer)
		})
	}
}

func TestLogoutRequests(t *testing.T) {
	r := newReceiver(t)
	good := signAs(r.idp, "logout+jwt", logoutClaims)
	typed := func(contentType, body string) *http.Request {
		q := postForm("/backchannel-logout", body)
		q.Header.Set("Content-Type", contentType)
		return q
	}
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		code   string
	}{
		"GET":                   {httptest.NewRequest(http.MethodGet, "/backchannel-logout?logout_token="+good, nil), 405, "invalid_request"},
		"PUT":                   {httptest.NewRequest(http.MethodPut, "/backchannel-logout", strings.NewReader("logout_token="+good)), 405, "invalid_request"},
		"JSON":                  {typed("application/json", `{"logout_token":"`+good+`"}`), 400, "invalid_request"},
		"the token as a body":   {typed("application/logout+jwt", good), 400, "invalid_request"},
		"no parameter":          {postForm("/backchannel-logout", "x=1"), 400, "invalid_request"},
		"an empty one":          {logoutOf(""), 400, "invalid_request"},
		"twice":                 {postForm("/backchannel-logout", "logout_token="+good+"&logout_token="+good), 400, "invalid_request"},
		"in the URL":            {postForm("/backchannel-logout?logout_token="+good, ""), 400, "invalid_request"},
		"in the URL too":        {postForm("/backchannel-logout?logout_token="+good, "logout_token="+good), 400, "invalid_request"},
		"more than it may hold": {postForm("/backchannel-logout", "x="+strings.Repeat("x", maxBody)), 413, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(r, c.r)
			checkJSON(t, w, c.status, c.code)
			if allow := w.Header().Get("Allow"); (c.status == 405) != (allow == "POST") {
				t.Errorf("Allow %q", allow)
			}
			if len(r.log.all()) != 0 {
				t.Error("stored")
			}
		})
	}
	checkEmpty(t, do(r, logoutOf(good)), 200) // none of them has used it up
}

// What a logout ends, by what it names and what access tokens carry.
func TestLogoutEnds(t *testing.T) {
	const sid, sub = `{sid="s1"} until 1h0m0s`, `{sub="alice"} before 0s until 1h0m0s`
	for _, c := range []struct {
		change  values
		off, on []string // tokens_carry_sid; nil: refused
	}{
		{values{}, []string{sid, sub}, []string{sid}},
		{values{"sub": nil}, nil, []string{sid}},
		{values{"sid": nil}, []string{sub}, []string{sub}},
	} {
		for carry, want := range map[bool][]string{false: c.off, true: c.on} {
			r := newReceiver(t, func(config *Config) { config.Issuers[0].TokensCarrySID = carry })
			w := do(r, r.logoutRequest(c.change))
			if want != nil {
				checkEmpty(t, w, 200)
			} else if body := checkJSON(t, w, 400, "invalid_request"); !strings.Contains(fmt.Sprint(body["error_description"]), "tokens_carry_sid") {
				t.Errorf("it doesn't say what to do: %s", w.Body)
			}
			r.checkStored(t, issuer, want...)
		}
	}
}

func TestLogoutIsTakenForTheConfiguredAudiencesOnly(t *testing.T) {
	r := newReceiver(t, func(c *Config) { c.Issuers[0].LogoutAudiences = nil })
	checkJSON(t, do(r, r.logoutRequest(nil)), 400, "invalid_request")
	r.checkStored(t, issuer)
}

// A logout token is good for once; one that could not be carried out is good again.
func TestDurableLogoutAfterFailure(t *testing.T) {
	r := newReceiver(t)
	raw := signAs(r.idp, "logout+jwt", logoutClaims)
	r.log.err = errors.New("disk of 10.0.0.7 is full")
	for range 2 {
		w := do(r, logoutOf(raw))
		checkJSON(t, w, 503, "temporarily_unavailable")
		checkSilent(t, "the answer", w.Body.String(), "10.0.0.7")
	}
	r.log.err = nil
	checkEmpty(t, do(r, logoutOf(raw)), 200)
	for range 2 {
		if body := checkJSON(t, do(r, logoutOf(raw)), 400, "invalid_request"); body["error_description"] != "the token was used before" {
			t.Error(body)
		}
	}
	// Another spelling of the signature, or of the rest, is the same token.
	checkJSON(t, do(r, r.logoutRequest(values{"sub": "bob"})), 400, "invalid_request")
	if n := len(r.log.all()); n != 2 {
		t.Errorf("stored %d", n)
	}
	checkEmpty(t, do(r, r.logoutRequest(values{"jti": "jti-2"})), 200)
}

// However many times it arrives at once, it is carried out once.
func TestLogoutTokensThatArriveTogether(t *testing.T) {
	r := newReceiver(t)
	raw := signAs(r.idp, "logout+jwt", logoutClaims)
	statuses := make(chan int, 8)
	for range cap(statuses) {
		go func() { statuses <- do(r, logoutOf(raw)).Code }()
	}
	count := map[int]int{}
	for range cap(statuses) {
		count[<-statuses]++
	}
	if count[200] != 1 || count[400] != cap(statuses)-1 || len(r.log.all()) != 2 {
		t.Errorf("answered %v, stored %v", count, r.log.all())
	}
}

// A token that can't be remembered is not taken: it may be another time.
func TestBoundedSingleUseTokens(t *testing.T) {
	r := newReceiver(t)
	remember := func(most int) {
		for iss := range r.replays {
			r.replays[iss], r.heard[iss] = token.NewReplay(most), token.NewReplay(most)
		}
	}
	remember(0)
	checkJSON(t, do(r, r.logoutRequest(nil)), 503, "temporarily_unavailable")
	checkJSON(t, do(r, r.global(nil, subject)), 503, "temporarily_unavailable")
	if len(r.log.all()) != 0 {
		t.Error("stored")
	}
	remember(2)
	checkEmpty(t, do(r, r.logoutRequest(nil)), 200)
	checkEmpty(t, do(r, r.global(nil, subject)), 204)
	checkEmpty(t, do(r, r.push(eventClaims)), 202) // good for more than once: nothing to remember
}

func TestReceiversWhileKeysAreAway(t *testing.T) {
	r := newReceiver(t, func(c *Config) { c.Tokens, c.Events = away, away })
	checkJSON(t, do(r, r.logoutRequest(nil)), 503, "temporarily_unavailable")
	checkJSON(t, do(r, r.push(eventClaims)), 503, "temporarily_unavailable")
	checkJSON(t, do(r, r.global(nil, subject)), 503, "temporarily_unavailable")
	err := r.TakeEvent(t.Context(), signAs(r.sender, "secevent+jwt", eventClaims))
	if e, refused := errors.AsType[*event.Error](err); err == nil || refused || !errors.Is(err, token.ErrKeysUnavailable) {
		t.Error(err, e)
	}
	if len(r.log.all()) != 0 {
		t.Error("stored")
	}
}

// A provider's clock may be ahead by as much as verifiers forgive: its tokens of the
// last moments fall too. So do those of a skewed issuer where we say "now".
func TestFinalByAFastProvidersClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Minute, denylist.MaxLeeway} {
		key := tokentest.NewKey("k1", "EdDSA")
		r := newReceiver(t, func(c *Config) {
			c.Tokens = readerOf(t, tokentest.NewIdP(key), token.Issuer{Issuer: issuer, MaxLifetime: lifetime, Leeway: denylist.MaxLeeway}, token.ForRevoking())
			c.Events = readerOf(t, tokentest.NewIdP(key), token.Issuer{Issuer: tx, Leeway: denylist.MaxLeeway})
			c.Issuers[0].ClockSkew = ahead
		})
		r.idp, r.sender = key, key
		want := fmt.Sprintf(`{sub="alice"} before %s until %s`, ahead, lifetime+ahead)
		checkEmpty(t, do(r, r.logoutRequest(values{"iat": unix(ahead), "exp": unix(ahead + time.Minute), "sid": nil})), 200)
		r.checkStored(t, issuer, want)
		r.log.stored = nil
		r.lines.Reset()
		checkEmpty(t, do(r, r.push(with(eventClaims, values{"iat": unix(ahead), "events": values{sessionRevoked: values{}}}))), 202)
		r.checkStored(t, tx, want)
		r.log.stored = nil
		r.lines.Reset()
		checkEmpty(t, do(r, r.global(nil, subject)), 204)
		r.checkStored(t, tx, want)
	}
}

// Bounded: what a provider says is over lives by when it was over, however often and
// late it is said, and no cut-off lies further ahead than clocks may.
func TestBoundedBySince(t *testing.T) {
	const old = -lifetime - denylist.Grace
	jti, sub := denylist.One("jti", "jti-x"), denylist.One("sub", "alice")
	for _, c := range []struct {
		selector      denylist.Selector
		since, before time.Duration // from now
		want          []string
	}{
		{jti, -time.Minute, noCutoff, []string{`{jti="jti-x"} until 59m0s`}},
		{jti, denylist.MaxLeeway, noCutoff, []string{`{jti="jti-x"} until 1h0m0s`}},
		{jti, old + time.Second, noCutoff, []string{`{jti="jti-x"} until -14m59s`}},
		{jti, old, noCutoff, nil},
		{sub, old, old, nil},
		{sub, -time.Minute, -time.Minute, []string{`{sub="alice"} before -1m0s until 59m0s`}},
		{sub, 2 * denylist.MaxLeeway, 2 * denylist.MaxLeeway, []string{`{sub="alice"} before 4m0s until 1h4m0s`}},
		{sub, time.Hour, time.Hour, []string{`{sub="alice"} before 4m0s until 1h4m0s`}},
	} {
		r := newReceiver(t)
		over := event.Over{Issuer: issuer, Selector: c.selector, Since: now.Add(c.since), Reason: "said"}
		if c.before != noCutoff {
			over.Before = now.Add(c.before)
		}
		for range 2 {
			r.end(t.Context(), provider{tx}, []event.Over{over}, now)
		}
		var got []string
		for _, s := range r.log.all() {
			got = append(got, told(s))
		}
		if !slices.Equal(got, slices.Concat(c.want, c.want)) {
			t.Errorf("stored %q, want twice %q", got, c.want)
		}
	}
}

const noCutoff = time.Duration(-1 << 63)

// By is bounded and stays UTF-8, whatever a provider is called.
func TestBoundedProviderNames(t *testing.T) {
	for _, name := range []string{tx, "x" + strings.Repeat("\u00fc", 300), strings.Repeat("\u00fc", 300)} {
		if id := (provider{name}).ID(); len(id) > denylist.MaxNote || !utf8.ValidString(id) || !strings.HasPrefix(name, id) || len(id) < min(len(name), denylist.MaxNote-3) {
			t.Errorf("%q", id)
		}
	}
}

var alice = values{"format": "iss_sub", "iss": issuer, "sub": "alice"}

var eventClaims = values{
	"iss": tx, "aud": publicURL, "iat": unix(0), "jti": "jti-1", "sub_id": alice,
	"events": values{sessionRevoked: values{"event_timestamp": unix(-time.Second)}},
}

func (r *receiver) push(claims values) *http.Request {
	return pushOf(signAs(r.sender, "secevent+jwt", claims))
}

func pushOf(raw string) *http.Request {
	q := httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(raw))
	q.Header.Set("Content-Type", "application/secevent+jwt")
	q.Header.Set("Authorization", "Bearer "+pushSecret)
	return q
}

// checkPushError checks an error of RFC 8935 section 2.3.
func checkPushError(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	var said map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code != status || said["err"] != code || said["description"] == "" || len(said) != 2 {
		t.Errorf("%d %s, want %d %s: %v", w.Code, w.Body, status, code, err)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
	if challenged := w.Header().Get("WWW-Authenticate") == "Bearer"; challenged != (status == 401) {
		t.Errorf("WWW-Authenticate %q", w.Header().Get("WWW-Authenticate"))
	}
	checkSilent(t, "the answer", w.Body.String(), "alice", "s1", "jti-", "someone@", foreign)
}

const endOfAlice = `{sub="alice"} before -1s until 59m59s`

func TestPushedEvents(t *testing.T) {
	events := func(kind string, e values) values { return values{"events": values{kind: e}} }
	token1 := values{"format": "jwt_id", "iss": issuer, "jti": "jti-x"}
	complex := values{"format": "complex", "user": alice, "session": values{"format": "opaque", "id": "s1"}}
	cases := []struct {
		name   string
		change values
		q      func(*receiver) *http.Request // in place of change
		code   string                        // of a refusal
		status int                           // of a refusal, 400 where it is 0
		stored []string
	}{
		{name: "a session of a user", stored: []string{endOfAlice}},
		{name: "an account", change: events("https://schemas.openid.net/secevent/risc/event-type/account-disabled", values{}),
			stored: []string{`{sub="alice"} before 0s until 1h0m0s`}},
		{name: "a complex subject", change: values{"sub_id": complex}, stored: []string{`{sid="s1"} until 59m59s`, endOfAlice}},
		{name: "a user at a client", change: values{"sub_id": values{"format": "complex", "user": alice, "application": values{"format": "opaque", "id": "web"}}},
			stored: []string{`{client_id="web" sub="alice"} before -1s until 59m59s`, `{azp="web" sub="alice"} before -1s until 59m59s`}},
		{name: "one token", change: values{"sub_id": token1}, stored: []string{`{jti="jti-x"} until 59m59s`}},
		{name: "one token, by a clock that is ahead", change: with(events(sessionRevoked, values{}), values{"sub_id": token1, "iat": unix(29 * time.Second)}),
			stored: []string{`{jti="jti-x"} until 1h0m0s`}},
		{name: "one token, older than any", change: with(events(sessionRevoked, values{"event_timestamp": unix(-lifetime - denylist.Grace)}), values{"sub_id": token1})},
		{name: "one token, as old as one may be by another clock", change: with(events(sessionRevoked, values{"event_timestamp": unix(time.Second - lifetime - denylist.Grace)}), values{"sub_id": token1}),
			stored: []string{`{jti="jti-x"} until -14m59s`}},
		{name: "a subject that names no issuer", change: values{"sub_id": values{"format": "opaque", "id": "alice"}},
			stored: []string{`{sid="alice"} until 59m59s`, endOfAlice}},
		{name: "a time ahead of the token's own", change: events(sessionRevoked, values{"event_timestamp": unix(time.Hour)}),
			stored: []string{`{sub="alice"} before 0s until 1h0m0s`}},
		{name: "in milliseconds", change: events(sessionRevoked, values{"event_timestamp": now.UnixMilli()}),
			stored: []string{`{sub="alice"} before 0s until 1h0m0s`}},
		{name: "one of several audiences", change: values{"aud": []string{"x", publicURL}}, stored: []string{endOfAlice}},
		{name: "the stream is verified", change: with(events(verified, values{"state": "x"}), values{"sub_id": nil})},
		{name: "an event that is not known", change: events("urn:x:user-created", values{})},
		{name: "older than any token", change: events(sessionRevoked, values{"event_timestamp": unix(-lifetime - denylist.Grace)})},
		{name: "as old as a token may be by another clock", change: events(sessionRevoked, values{"event_timestamp": unix(time.Second - lifetime - denylist.Grace)}),
			stored: []string{`{sub="alice"} before -1h14m59s until -14m59s`}},
		{name: "white space around it", q: func(r *receiver) *http.Request {
			return pushOf("\n" + signAs(r.sender, "secevent+jwt", eventClaims) + "\r\n")
		}, stored: []string{endOfAlice}},
		{name: "a parameter of the type", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Content-Type", "Application/SecEvent+JWT; charset=utf-8")
			return q
		}, stored: []string{endOfAlice}},
		{name: "bearer in lower case", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Authorization", "bearer "+pushSecret)
			return q
		}, stored: []string{endOfAlice}},

		{name: "not a token", q: func(*receiver) *http.Request { return pushOf("someone@example") }, code: "invalid_request"},
		{name: "nothing", q: func(*receiver) *http.Request { return pushOf("") }, code: "invalid_request"},
		{name: "typ of another", q: func(r *receiver) *http.Request { return pushOf(signAs(r.sender, "JWT", eventClaims)) }, code: "invalid_request"},
		{name: "no typ", q: func(r *receiver) *http.Request { return pushOf(signAs(r.sender, "", eventClaims)) }, code: "invalid_request"},
		{name: "sub", change: values{"sub": "alice"}, code: "invalid_request"},
		{name: "exp", change: values{"exp": unix(time.Minute)}, code: "invalid_request"},
		{name: "no jti", change: values{"jti": nil}, code: "invalid_request"},
		{name: "no iat", change: values{"iat": nil}, code: "invalid_request"},
		{name: "iat in the future", change: values{"iat": unix(time.Minute)}, code: "invalid_request"},
		{name: "no events", change: values{"events": nil}, code: "invalid_request"},
		{name: "events is empty", change: values{"events": values{}}, code: "invalid_request"},
		{name: "no subject", change: values{"sub_id": nil}, code: "invalid_request"},
		{name: "a subject that no token shows", change: values{"sub_id": values{"format": "email", "email": "someone@example"}}, code: "invalid_request"},
		{name: "a session alone that no token shows", change: values{"sub_id": values{"format": "complex", "session": values{"format": "opaque", "id": "s1"}}}, code: "invalid_request"},
		{name: "no time", change: events(sessionRevoked, values{"event_timestamp": "alice"}), code: "invalid_request"},
		{name: "signed by a stranger", q: func(r *receiver) *http.Request { return pushOf(signAs(r.stranger, "secevent+jwt", eventClaims)) }, code: "invalid_key"},
		{name: "an algorithm that is not the transmitter's", q: func(r *receiver) *http.Request {
			return pushOf(r.sender.Sign(`{"alg":"HS256","kid":"k1","typ":"secevent+jwt"}`, `{"iss":"`+tx+`"}`))
		}, code: "invalid_key"},
		{name: "of nobody that is configured", change: values{"iss": "https://alice.example"}, code: "invalid_issuer"},
		{name: "of an issuer that is no transmitter", q: func(r *receiver) *http.Request {
			return pushOf(signAs(r.idp, "secevent+jwt", with(eventClaims, values{"iss": issuer})))
		}, code: "invalid_issuer"},
		{name: "for somebody else", change: values{"aud": publicURL + "/"}, code: "invalid_audience"},
		{name: "for nobody", change: values{"aud": nil}, code: "invalid_audience"},
		{name: "about the tokens of a foreign issuer", change: values{"sub_id": values{"format": "iss_sub", "iss": foreign, "sub": "alice"}}, code: "access_denied"},
		{name: "about those of one that is not configured", change: values{"sub_id": values{"format": "iss_sub", "iss": "https://x.example", "sub": "alice"}}, code: "access_denied"},
		{name: "about a foreign user's session", change: values{"sub_id": values{"format": "complex",
			"user": values{"format": "iss_sub", "iss": foreign, "sub": "alice"}, "session": values{"format": "opaque", "id": "s1"}}}, code: "access_denied"},
		{name: "no bearer token", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Del("Authorization")
			return q
		}, code: "authentication_failed", status: 401},
		{name: "another's bearer token", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Authorization", "Bearer x")
			return q
		}, code: "authentication_failed", status: 401},
		{name: "its hash", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Authorization", "Bearer "+hash(pushSecret))
			return q
		}, code: "authentication_failed", status: 401},
		{name: "no bearer", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Authorization", "Basic "+pushSecret)
			return q
		}, code: "authentication_failed", status: 401},
		{name: "two headers", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Add("Authorization", "Bearer "+pushSecret)
			return q
		}, code: "authentication_failed", status: 401},
		{name: "a bearer token makes up for no signature", q: func(r *receiver) *http.Request {
			return pushOf(signAs(r.stranger, "secevent+jwt", eventClaims))
		}, code: "invalid_key"},
		{name: "another type", q: func(r *receiver) *http.Request {
			q := r.push(eventClaims)
			q.Header.Set("Content-Type", "application/jwt")
			return q
		}, code: "invalid_request"},
		{name: "too large", q: func(*receiver) *http.Request { return pushOf(strings.Repeat("x", maxBody+1)) }, code: "invalid_request", status: 413},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newReceiver(t)
			q := r.push(with(eventClaims, c.change))
			if c.q != nil {
				q = c.q(r)
			}
			w := do(r, q)
			if c.code == "" {
				checkEmpty(t, w, http.StatusAccepted)
			} else {
				checkPushError(t, w, max(400, c.status), c.code)
			}
			r.checkStored(t, tx, c.stored...)
		})
	}
	r := newReceiver(t)
	w := do(r, httptest.NewRequest(http.MethodGet, "/v1/events", nil))
	checkJSON(t, w, 405, "invalid_request")
}

func TestPushWithoutTransmitters(t *testing.T) {
	r := newReceiver(t, func(c *Config) { c.Transmitters, c.Events = nil, nil })
	checkPushError(t, do(r, r.push(eventClaims)), 400, "invalid_issuer")
	checkJSON(t, do(r, r.global(nil, subject)), 401, "invalid_token")
	r = newReceiver(t, func(c *Config) { c.Transmitters[0].PushTokenSHA256 = "" })
	q := r.push(eventClaims)
	q.Header.Del("Authorization")
	checkEmpty(t, do(r, q), 202)
	r.checkStored(t, tx, endOfAlice)
}

// A transmitter may say a thing again, and is told to where it could not be stored. What
// was stored is not stored again: whoever has seen an event could fill the log with it.
func TestDurablePushAfterFailure(t *testing.T) {
	r := newReceiver(t)
	r.log.err = errors.New("disk of 10.0.0.7 is full")
	for range 2 {
		w := do(r, r.push(eventClaims))
		checkJSON(t, w, 503, "temporarily_unavailable")
		checkSilent(t, "the answer", w.Body.String(), "10.0.0.7")
	}
	r.log.err = nil
	for range 2 {
		checkEmpty(t, do(r, r.push(eventClaims)), 202)
	}
	if all := r.log.all(); len(all) != 1 {
		t.Errorf("stored %v", all)
	}
}

// TakeEvent is how events that are polled come in: refused for good, or to come again.
func TestTakeEvent(t *testing.T) {
	full := errors.New("disk full")
	for name, c := range map[string]struct {
		change  values
		logErr  error
		refused string
		stored  []string
	}{
		"taken":             {stored: []string{endOfAlice}},
		"not known":         {change: values{"events": values{"urn:x": values{}}}},
		"refused":           {change: values{"aud": "other"}, refused: "invalid_audience"},
		"about a foreigner": {change: values{"sub_id": values{"format": "iss_sub", "iss": foreign, "sub": "alice"}}, refused: "access_denied"},
		"unreadable":        {change: values{"iss": "https://alice.example"}, refused: "invalid_issuer"},
		"the log fails":     {logErr: full},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			r.log.err = c.logErr
			err := r.TakeEvent(t.Context(), signAs(r.sender, "secevent+jwt", with(eventClaims, c.change)))
			e, refused := errors.AsType[*event.Error](err)
			switch {
			case refused != (c.refused != "") || refused && e.Code != c.refused:
				t.Errorf("%v", err)
			case !refused && (!errors.Is(err, c.logErr) || (err == nil) != (c.logErr == nil)):
				t.Errorf("%v, want %v", err, c.logErr)
			}
			if err != nil {
				checkSilent(t, "the error", err.Error(), "alice", "jti-", "%!", "\n")
			}
			r.checkStored(t, tx, c.stored...)
		})
	}
	// What the log can't hold is an error too, with words of its own.
	r := newReceiver(t, func(c *Config) {
		long := "https://" + strings.Repeat("x", 3000)
		c.Issuers = append(c.Issuers, Issuer{Issuer: long})
		c.Transmitters[0].Issuers = []string{long}
	})
	err := r.TakeEvent(t.Context(), signAs(r.sender, "secevent+jwt", with(eventClaims, values{"sub_id": values{"format": "opaque", "id": "alice"}})))
	if err == nil || strings.Contains(err.Error(), "%!") {
		t.Error(err)
	}
}

const (
	globalURL = publicURL + "/global-token-revocation"
	subject   = `{"sub_id":{"format":"iss_sub","iss":"` + issuer + `","sub":"alice"}}`
)

var bearerClaims = values{
	"iss": tx, "aud": globalURL, "sub": "tx", "jti": "jti-1", "iat": unix(0), "exp": unix(5 * time.Minute),
}

func (r *receiver) global(change values, body string) *http.Request {
	q := httptest.NewRequest(http.MethodPost, "/global-token-revocation", strings.NewReader(body))
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+signAs(r.sender, "JWT", with(bearerClaims, change)))
	return q
}

func TestGlobalTokenRevocation(t *testing.T) {
	const ends = `{sub="alice"} before 0s until 1h0m0s`
	subjectOf := func(id string) string { return `{"sub_id":` + id + `}` }
	header := func(name string, all ...string) func(*receiver) *http.Request {
		return func(r *receiver) *http.Request {
			q := r.global(nil, subject)
			q.Header.Del(name)
			for _, v := range all {
				q.Header.Add(name, v)
			}
			return q
		}
	}
	cases := []struct {
		name   string
		change values
		body   string
		q      func(*receiver) *http.Request
		set    func(*Config)
		status int // 204 where it is 0
		code   string
		stored []string
	}{
		{name: "as it should be", stored: []string{ends}},
		{name: "an opaque subject", body: subjectOf(`{"format":"opaque","id":"alice"}`), stored: []string{ends}},
		{name: "members that are not known", body: `{"x":1,` + subject[1:], stored: []string{ends}},
		{name: "aliases, one of which is known here", body: subjectOf(`{"format":"aliases","identifiers":[{"format":"email","email":"someone@example"},{"format":"iss_sub","iss":"` + issuer + `","sub":"alice"}]}`), stored: []string{ends}},
		{name: "aud in an array", change: values{"aud": []string{globalURL}}, stored: []string{ends}},
		{name: "skew", set: func(c *Config) { c.Issuers[0].ClockSkew = 90 * time.Second }, stored: []string{`{sub="alice"} before 1m30s until 1h1m30s`}},
		{name: "skew of another issuer that the transmitter may speak about", set: func(c *Config) {
			c.Issuers[1].ClockSkew, c.Transmitters[0].Issuers = 90*time.Second, []string{issuer, foreign}
		}, stored: []string{ends}},

		{name: "no credentials", q: header("Authorization"), status: 401, code: "invalid_token"},
		{name: "Basic", q: header("Authorization", basic("web", webSecret)), status: 401, code: "invalid_token"},
		{name: "two headers", q: header("Authorization", "Bearer x", "Bearer x"), status: 401, code: "invalid_token"},
		{name: "no JWT", q: header("Authorization", "Bearer someone@example"), status: 401, code: "invalid_token"},
		{name: "an empty bearer", q: header("Authorization", "Bearer "), status: 401, code: "invalid_token"},
		{name: "of a stranger", q: func(r *receiver) *http.Request {
			q := r.global(nil, subject)
			q.Header.Set("Authorization", "Bearer "+signAs(r.stranger, "JWT", bearerClaims))
			return q
		}, status: 401, code: "invalid_token"},
		{name: "a security event", q: func(r *receiver) *http.Request {
			q := r.global(nil, subject)
			q.Header.Set("Authorization", "Bearer "+signAs(r.sender, "secevent+jwt", bearerClaims))
			return q
		}, status: 401, code: "invalid_token"},
		{name: "of an issuer that is no transmitter", q: func(r *receiver) *http.Request {
			q := r.global(nil, subject)
			q.Header.Set("Authorization", "Bearer "+signAs(r.idp, "JWT", with(bearerClaims, values{"iss": issuer})))
			return q
		}, status: 401, code: "invalid_token"},
		{name: "for the authority, not this URL", change: values{"aud": publicURL}, status: 401, code: "invalid_token"},
		{name: "for the URL with a slash", change: values{"aud": globalURL + "/"}, status: 401, code: "invalid_token"},
		{name: "for the URL in another case", change: values{"aud": strings.ToUpper(globalURL)}, status: 401, code: "invalid_token"},
		{name: "for others too", change: values{"aud": []string{globalURL, "x"}}, status: 401, code: "invalid_token"},
		{name: "for nobody", change: values{"aud": nil}, status: 401, code: "invalid_token"},
		{name: "no sub", change: values{"sub": nil}, status: 401, code: "invalid_token"},
		{name: "no jti", change: values{"jti": nil}, status: 401, code: "invalid_token"},
		{name: "no iat", change: values{"iat": nil}, status: 401, code: "invalid_token"},
		{name: "no exp", change: values{"exp": nil}, status: 401, code: "invalid_token"},
		{name: "five minutes and a second", change: values{"exp": unix(5*time.Minute + time.Second)}, status: 401, code: "invalid_token"},
		{name: "expired", change: values{"iat": unix(-5 * time.Minute), "exp": unix(-31 * time.Second)}, status: 401, code: "invalid_token"},
		{name: "not valid yet", change: values{"nbf": unix(31 * time.Second)}, status: 401, code: "invalid_token"},
		{name: "iat in the future", change: values{"iat": unix(31 * time.Second)}, status: 401, code: "invalid_token"},
		{name: "no public_url", set: func(c *Config) { c.PublicURL = "" }, status: 401, code: "invalid_token"},
		{name: "no public_url, and aud is what would be left", set: func(c *Config) { c.PublicURL = "" }, change: values{"aud": "/global-token-revocation"}, status: 401, code: "invalid_token"},

		{name: "a form", q: header("Content-Type", "application/x-www-form-urlencoded"), status: 400, code: "invalid_request"},
		{name: "no body", body: " ", status: 400, code: "invalid_request"},
		{name: "a member twice", body: `{"sub_id":{},` + subject[1:], status: 400, code: "invalid_request"},
		{name: "a byte after the end", body: subject + "x", status: 400, code: "invalid_request"},
		{name: "no subject", body: `{}`, status: 400, code: "invalid_request"},
		{name: "a subject of the other spelling", body: `{"subject":` + subject[10:], status: 400, code: "invalid_request"},
		{name: "an empty sub", body: subjectOf(`{"format":"iss_sub","iss":"` + issuer + `","sub":""}`), status: 400, code: "invalid_request"},
		{name: "a sub that no token has room for", body: subjectOf(`{"format":"iss_sub","iss":"` + issuer + `","sub":"` + strings.Repeat("alice", 2000) + `"}`), status: 400, code: "invalid_request"},
		{name: "over 64 KiB", body: subject + strings.Repeat(" ", maxBody), status: 413, code: "invalid_request"},
		{name: "a foreign issuer's", body: subjectOf(`{"format":"iss_sub","iss":"` + foreign + `","sub":"alice"}`), status: 403, code: "access_denied"},
		{name: "by email", body: subjectOf(`{"format":"email","email":"someone@example"}`), status: 422, code: "invalid_request"},
		{name: "by phone number", body: subjectOf(`{"format":"phone_number","phone_number":"+1"}`), status: 422, code: "invalid_request"},
		{name: "of a format that nobody knows", body: subjectOf(`{"format":"x"}`), status: 422, code: "invalid_request"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newReceiver(t, func(config *Config) {
				if c.set != nil {
					c.set(config)
				}
			})
			body := subject
			if c.body != "" {
				body = c.body
			}
			q := r.global(c.change, body)
			if c.q != nil {
				q = c.q(r)
			}
			w := do(r, q)
			if c.status == 0 {
				checkEmpty(t, w, http.StatusNoContent)
			} else {
				checkJSON(t, w, c.status, c.code)
				checkSilent(t, "the answer", w.Body.String(), "alice", "jti-", "someone@", foreign)
				if got := w.Header().Get("WWW-Authenticate"); (got == `Bearer error="invalid_token"`) != (c.status == 401) {
					t.Errorf("WWW-Authenticate %q", got)
				}
			}
			r.checkStored(t, tx, c.stored...)
		})
	}
	checkJSON(t, do(newReceiver(t), httptest.NewRequest(http.MethodGet, "/global-token-revocation", nil)), 405, "invalid_request")
}

// The bearer token is used up by what was carried out with it, and by nothing less.
func TestDurableGlobalRevocationAfterFailure(t *testing.T) {
	r := newReceiver(t)
	checkJSON(t, do(r, r.global(nil, `{}`)), 400, "invalid_request")
	r.log.err = errors.New("disk full")
	checkJSON(t, do(r, r.global(nil, subject)), 503, "temporarily_unavailable")
	r.log.err = nil
	checkEmpty(t, do(r, r.global(nil, subject)), 204)
	for _, body := range []string{subject, strings.ReplaceAll(subject, "alice", "bob")} {
		checkJSON(t, do(r, r.global(nil, body)), 401, "invalid_token")
	}
	if n := len(r.log.all()); n != 1 {
		t.Errorf("stored %d", n)
	}
	checkEmpty(t, do(r, r.global(values{"jti": "jti-2"}, subject)), 204)
}

func TestTransmitterSettings(t *testing.T) {
	good := Transmitter{Issuer: tx, Audiences: []string{"a"}, Issuers: []string{issuer}}
	for want, change := range map[string]func(*Transmitter){
		"transmitters[1].issuer is missing":  func(x *Transmitter) { x.Issuer = "" },
		"transmitters[1].issuer: ":           func(x *Transmitter) { x.Issuer = tx },
		"transmitters[1].audiences: ":        func(x *Transmitter) { x.Audiences = nil },
		"transmitters[1].issuers: at least":  func(x *Transmitter) { x.Issuers = nil },
		"transmitters[1].issuers: \"x\" is":  func(x *Transmitter) { x.Issuers = []string{issuer, "x"} },
		"transmitters[1].push_token_sha256 ": func(x *Transmitter) { x.PushTokenSHA256 = "abcd" },
	} {
		other := good
		other.Issuer = "https://tx2.example"
		change(&other)
		_, err := checkTransmitters([]Transmitter{good, other}, map[string]Issuer{issuer: {}})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
