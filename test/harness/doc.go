// Package harness runs the real binaries for tests: it builds them once, starts
// authorities and sidecars as processes of their own, on ports and directories that
// they keep over a restart, and issues tokens that both accept.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
// Every process is killed when its test ends, and where the test failed, the end of
// its output is in the test's log. A call that can't do its part fails the test,
// so all but [Process.Kill], [Process.Signal] and [Process.Output] belong into the
// test's own goroutine.
package harness
