package wire

import "testing"

func TestTrackRemembersEveryRecentPosition(t *testing.T) {
	track, want := NewTrack(41, ChainStart("e")), map[uint64]Chain{41: ChainStart("e")}
	for i := range uint64(3 * trackSize) {
		h := HashOf([]byte{byte(i), byte(i >> 8)})
		want[42+i] = want[41+i].Next(42+i, h)
		track.Append(h)
		if track.Chain() != want[42+i] || track.Position() != 42+i {
			t.Fatalf("position %d: wrong chain", 42+i)
		}
		for _, back := range []uint64{1, 15, 16, 17, trackSize - 1} {
			if p := 42 + i - back; back <= i {
				if got, ok := track.At(p); !ok || got != want[p] {
					t.Fatalf("at %d, asked %d: ok=%v", 42+i, p, ok)
				}
			}
		}
	}
	if _, ok := track.At(42); ok {
		t.Error("remembers without bound")
	}
	if _, ok := track.At(track.Position() + 1); ok {
		t.Error("knows the future")
	}
}
