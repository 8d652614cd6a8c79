package sidecar

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("revcast_"+name, help, labels, nil)
}

var (
	listStaleness = describe("list_staleness_seconds",
		"How long ago the list was complete, as of this scrape; +Inf while it has never been.")
	decisions    = describe("decisions_total", "Decisions on requests.", "outcome", "reason")
	cacheLookups = describe("signature_cache_lookups_total", "Lookups in the cache of verified signatures.", "result")
	openRequests = describe("open_requests", "Requests under way whose token is watched.")
	ended        = describe("open_requests_ended_total", "Requests that were ended because their token was not accepted any more.", "reason")
	doorAnswers  = describe("door_answers_total", "Requests that doors were asked about, by what they answered.", "door", "answer")
	routeAnswers = describe("route_answers_total", "Requests that were answered before any token was looked at, by reason.", "reason")
	unanswered   = describe("upstream_errors_total", "Requests that the upstream did not answer, by kind.", "kind")
	issuerKeys   = describe("issuer_keys", "Usable signing keys of an issuer.", "issuer")
	issuerLoaded = describe("issuer_keys_timestamp_seconds",
		"When an issuer's key document was last had, if by an earlier process; 0: never. A secret is had at each scrape.", "issuer")
	issuerFailed = describe("issuer_keys_fetch_failed", "1 where the last fetch of an issuer's keys failed.", "issuer")
)

// Door names a door in metrics.
type Door int

const (
	ProxyDoor Door = iota
	CheckDoor
	IntrospectDoor
	ExtAuthzDoor
)

var doorNames = [...]string{"proxy", "check", "introspect", "extauthz"}

// answers are what doors answer.
var answerNames = [...]string{"refused", "unavailable", "allowed", "public"}

const passedPublic = 3 // in answerNames; the others are outcomes

// counts are of answers, by door.
type counts [len(doorNames)][len(answerNames)]atomic.Uint64

// Kinds of upstream errors.
const (
	unreachable = iota // or it broke off before the end of its answer's header
	timedOut
)

var failureNames = [...]string{"unreachable", "timeout"}

func (s *Sidecar) count(d Door, a *answer) {
	which := int(a.Outcome)
	if a.public {
		which = passedPublic
	}
	s.asked[d][which].Add(1)
}

// newReasons are the counts of the gate's own reasons.
func newReasons() map[verifier.Reason]*atomic.Uint64 {
	all := map[verifier.Reason]*atomic.Uint64{}
	for _, why := range [...]verifier.Reason{public, preflight, badPath, noPath} {
		all[why] = new(atomic.Uint64)
	}
	return all
}

// Describe implements [prometheus.Collector].
func (s *Sidecar) Describe(ch chan<- *prometheus.Desc) {
	ch <- doorAnswers
	ch <- routeAnswers
	ch <- unanswered
}

// Collect implements [prometheus.Collector].
func (s *Sidecar) Collect(ch chan<- prometheus.Metric) {
	for d := range s.asked {
		for i := range s.asked[d] {
			ch <- prometheus.MustNewConstMetric(doorAnswers, prometheus.CounterValue, float64(s.asked[d][i].Load()), doorNames[d], answerNames[i])
		}
	}
	for why, n := range s.gate.counts {
		ch <- prometheus.MustNewConstMetric(routeAnswers, prometheus.CounterValue, float64(n.Load()), string(why))
	}
	for kind := range s.failures {
		ch <- prometheus.MustNewConstMetric(unanswered, prometheus.CounterValue, float64(s.failures[kind].Load()), failureNames[kind])
	}
}

// Collector reports a list's age and a verifier to Prometheus, as they are at the scrape.
type Collector struct {
	List     *denylist.List
	Verifier interface{ Stats() verifier.Stats }
	Now      func() time.Time // nil: time.Now
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		listStaleness, decisions, cacheLookups, issuerKeys, issuerLoaded, issuerFailed, openRequests, ended,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}

	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	// +Inf rather than nothing: "staleness > 60" must fire for a list that never
	// became complete.
	staleness := math.Inf(1)
	if age, loaded := c.List.Age(now()); loaded {
		staleness = age.Seconds()
	}
	gauge(listStaleness, staleness)
	st := c.Verifier.Stats()
	for _, d := range st.Decisions {
		counter(decisions, d.Count, d.Outcome.String(), string(d.Reason))
		if d.Outcome != verifier.Allowed {
			counter(ended, d.Ended, string(d.Reason))
		}
	}
	gauge(openRequests, float64(st.Open))
	counter(cacheLookups, st.CacheHits, "hit")
	counter(cacheLookups, st.CacheMisses, "miss")
	for _, k := range st.Keys {
		failed := 0.0
		if k.Err != nil {
			failed = 1
		}
		gauge(issuerKeys, float64(k.Keys), k.Issuer)
		loaded := 0.0
		if !k.Loaded.IsZero() {
			loaded = float64(k.Loaded.UnixMilli()) / 1000
		}
		gauge(issuerLoaded, loaded, k.Issuer)
		gauge(issuerFailed, failed, k.Issuer)
	}
}
