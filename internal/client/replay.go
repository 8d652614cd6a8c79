package client

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// maxReplays bounds what is remembered of one client: 400 assertions a second that
	// live as long as they may.
	maxReplays   = 1 << 18
	replayWindow = time.Minute
)

// replays remembers what was used until it has expired. Its zero value is empty. Safe
// for concurrent use.
type replays struct {
	mu sync.Mutex
	// windows are by the minute in which what they hold is forgotten: as many as an
	// assertion may live, so that looking into all is cheap.
	windows map[int64]map[[16]byte]struct{}
	held    int
}

// reserve remembers a value until a time, and reports whether it was not known; full
// says that it is not known and can't be remembered.
func (r *replays) reserve(value string, until, now time.Time) (fresh, full bool) {
	sum := sha256.Sum256([]byte(value))
	key := [16]byte(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	for _, w := range r.windows {
		if _, known := w[key]; known {
			return false, false
		}
	}
	if r.held >= maxReplays {
		return false, true
	}
	minute := floorDiv(until.Unix(), replayWindow)
	if r.windows == nil {
		r.windows = map[int64]map[[16]byte]struct{}{}
	}
	if r.windows[minute] == nil {
		r.windows[minute] = map[[16]byte]struct{}{}
	}
	r.windows[minute][key] = struct{}{}
	r.held++
	return true, false
}

// idle reports whether nothing is remembered.
func (r *replays) idle(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	return r.held == 0
}

func (r *replays) forget(now time.Time) {
	current := floorDiv(now.Unix(), replayWindow)
	for minute, w := range r.windows {
		if minute < current {
			r.held -= len(w)
			delete(r.windows, minute)
		}
	}
}

// floorDiv returns the window that a Unix time is in.
func floorDiv(unix int64, window time.Duration) int64 {
	w := int64(window / time.Second)
	n := unix / w
	if unix < n*w {
		n--
	}
	return n
}
