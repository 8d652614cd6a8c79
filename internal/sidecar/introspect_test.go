package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revcast/revcast/pkg/verifier"
)

func TestIntrospection(t *testing.T) {
	g := guard(t, nil)
	good := tokenWith(map[string]any{"active": "no", "tenant": "blue"})
	post := func(body, contentType string) (int, map[string]any) {
		t.Helper()
		r := httptest.NewRequest("POST", "/oauth2/introspect", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		g.Handler(CheckListener).ServeHTTP(w, r)
		var answer map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
		return w.Code, answer
	}
	const form = "application/x-www-form-urlencoded"
	status, answer := post("token="+good+"&token_type_hint=access_token", form)
	if status != 200 || answer["active"] != true || answer["sub"] != "alice" || answer["tenant"] != "blue" || answer["iss"] != issuer {
		t.Errorf("%d %v", status, answer)
	}
	g.revoke(t, "jti", "t-1")
	for _, token := range []string{good, "rubbish", tokenWith(map[string]any{"aud": "other"})} {
		if status, answer := post("token="+token, form+"; charset=utf-8"); status != 200 || fmt.Sprint(answer) != "map[active:false]" {
			t.Errorf("%d %v", status, answer)
		}
	}
	for body, want := range map[string]int{
		"": 400, "token=": 400, "token=a&token=b": 400, "tokens=a": 400, "token=%zz": 400, "token=" + strings.Repeat("x", maxForm): 413,
	} {
		if status, answer := post(body, form); status != want || answer["error"] != "invalid_request" {
			t.Errorf("%.20s: %d %v", body, status, answer)
		}
	}
	if status, answer := post(`{"token":"a"}`, "application/json"); status != 400 || answer["error"] != "invalid_request" {
		t.Errorf("%d %v", status, answer)
	}
	w := httptest.NewRecorder()
	g.Handler(CheckListener).ServeHTTP(w, httptest.NewRequest("GET", "/oauth2/introspect?token="+good, nil))
	if w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	g.Sidecar.Config.Decider = fake{verifier.Decision{Outcome: verifier.Unavailable, Reason: verifier.Loading}}
	if status, answer := post("token=x", form); status != 503 || answer["error"] != "temporarily_unavailable" {
		t.Errorf("%d %v", status, answer)
	}
}

// TestFormsHoldNoToken: an upstream must not find another token than the one that was
// decided on.
func TestFormsHoldNoToken(t *testing.T) {
	for body, whole := range map[string]bool{
		"": true, "a=b&c=d": true, "a=access_token": true, "access_tokens=x": true, strings.Repeat("x", 9000) + "=1": true, "%zz=1&b=2": true,
		"access_token=x": false, "a=b&access_token=x": false, "a=b&access%5ftoken=x&c=d": false, "ACCESS_TOKEN=": false, "a;access_token=x": false,
		strings.Repeat("a=b&", 9000) + "access_token=x": false, "access_token[]=x": false, "%61%63%63%65%73%73%5f%74%6f%6b%65%6e=x": false,
	} {
		for _, size := range []int{1, 7, 32 << 10} {
			f := &formBody{ReadCloser: io.NopCloser(strings.NewReader(body))}
			var passed strings.Builder
			_, err := io.CopyBuffer(struct{ io.Writer }{&passed}, struct{ io.Reader }{f}, make([]byte, size))
			if whole && (err != nil || passed.String() != body) || !whole && (err != errTwoTokens || strings.Contains(passed.String(), "=x&c")) {
				t.Errorf("%.60s by %d: %v", body, size, err)
			}
		}
	}
	g := guard(t, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && r.PostForm.Has("access_token") {
			t.Error("the upstream has two tokens")
		}
	}))
	defer upstream.Close()
	g.upstream.Host = strings.TrimPrefix(upstream.URL, "http://")
	for contentType, status := range map[string]int{"application/x-www-form-urlencoded": 400, "Application/X-WWW-Form-Urlencoded; charset=utf-8": 400, "text/plain": 200} {
		r := httptest.NewRequest("POST", "/orders", strings.NewReader("a=b&access_token=x"))
		r.Header.Set("Authorization", "Bearer "+tokenWith(nil))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		g.Handler(ProxyListener).ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s: %d %s", contentType, w.Code, w.Body)
		}
	}
	g.Close()
}
