// Package config reads the configuration of both binaries: YAML, then the
// environment, then flags, each over the one before, into a struct that already
// holds the defaults.
//
// Invariants:
//
//   - Strict: an unknown or doubled key, a value of the wrong kind or a file that
//     is not there is an [*Error], one line that names the key. Nothing is coerced.
//   - One meaning: the file, the environment and the flags name the same keys, and
//     a struct's yaml tags are the only list of them.
//   - Quiet: a value that may be a secret is never part of an error.
//
// A key a.b of the prefix P is P_A_B in the environment. Lists and structs are
// YAML text there; P_A_B_FILE names a file that holds the value, for secrets that
// a platform mounts. An empty variable counts as not set. Variables of the prefix
// that name no key are passed over, not refused: Kubernetes injects
// AUTHORITY_SERVICE_HOST and its like into every pod beside a Service of that name.
//
// File names are relative to the working directory.
package config
