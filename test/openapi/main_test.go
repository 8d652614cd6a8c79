package openapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/revcast/revcast/test/harness"
)

func TestMain(m *testing.M) {
	// Bodies that are text to the description: their own formats are beyond it.
	for _, text := range []string{ndjson, "application/secevent+jwt"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.PlainBodyDecoder)
	}
	harness.Main(m)
}

const (
	jsonType = "application/json"
	ndjson   = "application/x-ndjson"
	form     = "application/x-www-form-urlencoded"
)

// everyAnswer are the headers that any answer may have: the description tells of
// them once, but for HTTP's own.
var (
	everyAnswer = []string{
		"Cache-Control", "X-Content-Type-Options", "Vary", "Allow", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
	}
	httpsOwn = []string{"Content-Type", "Content-Length", "Date"}
)

// contract is a description, and what has been seen of it.
type contract struct {
	doc  *openapi3.T
	seen map[string]bool // "POST /oauth2/revoke 200"
}

// fetch reads the description that an authority serves.
func fetch(t *testing.T, authority *harness.Process) *contract {
	t.Helper()
	got := send(t, call{method: http.MethodGet, url: authority.URL + "/openapi.yaml"}.request(t))
	doc, err := openapi3.NewLoader().LoadFromData(got.body)
	if err != nil {
		t.Fatal(err)
	}
	return &contract{doc, map[string]bool{}}
}

// call is a request to be made.
type call struct {
	method, url, contentType, body string
	header                         http.Header
}

func (c call) request(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	if c.contentType != "" {
		r.Header.Set("Content-Type", c.contentType)
	}
	return r
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func send(t *testing.T, r *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// check sends a request and holds it and its answer to the description. fits says
// that the description takes the request for a good one.
func (c *contract) check(t *testing.T, authority *harness.Process, q call, fits bool) answer {
	t.Helper()
	server := openapi3.Servers{{URL: authority.URL}}
	doc := *c.doc
	doc.Servers = server
	router, err := gorillamux.NewRouter(&doc)
	if err != nil {
		t.Fatal(err)
	}
	r := q.request(t)
	route, params, err := router.FindRoute(r)
	if err != nil {
		t.Fatal(err)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: hasCredentials},
	}
	switch err := openapi3filter.ValidateRequest(t.Context(), input); {
	case fits && err != nil:
		t.Errorf("the description refuses the request: %v", err)
	case !fits && err == nil:
		t.Error("the description takes the request for a good one")
	}
	got := send(t, q.request(t))
	c.seen[key(q.method, route.Path, got.status)] = true
	c.checkAnswer(t, input, got)
	return got
}

func key(method, path string, status int) string {
	return method + " " + path + " " + http.StatusText(status)
}

// checkAnswer fails where an answer has a status, a header or a member that the
// description lacks, or lacks one that it needs.
func (c *contract) checkAnswer(t *testing.T, asked *openapi3filter.RequestValidationInput, got answer) {
	t.Helper()
	err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked, Status: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%d %v %s: %v", got.status, got.header, got.body, err)
		return
	}
	described := asked.Route.Operation.Responses.Status(got.status).Value
	if described.Content == nil && (len(got.body) > 0 || got.header.Get("Content-Type") != "") {
		t.Errorf("%d: a body that is not described: %q", got.status, got.body)
	}
	for name := range got.header {
		ok := slices.ContainsFunc(slices.Collect(maps.Keys(described.Headers)), func(h string) bool { return strings.EqualFold(h, name) })
		if !ok && !slices.Contains(everyAnswer, name) && !slices.Contains(httpsOwn, name) {
			t.Errorf("%d: header %s is not described", got.status, name)
		}
	}
	checkEveryAnswer(t, got)
	if got.header.Get("Content-Type") == ndjson {
		c.checkLines(t, described.Content[ndjson].Schema, got.body)
	}
}

func checkEveryAnswer(t *testing.T, got answer) {
	t.Helper()
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d: %v", got.status, got.header)
	}
}

// checkLines holds each line to the schema that x-line names.
func (c *contract) checkLines(t *testing.T, whole *openapi3.SchemaRef, body []byte) {
	t.Helper()
	name, _ := whole.Value.Extensions["x-line"].(string)
	line := c.doc.Components.Schemas[name]
	if line == nil {
		t.Fatalf("x-line names %q, which is no schema", name)
	}
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	for _, text := range lines {
		if err := c.matches(line, text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// matches returns why a JSON text doesn't fit a schema.
func (c *contract) matches(schema *openapi3.SchemaRef, text []byte) error {
	value, err := openapi3filter.JSONBodyDecoder(bytes.NewReader(text), nil, schema, nil)
	if err != nil {
		return err
	}
	return schema.Value.VisitJSON(value)
}

// hasCredentials reports whether a request has what a security scheme asks for,
// right or wrong.
func hasCredentials(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	h := in.RequestValidationInput.Request.Header
	switch s := in.SecurityScheme; s.Type {
	case "apiKey":
		if h.Get(s.Name) != "" {
			return nil
		}
	case "http":
		scheme, _, _ := strings.Cut(h.Get("Authorization"), " ")
		if strings.EqualFold(scheme, s.Scheme) {
			return nil
		}
	}
	return errors.New("no credentials")
}

// answering waits until a process answers, ready or not.
func answering(t *testing.T, p *harness.Process) {
	t.Helper()
	for deadline := time.Now().Add(harness.ReadyTimeout); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(p.URL + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s doesn't answer: %v", p.Name, err)
		}
	}
}
