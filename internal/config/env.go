package config

import (
	"reflect"
	"regexp"
	"strings"
)

// injected matches what Kubernetes sets for a Service, after the Service's name.
var injected = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// EnvName is the environment variable of a key.
func EnvName(prefix, path string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// overlayEnv sets the keys that the environment names, a struct before its keys,
// and returns the variables of the prefix that name none.
func overlayEnv(root reflect.Value, prefix string, env []string) (ignored []string, err error) {
	vars := map[string]string{}
	for _, e := range env {
		name, text, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, prefix+"_") && text != "" {
			vars[name] = text
		}
	}
	known := map[string]bool{}
	all := leaves("", root)
	for _, l := range all {
		known[EnvName(prefix, l.path)] = true
	}
	for _, l := range all {
		name := EnvName(prefix, l.path)
		text, ok := vars[name]
		if fileVar := name + "_FILE"; !known[fileVar] {
			known[fileVar] = true
			if file := vars[fileVar]; file != "" {
				if ok {
					return nil, Errorf(fileVar, "%s is set as well", name)
				}
				b, err := readFile(file)
				if err != nil {
					return nil, Errorf(fileVar, "%s: %s", file, err.(*Error).Reason)
				}
				text, ok = strings.TrimRight(string(b), "\r\n"), true
			}
		}
		if !ok {
			continue
		}
		if err := setText(name, text, l.value); err != nil {
			return nil, err
		}
	}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, prefix+"_") && !known[name] && !injected.MatchString(name) {
			ignored = append(ignored, name)
		}
	}
	return ignored, nil
}
