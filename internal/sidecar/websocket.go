package sidecar

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
)

// websockets hands out a connection that ends with a close frame (RFC 6455 section
// 5.5.1) where the request's context was ended for its token.
type websockets struct {
	http.ResponseWriter
	ctx      context.Context
	hijacked atomic.Bool
}

func (w *websockets) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *websockets) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked.Store(true)
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &frameConn{Conn: conn, ctx: w.ctx}, rw, nil
}

// SetReadDeadline leaves the reads of a hijacked connection to its Close, which waits
// for the client.
func (w *websockets) SetReadDeadline(t time.Time) error {
	if w.hijacked.Load() {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(t)
}

const (
	opClose             = 8
	closePolicy         = 1008 // RFC 6455 section 7.4.1
	closeTryAgain       = 1013 // IANA's registry
	closeReason         = "the access token is not accepted any more"
	closeWriteFor       = 200 * time.Millisecond
	closeWaitFor        = 300 * time.Millisecond // for the client to close
	maxFrameHeader      = 14
	finalFrame     byte = 0x80
)

// frameConn is a client's connection. It follows the frames that are written to it, so
// that it knows whether one may follow.
type frameConn struct {
	net.Conn
	ctx context.Context

	mu     sync.Mutex // held while something is written
	frames frames
	once   sync.Once
}

func (c *frameConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.frames.follow(p[:n])
	return n, err
}

// Close says goodbye first, if the token is the reason and no frame is half written.
func (c *frameConn) Close() error {
	c.once.Do(func() {
		ended := verifier.EndedBy(c.ctx)
		if ended == nil || !c.mu.TryLock() { // a client that takes nothing hears nothing
			return
		}
		defer c.mu.Unlock()
		if !c.frames.between() {
			return
		}
		code := uint16(closePolicy)
		if ended.Outcome == verifier.Unavailable {
			code = closeTryAgain
		}
		_ = c.Conn.SetWriteDeadline(time.Now().Add(closeWriteFor))
		if _, err := c.Conn.Write(closeFrame(code)); err != nil {
			return
		}
		// A connection that is closed with something unread is reset, and what was
		// written last may be lost.
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_ = c.Conn.SetReadDeadline(time.Now().Add(closeWaitFor))
			_, _ = io.Copy(io.Discard, c.Conn)
		}
	})
	return c.Conn.Close()
}

func closeFrame(code uint16) []byte {
	frame := []byte{finalFrame | opClose, byte(2 + len(closeReason))}
	return append(binary.BigEndian.AppendUint16(frame, code), closeReason...)
}

// frames follows the framing of RFC 6455 section 5.2.
type frames struct {
	header [maxFrameHeader]byte
	have   int    // of the header
	left   uint64 // of the payload
	closed bool   // a close frame has begun: none may follow
}

func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.closed }

func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		length, complete := f.payload()
		if !complete {
			continue
		}
		f.closed = f.closed || f.header[0]&0x0f == opClose
		f.have, f.left = 0, length
	}
}

// payload returns the length that a complete header tells.
func (f *frames) payload() (length uint64, complete bool) {
	if f.have < 2 {
		return 0, false
	}
	size := 2
	length = uint64(f.header[1] & 0x7f)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	whole := size
	if f.header[1]&0x80 != 0 { // servers don't mask, and must not
		whole += 4
	}
	if f.have < whole {
		return 0, false
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		length = binary.BigEndian.Uint64(f.header[2:])
	}
	return length, true
}
