package denylist

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

const (
	// Window is the width of an expiry window.
	Window = 10 * time.Minute
	// Grace is how long an entry outlives its window: it covers the leeway that
	// verifiers grant to exp (at most [MaxLeeway]) and clocks that disagree.
	Grace = 15 * time.Minute
	// MaxLeeway bounds the leeway a verifier may grant to exp.
	MaxLeeway = 2 * time.Minute

	// NoCutoff is the cut-off of an entry that denies whatever iat says.
	NoCutoff int64 = math.MaxInt64

	// MaxNote bounds By and Reason, in bytes.
	MaxNote = 512

	maxUnix = 253402300799 // the year 9999 ends: beyond it RFC 3339 has no spelling
)

// Revocation denies every token of Issuer that Selector matches.
type Revocation struct {
	Issuer   string
	Selector Selector
	// IssuedBefore, where set, spares tokens issued after it. It counts in whole
	// seconds, as iat does: a token of the same second is denied, and so is a token
	// without iat.
	IssuedBefore time.Time
	// Expires is when no matching token can be valid any more.
	Expires time.Time
	// ExactExpiry says that Expires is the exp claim of the one token that the
	// selector names.
	ExactExpiry bool

	At         time.Time // when it was said
	By, Reason string    // by which client, and why
}

// NeedsCutoff reports whether a selector can only be revoked with IssuedBefore,
// since tokens not issued yet would match it too.
func NeedsCutoff(s Selector) bool {
	switch s.Shape() {
	case JTI, SID, Fingerprint:
		return false
	}
	return true
}

// Validate reports the first rule that r breaks.
func (r Revocation) Validate() error {
	switch {
	case r.Issuer == "" || len(r.Issuer) > maxIssuer || !utf8.ValidString(r.Issuer):
		return fmt.Errorf("issuer must be 1 to %d bytes of UTF-8", maxIssuer)
	case r.Expires.Unix() <= 0 || r.Expires.Unix() > maxUnix:
		return errors.New("expires must lie between 1970 and 9999")
	case r.IssuedBefore.IsZero() && NeedsCutoff(r.Selector):
		return fmt.Errorf("a selector by %s needs issued_before", r.Selector.Shape())
	case !r.IssuedBefore.IsZero() && (r.IssuedBefore.Unix() <= 0 || r.IssuedBefore.Unix() > maxUnix):
		return errors.New("issued_before must lie between 1970 and 9999")
	case r.ExactExpiry && !r.IssuedBefore.IsZero():
		return errors.New("the revocation of one token has no cut-off")
	case r.ExactExpiry && r.Selector.Shape() != JTI && r.Selector.Shape() != Fingerprint:
		return errors.New("only jti and fingerprint name one token")
	case len(r.By) > MaxNote || len(r.Reason) > MaxNote:
		return fmt.Errorf("by and reason are at most %d bytes", MaxNote)
	case !utf8.ValidString(r.By) || !utf8.ValidString(r.Reason):
		return errors.New("by and reason must be UTF-8")
	}
	return nil
}

// Entry is a revocation as a List holds it.
type Entry struct {
	Shape  Shape
	Digest Digest
	Cutoff int64 // Unix seconds: tokens with iat at or before it; NoCutoff: all
	// Expires is in Unix seconds; where Windowed, it is the end of a window.
	Expires int64
	// Windowed entries are found only by tokens whose exp lies in that window.
	Windowed bool
}

// Entry returns what a List needs of a valid revocation.
func (r Revocation) Entry() Entry {
	e := Entry{
		Shape: r.Selector.Shape(), Digest: r.Selector.Digest(r.Issuer),
		Cutoff: NoCutoff, Expires: r.Expires.Unix(), Windowed: r.ExactExpiry,
	}
	if e.Windowed {
		e.Expires = WindowEnd(e.Expires)
	}
	if !r.IssuedBefore.IsZero() {
		e.Cutoff = r.IssuedBefore.Unix()
	}
	return e
}

// WindowEnd returns the end of the expiry window that exp lies in. Both are in
// Unix seconds.
func WindowEnd(exp int64) int64 {
	const w = int64(Window / time.Second)
	return (exp + w - 1) / w * w
}
