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

// quotas remember over a restart how many revocations each client has outstanding, in
// a file. What is lost is the last seconds before a crash, so failures are told and no
// more.
type quotas struct {
	file    string
	clients *client.Registry
	logger  *slog.Logger
	saved   []byte
}

// load is for before anyone is served.
func (q *quotas) load() {
	if err := loadQuotas(q.file, q.clients); err != nil {
		q.logger.Warn("what clients have outstanding is not known: counted from zero", "why", err)
	}
}

// keep saves again and again until ctx ends. What comes after is for another save.
func (q *quotas) keep(ctx context.Context) {
	ticker := time.NewTicker(quotasEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			q.save()
		}
	}
}

func (q *quotas) save() {
	var b bytes.Buffer
	err := q.clients.SaveOutstanding(&b)
	if err == nil && !bytes.Equal(b.Bytes(), q.saved) {
		err = replaceFile(q.file, b.Bytes())
	}
	if err != nil {
		q.logger.Warn("what clients have outstanding can't be saved", "why", err)
		return
	}
	q.saved = b.Bytes()
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
