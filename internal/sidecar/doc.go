// Package sidecar puts the one decision of package verifier behind doors: a
// reverse proxy in front of an API, and what else asks "may this request pass?".
//
// A door is a row of the table in doors.go: the listener and path that it is at,
// and a handler that asks the [Decider] and renders the answer. Deciding is never
// part of a door.
//
// What is asked is decided by one function (gate.go): the route by the path's one normal
// form, then the route's Decider. A request whose path can be read in two ways has no
// route, and is refused.
//
// Invariants of the proxy:
//
//   - Nothing reaches the upstream that the gate did not let pass, and what it let
//     pass is what the upstream sees: the normal path where there are routes, and the
//     Authorization header as it was read, whatever Connection or Upgrade say. On public
//     routes no token reaches it.
//   - Delete, then set: Forwarded, X-Forwarded-*, X-Real-Ip, headers that some take for
//     the real path, and those that tell claims are dropped, in every spelling that a
//     server might take for them, and set from connection and token.
//   - An open request ends when its token is not accepted any more, and its client
//     sees that it did: a status where none was sent, or else a cut.
//   - Transparent otherwise: Host, query and bodies pass as they came, and what has come
//     of an answer goes on at once, so that streams flow.
//   - Of upgrades only websocket passes: after any other (h2c), requests that were
//     never decided on would follow on the same connection.
//   - No token is logged, and no answer names the upstream.
//
// /check and ext_authz never answer with a server error: some proxies let through then.
package sidecar
