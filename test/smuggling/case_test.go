package smuggling

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testCase is a file of testdata.
type testCase struct {
	name, why, to  string
	request        string // over HTTP/1
	h2             []field
	data           string
	trailers       []field
	statuses       []string
	answered       []string // headers of the first answer
	upstream       []reached
	hasData, isTwo bool
	passesOn       bool // a revoked token, where it is none
}

// reached is a request that the API is to get.
type reached struct {
	line    string // method and target
	cut     bool
	headers []string
}

type field struct{ name, value string }

var mark = regexp.MustCompile(`^-- (\w+) --\n$`)

// parseCase reads a case; its errors say what is wrong with the file.
func parseCase(text string, expand func(string) (string, error)) (c testCase, err error) {
	sections, current := map[string]string{"why": ""}, "why"
	for line := range strings.Lines(text) {
		if m := mark.FindStringSubmatch(line); m != nil {
			current = m[1]
			if _, twice := sections[current]; twice {
				return c, fmt.Errorf("section %s is there twice", current)
			}
			sections[current] = ""
			continue
		}
		sections[current] += line
	}
	for name, text := range sections {
		if name == "why" || name == "to" {
			continue
		}
		if sections[name], err = expand(text); err != nil {
			return c, err
		}
	}
	c.why, c.to = strings.TrimSpace(sections["why"]), "proxy"
	for name, text := range sections {
		switch name {
		case "why":
		case "to":
			c.to = strings.TrimSpace(text)
		case "request":
			c.request, err = unescape(text)
		case "h2":
			c.isTwo = true
			c.h2, err = fields(text)
		case "data":
			c.hasData = true
			c.data, err = unescape(text)
		case "trailers":
			c.trailers, err = fields(text)
		case "answers":
			lines := strings.Split(strings.TrimSpace(text), "\n")
			c.statuses, c.answered = strings.Fields(lines[0]), lines[1:]
		case "upstream":
			c.upstream = expected(text)
		default:
			err = fmt.Errorf("section %s is not known", name)
		}
		if err != nil {
			return c, err
		}
	}
	switch {
	case c.why == "":
		return c, fmt.Errorf("it doesn't say why it is one")
	case (c.request == "") == (len(c.h2) == 0):
		return c, fmt.Errorf("it needs one of request and h2")
	case len(c.statuses) == 0:
		return c, fmt.Errorf("it doesn't say how it is answered")
	case !c.isTwo && (c.hasData || c.trailers != nil):
		return c, fmt.Errorf("data and trailers are of h2")
	}
	for _, r := range c.upstream {
		c.passesOn = c.passesOn || tokenLike.MatchString(r.line)
	}
	head, body, _ := strings.Cut(c.request, "\r\n\r\n")
	c.request = strings.Replace(c.request, "{{length}}", strconv.Itoa(len(body)), strings.Count(head, "{{length}}"))
	return c, nil
}

var (
	requestLine = regexp.MustCompile(`^[A-Za-z]+ /`)
	tokenLike   = regexp.MustCompile(`eyJ`) // a case that expects one in a target
)

func expected(text string) (all []reached) {
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if requestLine.MatchString(line) {
			line, cut := strings.CutSuffix(line, " (cut)")
			all = append(all, reached{line: line, cut: cut})
		} else if n := len(all); n > 0 {
			all[n-1].headers = append(all[n-1].headers, line)
		}
	}
	return all
}

func fields(text string) (list []field, err error) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			return nil, fmt.Errorf("%q is no field", line)
		}
		if value, err = unescape(value); err != nil {
			return nil, err
		}
		list = append(list, field{name, value})
	}
	return list, nil
}

var escape = regexp.MustCompile(`\\(x[0-9a-f]{2}|.)?`)

// unescape turns what is written in a file into what goes over the wire.
func unescape(text string) (s string, err error) {
	s = escape.ReplaceAllStringFunc(strings.ReplaceAll(text, "\n", ""), func(e string) string {
		switch e {
		case `\r`:
			return "\r"
		case `\n`:
			return "\n"
		case `\t`:
			return "\t"
		case `\\`:
			return `\`
		}
		if len(e) == 4 {
			b, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(b)})
		}
		err = fmt.Errorf("%q is no escape", e)
		return ""
	})
	return s, err
}

func loadCases(t *testing.T, expand func(string) (string, error)) (all []testCase) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseCase(string(text), expand)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		c.name = strings.TrimSuffix(filepath.Base(file), ".txt")
		all = append(all, c)
	}
	return all
}

// A file that says something else than its author meant must not pass for a case.
func TestCaseFilesAreReadStrictly(t *testing.T) {
	const request, answers = "-- request --\nGET / HTTP/1.1\\r\\n\\r\\n\n", "-- answers --\n200\n"
	as := func(s string) (string, error) { return s, nil }
	if _, err := parseCase("why\n"+request+answers, as); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no reason":                 request + answers,
		"no request":                "why\n" + answers,
		"two kinds of request":      "why\n" + request + "-- h2 --\n:method: GET\n" + answers,
		"no answer":                 "why\n" + request,
		"an escape that is none":    "why\n-- request --\n\\q\n" + answers,
		"data without h2":           "why\n" + request + "-- data --\nx\n" + answers,
		"answers twice":             "why\n" + request + answers + answers,
		"a section with a misprint": "why\n" + request + answers + "-- upstrem --\nGET /\n",
	} {
		if _, err := parseCase(text, as); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
