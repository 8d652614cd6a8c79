//go:build unix

package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Lock makes path, an empty file, this process's own until unlock is called or the
// process ends. It returns [ErrLocked] where another process, or another part of
// this one, has it.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The file stays: removing it would let two processes lock two files of one name.
	return func() { _ = f.Close() }, nil
}
