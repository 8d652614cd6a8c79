package sidecar

import (
	"bytes"
	"slices"
	"testing"
)

var frameSeeds = [][]byte{
	nil, {0x81, 2, 'h', 'i'}, {0x81, 2, 'h'}, {0x88, 0}, closeFrame(closePolicy), {0x81, 126, 0, 3, 1, 2, 3}, {0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0x81},
	{0x81, 0x81, 1, 2, 3, 4, 5, 0x89, 0}, {0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x88, 0}, bytes.Repeat([]byte{0x81, 0}, 9),
}

// stateOf is the state after all of the bytes, written in pieces of at most n.
func stateOf(p []byte, n int) (f frames) {
	for piece := range slices.Chunk(p, n) {
		f.follow(piece)
	}
	return f
}

func FuzzFrames(f *testing.F) {
	between := 0
	for _, s := range frameSeeds {
		for n := range 4 {
			f.Add(s, n)
		}
		if state := stateOf(s, 1); state.between() {
			between++
		}
	}
	if between != 5 {
		f.Fatalf("%d seeds end between frames", between)
	}
	f.Fuzz(func(t *testing.T, p []byte, split int) {
		var whole, parted frames
		whole.follow(p)
		if split = max(split, 0); split <= len(p) {
			parted.follow(p[:split])
			parted.follow(p[split:])
			if parted != whole {
				t.Fatalf("split at %d: %+v, want %+v", split, parted, whole)
			}
		}
		if piecewise := stateOf(p, split%7+1); piecewise != whole {
			t.Fatalf("in pieces: %+v, want %+v", piecewise, whole)
		}
		// Between frames another begins, and a frame that is whole ends between frames.
		if !whole.between() {
			return
		}
		next := whole
		next.follow([]byte{0x81})
		if next.between() {
			t.Fatal("a frame has begun")
		}
		next = whole
		next.follow([]byte{0x81, 1, 'x'})
		if !next.between() {
			t.Fatal("a whole frame does not end")
		}
		next.follow(closeFrame(closePolicy))
		if next.between() {
			t.Fatal("something may follow a close frame")
		}
	})
}
