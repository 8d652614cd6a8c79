package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The checks below return an [*Error] that names key, or nil. They are for values
// that a file, the environment or a caller in Go gave.

// Check returns the first error.
func Check(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Required asks for a value.
func Required(key, value string) error {
	if value == "" {
		return Errorf(key, "is required")
	}
	return nil
}

// HTTPURL asks for an absolute http or https URL without credentials, query and
// fragment.
func HTTPURL(key, value string) error {
	if err := Endpoint(key, value); err != nil {
		return err
	}
	if strings.Contains(value, "?") {
		return Errorf(key, "a URL here has no query and no fragment: %s", quote(value))
	}
	return nil
}

// Endpoint is HTTPURL for what somebody else serves, and may have a query (RFC 6749
// section 3).
func Endpoint(key, value string) error {
	if err := Required(key, value); err != nil {
		return err
	}
	u, err := url.Parse(value)
	switch {
	case err != nil && HasUser(value) || err == nil && u.User != nil:
		// Credentials in a URL end up in logs, and in this very line if it quoted them.
		return Errorf(key, "a URL here must not hold credentials")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return Errorf(key, "not an http(s) URL: %s", quote(value))
	case u.Fragment != "":
		return Errorf(key, "a URL here has no fragment: %s", quote(value))
	}
	return nil
}

// NATSURL asks for one or more NATS URLs, separated by commas. They may hold user
// and password, so none is quoted.
func NATSURL(key, value string) error {
	if err := Required(key, value); err != nil {
		return err
	}
	for one := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(one)
		if err != nil || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "" {
			return Errorf(key, "not a URL such as nats://host:4222, or several with commas between")
		}
	}
	return nil
}

// HasUser reports whether one of several URLs holds credentials.
func HasUser(value string) bool { return strings.Contains(value, "@") }

// Users are the users that several URLs, checked by NATSURL, name.
func Users(value string) (names []string) {
	for one := range strings.SplitSeq(value, ",") {
		if u, err := url.Parse(one); err == nil && u.User != nil {
			names = append(names, u.User.Username())
		}
	}
	return names
}

// Address asks for host:port to listen on. Port 0 lets the system choose.
func Address(key, value string) error {
	if err := Required(key, value); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return Errorf(key, "not host:port, such as 127.0.0.1:8700: %s", quote(value))
	}
	return nil
}

// OneOf asks for one of a few words.
func OneOf(key, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return Errorf(key, "must be one of %s, not %s", strings.Join(words, ", "), quote(value))
	}
	return nil
}

// Each checks every element of a list, and that none is there twice.
func Each(key string, values []string, check func(key, value string) error) error {
	for i, v := range values {
		at := fmt.Sprintf("%s[%d]", key, i)
		if err := check(at, v); err != nil {
			return err
		}
		if slices.Contains(values[:i], v) {
			return Errorf(at, "%s is there twice", quote(v))
		}
	}
	return nil
}

// Between asks for a duration from least to most.
func Between(key string, d, least, most time.Duration) error {
	if d < least || d > most {
		return Errorf(key, "must be from %s to %s, not %s", short(least), short(most), short(d))
	}
	return nil
}

// short writes 24h0m0s as 24h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
