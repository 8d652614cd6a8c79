package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

var durationType = reflect.TypeFor[time.Duration]()

// decodeText reads YAML into v. source names the file or variable in errors of
// syntax, key the path in all others.
func decodeText(source, key string, text []byte, v reflect.Value) error {
	// Doubled keys are found by decodeStruct, which knows their path.
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if ye, ok := errors.AsType[yaml.Error](err); ok && ye.GetToken() != nil {
			p := ye.GetToken().Position
			return Errorf(source, "line %d, column %d: %s", p.Line, p.Column, oneLine(ye.GetMessage()))
		}
		return Errorf(source, "%s", oneLine(err.Error()))
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return Errorf(source, "more than one YAML document")
		}
		body = doc.Body
	}
	return decode(key, body, v)
}

// decode reads a node into v. A null leaves v as it is: the key is there, its
// value isn't.
func decode(key string, n ast.Node, v reflect.Value) error {
	if n == nil || n.Type() == ast.NullType {
		return nil
	}
	if lit, ok := n.(*ast.LiteralNode); ok {
		n = lit.Value
	}
	switch {
	case v.Type() == durationType:
		return decodeDuration(key, n, v)
	case v.Kind() == reflect.Struct:
		return decodeStruct(key, n, v)
	case v.Kind() == reflect.Slice:
		return decodeList(key, n, v)
	}
	switch n := n.(type) {
	case *ast.StringNode:
		if v.Kind() == reflect.String {
			v.SetString(n.Value)
			return nil
		}
	case *ast.BoolNode:
		if v.Kind() == reflect.Bool {
			v.SetBool(n.Value)
			return nil
		}
	case *ast.IntegerNode:
		if v.CanInt() {
			return setInt(key, n.GetToken().Value, v)
		}
		if v.Kind() == reflect.String {
			return Errorf(key, "must be text, not a number: put it in quotes")
		}
	}
	return mismatch(key, n, v)
}

func decodeDuration(key string, n ast.Node, v reflect.Value) error {
	s, ok := n.(*ast.StringNode)
	if !ok {
		return mismatch(key, n, v)
	}
	return setDuration(key, s.Value, v)
}

func decodeStruct(key string, n ast.Node, v reflect.Value) error {
	pairs, ok := mapping(n)
	if !ok {
		return mismatch(key, n, v)
	}
	known := fields(v)
	seen := map[string]bool{}
	for _, pair := range pairs {
		name, ok := keyName(pair.Key)
		if !ok {
			return Errorf(key, "line %d: a key must be plain text", pair.GetToken().Position.Line)
		}
		path := join(key, name)
		field, ok := known[name]
		if !ok {
			return &Error{"", unknownKey(path, key, v)}
		}
		if seen[name] {
			return &Error{"", fmt.Sprintf("key %q is there twice", path)}
		}
		seen[name] = true
		if err := decode(path, pair.Value, field); err != nil {
			return err
		}
	}
	return nil
}

func decodeList(key string, n ast.Node, v reflect.Value) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return mismatch(key, n, v)
	}
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		path := fmt.Sprintf("%s[%d]", key, i)
		if item == nil || item.Type() == ast.NullType {
			return Errorf(path, "empty")
		}
		if d, ok := list.Index(i).Addr().Interface().(Defaulter); ok {
			d.Default()
		}
		if err := decode(path, item, list.Index(i)); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

// setText reads the text of a flag or variable into v: plain text for a single
// value, YAML for a list or struct.
func setText(source, text string, v reflect.Value) error {
	switch {
	case v.Type() == durationType:
		return setDuration(source, text, v)
	case v.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case v.CanInt():
		return setInt(source, text, v)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return Errorf(source, "must be true or false, not %s", quote(text))
		}
		v.SetBool(b)
		return nil
	}
	return decodeText(source, source, []byte(text), v)
}

func setInt(key, text string, v reflect.Value) error {
	i, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		return Errorf(key, "must be a whole number, not %s", quote(text))
	}
	v.SetInt(i)
	return nil
}

func setDuration(key, text string, v reflect.Value) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return Errorf(key, "must be a duration such as 90s, 5m or 24h, not %s", quote(text))
	}
	v.SetInt(int64(d))
	return nil
}

// mismatch says what was wanted and what was found.
func mismatch(key string, n ast.Node, v reflect.Value) error {
	want := map[reflect.Kind]string{
		reflect.Struct: "a mapping of keys", reflect.Slice: "a list", reflect.String: "text", reflect.Bool: "true or false",
	}[v.Kind()]
	switch {
	case v.Type() == durationType:
		want = "a duration such as 90s, 5m or 24h"
	case v.CanInt():
		want = "a whole number"
	}
	if key == "" {
		key = "the whole"
	}
	return Errorf(key, "must be %s, not %s", want, kindOf(n))
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.StringNode:
		return "text"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a fraction"
	case *ast.BoolNode:
		return "true or false"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	}
	// An alias can make a small file a huge one, and a tag can change a value's kind.
	return "an anchor, an alias or a tag"
}

func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func keyName(n ast.MapKeyNode) (string, bool) {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value, true
	}
	return "", false
}
