// Command subject is what package cost measures with and against, each in a process
// of its own: an API, a bare reverse proxy, a handler behind the middleware, and
// those who send requests.
package main
