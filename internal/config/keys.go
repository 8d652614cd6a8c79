package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// fields returns a struct's fields by key. A field tagged ",inline" gives its own.
func fields(v reflect.Value) map[string]reflect.Value {
	m := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			for k, f := range fields(v.Field(i)) {
				m[k] = f
			}
		case name != "":
			m[name] = v.Field(i)
		}
	}
	return m
}

// leaf is a key with its place in the struct.
type leaf struct {
	path  string
	value reflect.Value
}

// leaves lists every key of a struct, a nested struct before its own keys.
func leaves(prefix string, v reflect.Value) (all []leaf) {
	m := fields(v)
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path := join(prefix, name)
		all = append(all, leaf{path, m[name]})
		if m[name].Kind() == reflect.Struct {
			all = append(all, leaves(path, m[name])...)
		}
	}
	return all
}

// Keys lists the path of every key of a configuration struct, without those inside
// list elements.
func Keys(cfg any) []string {
	var paths []string
	for _, l := range leaves("", reflect.Indirect(reflect.ValueOf(cfg))) {
		paths = append(paths, l.path)
	}
	return paths
}

func lookup(root reflect.Value, path string) (reflect.Value, bool) {
	for _, l := range leaves("", root) {
		if l.path == path {
			return l.value, true
		}
	}
	return reflect.Value{}, false
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

// unknownKey names a key that is not there, and the one that may have been meant:
// a sibling spelled nearly so, or a nested key of the same name.
func unknownKey(path, parent string, v reflect.Value) string {
	name := path[strings.LastIndexByte(path, '.')+1:]
	best, least := "", len(name)/3+2
	for _, l := range leaves(parent, v) {
		last := l.path[strings.LastIndexByte(l.path, '.')+1:]
		d := distance(name, last)
		if join(parent, last) != l.path && d > 0 {
			continue
		}
		if d < least {
			best, least = l.path, d
		}
	}
	if best == "" {
		return fmt.Sprintf("unknown key %s", quote(path))
	}
	return fmt.Sprintf("unknown key %s (did you mean %q?)", quote(path), best)
}

// distance is the number of edits (insert, delete, replace) between two names.
func distance(a, b string) int {
	if len(a) > 64 { // no key is that long, and the table below is quadratic
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// quote shows a value in an error, on one line and cut short.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
