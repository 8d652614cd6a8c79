// Package authority is the HTTP face of Revcast: where clients revoke, and where
// verifiers find the log.
//
//	POST /oauth2/revoke           a dialect: RFC 7009; more are rows of the same table
//	POST /oauth2/introspect       RFC 7662, in those dialects that have it
//	POST /v1/revocations          by selector; one JSON object, or a stream of them
//	GET  /v1/revocations          what is live of a selector
//	POST /backchannel-logout, /v1/events, /global-token-revocation
//	                              what identity providers say is over
//	GET  /.well-known/revcast     discovery
//	GET  /v1/snapshot, /v1/log    bootstrap and repair
//	GET  /.well-known/oauth-authorization-server, /openapi.yaml
//	GET  /healthz /readyz /metrics
//
// Every way to revoke takes the same three steps. A decoder turns the request
// into a command, one function of (command, now) decides and stores, and an
// encoder turns its outcome into an answer. Stored means [Log].Append returned
// nil: only then does an answer say so. Where an issuer has a [Relay], its own
// endpoint is asked too.
//
// Invariants:
//
//   - Nothing is stored on behalf of a caller that did not authenticate, here or at
//     the provider that was asked, nor for a JWT whose signature was not checked, nor
//     for longer than the issuer's longest token lives. An opaque token has no
//     signature: [Opaque] lets any client revoke any.
//   - A request is read in one way: a parameter of ours that comes twice, a member of
//     a selector's command that is not known or a byte after the end refuses the whole.
//   - "Can't know now" is never answered as success.
//   - Logs and answers never hold a token, a secret, a jti or a selector's value,
//     but for the selector that the caller itself sent, the claims of a token that it has
//     introspected, and the durable log, which verifiers fetch.
package authority
