// Package sidecar puts the one decision of package verifier behind doors: a
// reverse proxy in front of an API, and what else asks "may this request pass?".
//
// A door is a row of the table in doors.go: the listener and path that it is at,
// and a handler that asks the [Decider] and renders the answer. Deciding is never
// part of a door.
//
// Invariants of the proxy:
//
//   - Nothing reaches the upstream that the Decider did not allow, and what it
//     allowed is what the upstream sees: the Authorization header is passed on as
//     it was read, whatever Connection or Upgrade say.
//   - Delete, then set: Forwarded, X-Forwarded-* and X-Real-Ip from outside are
//     dropped, in every spelling that a server might take for them (underscores
//     for hyphens), and set from the connection.
//   - Transparent otherwise: Host, path, query and bodies pass as they came, and
//     every write of the upstream is flushed at once, so that streams flow.
//   - A route that depends on how a path is read is none: whatever a server may make of
//     case, escapes, and dots or spaces at the ends of names, the rule is the same, or
//     the request is refused.
//   - A token that nobody decided on reaches nobody: where there is one already, a second
//     one in the query or a form refuses the request; where none is asked for, those in
//     the Authorization header and the query are dropped.
//   - Of upgrades only websocket passes: after any other (h2c), requests that were
//     never decided on would follow on the same connection.
//   - No token is logged, and no answer names the upstream.
//
// A decision is made when a request starts. A stream or websocket that is open
// when its token is revoked stays open.
package sidecar
