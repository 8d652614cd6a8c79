// Package cluster holds tests of what deploy/k8s runs, as processes on one machine:
// three NATS servers on the configuration of the manifests, as it is there, and two
// authorities on theirs, with the Secrets that its script makes. They carry the tag
// fault:
//
//	go test -tags fault ./test/cluster [-args -during 5m]
//
// They need a shell and openssl, which the script calls.
package cluster
