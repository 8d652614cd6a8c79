//go:build race

package denylist

// slowly is how many times slower than usual tests run: those that count in
// hundreds of thousands count that much less far.
const slowly = 8
