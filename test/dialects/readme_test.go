package dialects

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// tableBegin and tableEnd enclose the compatibility table in README.
const (
	tableBegin = "<!-- compatibility -->\n"
	tableEnd   = "<!-- /compatibility -->"
)

// styles are the ways to authenticate, by the case that shows one.
var styles = []struct{ name, label string }{
	{"auth-basic", "Basic"},
	{"auth-basic-encoded", "Basic, form-encoded"},
	{"auth-body", "`client_id` and `client_secret` in the body"},
	{"auth-body-raw", "the same, not encoded"},
	{"auth-basic-and-body", "both, if they agree"},
	{"auth-assertion", "`private_key_jwt`"},
	{"auth-public", "`client_id` alone"},
	{"auth-app-headers", "`X-App-Id` and `X-App-Token`"},
}

// useless are tokens that can't be revoked, by the case that shows one.
var useless = []struct{ name, label string }{
	{"unknown-issuer", "unknown"}, {"forged", "forged"}, {"expired", "expired"}, {"foreign", "another client's"},
}

// TestREADMECompatibilityTable compares README's table with the one that the cases
// make: every cell is what a case shows, and links to it.
func TestREADMECompatibilityTable(t *testing.T) {
	want := compatibility(t)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(readme), tableBegin)
	got, _, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends || got != want {
		t.Errorf("README.md must have, between %q and %q:\n%s", tableBegin, tableEnd, want)
	}
}

// compatibility is the table, as Markdown.
func compatibility(t *testing.T) string {
	t.Helper()
	cases, exceptions := loadCases(t), loadExceptions(t)
	var b strings.Builder
	b.WriteString("| System | Endpoint | Client authentication | Success | Token that can't be used, or is another client's | Again | Introspection | Documented opaque token |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, d := range dialects {
		own := cases[d.name]
		link := func(text, name string) string {
			if _, there := own[name]; !there {
				t.Fatalf("%s has no case %s for the table", d.name, name)
			}
			return fmt.Sprintf("[%s](test/dialects/testdata/%s/%s.txt)", text, d.name, name)
		}
		endpoint := func(name string) string {
			paths := own[name].endpoints(d)
			return "`POST " + strings.Join(paths, "`, `POST ") + "`"
		}
		var ways, ends []string
		for _, s := range styles {
			if c, there := own[s.name]; there && strings.HasPrefix(c.answer(0), "20") {
				ways = append(ways, link(s.label, s.name))
			}
		}
		for _, u := range useless {
			ends = append(ends, link(u.label, u.name)+" "+own[u.name].answer(0))
		}
		introspection := ""
		if c, there := own["introspect-revoked"]; there {
			introspection = fmt.Sprintf("%s %s, %s %s", endpoint("introspect-active"),
				link(own["introspect-active"].answer(0), "introspect-active"), link("once revoked", c.name), c.answer(2))
		} else {
			for _, e := range exceptions {
				if e.covers(t, d.name, "introspect-revoked") {
					introspection = e.why
				}
			}
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join([]string{
			d.system, endpoint("success"), strings.Join(ways, "; "), link(own["success"].answer(0), "success"), strings.Join(ends, "; "),
			link(own["repeat"].answer(1), "repeat"), introspection,
			link("configured", "opaque-on") + " " + own["opaque-on"].answer(0) + "; " + link("not", "opaque-off") + " " + own["opaque-off"].answer(0),
		}, " | "))
	}
	return b.String()
}

// endpoints are the paths of the case's first request, with {org} for what may be any.
func (c testCase) endpoints(d dialect) []string {
	path := strings.Fields(c.exchanges[0].request)[1]
	paths := []string{strings.Replace(path, "/t/acme/", "/t/{org}/", 1)}
	for _, r := range d.also {
		paths = append(paths, strings.Replace(path, r.old, r.other, 1))
	}
	return paths
}

// answer sums up the answer to one of a case's requests: its status, and what is
// telling of the body.
func (c testCase) answer(n int) string {
	head, body, _ := strings.Cut(c.exchanges[n].response, "\n\n")
	status := strings.Fields(head)[1]
	var said struct {
		Error  string
		Active bool
	}
	// Placeholders are no JSON, so that of an active token is not read.
	switch err := json.Unmarshal([]byte(body), &said); {
	case body == "":
		return status
	case strings.HasPrefix(body, `{"active":true`):
		return status + " `{\"active\":true, …}`"
	case err == nil && said.Error != "":
		return status + " `" + said.Error + "`"
	}
	return status + " `" + strings.TrimSpace(body) + "`"
}
