// Package archtest proves the architecture: which package may import which, what
// none may pull in, and that each has one doc comment. A new package gets a row.
package archtest
