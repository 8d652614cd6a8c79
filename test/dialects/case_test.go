package dialects

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// testCase is a file of testdata.
type testCase struct {
	dialect, name string
	about         string
	authority     string
	exchanges     []exchange
	stored, over  []string // a line each
}

type exchange struct{ request, response string }

var sectionMark = regexp.MustCompile(`^-- (\w+) --$`)

// parseCase reads a case; its errors say what is wrong with the file.
func parseCase(text string) (c testCase, err error) {
	const about = "about"
	type section struct{ name, text string }
	all := []section{{name: about}}
	for line := range strings.Lines(text) {
		if m := sectionMark.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			all = append(all, section{name: m[1]})
			continue
		}
		all[len(all)-1].text += line
	}
	c.authority = "plain"
	seen := map[string]bool{}
	for i, s := range all {
		asked := i > 0 && all[i-1].name == "request"
		switch repeats := s.name == "request" || s.name == "response"; {
		case !repeats && seen[s.name]:
			return c, fmt.Errorf("section %s is there twice", s.name)
		case asked != (s.name == "response"):
			return c, fmt.Errorf("section %s: a response must follow each request, and nothing else", s.name)
		}
		seen[s.name] = true
		switch s.name {
		case about:
			c.about = strings.TrimSpace(s.text)
		case "authority":
			c.authority = strings.TrimSpace(s.text)
		case "request":
			c.exchanges = append(c.exchanges, exchange{request: s.text})
		case "response":
			c.exchanges[len(c.exchanges)-1].response = s.text
		case "stored":
			c.stored = strings.Split(strings.TrimSpace(s.text), "\n")
		case "over":
			c.over = strings.Fields(s.text)
		default:
			return c, fmt.Errorf("section %s is not known", s.name)
		}
	}
	switch last := all[len(all)-1].name; {
	case c.about == "":
		return c, fmt.Errorf("it doesn't say what it is about")
	case len(c.exchanges) == 0 || last == "request":
		return c, fmt.Errorf("it has no request, or no response to one")
	}
	return c, nil
}

// loadCases reads all of testdata, by dialect and name.
func loadCases(t *testing.T) map[string]map[string]testCase {
	t.Helper()
	all := map[string]map[string]testCase{}
	root := os.DirFS("testdata")
	files, err := fs.Glob(root, "*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(root, file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseCase(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		c.dialect, c.name = path.Dir(file), strings.TrimSuffix(path.Base(file), ".txt")
		if all[c.dialect] == nil {
			all[c.dialect] = map[string]testCase{}
		}
		all[c.dialect][c.name] = c
	}
	return all
}

// exception says that a dialect has no case of some name, and why.
type exception struct{ dialect, pattern, why string }

// loadExceptions reads not-applicable.txt: a dialect, a pattern of names and a reason
// a line.
func loadExceptions(t *testing.T) (list []exception) {
	t.Helper()
	f, err := os.Open("testdata/not-applicable.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := lines.Text(); line != "" && line[0] != '#' {
			fields := strings.Fields(line)
			if len(fields) < 4 {
				t.Fatalf("not-applicable.txt: %q is not a dialect, a case and a reason", line)
			}
			list = append(list, exception{fields[0], fields[1], strings.Join(fields[2:], " ")})
		}
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return list
}

func (e exception) covers(t *testing.T, dialect, name string) bool {
	t.Helper()
	matches, err := path.Match(e.pattern, name)
	if err != nil {
		t.Fatalf("not-applicable.txt: %q: %v", e.pattern, err)
	}
	return matches && dialect == e.dialect
}

// TestEveryDialectHasEveryCase compares the dialects with each other: a case that one
// has and another lacks was forgotten, or not-applicable.txt says why.
func TestEveryDialectHasEveryCase(t *testing.T) {
	cases, exceptions := loadCases(t), loadExceptions(t)
	names := map[string]bool{}
	for _, d := range dialects {
		if len(cases[d.name]) == 0 {
			t.Errorf("%s has no cases", d.name)
		}
		for name := range cases[d.name] {
			names[name] = true
		}
	}
	for name := range cases {
		if !slices.ContainsFunc(dialects, func(d dialect) bool { return d.name == name }) {
			t.Errorf("testdata/%s is not the name of a dialect", name)
		}
	}
	needed := make([]bool, len(exceptions))
	for _, d := range dialects {
		for name := range names {
			at := slices.IndexFunc(exceptions, func(e exception) bool { return e.covers(t, d.name, name) })
			_, has := cases[d.name][name]
			switch {
			case !has && at < 0:
				t.Errorf("%s has no case %s, and not-applicable.txt doesn't say why", d.name, name)
			case has && at >= 0:
				t.Errorf("%s has the case %s, though not-applicable.txt says why it hasn't", d.name, name)
			case !has:
				needed[at] = true
			}
		}
	}
	for i, e := range exceptions {
		if !needed[i] {
			t.Errorf("not-applicable.txt excuses %s from %s, which no other dialect has", e.dialect, e.pattern)
		}
	}
}

// A file that says something else than its author meant must not pass for a case.
func TestCaseFilesAreReadStrictly(t *testing.T) {
	for name, text := range map[string]string{
		"about nothing":             "-- request --\nx\n-- response --\ny\n",
		"no request":                "about\n",
		"no response":               "about\n-- request --\nx\n",
		"two requests":              "about\n-- request --\nx\n-- request --\nx\n-- response --\ny\n",
		"a response before":         "about\n-- response --\ny\n-- request --\nx\n-- response --\ny\n",
		"stored twice":              "about\n-- request --\nx\n-- response --\ny\n-- stored --\na\n-- stored --\nb\n",
		"a section with a misprint": "about\n-- request --\nx\n-- response --\ny\n-- stord --\na\n",
	} {
		if _, err := parseCase(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
