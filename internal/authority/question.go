package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

const (
	// maxFound bounds the revocations of one selector that are told.
	maxFound = 20
	// searchTimeout bounds a search of the log, and the wait for one before it.
	searchTimeout = 30 * time.Second
	// questionsAtOnce bounds those that wait for their search: each reads the whole log.
	questionsAtOnce = 8
)

// questionAnswer is the answer to "is this selector live, since when, by whom, why?".
type questionAnswer struct {
	Live        bool              `json:"live"`
	Issuer      string            `json:"issuer"`
	Selector    denylist.Selector `json:"selector"`
	Revocations []storedAnswer    `json:"revocations"`   // oldest first
	More        bool              `json:"more,omitzero"` // there are older ones
}

type storedAnswer struct {
	Position     uint64    `json:"position"`
	At           time.Time `json:"at"`
	By           string    `json:"by"`
	Reason       string    `json:"reason,omitzero"`
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	Expires      time.Time `json:"expires"`
}

// serveQuestion answers GET /v1/revocations?issuer=...&CLAIM=VALUE: what is live of
// exactly this selector, to clients that may revoke it.
func (a *Authority) serveQuestion(w http.ResponseWriter, r *http.Request) {
	who, o, ok := a.administrator(r)
	var answer questionAnswer
	if ok {
		answer, o = a.question(r.Context(), who, r.URL.RawQuery)
	}
	if o.kind != active {
		if r.Context().Err() == nil {
			a.complain(r.Context(), slog.LevelWarn, "a question is not answered", o)
		}
		writeRefusal(w, o)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (a *Authority) question(ctx context.Context, who *client.Client, query string) (answer questionAnswer, o outcome) {
	issuer, selector, err := readQuestion(query)
	if err != nil {
		return answer, refuse(badRequest, err.Error())
	}
	if _, ok := a.issuers[issuer]; !ok {
		return answer, refuse(badRequest, "issuer is not configured here")
	}
	grant, _ := grantFor(selector.Shape())
	if !who.May(append(grant, client.GrantAny)...) {
		return answer, refuse(denied, "the client has no grant for a selector by "+selector.Shape().String())
	}
	select {
	case a.questions <- struct{}{}:
		defer func() { <-a.questions }()
	default:
		return answer, outcome{kind: limited, why: "too many questions wait for the log", client: who.ID(), retry: 5 * time.Second}
	}
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	now := a.now()
	found, more, err := a.log.Find(ctx, issuer, selector, now, maxFound)
	if err != nil {
		return answer, outcome{kind: unavailable, why: "the log can't be searched now", cause: err, client: who.ID()}
	}
	answer = questionAnswer{Live: len(found) > 0, Issuer: issuer, Selector: selector, Revocations: make([]storedAnswer, len(found)), More: more}
	for i, f := range found {
		answer.Revocations[i] = storedAnswer{
			Position: f.Position, At: f.At.UTC(), By: f.By, Reason: f.Reason, Expires: f.Expires.UTC(),
		}
		if !f.IssuedBefore.IsZero() {
			answer.Revocations[i].IssuedBefore = f.IssuedBefore.UTC()
		}
	}
	return answer, outcome{kind: active}
}

// readQuestion reads an issuer and the claims of a selector.
func readQuestion(query string) (issuer string, s denylist.Selector, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", s, errors.New("the query can't be read")
	}
	pairs := map[string]string{}
	for name, all := range values {
		if len(all) > 1 {
			return "", s, fmt.Errorf("%s is there more than once", shorten(name))
		}
		pairs[name] = all[0]
	}
	if issuer = pairs["issuer"]; issuer == "" {
		return "", s, errors.New("issuer is missing")
	}
	delete(pairs, "issuer")
	s, err = denylist.NewSelector(pairs)
	return issuer, s, err
}
