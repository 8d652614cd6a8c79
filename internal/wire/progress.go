package wire

import (
	"iter"
	"log/slog"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Progress yields sections, and logs once a second how many entries they had.
func Progress(log *slog.Logger, now func() time.Time, doing string, sections iter.Seq2[denylist.Section, error]) iter.Seq2[denylist.Section, error] {
	return func(yield func(denylist.Section, error) bool) {
		began, entries := now(), 0
		reported := began
		for s, err := range sections {
			if entries += len(s.Digests); !yield(s, err) {
				return
			}
			if at := now(); at.Sub(reported) >= time.Second {
				reported = at
				log.Info(doing, "entries", entries, "for", at.Sub(began).Round(100*time.Millisecond))
			}
		}
	}
}
