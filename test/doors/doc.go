// Package doors sends the same requests through every door there is, and compares
// the answers: the sidecar's proxy, /check, introspection and ext_authz, the Go
// middleware and interceptors, and real reverse proxies with the configurations of
// deploy/proxies. It needs nginx, Caddy and HAProxy, and so carries the tag doors:
//
//	go test -tags doors ./test/doors
package doors
