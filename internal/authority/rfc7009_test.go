package authority

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revcast/revcast/internal/client"
)

func TestRFC7009BadInput(t *testing.T) {
	const creds = "&client_id=web&client_secret=" + webSecret
	post := func(path, contentType, body string, authorization ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		r.Header["Authorization"] = authorization
		return r
	}
	const form, path = "application/x-www-form-urlencoded", "/oauth2/revoke"
	twoTypes := post(path, form, "token=own"+creds)
	twoTypes.Header.Add("Content-Type", form)
	cases := []struct {
		name   string
		r      *http.Request
		status int
		code   string
	}{
		{"no body", post(path, form, ""), 400, "invalid_request"},
		{"no token", post(path, form, creds[1:]), 400, "invalid_request"},
		{"empty token", post(path, form, "token="+creds), 400, "invalid_request"},
		{"token twice", post(path, form, "token=own&token=own"+creds), 400, "invalid_request"},
		{"token twice, one empty", post(path, form, "token=&token=own"+creds), 400, "invalid_request"},
		{"token twice, one encoded", post(path, form, "token=own&%74oken=own"+creds), 400, "invalid_request"},
		{"hint twice", post(path, form, "token=own&token_type_hint=a&token_type_hint=a"+creds), 400, "invalid_request"},
		{"client_id twice", post(path, form, "token=own&client_id=web"+creds), 400, "invalid_request"},
		{"client_secret twice", post(path, form, "token=own&client_secret="+webSecret+creds), 400, "invalid_request"},
		{"token in the URL", post(path+"?token=own", form, "token=own"+creds), 400, "invalid_request"},
		{"token in the URL only", post(path+"?token=own", form, creds[1:]), 400, "invalid_request"},
		{"credentials in the URL", post(path+"?client_id=web&client_secret="+webSecret, form, "token=own"), 400, "invalid_request"},
		{"a query that can't be read", post(path+"?%zz", form, "token=own"+creds), 400, "invalid_request"},
		{"a form that can't be read", post(path, form, "token=own;x=%zz"+creds), 400, "invalid_request"},
		{"no content type", post(path, "", "token=own"+creds), 400, "invalid_request"},
		{"JSON", post(path, "application/json", `{"token":"own"}`), 400, "invalid_request"},
		{"multipart", post(path, "multipart/form-data; boundary=x", "token=own"+creds), 400, "invalid_request"},
		{"two content types", twoTypes, 400, "invalid_request"},
		{"1 MB", post(path, form, "token=own"+creds+"&x="+strings.Repeat("x", 1<<20)), 413, "invalid_request"},
		{"64 KiB and a byte", post(path, form, pad("token=own"+creds+"&x=", maxBody+1)), 413, "invalid_request"},
		{"secret without an id", post(path, form, "token=own&client_secret="+webSecret), 400, "invalid_request"},
		{"two methods", post(path, form, "token=own"+creds, basic("web", webSecret)), 400, "invalid_request"},
		{"another client_id beside Basic", post(path, form, "token=own&client_id=spa", basic("web", webSecret)), 400, "invalid_request"},
		{"two Authorization headers", post(path, form, "token=own", basic("web", webSecret), basic("web", webSecret)), 400, "invalid_request"},
		{"no credentials", post(path, form, "token=own"), 401, "invalid_client"},
		{"Bearer", post(path, form, "token=own", "Bearer "+webSecret), 401, "invalid_client"},
		{"Bearer beside a public client_id", post(path, form, "token=spa's&client_id=spa", "Bearer x"), 401, "invalid_client"},
		{"Basic that is no base64", post(path, form, "token=own", "Basic ***"), 401, "invalid_client"},
		{"Basic without a colon", post(path, form, "token=own", "Basic d2Vi"), 401, "invalid_client"},
		{"Basic without a secret", post(path, form, "token=spa's", basic("spa", "")), 401, "invalid_client"},
		{"Basic of a post-only client", post(path, form, "token=own", basic("post-only", "p")), 401, "invalid_client"},
		{"post of a basic-only client", post(path, form, "token=own&client_id=basic-only&client_secret=b"), 401, "invalid_client"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			w := do(newAuthority(t, log), c.r)
			checkJSON(t, w, c.status, c.code)
			if all := log.all(); len(all) != 0 {
				t.Errorf("stored %v", all)
			}
			checkSilent(t, "the answer", w.Body.String(), webSecret)
			challenged := w.Header().Get("WWW-Authenticate") != ""
			if want := c.status == 401 && !strings.HasPrefix(c.name, "post"); challenged != want {
				t.Errorf("challenged: %v, want %v", challenged, want)
			}
		})
	}
}

func pad(s string, to int) string { return s + strings.Repeat("x", to-len(s)) }

func TestRFC7009Accepts(t *testing.T) {
	const body = "token=own&client_id=web&client_secret=" + webSecret
	for name, r := range map[string]*http.Request{
		"credentials in the body": postForm("/oauth2/revoke", body),
		"an unknown hint":         postForm("/oauth2/revoke", body+"&token_type_hint=something"),
		"an unknown parameter":    postForm("/oauth2/revoke", body+"&x=1&x=2"),
		"an unknown query":        postForm("/oauth2/revoke?x=1", body),
		"64 KiB":                  postForm("/oauth2/revoke", pad(body+"&x=", maxBody)),
		"client_id beside Basic":  postForm("/oauth2/revoke", "token=own&client_id=web&client_secret="),
		"basic in lower case":     postForm("/oauth2/revoke", "token=own"),
		"a charset":               postForm("/oauth2/revoke", body),
	} {
		switch name {
		case "client_id beside Basic":
			r.Header.Set("Authorization", basic("web", webSecret))
		case "basic in lower case":
			r.Header.Set("Authorization", "basic"+strings.TrimPrefix(basic("web", webSecret), "Basic"))
		case "a charset":
			r.Header.Set("Content-Type", "Application/X-WWW-Form-URLencoded; charset=UTF-8")
		}
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			checkJSON(t, do(newAuthority(t, log), r), 200, "")
			if len(log.all()) != 1 {
				t.Errorf("stored %v", log.all())
			}
		})
	}
}

// FuzzForm holds that a form has one reading: what a command says is in the form
// once, and it survives being spelled by the client library.
func FuzzForm(f *testing.F) {
	for _, seed := range seeds(f, "testdata/forms/*.txt") {
		f.Add(string(seed), "")
		f.Add(string(seed), basic("web", webSecret))
	}
	f.Fuzz(func(t *testing.T, body, authorization string) {
		r := postForm("/oauth2/revoke", body)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		c, o, ok := rfc7009.read(httptest.NewRecorder(), r)
		if !ok {
			if k := o.kind; k != badRequest && k != tooLarge {
				t.Fatalf("refused as %s", k)
			}
			return
		}
		form, err := url.ParseQuery(body)
		if err != nil || len(form["token"]) != 1 || form["token"][0] != c.token || c.token == "" {
			t.Fatalf("%q reads as token %q", body, c.token)
		}
		for _, l := range c.caller[0].Logins {
			if (l.Secret == "") != (c.caller[0].Method == client.None) {
				t.Fatalf("%s with secret %q", c.caller[0].Method, l.Secret)
			}
		}
		again := postForm("/oauth2/revoke", form.Encode())
		again.Header = r.Header
		d, _, ok := rfc7009.read(httptest.NewRecorder(), again)
		if len(form.Encode()) <= maxBody && (!ok || d.token != c.token || d.hint != c.hint || len(d.caller[0].Logins) != len(c.caller[0].Logins)) {
			t.Fatalf("%q reads in two ways: %+v, %+v", body, c, d)
		}
	})
}

// seeds reads the files of a pattern. There must be some: a fuzzer without seeds
// finds nothing and passes.
func seeds(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no seeds at %s (%v)", pattern, err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		if all[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
