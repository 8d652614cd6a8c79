// Package feed keeps a [denylist.List] in step with an authority. It is configured
// with one URL, the authority's, and finds the rest there.
//
// Revocations arrive over NATS on the live subject and are applied at once, in
// whatever order: the list only grows, and every batch is signed. Completeness is
// a matter of its own. The feed follows the chain, a running hash over the log, and
// the list counts as complete only as far as a signed heartbeat confirms position
// and chain. Everything else (start, a gap, a chain that doesn't fit, silence, NATS
// out of reach, an authority that changed) has one remedy: ask the authority over
// HTTP for the log after the last confirmed position, or for a snapshot where the
// log doesn't reach back or doesn't fit.
//
// Invariants:
//
//   - Only what the authority's key signed is applied.
//   - The list's age never reads younger than it is (by more than the second that two
//     authorities' clocks may be apart), whatever the local clock says and however
//     old the messages are. How: a log page answers a random nonce and
//     carries the authority's time. When the page was signed, the question had been
//     asked; so the authority's clock, at the moment of asking, read at most that
//     time. From this upper bound on the difference between the two clocks, and an
//     allowance for drift, the AsOf of each later heartbeat becomes an instant of the
//     local monotonic clock that is never too late. A replayed or delayed heartbeat
//     is as old as its AsOf, and the local wall clock cancels out. Where the bound
//     can't hold any more (a heartbeat from the future, a wall clock that jumped, a
//     machine that slept), nothing advances until the next answer to a nonce.
//   - A new epoch, a position that moved back or a chain that forked is never taken
//     silently: an alarm is raised, every entry stays, a snapshot is joined to it.
//   - With a state file, what was applied survives kill -9: messages are appended to
//     it before the feed moves on. A restart without the authority is as fresh as the
//     file says, by the wall clock; a file from the future makes nothing fresh.
package feed
