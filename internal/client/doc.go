// Package client knows who may call the authority: how each client authenticates,
// what it may revoke, and how much.
//
// Invariants:
//
//   - A failure looks and lasts the same for a client that doesn't exist and one
//     whose credentials are wrong: what is missing is made up for by a stand-in. Two
//     things can't be hidden from who asks with a key's name that a client's keys
//     lack, or with none: how long it takes to fetch them, and that they were never had.
//   - What is known of a client's id alone (method none) is worth its own tokens and
//     nothing else.
//   - Secrets are kept as hashes of random 256-bit values and compared in constant
//     time. None is logged, nor what was presented in its place.
//   - An assertion is taken once. What was taken is forgotten when the assertion has
//     expired or the process ends, and never to make room.
//   - [Registry.Replace] is all or nothing. A client that stays keeps its keys, its
//     rate and what is counted of it.
//   - Memory is bounded: a client's by its limits, what is known of clients that are
//     gone by a number of them.
package client
