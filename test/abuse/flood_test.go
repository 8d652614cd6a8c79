//go:build fault

package abuse

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/test/harness"
)

// connections is how many a flood comes over, each with one request at a time.
const connections = 4

// One client's flood is refused beyond its rate, and another's revocations go on as
// fast as without it. Floods without a client have no rate to go beyond.
func TestFloodLeavesOthersAlone(t *testing.T) {
	w := newWorld(t, nil, nil)
	valid := make([][]byte, 0, 10_000)
	for _, token := range w.tokens(web, cap(valid)) {
		valid = append(valid, revokeRequest(web, token))
	}
	var forged, strangers [][]byte
	for _, token := range w.forgeries() {
		forged = append(forged, revokeRequest(web, token))
	}
	for i := range 100 {
		// Half of them name the other client: failures are not its requests.
		who := harness.Client{ID: []string{other.ID, strangerToAll.ID}[i%2], Secret: fmt.Sprintf("guess-%d", i)}
		strangers = append(strangers, revokeRequest(who, w.token(web)))
	}
	w.mustRevokePaced(other, 20, time.Second) // warms everything

	variants := []*variant{
		{name: "own tokens", requests: valid, refusal: 429},
		{name: "forged tokens", requests: forged, refusal: 429},
		{name: "bad credentials", requests: strangers, refusal: 401},
	}
	began, refused := time.Now(), 0
	// Another program that takes the processors for a moment decides a p99 of so few
	// calls: what every attempt shows is no accident.
	const attempts = 4
	for attempt := 1; len(variants) > 0; attempt++ {
		var alone []time.Duration
		for range int(during.Round(time.Second) / time.Second) { // in turns, so that it meets all of them
			alone = append(alone, w.mustRevokePaced(other, 20, time.Second)...)
			for _, v := range variants {
				v.flood(w)
			}
		}
		t.Logf("B alone: p50 %s, p99 %s", quantile(alone, 0.5), quantile(alone, 0.99))
		variants = slices.DeleteFunc(variants, func(v *variant) bool {
			ratio := float64(quantile(v.beside, 0.99)) / float64(quantile(alone, 0.99))
			t.Logf("B beside %s: p50 %s, p99 %s, ratio of p99: %.2f; A: %s", v.name, quantile(v.beside, 0.5), quantile(v.beside, 0.99), ratio, &v.said)
			if v.said.Statuses[v.refusal] == 0 {
				t.Errorf("nothing of %s was refused with %d", v.name, v.refusal)
			}
			if ratio > 3 && attempt == attempts {
				t.Errorf("%d times %s made the p99 of another client more than three times as long", attempts, v.name)
			}
			refused += v.said.total() - v.said.Statuses[200]
			v.beside, v.said = nil, tally{}
			return ratio <= 3 || attempt == attempts
		})
	}
	// Each kind of refusal has a thousand lines at once, and then twenty a second.
	const kinds = 8
	if told, most := strings.Count(w.authority.Output(), "\n"), kinds*(1000+20*int(time.Since(began).Seconds()+2)); told > most {
		t.Errorf("%d refusals wrote %d lines to the log, where %d would do", refused, told, most)
	}
}

// variant is a kind of flood, and what came of it.
type variant struct {
	name     string
	requests [][]byte
	refusal  int
	beside   []time.Duration // another client's revocations meanwhile
	said     tally
}

// flood goes on for a second.
func (v *variant) flood(w *world) {
	w.Helper()
	stored := w.stored()
	var beside []time.Duration
	said := w.while(connections, 1, v.requests, func() { beside = w.mustRevokePaced(other, 20, time.Second) })
	if got, most := w.stored()-stored, said.Statuses[200]+len(beside); got > most {
		w.Errorf("%d revocations were stored, and at most %d answered so", got, most)
	}
	if refused, ok := said.First[429]; ok {
		// Two seconds' worth at once, and then the rate.
		if served, most := said.total()-said.Statuses[429], client.DefaultRate*(2+int(math.Ceil(said.Took.Seconds()))); served > most {
			w.Errorf("%d of a client's requests were served in %s, where %d would do", served, said.Took, most)
		}
		w.mustBeError(refused, "too_many_requests")
		if after, err := strconv.Atoi(refused.RetryAfter); err != nil || after < 1 {
			w.Errorf("Retry-After: %q", refused.RetryAfter)
		}
	}
	v.beside = append(v.beside, beside...)
	v.said.add(said)
}

// What is refused beyond a rate is not stored, and is served once the time is over
// that the refusal names.
func TestRateRefusesAndServesAgain(t *testing.T) {
	w := newWorld(t, map[string]map[string]any{web.ID: {"rate": 2}}, nil)
	const burst = 4
	before := w.stored()
	var refused answer
	var late string
	served := 0
	for _, token := range w.tokens(web, 3*burst) {
		switch a := w.revoke(web, token); a.Status {
		case 200:
			served++
		case 429:
			refused, late = a, token
		default:
			t.Fatalf("%+v", a)
		}
	}
	if served < burst || served == 3*burst {
		t.Errorf("%d of %d at once were served, with a burst of %d", served, 3*burst, burst)
	}
	if got := w.stored() - before; got != served {
		t.Errorf("%d were stored and %d answered so", got, served)
	}
	w.mustBeError(refused, "too_many_requests")
	after, err := strconv.Atoi(refused.RetryAfter)
	if err != nil || after < 1 {
		t.Fatalf("Retry-After: %q", refused.RetryAfter)
	}
	time.Sleep(time.Duration(after) * time.Second) // as told: the authority's clock can't be had
	if a := w.revoke(web, late); a.Status != 200 {
		t.Errorf("after the time in Retry-After: %+v", a)
	}
	if got := w.stored() - before; got != served+1 {
		t.Errorf("%d were stored, of %d", got, served+1)
	}
}

// A client has as many revocations outstanding as it may, and no more; saying one
// again is none more; and a restart forgets none.
func TestQuotaOutlivesRestart(t *testing.T) {
	const most = 5
	w := newWorld(t, map[string]map[string]any{
		web.ID: {"max_entries": most}, admin.ID: {"max_entries": most}, other.ID: {"max_entries": most, "revoke": []string{"any"}},
	}, nil)
	tokens := w.tokens(web, most+1)
	beyond := tokens[most]
	full := func() {
		t.Helper()
		before := w.stored()
		a := w.revoke(web, beyond)
		if a.Status != 429 {
			t.Fatalf("beyond the quota: %+v", a)
		}
		w.mustBeError(a, "too_many_requests")
		if after, err := strconv.Atoi(a.RetryAfter); err != nil || after < 1 {
			t.Errorf("Retry-After: %q", a.RetryAfter)
		}
		for _, token := range tokens[:most] {
			if a := w.revoke(web, token); a.Status != 200 {
				t.Errorf("what is stored, once more: %+v", a)
			}
		}
		if got := w.stored() - before; got != 0 {
			t.Errorf("%d were stored beyond the quota", got)
		}
	}
	for _, token := range tokens[:most] {
		if a := w.revoke(web, token); a.Status != 200 {
			t.Fatalf("within the quota: %+v", a)
		}
	}
	w.waitFor("the list holds what was stored", 5*time.Second, func() bool { return w.metric("revcast_list_entries") == most })
	full()

	// Of a stream, each line has its own answer.
	var body []byte
	for i := range most + 2 {
		body = fmt.Appendf(body, `{"issuer":%q,"selector":{"jti":"line-%d"}}`+"\n", w.issuer.Issuer, i)
	}
	a := w.post("/v1/revocations", "application/x-ndjson", admin, string(body))
	var told, refused int // which lines, is not said: those of a stream are stored beside each other
	for _, line := range splitLines(a.Body) {
		switch {
		case line.Position > 0:
			told++
		case line.Error == "too_many_requests" && line.Description != "":
			refused++
		}
	}
	if a.Status != 200 || told != most || refused != 2 {
		t.Errorf("a stream beyond the quota: %d, %s", a.Status, a.Body)
	}

	if exit := w.authority.Terminate(10 * time.Second); exit.Code != 0 {
		t.Fatalf("exit code %d", exit.Code)
	}
	w.authority.Start()
	w.authority.WaitReady()
	w.waitFor("the list is read again", 5*time.Second, func() bool { return w.metric("revcast_list_entries") == 2*most })
	full()
	if !slices.ContainsFunc(splitLines(w.post("/v1/revocations", "application/x-ndjson", admin,
		fmt.Sprintf(`{"issuer":%q,"selector":{"jti":"one-more"}}`, w.issuer.Issuer)).Body),
		func(r result) bool { return r.Error == "too_many_requests" }) {
		t.Error("a restart gave a stream's client its quota again")
	}
	if a := w.revoke(other, w.token(other)); a.Status != 200 {
		t.Errorf("another client: %+v", a)
	}

	// Where the log can't tell that it has just this, it stores it again, and it counts.
	before := w.stored()
	w.post("/v1/revocations", "application/x-ndjson", other, strings.Repeat(
		fmt.Sprintf(`{"issuer":%q,"selector":{"jti":"again"}}`+"\n", w.issuer.Issuer), 10*most))
	if got := w.stored() - before; got != most-1 {
		t.Errorf("%d repeats were stored, where %d would do", got, most-1)
	}
}
