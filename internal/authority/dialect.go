package authority

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// dialect is one spelling of "revoke this token": what a request looks like, and
// what its clients take for an answer.
type dialect struct {
	name  string
	paths []string // in the patterns of net/http, without a method
	// read turns a request into a command. Where it can't, ok is false and the
	// outcome says why. It judges neither client nor token.
	read func(http.ResponseWriter, *http.Request) (c command, o outcome, ok bool)
	// answer writes the outcome.
	answer func(http.ResponseWriter, outcome)
}

// dialects is all there are: a new one is a file and a row.
var dialects = []dialect{
	rfc7009,
}

func chooseDialects(names []string) ([]dialect, error) {
	if len(names) == 0 {
		return dialects, nil
	}
	var chosen []dialect
	for i, name := range names {
		at := slices.IndexFunc(dialects, func(d dialect) bool { return d.name == name })
		switch {
		case at < 0:
			known := make([]string, len(dialects))
			for j, d := range dialects {
				known[j] = d.name
			}
			return nil, fmt.Errorf("dialects[%d]: %q is not one of %s", i, name, strings.Join(known, ", "))
		case slices.Contains(names[:i], name):
			return nil, fmt.Errorf("dialects[%d]: %q is there twice", i, name)
		}
		chosen = append(chosen, dialects[at])
	}
	return chosen, nil
}

func (a *Authority) serveDialect(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		c, o, ok := d.read(w, r)
		if ok {
			o = a.revoke(r.Context(), c, a.now())
		}
		a.record(r.Context(), d.name, o)
		a.metrics.duration.WithLabelValues(d.name).Observe(time.Since(started).Seconds())
		d.answer(w, o)
	}
}
