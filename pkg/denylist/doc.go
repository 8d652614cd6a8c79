// Package denylist holds the vocabulary of revocation and the set that answers
// "is this token revoked?".
//
// A [Revocation] denies every token of one issuer that matches a [Selector],
// optionally only those issued at or before a cut-off. A [Token] is what a
// verifier knows about a verified token. A [List] holds revocations as digests
// and answers a [Verdict]: [Clear], [Revoked] or [Unknown].
//
// Invariants:
//
//   - Grow-only: adding is union. Order and repetition don't matter, and nothing
//     removes an entry but [List.Prune], after its tokens have expired.
//   - No miss: from the return of [List.Add], every Check on any goroutine sees
//     the entry.
//   - No false rejection: a bloom filter only ever answers "not here"; a hit is
//     confirmed by an exact set.
//   - Fresh or unknown: the list knows the instant up to which it is complete
//     ([List.Advance]). Before the first Advance, or longer after it than the
//     allowed staleness, Clear becomes Unknown. Revoked stays Revoked.
//   - Bounded: an entry is given back at the end of its expiry window plus
//     [Grace].
//
// Expiry windows: the revocation of one token names that token's exp, and the
// presented token carries the same exp. Such entries live in the window of that
// exp ([WindowEnd]), a check looks into one window, and an expired window is
// dropped whole. Entries whose tokens' exp is not known (cut-offs, a jti alone)
// live in a set that every check asks.
//
// The package knows no NATS, no JWT and no HTTP. Everything in it is safe for
// concurrent use, except that a value under construction belongs to its maker.
package denylist
