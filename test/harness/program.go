package harness

import (
	"os/exec"
	"testing"
)

// StartProgram starts another program in a directory and waits until it takes
// connections at address, host:port. A program that isn't installed fails the test.
func StartProgram(t testing.TB, dir, address, program string, args ...string) *Process {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program) // not everybody's PATH has it
	}
	if err != nil {
		t.Fatalf("%s is not installed: .ci/run says which package has it", program)
	}
	p := &Process{
		Name: program, URL: "http://" + address, Dir: dir, t: t, out: &output{},
		args: append([]string{path}, args...),
	}
	p.endWithTest()
	p.Start()
	p.WaitReady()
	return p
}
