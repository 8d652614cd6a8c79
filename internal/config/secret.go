package config

import (
	"bytes"
	"io"
	"os"

	"github.com/revcast/revcast/internal/token"
)

const maxSecret = 16 << 10 // bytes of a file: a token with many claims is the largest

// Secret reads the secret of an issuer at the path key, where it has one; nil where it
// has none.
func (i *Issuer) Secret(key string) ([]byte, error) {
	if i.SecretFile == "" {
		return nil, nil
	}
	key += ".secret_file"
	b, err := SecretFile(key, i.SecretFile)
	if err != nil {
		return nil, err
	}
	if err := token.CheckSecret(b, i.Algorithms); err != nil {
		return nil, Errorf(key, "what %s holds %v", i.SecretFile, err)
	}
	return b, nil
}

// SecretFile reads what a file holds, less a newline at its end. No error holds any of it.
func SecretFile(key, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, Errorf(key, "%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, Errorf(key, "%v", err)
	case len(b) > maxSecret:
		return nil, Errorf(key, "%s is larger than 16 KiB", name)
	}
	if line, ok := bytes.CutSuffix(b, []byte("\n")); ok { // an editor's, not the secret's
		b = bytes.TrimSuffix(line, []byte("\r"))
	}
	if len(b) == 0 {
		return nil, Errorf(key, "%s is empty", name)
	}
	return b, nil
}
