package authority

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// dialect is one spelling of "revoke this token": what a request looks like, and
// what its clients take for an answer.
type dialect struct {
	name string
	// revoke and introspect are paths, in the patterns of net/http without a method.
	revoke, introspect []string
	token              string   // the parameter that holds the token
	hints              []string // parameters that say what kind it is: the first with a value counts
	user               bool     // the token stands for its user
	asksBefore         bool     // its answer tells whether the token was revoked before
	// headers and parameters are all that caller reads, and all that a provider gets of
	// what the request says about its client.
	headers, parameters []string
	// caller reads who calls, or says why it can't.
	caller func(*http.Request, form) (c caller, why string)
	// answer writes the outcome of a revocation.
	answer func(http.ResponseWriter, outcome)
}

// dialects is all there are: a new one is a file and a row.
var dialects = []dialect{rfc7009, edgetag, asgardeo, genauth, voucherify}

// Endpoints are the paths of RFC 7009 and RFC 7662, for which clients sign assertions.
func Endpoints() []string { return slices.Concat(rfc7009.revoke, rfc7009.introspect) }

// Mount serves a dialect at one more place.
type Mount struct {
	// Dialect is its name.
	Dialect string
	// Host, where set, is the only one at which it answers there, without a port.
	Host string
	// Prefix is put before its paths.
	Prefix string
}

// spoken is a dialect with the places where it is served.
type spoken struct {
	dialect
	host, prefix string
}

func (s spoken) at(path string) string { return s.host + s.prefix + path }

func findDialect(name string) (dialect, error) {
	at := slices.IndexFunc(dialects, func(d dialect) bool { return d.name == name })
	if at < 0 {
		known := make([]string, len(dialects))
		for j, d := range dialects {
			known[j] = d.name
		}
		return dialect{}, fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
	}
	return dialects[at], nil
}

func chooseDialects(names []string, mounts []Mount) (chosen []spoken, err error) {
	for i, name := range names {
		d, err := findDialect(name)
		if err == nil && slices.Contains(names[:i], name) {
			err = fmt.Errorf("%q is there twice", name)
		}
		if err != nil {
			return nil, fmt.Errorf("dialects[%d]: %w", i, err)
		}
		chosen = append(chosen, spoken{dialect: d})
	}
	if len(names) == 0 {
		for _, d := range dialects {
			chosen = append(chosen, spoken{dialect: d})
		}
	}
	for i, m := range mounts {
		d, err := findDialect(m.Dialect)
		switch {
		case err != nil:
			return nil, fmt.Errorf("mounts[%d].dialect: %w", i, err)
		case m.Prefix == "" && m.Host == "":
			return nil, fmt.Errorf("mounts[%d] needs a prefix or a host: a dialect's own paths are served anyway", i)
		case m.Prefix != "" && (m.Prefix[0] != '/' || m.Prefix == "/" || path.Clean(m.Prefix) != m.Prefix || strings.ContainsAny(m.Prefix, "{}?#% ")):
			return nil, fmt.Errorf("mounts[%d].prefix must be a plain path such as /idp, without a slash at its end", i)
		case strings.ContainsAny(m.Host, "/:{}?#% "):
			return nil, fmt.Errorf("mounts[%d].host must be a name such as idp.example, without scheme and port", i)
		}
		next := spoken{d, strings.ToLower(m.Host), m.Prefix}
		if slices.ContainsFunc(chosen, func(s spoken) bool { return s.name == next.name && s.at("") == next.at("") }) {
			return nil, fmt.Errorf("mounts[%d] is there twice", i)
		}
		chosen = append(chosen, next)
	}
	return chosen, nil
}

// read turns a request into a command. Where it can't, ok is false and the outcome
// says why. It judges neither client nor token.
func (d dialect) read(w http.ResponseWriter, r *http.Request) (c command, o outcome, ok bool) {
	f, o, ok := readForm(w, r, slices.Concat([]string{d.token}, d.hints, credentialParameters)...)
	if !ok {
		return command{}, o, false
	}
	if c.token = f.Get(d.token); c.token == "" {
		return command{}, refuse(badRequest, d.token+" is missing"), false
	}
	for _, name := range d.hints {
		if c.hint == "" {
			c.hint = f.Get(name)
		}
	}
	var why string
	if c.caller, why = d.caller(r, f); why != "" {
		return command{}, refuse(badRequest, why), false
	}
	c.user, c.asksBefore = d.user, d.asksBefore
	c.forward = d.forward(r, f)
	return c, outcome{}, true
}

// forward is the request as a provider is to have it: what was read of it, and nothing
// that was passed over. Otherwise the provider could go by other credentials than those
// that decide here whose token it may be.
func (d dialect) forward(r *http.Request, f form) forwarded {
	out := forwarded{body: url.Values{}, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	for _, name := range slices.Concat([]string{d.token}, d.hints, d.parameters) {
		if value := f.Get(name); value != "" {
			out.body.Set(name, value)
		}
	}
	for _, name := range append(d.headers, "Accept") {
		for _, value := range r.Header.Values(name) {
			scheme, _, _ := strings.Cut(value, " ")
			if name == "Authorization" && !strings.EqualFold(scheme, "Basic") || slices.Contains(out.header.Values(name), value) {
				continue
			}
			out.header.Add(name, value)
		}
	}
	return out
}

func (a *Authority) serveRevoke(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer a.timed(d.name)()
		c, o, ok := d.read(w, r)
		if ok {
			o = a.revoke(r.Context(), c, a.now())
		}
		a.record(r.Context(), d.name, o)
		if o.relayed != nil {
			o.relayed.write(w)
			return
		}
		d.answer(w, o)
	}
}

// answerJSON answers a success with a JSON body, though RFC 7009 asks for none:
// there are clients that parse what they get.
func answerJSON(v any) func(http.ResponseWriter, outcome) {
	return func(w http.ResponseWriter, o outcome) {
		if o.kind.done() {
			writeJSON(w, http.StatusOK, v)
			return
		}
		writeRefusal(w, o)
	}
}
