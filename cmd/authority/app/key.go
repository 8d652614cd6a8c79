package app

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/wire"
)

// signingKey reads the signing key, or makes it where it isn't there. store is the
// directory of the embedded server's log; "" for a log elsewhere.
func signingKey(file, store string, logger *slog.Logger) (wire.Signer, error) {
	const key = "signing_key_file"
	text, err := os.ReadFile(file)
	switch {
	case err == nil:
		signer, err := wire.ParseSigner(text)
		if err != nil {
			return wire.Signer{}, config.Errorf(key, "%s: %v", file, err)
		}
		if info, err := os.Stat(file); err == nil && exposed(info.Mode().Perm()) {
			// Not refused: platforms that mount secrets choose modes of their own.
			logger.Warn("others can read the signing key", "file", file, "mode", info.Mode().Perm().String())
		}
		return signer, nil
	case !errors.Is(err, fs.ErrNotExist):
		return wire.Signer{}, config.Errorf(key, "%v", err)
	}
	if entries, _ := os.ReadDir(store); len(entries) > 0 {
		// A new key would make every message of that log a stranger's: what was revoked
		// would be forgotten in silence.
		return wire.Signer{}, config.Errorf(key, "%s is gone, but %s holds a log that it signed", file, store)
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return wire.Signer{}, fmt.Errorf("make a signing key: %w", err)
	}
	signer := wire.NewSigner(private)
	if text, err = signer.MarshalPEM(); err != nil {
		return wire.Signer{}, err
	}
	if err := writeNew(file, text); err != nil {
		return wire.Signer{}, config.Errorf(key, "make it: %v", err)
	}
	logger.Info("made a signing key", "file", file, "key", wire.KeyIDOf(signer.Public()).String())
	return signer, nil
}

// exposed says whether others than the owner get at a file. A group may read what nobody
// may write: so Kubernetes mounts a Secret for the one group of a pod.
func exposed(mode fs.FileMode) bool { return mode&0o037 != 0 || mode&0o040 != 0 && mode&0o200 != 0 }

// writeNew makes a file that only its owner can read. It is there whole and on
// disk, or not at all, and never replaces another.
func writeNew(file string, text []byte) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil { // unlike a rename, errs where file is there
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
