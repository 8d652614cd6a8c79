// Package recipes has a recipe in each directory: one file, to be copied and changed.
//
//	golangjwt    an API that verifies its tokens with golang-jwt alone
//	auth0        the same with auth0/go-jwt-middleware
//	gin          Revcast's own middleware in gin
//	echo         the same in Echo
//	chi          the same in chi
//
// The first two ask list.Check whether a token that they have verified is revoked. The
// others leave all of it to package verifier, which ends open requests too. All need a
// list that is kept in step: see the example of golangjwt.
//
// It is a module of its own, so that importers of the root don't inherit the frameworks.
package recipes
