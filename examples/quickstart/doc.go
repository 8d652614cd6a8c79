// Command quickstart shows Revcast at work in one process, on loopback: an
// authority with embedded NATS, a small token issuer, two sidecars in front of a
// sample API, and one API that uses the Go middleware. It gets a real signed token,
// shows that all three accept it, revokes it with an RFC 7009 call, and shows that
// all three refuse it.
//
//	go run ./examples/quickstart          the story, then stay up for curl
//	go run ./examples/quickstart -once    the story alone
//
// Each part is started the way its binary or library is: nothing here is a mock
// but the issuer, which signs whatever it is asked to.
package main
