// Package scale runs the real binaries with ten million live revocations: how long
// they take to start, what they hold in memory, and what making and serving a
// snapshot costs the rest. Run it with
//
//	go test -count=1 -tags scale -timeout 30m -v ./test/scale
//
// It asserts what issue tables promise, with room for a slow machine, and logs what
// it measured.
package scale
