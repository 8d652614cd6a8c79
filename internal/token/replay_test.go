package token

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestReplayIsRefused(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	until := now.Add(time.Minute)
	r := NewReplay(10)
	for _, c := range []struct {
		issuer, jti string
		at          time.Time
		want        error
	}{
		{issuerA, "x", now, nil},
		{issuerA, "x", now, ErrReplayed},
		{issuerB, "x", now, nil},      // another issuer's is another token
		{issuerA + "x", "", now, nil}, // and so is the same text, cut elsewhere
		{issuerA, "X", now, nil},      // jti is case-sensitive
		{issuerA, "x", until.Add(-1), ErrReplayed},
		{issuerA, "x", until, ErrReplayForgotten},
		{issuerA, "x", now, ErrReplayForgotten}, // asked by one who looked at the clock before
	} {
		if err := r.Reserve(c.issuer, c.jti, until, c.at); !errors.Is(err, c.want) {
			t.Errorf("%q of %q at %v: %v; want %v", c.jti, c.issuer, c.at, err, c.want)
		}
	}
}

// A sender's next attempt works where storing what it said failed.
func TestReplayReleased(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := NewReplay(10)
	for i := range 5 { // the last to come is the first to go
		if err := r.Reserve(issuerA, fmt.Sprint(i), now.Add(time.Duration(5-i)*time.Minute), now); err != nil {
			t.Fatal(err)
		}
	}
	r.Release(issuerA, "2")
	r.Release(issuerA, "never reserved")
	if err := r.Reserve(issuerA, "2", now.Add(time.Hour), now); err != nil {
		t.Errorf("released, and refused: %v", err)
	}
	for i := range 5 {
		if err := r.Reserve(issuerA, fmt.Sprint(i), now.Add(time.Hour), now); !errors.Is(err, ErrReplayed) {
			t.Errorf("%d: %v; want it refused", i, err)
		}
	}
	later := now.Add(2 * time.Hour)
	if err := r.Reserve(issuerA, "later", later.Add(time.Hour), later); err != nil || len(r.seen) != 1 || len(r.next) != 1 {
		t.Errorf("%v; %d and %d are remembered of one", err, len(r.seen), len(r.next))
	}
}

// TestReplayBounded: what is full takes no more, and forgets nothing early.
func TestReplayBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const most = 100
	r := NewReplay(most)
	for i := range most { // the last to come is the first to go
		if err := r.Reserve(issuerA, fmt.Sprint(i), now.Add(time.Duration(most-i)*time.Second), now); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := r.Reserve(issuerA, "more", now.Add(time.Hour), now); !errors.Is(err, ErrReplayFull) {
			t.Fatalf("got %v; want it full", err)
		}
		if err := r.Reserve(issuerA, "7", now.Add(time.Hour), now); !errors.Is(err, ErrReplayed) {
			t.Fatalf("full, and one was forgotten: %v", err)
		}
	}
	for i := 1; i <= most; i++ { // a second later there is room for exactly one
		at := now.Add(time.Duration(i) * time.Second)
		if err := r.Reserve(issuerA, fmt.Sprint("new", i), at.Add(time.Hour), at); err != nil {
			t.Fatal(err)
		}
		if err := r.Reserve(issuerA, fmt.Sprint("more", i), at.Add(time.Hour), at); !errors.Is(err, ErrReplayFull) {
			t.Fatalf("second %d: %v; want it full", i, err)
		}
	}
	if len(r.seen) != most || len(r.next) != most {
		t.Errorf("%d and %d remembered", len(r.seen), len(r.next))
	}
}

func TestReplayOneOfManyAtOnce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := NewReplay(1000)
	var taken atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for i := range 100 {
				if r.Reserve(issuerA, fmt.Sprint(i), now.Add(time.Minute), now) == nil {
					taken.Add(1)
				}
			}
		})
	}
	running.Wait()
	if n := taken.Load(); n != 100 {
		t.Errorf("%d of 100 tokens were taken", n)
	}
}
