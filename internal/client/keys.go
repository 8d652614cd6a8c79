package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/revcast/revcast/internal/token"
)

// keys read what one client signs. There is a reader for each client, so that a list
// that is replaced takes no loaded keys away.
type keys struct {
	uri      string
	document []byte
	reader   *token.Reader
	stop     context.CancelFunc // nil until it runs; owned by [Registry]
}

// newKeys errs with the name of the field that is wrong, first. The reader takes every
// algorithm, so that a client may have others and keep its keys; which it may use is
// asked afterwards.
func newKeys(c Config, client *http.Client, log *slog.Logger) (*keys, error) {
	issuer := token.Issuer{Issuer: c.ID, JWKSURI: c.JWKSURI, JWKS: bytes.Clone(c.JWKS), Algorithms: token.Algorithms(), Leeway: assertionLeeway}
	reader, err := token.NewReader([]token.Issuer{issuer}, client, log)
	var mistake *token.ConfigError
	switch {
	case err == nil:
		return &keys{uri: c.JWKSURI, document: issuer.JWKS, reader: reader}, nil
	case !errors.As(err, &mistake):
		return nil, fmt.Errorf("auth: make a reader of its assertions: %w", err)
	case mistake.Field == "JWKS" && c.JWKSURI != "":
		return nil, errors.New("jwks_file can't be given beside jwks_uri")
	case mistake.Field == "JWKS":
		return nil, fmt.Errorf("jwks_file %s", mistake.Problem)
	}
	return nil, fmt.Errorf("jwks_uri %s", mistake.Problem)
}

// same reports whether these are what the configuration asks for.
func (k *keys) same(c Config) bool {
	return k.uri == c.JWKSURI && (k.document == nil) == (c.JWKS == nil) && bytes.Equal(k.document, c.JWKS)
}

// unavailable reports whether an error of the reader says that the keys were never had,
// so that it can't be known whose the assertion is. Once they were, a key that is not
// among them must not tell that there are others: a client that has just changed its key
// fails until it is fetched, some seconds at most.
func (k *keys) unavailable(err error) bool {
	return errors.Is(err, token.ErrKeysUnavailable) && !errors.Is(err, token.ErrSignature) && !errors.Is(err, token.ErrUnknownKey)
}
