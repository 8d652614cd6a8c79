// Package interop holds tests against programs that share no code with Revcast: an
// OpenID provider, client libraries and vendors' published snippets that revoke, and a
// reader of the wire format in JavaScript. They need Node 20 or later, the packages of
// package-lock.json (npm ci), bash and curl, and so carry the tag interop:
//
//	npm ci && go test -tags interop .
package interop
