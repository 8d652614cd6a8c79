//go:build !unix

package sidecar

import "syscall"

// canAsk: whether an idle connection has ended can't be asked of the system, so all
// requests are http.Transport's.
const canAsk = false

func quiet(syscall.RawConn) bool { return false }
