// Package app is the sidecar as a whole: its configuration, and package feed,
// package verifier and package sidecar's doors wired together. [Run] is all of it
// in one call, for a process of its own or inside another.
//
// Order of the end: nothing more is accepted, requests under way are answered with
// the list still being followed, then the feed saves its state.
package app
