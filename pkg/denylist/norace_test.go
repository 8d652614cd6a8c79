//go:build !race

package denylist

const slowly = 1
