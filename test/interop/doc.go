// Package interop holds tests against programs that share no code with Revcast: an
// OpenID provider, and a reader of the wire format in JavaScript. They need Node 18
// or later and the packages of package-lock.json (npm ci), and so carry the tag
// interop:
//
//	npm ci && go test -tags interop .
package interop
