package verifier

import (
	"cmp"
	"slices"
	"time"
)

// Stats counts what a verifier has done since [New].
type Stats struct {
	Decisions              []DecisionCount // every reason there is, in a stable order
	CacheHits, CacheMisses uint64          // of the signature cache
	Keys                   []KeyStatus     // an issuer each, as configured in order
	Open                   int             // requests that are held now: see [Verifier.Hold]
}

// DecisionCount is how many decisions had an outcome for a reason, and how many open
// requests were ended for it.
type DecisionCount struct {
	Outcome      Outcome
	Reason       Reason
	Count, Ended uint64
}

// KeyStatus is what is known of an issuer's keys.
type KeyStatus struct {
	Issuer string
	Keys   int       // usable ones
	Loaded time.Time // when the last good document was fetched, if by an earlier process; zero: never; now: a secret
	Err    error     // of the last fetch; nil if it succeeded
}

// Stats returns the current counts.
func (v *Verifier) Stats() Stats {
	st := Stats{CacheHits: v.cache.hits.Load(), CacheMisses: v.cache.misses.Load(), Open: v.requests.len()}
	for why, outcome := range outcomes {
		n := v.counts[why]
		st.Decisions = append(st.Decisions, DecisionCount{outcome, why, n.decisions.Load(), n.ended.Load()})
	}
	slices.SortFunc(st.Decisions, func(a, b DecisionCount) int {
		return cmp.Or(cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Reason, b.Reason))
	})
	for _, k := range v.reader.KeyStatuses() {
		st.Keys = append(st.Keys, KeyStatus(k))
	}
	return st
}
