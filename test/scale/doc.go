// Package scale runs the real binaries with ten million live revocations: how long
// they take to start, what they hold in memory, and what making and serving a
// snapshot costs the rest. Run it with
//
//	go test -count=1 -tags scale -timeout 30m -v ./test/scale
//
// It logs what it measured. With -args -keep DIR the authority's data is kept there,
// and found again the next time.
package scale
