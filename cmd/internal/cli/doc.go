// Package cli is what both binaries do in the same way: signals and exit codes,
// flags, the version, HTTP servers that end in time, and files that one process
// alone may use.
//
// Exit codes: 0 after a clean end, 1 for a configuration or a run that failed, 2
// for a command line that can't be read. Every failure is one line on standard
// error.
package cli
