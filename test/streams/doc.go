// Package streams holds tests of requests that are open when their token stops being
// accepted: of every kind that goes through the real sidecar, or sits behind the
// middleware, and for every reason. Client and upstream must both see the end within a
// second of the revoke call's answer, and nobody else may.
package streams
