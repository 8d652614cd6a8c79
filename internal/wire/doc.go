// Package wire is what travels between authority and verifiers: its bytes, its
// signatures and the names of its subjects. docs/wire.md describes the same for
// readers in other languages, with the vectors in testdata.
//
//	message    who makes it    where it goes
//	batch      an authority    the log, and from there to the live subject
//	mark       an authority    the same; a heartbeat that is kept in the log
//	heartbeat  an authority    the live subject, and the end of every log page
//	snapshot   an authority    HTTP
//	log page   an authority    HTTP: messages of the log, then a heartbeat
//	discovery  an authority    HTTP: where all of these are, and the signing keys
//
// Invariants:
//
//   - Nothing is decoded before its signature holds, but a snapshot, which is
//     signed at its end: none of its sections counts before the last has come.
//   - Decoding is strict: an unknown version or member, a doubled name, trailing
//     bytes or an entry that breaks a rule of denylist is an error for the whole.
//   - Allocation is bounded by the bytes that arrived and one section or message,
//     not by the counts they claim.
//   - A snapshot's sections are canonical: the same entries are the same bytes.
//   - A message is read in one way: encoding what was decoded gives the same entries.
//   - An entry is written in one way: those of an issuer and a selector begin with the
//     same bytes ([EntryPrefix]), whichever release wrote them. A decoder must not rely
//     on it; who searches a log that our own key signed may.
package wire
