package broadcast

import (
	"context"
	"time"

	"github.com/revcast/revcast/internal/wire"
)

const measureEvery = 15 * time.Second

// size is how large the stream is, and may become.
type size struct{ bytes, max uint64 }

// measure asks the stream for its size until ctx ends. While it doesn't answer, what it
// said last stands: others tell that it is away.
func (l *Log) measure(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, publishTimeout)
		if stream, err := l.js.Stream(asking, wire.Stream); err == nil {
			info := stream.CachedInfo()
			l.size.Store(&size{info.State.Bytes, uint64(max(0, info.Config.MaxBytes))})
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
