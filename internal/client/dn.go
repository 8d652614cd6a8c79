package client

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attributeTypes are the short names of RFC 4514 section 3 and those that tools write
// besides.
var attributeTypes = map[string]string{
	"CN": "2.5.4.3", "L": "2.5.4.7", "ST": "2.5.4.8", "O": "2.5.4.10", "OU": "2.5.4.11", "C": "2.5.4.6",
	"STREET": "2.5.4.9", "DC": "0.9.2342.19200300.100.1.25", "UID": "0.9.2342.19200300.100.1.1",
	"SERIALNUMBER": "2.5.4.5", "POSTALCODE": "2.5.4.17", "EMAILADDRESS": "1.2.840.113549.1.9.1",
}

// canonicalDN turns the DER of a distinguished name into a string that is the same for
// equal names: the same attributes with the same characters in the same order, where
// only those of one RDN have none. How a value is encoded doesn't count. It errs
// where a value isn't text.
func canonicalDN(der []byte) (string, error) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", errors.New("not a distinguished name")
	}
	rdns := make([]string, len(name))
	for i, set := range name {
		attributes := make([]string, len(set))
		for j, a := range set {
			value, ok := a.Value.(string)
			if !ok {
				return "", errors.New("a value isn't text")
			}
			attributes[j] = canonicalAttribute(a.Type.String(), value)
		}
		rdns[i] = canonicalRDN(attributes)
	}
	return strings.Join(rdns, ","), nil
}

func canonicalAttribute(oid, value string) string { return oid + "=" + strconv.Quote(value) }

func canonicalRDN(attributes []string) string {
	slices.Sort(attributes)
	return strings.Join(attributes, "+")
}

// parseDN reads the string form of RFC 4514, and nothing looser, into the form of
// [canonicalDN]. The string begins with the name's last RDN.
func parseDN(s string) (string, error) {
	var rdns, attributes []string
	for {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return "", errors.New("an attribute lacks its =")
		}
		oid, err := attributeType(name)
		if err != nil {
			return "", err
		}
		value, end, err := parseValue(rest)
		if err != nil {
			return "", err
		}
		attributes = append(attributes, canonicalAttribute(oid, value))
		if end < len(rest) && rest[end] == '+' {
			s = rest[end+1:]
			continue
		}
		rdns, attributes = append(rdns, canonicalRDN(attributes)), nil
		if end == len(rest) {
			slices.Reverse(rdns)
			return strings.Join(rdns, ","), nil
		}
		s = rest[end+1:]
	}
}

func attributeType(name string) (oid string, err error) {
	if oid = attributeTypes[strings.ToUpper(name)]; oid != "" {
		return oid, nil
	}
	parts := strings.Split(name, ".")
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != p || len(parts) < 2 {
			return "", fmt.Errorf("%.64q is neither an attribute known by name nor an OID", name)
		}
	}
	return name, nil
}

// parseValue reads an attribute's value and returns where it ends: at a comma, a plus
// or the end.
func parseValue(s string) (value string, end int, err error) {
	if strings.HasPrefix(s, "#") {
		return parseHexValue(s)
	}
	var b strings.Builder
	escaped := false // whether the last character was
	for ; end < len(s) && s[end] != ',' && s[end] != '+'; end++ {
		switch c := s[end]; {
		case strings.IndexByte("\"<>;\x00", c) >= 0:
			return "", 0, fmt.Errorf("%q must be escaped", c)
		case c == ' ' && end == 0:
			return "", 0, errors.New("a space in front of a value must be escaped")
		case c != '\\':
			b.WriteByte(c)
			escaped = false
			continue
		}
		escaped = true
		if end+1 < len(s) && strings.IndexByte("\"+,;<>\\ #=", s[end+1]) >= 0 {
			end++
			b.WriteByte(s[end])
			continue
		}
		if end+2 >= len(s) {
			return "", 0, errors.New("a backslash escapes nothing")
		}
		pair, err := hex.DecodeString(s[end+1 : end+3])
		if err != nil {
			return "", 0, errors.New("a backslash must be followed by a special character or two hexadecimal digits")
		}
		b.Write(pair)
		end += 2
	}
	value = b.String()
	switch {
	case value == "":
		return "", 0, errors.New("a value is empty")
	case strings.HasSuffix(value, " ") && !escaped:
		return "", 0, errors.New("a space behind a value must be escaped")
	case !utf8.ValidString(value):
		return "", 0, errors.New("a value is not UTF-8")
	}
	return value, end, nil
}

// parseHexValue reads the DER of a value, in which RFC 4514 has those of attributes that
// are not known by name.
func parseHexValue(s string) (value string, end int, err error) {
	if end = strings.IndexAny(s, ",+"); end < 0 {
		end = len(s)
	}
	der, err := hex.DecodeString(s[1:end])
	if err != nil {
		return "", 0, errors.New("a value after # is not hexadecimal")
	}
	var decoded any
	rest, err := asn1.Unmarshal(der, &decoded)
	value, ok := decoded.(string)
	if err != nil || len(rest) > 0 || !ok || value == "" {
		return "", 0, errors.New("a value after # is not the DER of text")
	}
	return value, end, nil
}
