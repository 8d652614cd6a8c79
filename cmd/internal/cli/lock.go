package cli

import "errors"

// ErrLocked says that a file is in use.
var ErrLocked = errors.New("in use by another process")
