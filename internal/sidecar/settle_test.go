package sidecar

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// closings counts how often a connection was closed.
type closings struct {
	net.Conn
	n atomic.Int64
}

func (c *closings) Close() error { c.n.Add(1); return nil }

// pausing reads the end of a body once it may.
type pausing struct{ reading, goOn chan struct{} }

func (p pausing) Read([]byte) (int, error) {
	close(p.reading)
	<-p.goOn
	return 0, io.EOF
}

// bodyOver is a body whose end is about to be read, over a connection that may be kept.
func bodyOver(d *direct) (*answerBody, *closings, pausing) {
	conn, from := &closings{}, pausing{make(chan struct{}), make(chan struct{})}
	c := &upstreamConn{Conn: conn, raw: struct{ syscall.RawConn }{}, host: "a", in: bufio.NewReader(nil)}
	return &answerBody{d: d, c: c, ctx: nil, stop: func() bool { return true }, keep: true, from: from}, conn, from
}

// A connection is closed or kept, and never closed once it is kept: it may be another
// request's then.
func TestDirectClosesNoConnectionOfAnother(t *testing.T) {
	t.Run("closed before the end is read", func(t *testing.T) {
		d := &direct{idleTimeout: time.Hour, maxIdle: 1}
		defer func() { d.pop("a"); d.sweep() }()
		body, conn, from := bodyOver(d)
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = body.Read(make([]byte, 1))
		}()
		<-from.reading
		_ = body.Close()
		close(from.goOn)
		<-read
		if c := d.pop("a"); c != nil || conn.n.Load() == 0 {
			t.Errorf("kept: %t, closed %d times", c != nil, conn.n.Load())
		}
	})
	t.Run("closed while it is given back", func(t *testing.T) {
		d := &direct{idleTimeout: time.Hour, maxIdle: 1}
		defer func() { d.pop("a"); d.sweep() }()
		body, conn, from := bodyOver(d)
		read := make(chan struct{})
		d.mu.Lock() // it can't be given back yet
		go func() {
			defer close(read)
			_, _ = body.Read(make([]byte, 1))
		}()
		close(from.goOn)
		for !body.settled.Load() {
			runtime.Gosched()
		}
		_ = body.Close()
		d.mu.Unlock()
		<-read
		if c := d.pop("a"); c == nil || conn.n.Load() != 0 {
			t.Errorf("kept: %t, closed %d times", c != nil, conn.n.Load())
		}
	})
}
