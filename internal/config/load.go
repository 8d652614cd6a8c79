package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"
)

// maxText bounds a configuration file, and a file that an environment variable
// names.
const maxText = 1 << 20

// Error is a configuration that can't be used, as one line.
type Error struct {
	Key    string // path of the key, variable, flag or file; "" where Reason names it
	Reason string
}

func (e *Error) Error() string {
	if e.Key == "" {
		return "config: " + e.Reason
	}
	return "config: " + e.Key + ": " + e.Reason
}

// Errorf makes an Error. The reason must be one line and hold no secret.
func Errorf(key, format string, args ...any) error {
	return &Error{key, fmt.Sprintf(format, args...)}
}

// Flag is a command-line flag that was given.
type Flag struct {
	Name string // as on the command line: "--listen"
	Key  string // path of the key it sets
	Text string
}

// Source says where a configuration comes from. Later fields win.
type Source struct {
	File   string   // path of a YAML file, given as --config; "" for none
	Prefix string   // of the environment variables, without the underscore
	Env    []string // as os.Environ returns it
	Flags  []Flag
}

// Files are those that a Source reads for a struct: the file itself, and those that
// variables name in place of a key's value. Those that are the value of a key are not.
func (s Source) Files(dst any) (names []string) {
	known := map[string]bool{}
	for _, key := range Keys(dst) {
		known[EnvName(s.Prefix, key)] = true
	}
	if s.File != "" {
		names = append(names, s.File)
	}
	for _, e := range s.Env {
		name, file, _ := strings.Cut(e, "=")
		if key, ok := strings.CutSuffix(name, "_FILE"); ok && known[key] && !known[name] && file != "" {
			names = append(names, file)
		}
	}
	return names
}

// Defaulter is an element of a list that has defaults of its own.
type Defaulter interface{ Default() }

// Load reads src over the defaults in *dst, a struct with yaml tags. It returns an
// [*Error] for the first thing that is wrong, and the names of the variables of
// the prefix that name no key, without those that Kubernetes injects, so that a
// misspelling can be logged.
func Load(dst any, src Source) (ignored []string, err error) {
	root := reflect.ValueOf(dst).Elem()
	if src.File != "" {
		text, err := readFile(src.File)
		if err != nil {
			return nil, Errorf("--config", "%s: %s", src.File, err.(*Error).Reason)
		}
		if err := decodeText(src.File, "", text, root); err != nil {
			return nil, err
		}
	}
	if ignored, err = overlayEnv(root, src.Prefix, src.Env); err != nil {
		return nil, err
	}
	for _, f := range src.Flags {
		v, ok := lookup(root, f.Key)
		if !ok {
			panic("config: flag " + f.Name + " sets no key")
		}
		if err := setText(f.Name, f.Text, v); err != nil {
			return nil, err
		}
	}
	return ignored, nil
}

// readFile reads a file of at most maxText bytes.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, Errorf(name, "%s", pathReason(err))
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, Errorf(name, "%s", pathReason(err))
	}
	if len(text) > maxText {
		return nil, Errorf(name, "larger than %d bytes", maxText)
	}
	return text, nil
}

// pathReason is an error's cause without the file name that the line names anyway.
func pathReason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return oneLine(err.Error())
}

// oneLine makes an error of someone else fit for an Error.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
