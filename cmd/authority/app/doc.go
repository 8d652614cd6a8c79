// Package app is the authority as a whole: its configuration, and package
// authority's HTTP face wired to package broadcast's log. [Run] is all of it in
// one call, for a process of its own or inside another.
//
// Order of the start: everything that can be wrong with the configuration is found
// first, then ports are bound, then the disk is touched. HTTP answers from then on,
// 503 but for /healthz and /metrics, until the log is open.
//
// Order of the end: nothing more is accepted, long-polls end, revocations under
// way are answered, then the log is closed.
package app
