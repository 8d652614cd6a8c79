// Package denylist holds the vocabulary of revocation and the set that answers
// "is this token revoked?".
//
// A [Revocation] denies every token of one issuer that matches a [Selector],
// optionally only those issued at or before a cut-off. A [Token] is what a
// verifier knows about a verified token. A [List] answers a [Verdict]: [Clear],
// [Revoked] or [Unknown]. [Section]s are the same set as it is stored and sent.
//
// Invariants:
//
//   - Grow-only: adding is union. Order and repetition don't matter, and nothing
//     removes an entry but [List.Prune], after its tokens have expired.
//   - No miss: from the return of [List.Add], every Check on any goroutine sees
//     the entry.
//   - No false rejection: a filter only ever answers "not here", and the bound
//     below holds for what it lets through.
//   - Fresh or unknown: the list knows the instant up to which it is complete
//     ([List.Advance]). Before the first Advance, or longer after it than the
//     allowed staleness, Clear becomes Unknown. Revoked stays Revoked.
//   - Bounded: an entry is given back at the end of its expiry window plus
//     [Grace].
//
// # Expiry windows
//
// The revocation of one token names that token's exp, and the presented token
// carries the same exp. Such entries live in the window of that exp ([WindowEnd]),
// a check looks into one window, and an expired window is dropped whole. Entries
// whose tokens' exp is not known (cut-offs, a jti alone) are asked by every check.
//
// # Tables and the bound on false refusals
//
// A window has a hash table for each shape. A digest is scrambled with AES under a
// key that the process made for itself. Eight bits of the result are its tag: the
// tags are the filter, one cache line of them for most checks. 64 others are kept
// behind the filter and say where in the table it lies. So of the 128 bits of a
// digest, 72 are compared, and one that was never added is found by chance with a
// probability of at most 2^-64 / 254 for each entry of the table: 2.2e-15 where ten
// million entries share a window, 1.5e-17 where they are spread over a day. The
// permutation is secret, so nobody can choose a revocation that does better. By the
// same chance [List.Has] answers for an entry that is not there. Where
// every check asks, and a token's arrays may ask for many digests, all 128 bits are
// compared, and no two digests are ever mistaken for each other.
//
// What the list does not keep can't be read from it: who stores or sends entries
// keeps their sections, in a file as a rule, and joins new ones with [Merge].
//
// # Concurrency
//
// Checks take no lock and never wait: tables are published by atomic pointers, and
// an entry by its tag. Writers wait for each other. Everything in the package is
// safe for concurrent use, except that a value under construction belongs to its
// maker.
//
// The package knows no NATS, no JWT and no HTTP.
package denylist
