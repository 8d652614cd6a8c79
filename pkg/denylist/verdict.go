package denylist

import "time"

// Status is the answer to "is this token revoked?". The zero Status is Unknown,
// so a forgotten answer never lets a token through.
type Status uint8

const (
	Unknown Status = iota // can't say: see Verdict.Why
	Clear                 // not revoked, as of a fresh list
	Revoked               // revoked, whatever the list's age
)

func (s Status) String() string { return [...]string{"unknown", "clear", "revoked"}[s] }

// Why says what made an answer Unknown.
type Why uint8

const (
	Loading     Why = iota // the list has not been complete yet
	Stale                  // complete too long ago
	Uncheckable            // it has no issuer or expiry, or its arrays combine to more values than a check may ask
)

func (w Why) String() string { return [...]string{"loading", "stale", "uncheckable"}[w] }

// Verdict is the answer of [List.Check].
type Verdict struct {
	Status Status
	Why    Why           // where Unknown
	Shape  Shape         // where Revoked: the claims of the selector that matched
	Digest Digest        // where Revoked: that selector's digest
	Age    time.Duration // of the list; 0 while Loading
}
