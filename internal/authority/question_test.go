package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// ask asks about the selector of a query, which lacks its issuer.
func ask(id, query string) *http.Request {
	return asking(id, "issuer="+url.QueryEscape(issuer)+query)
}

func asking(id, query string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/revocations?"+query, nil)
	r.Header.Set("Authorization", basic(id, adminSecret))
	return r
}

// said is an answer as a caller reads it.
type said struct {
	Live        bool              `json:"live"`
	Issuer      string            `json:"issuer"`
	Selector    map[string]string `json:"selector"`
	Revocations []map[string]any  `json:"revocations"`
	More        bool              `json:"more"`
}

func checkSaid(t *testing.T, w *httptest.ResponseRecorder) (s said) {
	t.Helper()
	checkJSON(t, w, 200, "")
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// A question is answered by what is live of exactly this selector: since when, until
// when, by whom and why.
func TestQuestions(t *testing.T) {
	log := &fakeLog{}
	var lines bytes.Buffer
	a := newAuthority(t, log, logged(&lines))
	w := do(a, ask(client.GrantAny, "&sub=alice"))
	if got, want := strings.TrimSpace(w.Body.String()), `{"live":false,"issuer":"https://idp.example","selector":{"sub":"alice"},"revocations":[]}`; got != want {
		t.Errorf("answer %s\n  want %s", got, want)
	}
	checkJSON(t, w, 200, "")

	zone := time.FixedZone("", 3600)
	log.stored = []denylist.Revocation{
		{Issuer: issuer, Selector: denylist.One("sub", "alice"), IssuedBefore: now.Add(-time.Hour).Truncate(time.Second), Expires: now.Truncate(time.Second).In(zone), At: now.Add(-time.Hour).In(zone), By: "web", Reason: "left \"us\""},
		{Issuer: issuer, Selector: denylist.One("jti", "j"), Expires: now.Add(time.Hour).Truncate(time.Second), ExactExpiry: true, At: now, By: "web"},
		{Issuer: "https://other.example", Selector: denylist.One("sub", "alice"), IssuedBefore: now, Expires: now, At: now},
		{Issuer: issuer, Selector: denylist.One("sub", "alice"), IssuedBefore: now.Truncate(time.Second), Expires: now.Add(time.Hour).Truncate(time.Second), At: now, By: "idp"},
		{Issuer: issuer, Selector: denylist.One("tenant", "7"), IssuedBefore: now.Truncate(time.Second), Expires: now.Add(time.Hour).Truncate(time.Second), At: now, By: "idp"},
		{Issuer: issuer, IssuedBefore: now.Truncate(time.Second), Expires: now.Add(time.Hour).Truncate(time.Second), At: now, By: "idp"},
	}
	for query, want := range map[string]string{
		"&sub=alice": `{"live":true,"issuer":"https://idp.example","selector":{"sub":"alice"},"revocations":[` +
			`{"position":1,"at":"2026-09-01T11:00:00.345678901Z","by":"web","reason":"left \"us\"","issued_before":"2026-09-01T11:00:00Z","expires":"2026-09-01T12:00:00Z"},` +
			`{"position":4,"at":"2026-09-01T12:00:00.345678901Z","by":"idp","issued_before":"2026-09-01T12:00:00Z","expires":"2026-09-01T13:00:00Z"}]}`,
		"&jti=j": `{"live":true,"issuer":"https://idp.example","selector":{"jti":"j"},"revocations":[` +
			`{"position":2,"at":"2026-09-01T12:00:00.345678901Z","by":"web","expires":"2026-09-01T13:00:00Z"}]}`,
		"": `{"live":true,"issuer":"https://idp.example","selector":{},"revocations":[` +
			`{"position":6,"at":"2026-09-01T12:00:00.345678901Z","by":"idp","issued_before":"2026-09-01T12:00:00Z","expires":"2026-09-01T13:00:00Z"}]}`,
		"&tenant=7": `{"live":true,"issuer":"https://idp.example","selector":{"tenant":"7"},"revocations":[` +
			`{"position":5,"at":"2026-09-01T12:00:00.345678901Z","by":"idp","issued_before":"2026-09-01T12:00:00Z","expires":"2026-09-01T13:00:00Z"}]}`,
		"&sub=Alice":            `{"live":false,"issuer":"https://idp.example","selector":{"sub":"Alice"},"revocations":[]}`,
		"&sub=alice&azp=web":    `{"live":false,"issuer":"https://idp.example","selector":{"azp":"web","sub":"alice"},"revocations":[]}`,
		"&sub=a%26b+c%3D%C3%BC": `{"live":false,"issuer":"https://idp.example","selector":{"sub":"a&b c=ü"},"revocations":[]}`,
	} {
		if got := strings.TrimSpace(do(a, ask(client.GrantAny, query)).Body.String()); got != want {
			t.Errorf("%s: answer %s\n  want %s", query, got, want)
		}
	}
	if lines.Len() > 0 {
		t.Errorf("an answer is logged: %s", &lines)
	}
}

// At most the newest twenty are told, and that there are more.
// Each question reads the whole log, and so few wait for it.
func TestBoundedQuestionsAtOnce(t *testing.T) {
	a := newAuthority(t, &fakeLog{})
	for range questionsAtOnce {
		a.questions <- struct{}{}
	}
	w := do(a, ask(client.GrantAny, "&sub=alice"))
	if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != "5" || !strings.Contains(w.Body.String(), `"too_many_requests"`) {
		t.Errorf("%d %s, Retry-After %q", w.Code, w.Body, got)
	}
	<-a.questions
	if w := do(a, ask(client.GrantAny, "&sub=alice")); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBoundedQuestions(t *testing.T) {
	for n, more := range map[int]bool{maxFound: false, maxFound + 1: true, 3 * maxFound: true} {
		log := &fakeLog{}
		for i := range n {
			log.stored = append(log.stored, denylist.Revocation{
				Issuer: issuer, Selector: denylist.One("sub", "alice"), IssuedBefore: now, Expires: now.Add(lifetime), At: now, By: fmt.Sprint(i),
			})
		}
		s := checkSaid(t, do(newAuthority(t, log), ask(client.GrantAny, "&sub=alice")))
		if !s.Live || s.More != more || len(s.Revocations) != maxFound || s.Revocations[maxFound-1]["by"] != fmt.Sprint(n-1) || s.Revocations[0]["by"] != fmt.Sprint(n-maxFound) {
			t.Errorf("of %d: %+v", n, s)
		}
	}
}

// Who may revoke a selector may ask about it, and nobody else.
func TestQuestionGrants(t *testing.T) {
	for _, s := range shapes {
		var selector map[string]any
		if err := json.Unmarshal([]byte(s.selector), &selector); err != nil {
			t.Fatal(err)
		}
		query := ""
		for name, value := range selector {
			query += "&" + name + "=" + url.QueryEscape(fmt.Sprint(value))
		}
		for _, g := range allGrants {
			w := do(newAuthority(t, &fakeLog{}), ask(g, query))
			allowed := g == client.GrantAny
			for _, covering := range s.grants {
				allowed = allowed || g == covering
			}
			if allowed {
				checkSaid(t, w)
			} else {
				checkJSON(t, w, 403, "access_denied")
				checkSilent(t, "the answer", w.Body.String(), "alice")
			}
		}
	}
}

func TestQuestionRefusals(t *testing.T) {
	as := func(authorization ...string) *http.Request {
		r := ask(client.GrantAny, "&sub=alice")
		r.Header["Authorization"] = authorization
		return r
	}
	many := ""
	for i := range denylist.MaxPairs + 1 {
		many += fmt.Sprintf("&c%d=x", i)
	}
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		code   string
		says   string
	}{
		"no issuer":                  {asking(client.GrantAny, "sub=alice"), 400, "invalid_request", "issuer"},
		"an empty issuer":            {asking(client.GrantAny, "issuer=&sub=alice"), 400, "invalid_request", "issuer"},
		"an unknown issuer":          {asking(client.GrantAny, "issuer=https://alice.example&sub=alice"), 400, "invalid_request", "issuer"},
		"no query":                   {asking(client.GrantAny, ""), 400, "invalid_request", "issuer"},
		"issuer twice":               {ask(client.GrantAny, "&issuer=x&sub=alice"), 400, "invalid_request", "issuer is there more than once"},
		"a claim twice":              {ask(client.GrantAny, "&sub=alice&sub=alice"), 400, "invalid_request", "sub is there more than once"},
		"a claim twice, escaped":     {ask(client.GrantAny, "&sub=alice&s%75b=bob"), 400, "invalid_request", "sub is there more than once"},
		"a claim without a value":    {ask(client.GrantAny, "&sub="), 400, "invalid_request", "sub"},
		"a claim without a name":     {ask(client.GrantAny, "&=alice"), 400, "invalid_request", "name"},
		"a time":                     {ask(client.GrantAny, "&exp=1"), 400, "invalid_request", "exp"},
		"no UTF-8":                   {ask(client.GrantAny, "&sub=alice%ff"), 400, "invalid_request", "UTF-8"},
		"more claims than it may":    {ask(client.GrantAny, many), 400, "invalid_request", "at most"},
		"a name longer than it may":  {ask(client.GrantAny, "&"+strings.Repeat("x", 1000)+"=alice"), 400, "invalid_request", "name"},
		"a name longer, twice":       {ask(client.GrantAny, strings.Repeat("&"+strings.Repeat("x", 1000)+"=alice", 2)), 400, "invalid_request", "..."},
		"a bad escape":               {ask(client.GrantAny, "&sub=%zz"), 400, "invalid_request", "query"},
		"a semicolon":                {ask(client.GrantAny, ";sub=alice"), 400, "invalid_request", "query"},
		"nobody":                     {as(), 401, "invalid_client", ""},
		"a wrong secret":             {as(basic(client.GrantAny, "x")), 401, "invalid_client", ""},
		"a bearer token":             {as("Bearer " + adminSecret), 401, "invalid_client", ""},
		"a public client":            {as(basic("spa", "")), 401, "invalid_client", ""},
		"two headers":                {as(basic(client.GrantAny, adminSecret), basic(client.GrantAny, adminSecret)), 400, "invalid_request", ""},
		"a client of its own tokens": {as(basic("web", webSecret)), 403, "access_denied", "sub"},
	} {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			w := do(newAuthority(t, &fakeLog{}, logged(&lines)), c.r)
			body := checkJSON(t, w, c.status, c.code)
			if says := fmt.Sprint(body["error_description"]); !strings.Contains(says, c.says) || len(says) > 400 {
				t.Errorf("it doesn't name %s: %s", c.says, says)
			}
			if got := w.Header().Get("WWW-Authenticate"); (c.status == 401) != strings.HasPrefix(got, "Basic ") {
				t.Errorf("WWW-Authenticate %q", got)
			}
			checkSilent(t, "the answer", w.Body.String(), "alice", adminSecret)
			checkSilent(t, "the log", lines.String(), "alice", adminSecret)
		})
	}
	r := ask(client.GrantAny, "&sub=alice")
	r.Method = http.MethodDelete
	w := do(newAuthority(t, &fakeLog{}), r)
	checkJSON(t, w, 405, "invalid_request")
	if allow := w.Header().Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow %q", allow)
	}
}

// searchedLog is a fakeLog whose Find is the test's.
type searchedLog struct {
	*fakeLog
	find func(context.Context) error
}

func (l searchedLog) Find(ctx context.Context, _ string, _ denylist.Selector, _ time.Time, _ int) ([]Stored, bool, error) {
	return nil, false, l.find(ctx)
}

// "Can't know now" is no "not live".
func TestQuestionWhileTheLogCannotBeSearched(t *testing.T) {
	for _, err := range []error{errors.New("disk of 10.0.0.7 is gone"), ErrOpening, context.DeadlineExceeded} {
		var lines bytes.Buffer
		a := newAuthority(t, searchedLog{&fakeLog{}, func(ctx context.Context) error {
			if until, ok := ctx.Deadline(); !ok || time.Until(until) > searchTimeout {
				t.Errorf("a search may take until %s", until)
			}
			return err
		}}, logged(&lines))
		w := do(a, ask(client.GrantAny, "&sub=alice"))
		body := checkJSON(t, w, 503, "temporarily_unavailable")
		if _, there := body["live"]; there {
			t.Error(body)
		}
		checkSilent(t, "the answer", w.Body.String(), "10.0.0.7", "alice")
		checkSilent(t, "the log", lines.String(), "alice")
		if n := strings.Count(lines.String(), "\n"); n != 1 {
			t.Errorf("%d lines: %s", n, &lines)
		}
	}
	// Whoever hung up is not worth a line.
	var lines bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	a := newAuthority(t, searchedLog{&fakeLog{}, func(ctx context.Context) error { cancel(); return context.Cause(ctx) }}, logged(&lines))
	do(a, ask(client.GrantAny, "&sub=alice").WithContext(ctx))
	if lines.Len() > 0 {
		t.Errorf("%s", &lines)
	}
}

// HEAD is answered as GET is, without the body, on a connection.
func TestQuestionByHead(t *testing.T) {
	s := serve(t, newAuthority(t, &fakeLog{}))
	var lengths []int64
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/v1/revocations?issuer="+url.QueryEscape(issuer)+"&sub=alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", basic(client.GrantAny, adminSecret))
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || (len(b) > 0) != (method == http.MethodGet) {
			t.Errorf("%s: %s %q %v", method, resp.Status, b, err)
		}
		lengths = append(lengths, resp.ContentLength)
	}
	if lengths[0] != lengths[1] {
		t.Errorf("lengths %v", lengths)
	}
}
