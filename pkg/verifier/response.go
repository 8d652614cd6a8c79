package verifier

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// response is what a handler behind the middleware writes to. When its request has been
// ended, nothing more is written, and no deadline can be put off. It has the methods that
// [http.ResponseController] and others look for, and does not unwrap.
type response holding

// returned is called when the handler has returned. A connection that it has hijacked
// stays watched until it is closed.
func (h *holding) returned() {
	if h.shard != nil {
		h.shard.mu.Lock()
		hijacked := h.conn != nil && h.held
		h.shard.mu.Unlock()
		if hijacked {
			return
		}
	}
	h.release()
}

// wasCut reports whether the connection was cut.
func (h *holding) wasCut() bool {
	if h.shard == nil {
		return false
	}
	h.shard.mu.Lock()
	defer h.shard.mu.Unlock()
	return h.cut
}

// open calls f as long as the request has not been ended, and not while it is.
func (h *holding) open(f func() error) error {
	h.shard.mu.Lock()
	defer h.shard.mu.Unlock()
	if by := h.by.Load(); by != nil {
		return by
	}
	return f()
}

func (r *response) control() *http.ResponseController { return http.NewResponseController(r.w) }

func (r *response) Header() http.Header    { return r.w.Header() }
func (r *response) WriteHeader(status int) { r.w.WriteHeader(status) }

func (r *response) Write(p []byte) (int, error) {
	if by := r.by.Load(); by != nil {
		return 0, by
	}
	return r.w.Write(p)
}

// WriteString implements [io.StringWriter].
func (r *response) WriteString(s string) (int, error) {
	if by := r.by.Load(); by != nil {
		return 0, by
	}
	return io.WriteString(r.w, s)
}

// ReadFrom implements [io.ReaderFrom]: a server may send files without copying them.
func (r *response) ReadFrom(src io.Reader) (int64, error) {
	if by := r.by.Load(); by != nil {
		return 0, by
	}
	return io.Copy(r.w, src)
}

// Flush implements [http.Flusher].
func (r *response) Flush() { _ = r.FlushError() }

// FlushError is for [http.ResponseController].
func (r *response) FlushError() error {
	if by := r.by.Load(); by != nil {
		return by
	}
	return r.control().Flush()
}

// EnableFullDuplex is for [http.ResponseController].
func (r *response) EnableFullDuplex() error { return r.control().EnableFullDuplex() }

// SetReadDeadline is for [http.ResponseController].
func (r *response) SetReadDeadline(t time.Time) error {
	return (*holding)(r).open(func() error { return r.control().SetReadDeadline(t) })
}

// SetWriteDeadline is for [http.ResponseController].
func (r *response) SetWriteDeadline(t time.Time) error {
	return (*holding)(r).open(func() error { return r.control().SetWriteDeadline(t) })
}

// Hijack implements [http.Hijacker].
func (r *response) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	err = (*holding)(r).open(func() (err error) {
		if r.conn, rw, err = r.control().Hijack(); err == nil {
			conn = &heldConn{r.conn, (*holding)(r)}
		}
		return err
	})
	return conn, rw, err
}

// heldConn is a connection that a handler has hijacked.
type heldConn struct {
	net.Conn
	of *holding
}

func (c *heldConn) Read(p []byte) (int, error) {
	if by := c.of.by.Load(); by != nil {
		return 0, by
	}
	return c.Conn.Read(p)
}

func (c *heldConn) Write(p []byte) (int, error) {
	if by := c.of.by.Load(); by != nil {
		return 0, by
	}
	return c.Conn.Write(p)
}

func (c *heldConn) SetDeadline(t time.Time) error {
	return c.of.open(func() error { return c.Conn.SetDeadline(t) })
}

func (c *heldConn) SetReadDeadline(t time.Time) error {
	return c.of.open(func() error { return c.Conn.SetReadDeadline(t) })
}

func (c *heldConn) SetWriteDeadline(t time.Time) error {
	return c.of.open(func() error { return c.Conn.SetWriteDeadline(t) })
}

// Close ends the watch.
func (c *heldConn) Close() error {
	c.of.release()
	return c.Conn.Close()
}
