// Package verifier accepts or refuses a token: signature, claims, and whether it
// has been revoked.
//
//	list := denylist.New()                // kept in step by package feed
//	v, err := verifier.New(verifier.Config{Denylist: list, Issuers: issuers})
//	defer v.Close()
//	http.ListenAndServe(addr, v.Middleware(api))
//
// A handler behind [Verifier.Middleware] finds the token's claims with
// [FromContext]. Other doors ask [Verifier.Decide] or [Verifier.DecideRequest],
// render the [Decision] themselves, and hold what goes on for a while ([Verifier.Hold]).
// Routes that need more than a good token have a verifier each ([Verifier.Requiring]).
//
// Invariants:
//
//   - Cache-safe: the cache holds "this signature is valid", never "this token is
//     allowed". Time, audience, the key's withdrawal and the denylist are asked at
//     every request, after the cache. A cache that loses everything costs time only.
//   - Prompt: from the return of [denylist.List.Add], no decision lets a token
//     through that the entry denies.
//   - Fresh or unknown: on a list that is loading nothing is allowed, whatever the
//     configuration. On a stale one, [Config.OnStale] decides. Revoked is refused
//     on any list.
//   - Open requests end: what a new request with the same token would be refused for
//     ends one that is held, and no other. There is no moment between the decision and
//     the hold in which a revocation could be missed.
//   - Says nothing: bad, expired and revoked look alike to a client, and no token
//     is ever logged.
//
// Tokens are read by the one reader that the authority uses too. The package knows
// no NATS. Everything in it is safe for concurrent use.
package verifier
