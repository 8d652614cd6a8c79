package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/revcast/revcast/internal/client"
)

const quotasEvery = 10 * time.Second

// keepQuotas remembers over a restart how many revocations each client has
// outstanding. What it loses is the last seconds before a crash, so its failures are
// told and no more.
func keepQuotas(ctx context.Context, file string, clients *client.Registry, logger *slog.Logger) {
	if err := loadQuotas(file, clients); err != nil {
		logger.Warn("what clients have outstanding is not known: counted from zero", "why", err)
	}
	ticker := time.NewTicker(quotasEvery)
	defer ticker.Stop()
	var saved []byte
	for more := true; more; {
		select {
		case <-ctx.Done():
			more = false
		case <-ticker.C:
		}
		var b bytes.Buffer
		err := clients.SaveOutstanding(&b)
		if err == nil && !bytes.Equal(b.Bytes(), saved) {
			err = replaceFile(file, b.Bytes())
		}
		if err != nil {
			logger.Warn("what clients have outstanding can't be saved", "why", err)
			continue
		}
		saved = b.Bytes()
	}
}

func loadQuotas(file string, clients *client.Registry) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	return clients.LoadOutstanding(f)
}

// replaceFile has a file hold b or what it held before.
func replaceFile(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}
