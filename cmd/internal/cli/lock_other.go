//go:build !unix

package cli

// Lock does nothing here: there is no lock that the end of a process surely frees.
func Lock(string) (unlock func(), err error) { return func() {}, nil }
