//go:build interop

package interop

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/revcast/revcast/test/harness"
)

// snippet is a piece of code on a vendor's page in vendor-docs, and how it runs here.
type snippet struct {
	page  string
	after string // it is the first fenced block after this text
	run   func(t *testing.T, as harness.Client, code string) string
	as    harness.Client // who revokes

	// What stands in the code, and what replaces it, in which $url is the authority's,
	// $id, $secret and $basic are the client's, and $token is what to revoke. samples are
	// the page's placeholders, ids and tokens, and stay in a run of the page's own.
	address, samples []string
	// above and below, put around the code, are what the page leaves to its reader.
	above, below string

	prints string // what it prints where it takes the answer for success: an expression

	// example is the client of samples that can be run as they are.
	example harness.Client
}

var (
	asgardeo = []string{"https://api.asgardeo.io", "$url"}
	edgetag  = []string{"http://api-sandbox.edgetag.io", "$url"}

	asgardeoExample = harness.Client{ID: "Wsoq8t4nHW80gSnPfyDvRbiC__Ea"}
	edgetagExample  = harness.Client{ID: "d0272c42-7ecc-4899-a1a7-0801a8a9da2f", Secret: "d0272c42-7ecc-4899-a1a7-0801a8a9da2f"}
	genauthExample  = harness.Client{ID: "GEN_AUTH_APP_ID", Secret: "GEN_AUTH_APP_SECRET"}
)

const (
	edgetagToken = "aYsxMIy3XguB9YORh2GzAL8E60MsVvXbG8IHxNFooSo"
	appOrigin    = "https://app.example" // of a page that runs jQuery
)

// snippets are all fenced blocks of the pages that are code.
var snippets = []snippet{
	{
		page: "asgardeo", after: `title="cURL"`, run: curl, as: spa, prints: ` 200$`, address: asgardeo,
		samples: []string{"{token}", "$token", "{token_type}", "access_token", "{client_id}", "$id"},
	},
	{
		page: "asgardeo", after: `title="JavaScript - jQuery"`, run: browser(appOrigin), as: spa, prints: `^\{.*\}\n$`, address: asgardeo,
		samples: []string{"<organization_name>", "bifrost", "{token}", "$token", "{token_type}", "access_token", "{client_id}", "$id"},
	},
	{
		page: "asgardeo", after: `title="Nodejs - Axios"`, run: commonJS, as: spa, prints: `^\{.*\}\n$`, address: asgardeo,
		samples: []string{"<orgaization_name>", "bifrost", "{token}", "$token", "{token_type}", "access_token", "{client_id}", "$id"},
	},
	{
		page: "asgardeo", after: "**Sample request:**", run: curl, as: spa, prints: ` 200$`, address: asgardeo,
		samples: []string{"292896cf-5525-3551-b9e2-1787f1114924", "$token", asgardeoExample.ID, "$id"},
		example: asgardeoExample,
	},
	{
		page: "edgetag", after: `title="JavaScript"`, run: module, as: web, prints: `^200\n$`, address: edgetag,
		samples: []string{edgetagToken, "$token"},
		above:   "const clientId = '$id', clientSecret = '$secret'\n", below: "console.log(response.status)",
		example: edgetagExample,
	},
	{
		page: "edgetag", after: `title="CURL"`, run: curl, as: web, prints: ` 200$`, address: edgetag,
		samples: []string{edgetagToken, "$token", basic(edgetagExample), "$basic"},
		example: edgetagExample,
	},
	{
		page: "genauth", after: "## Sample code", run: module, as: web, prints: `^true\n$`,
		// The SDK has its former name here: see vendor-docs/README.md.
		address: []string{`"@genauth/nodejs"`, `"authing-node-sdk"`, "GEN_AUTH_APP_HOST", "$url"},
		samples: []string{"GEN_AUTH_APP_ID", "$id", "GEN_AUTH_APP_SECRET", "$secret", "REPLACE_ME_WITH_REAL_CODE", "$token"},
		example: genauthExample,
	},
	{
		page: "voucherify", after: "## OpenAPI", run: openAPI, as: web, prints: `^204 ""$`,
		address: []string{"https://{cluster}.voucherify.io", "$url"},
		samples: []string{"1ABCde2FGHijKl3m4NO5pqR6STUv7wxYzAbc8dE90FgH1IJkLm", "$token"},
		example: web, // the page gives none
	},
}

// find returns the snippet of a page after a text.
func find(page, after string) snippet {
	return snippets[slices.IndexFunc(snippets, func(snip snippet) bool { return snip.page == page && snip.after == after })]
}

func TestVendorsSnippetsRevoke(t *testing.T) {
	s := startSite(t, []harness.Client{web, spa}, allowOrigin)
	for _, snip := range snippets {
		t.Run(snip.page+" "+snip.after, func(t *testing.T) {
			// EdgeTag ends all that a user has, so each snippet has a user of its own.
			token, other := s.token(snip.as.ID, t.Name()), s.token(snip.as.ID, "bob")
			s.passes(t, "before", token)
			snip.succeeds(t, s, token)
			s.ends(t, token)
			s.passes(t, "another user's token", other)
		})
	}

	// No fenced block is passed over, but GenAuth's sample of a result.
	blocks := map[string]int{"genauth": 1}
	for _, snip := range snippets {
		blocks[snip.page]++
	}
	for page, known := range blocks {
		if got := len(fenced(readPage(t, page))); got != known {
			t.Errorf("%s has %d fenced blocks, of which the tests know %d", page, got, known)
		}
	}
}

// TestVendorsSamplesVerbatim: client and token as the pages print them. With opaque
// tokens configured, what they say comes true.
func TestVendorsSamplesVerbatim(t *testing.T) {
	s := startSite(t, []harness.Client{web, asgardeoExample, edgetagExample, genauthExample}, func(config map[string]any) {
		config["opaque_tokens"] = map[string]any{"issuer": part(config, "issuers", 0)["issuer"], "lifetime": "1h"}
	})
	for _, snip := range snippets {
		if snip.example.ID == "" {
			continue
		}
		t.Run(snip.page+" "+snip.after, func(t *testing.T) {
			snip.as, snip.samples = snip.example, nil
			snip.succeeds(t, s, "")
		})
	}
}

// TestEdgeTagEndsTheUsersAccess: "This will immediately invalidate users' access", which
// is that through the client.
func TestEdgeTagEndsTheUsersAccess(t *testing.T) {
	s := startSite(t, []harness.Client{web, spa}, nil)
	latest, earlier := s.token(web.ID, "alice"), s.token(web.ID, "alice")
	s.passes(t, "before", earlier)
	find("edgetag", `title="JavaScript"`).succeeds(t, s, latest)
	s.ends(t, latest)
	s.ends(t, earlier)
	s.passes(t, "another user's token", s.token(web.ID, "bob"))
	s.passes(t, "the user's token of another client", s.token(spa.ID, "alice"))
}

// TestVoucherifyFindsNoInactiveToken: "Returns an empty error if a token was not found
// or it was inactive."
func TestVoucherifyFindsNoInactiveToken(t *testing.T) {
	s := startSite(t, []harness.Client{web}, nil)
	snip, token := find("voucherify", "## OpenAPI"), s.token(web.ID, "alice")
	snip.succeeds(t, s, token)
	const notFound = `404 ""`
	if got := snip.output(t, s, token); got != notFound {
		t.Errorf("once more: %s", got)
	}
	if got := snip.output(t, s, "not-a-token"); got != notFound {
		t.Errorf("something else: %s", got)
	}
}

// TestGenAuthAnswersTrue: the page's sample of a result is what travels, too.
func TestGenAuthAnswersTrue(t *testing.T) {
	s := startSite(t, []harness.Client{web}, nil)
	for _, path := range []string{"/oidc/token/revocation", "/oauth/token/revocation"} {
		token := s.token(web.ID, "alice")
		if got := postForm(t, web, s.authority.URL+path, url.Values{"token": {token}}); strings.TrimSpace(got.body) != "true" {
			t.Errorf("%s: %q", path, got.body)
		}
		s.ends(t, token)
	}
}

// TestAnotherOriginHearsNothing: a page needs the leave that the client's configuration
// gives to its origin.
func TestAnotherOriginHearsNothing(t *testing.T) {
	s := startSite(t, []harness.Client{web, spa}, allowOrigin)
	snip := find("asgardeo", `title="JavaScript - jQuery"`)
	snip.run, snip.prints = browser("https://other.example"), `^$`
	snip.succeeds(t, s, s.token(spa.ID, "alice"))
}

// allowOrigin lets pages of appOrigin call as the second client.
func allowOrigin(config map[string]any) {
	part(config, "clients", 1)["allowed_origins"] = []string{appOrigin}
}

// succeeds runs a snippet, and wants it to print what it does on success.
func (snip snippet) succeeds(t *testing.T, s site, token string) {
	t.Helper()
	if got := snip.output(t, s, token); !regexp.MustCompile(snip.prints).MatchString(got) {
		t.Fatalf("%s %s prints %q, not %s", snip.page, snip.after, got, snip.prints)
	}
}

// output runs a snippet, and returns what it prints.
func (snip snippet) output(t *testing.T, s site, token string) string {
	t.Helper()
	code := snip.code(t)
	here := strings.NewReplacer(
		"$url", s.authority.URL, "$token", token, "$id", snip.as.ID, "$secret", snip.as.Secret, "$basic", basic(snip.as))
	for pair := range slices.Chunk(slices.Concat(snip.address, snip.samples), 2) {
		if !strings.Contains(code, pair[0]) {
			t.Fatalf("%s: there is no %q in\n%s", snip.page, pair[0], code)
		}
		code = strings.ReplaceAll(code, pair[0], here.Replace(pair[1]))
	}
	return snip.run(t, snip.as, here.Replace(snip.above)+code+snip.below)
}

func (snip snippet) code(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(readPage(t, snip.page), snip.after)
	if blocks := fenced(rest); found && len(blocks) > 0 {
		return blocks[0]
	}
	t.Fatalf("%s has no fenced block after %s", snip.page, snip.after)
	return ""
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("vendor-docs", page+"-revoke.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fenced returns the fenced blocks of a page.
func fenced(page string) (blocks []string) {
	fence, block := "", ""
	for line := range strings.Lines(page) {
		switch ticks := line[:len(line)-len(strings.TrimLeft(line, "`"))]; {
		case fence == "" && len(ticks) >= 3:
			fence, block = ticks, ""
		case fence != "" && ticks == fence:
			blocks, fence = append(blocks, block), ""
		case fence != "":
			block += line
		}
	}
	return blocks
}

func basic(c harness.Client) string {
	return base64.StdEncoding.EncodeToString([]byte(c.ID + ":" + c.Secret))
}

// curl runs a shell command of curl's, and prints the answer's body and status.
func curl(t *testing.T, _ harness.Client, code string) string {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte("silent\nshow-error\nwrite-out = \" %{http_code}\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-e")
	bash.Env = append(os.Environ(), "CURL_HOME="+home)
	out, err := execute(bash, code)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// module runs an ECMAScript module, and commonJS what loads others by require.
func module(t *testing.T, _ harness.Client, code string) string {
	t.Helper()
	return string(run(t, code, "--input-type=module", "-"))
}

func commonJS(t *testing.T, _ harness.Client, code string) string {
	t.Helper()
	return string(run(t, code, "--input-type=commonjs", "-"))
}

// browser runs a script in a page of an origin, with jQuery.
func browser(origin string) func(*testing.T, harness.Client, string) string {
	return func(t *testing.T, _ harness.Client, code string) string {
		t.Helper()
		return string(run(t, code, "browser.mjs", origin))
	}
}

// openAPI carries out the one operation of an OpenAPI document, with the examples of
// the schema, and prints the answer's status and body. An answer that the document
// doesn't know fails the test.
func openAPI(t *testing.T, client harness.Client, code string) string {
	t.Helper()
	var doc struct {
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Ref string `yaml:"$ref"`
					}
				}
			} `yaml:"requestBody"`
			Responses map[string]any
			Security  []map[string][]string
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Example string }
				Required   []string
			}
			SecuritySchemes map[string]struct{ Name string } `yaml:"securitySchemes"`
		}
	}
	if err := yaml.Unmarshal([]byte(code), &doc); err != nil {
		t.Fatal(err)
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			for contentType, content := range operation.RequestBody.Content {
				schema := doc.Components.Schemas[content.Schema.Ref[strings.LastIndex(content.Schema.Ref, "/")+1:]]
				form := url.Values{}
				for _, name := range schema.Required {
					form.Set(name, schema.Properties[name].Example)
				}
				request, err := http.NewRequestWithContext(t.Context(), strings.ToUpper(method), doc.Servers[0].URL+path, strings.NewReader(form.Encode()))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Content-Type", contentType)
				for name := range operation.Security[0] {
					value := map[string]string{"X-App-Id": client.ID, "X-App-Token": client.Secret}[name]
					request.Header.Set(doc.Components.SecuritySchemes[name].Name, value)
				}
				got := do(t, request)
				if _, known := operation.Responses[fmt.Sprint(got.status)]; !known {
					t.Fatalf("%d %s: the page doesn't tell of it", got.status, got.body)
				}
				return fmt.Sprintf("%d %q", got.status, got.body)
			}
		}
	}
	t.Fatal("the page has no operation")
	return ""
}
