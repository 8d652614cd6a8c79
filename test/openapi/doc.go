// Package openapi holds the authority's description of itself, /openapi.yaml, to what
// the authority does, and the authority to its description.
//
// It is a module of its own, so that importers of the root don't inherit what reads
// the description.
package openapi
