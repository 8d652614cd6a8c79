package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxAnswerHeader is what the header of an answer may take, 1xx answers before it
// included that nobody wants to see. It is http.Transport's default.
const maxAnswerHeader = 10 << 20

// direct sends requests without a body to a plain HTTP/1.1 upstream on the caller's
// own goroutine, and reads the answer there. [http.Transport] has two goroutines for
// each connection, and wakes both, and the caller, for every request. What is written
// and read is net/http's: [http.Request.Write] and [http.ReadResponse].
//
// Everything else is next's: bodies, upgrades, Expect, trailers, other schemes. An
// upstream that speaks HTTP/2 without TLS looks like one of these, and must not be given
// to direct.
//
// What it has in common with http.Transport:
//
//   - A connection is used again only after an answer that was read to its end, over
//     which nothing more had come. Before it is used again the system is asked once more:
//     one that the upstream has closed, or on which something came unasked, is closed.
//   - A request is sent once more only if it was sent on a used connection, which ended
//     before the first byte of an answer, and if it may be repeated: GET, HEAD, OPTIONS,
//     TRACE, or nothing of it was written.
//   - The end of the request's context ends whatever it waits for.
type direct struct {
	next          http.RoundTripper
	dial          func(ctx context.Context, network, address string) (net.Conn, error)
	headerTimeout time.Duration // from the start of the request to the end of the answer's header; 0: none
	idleTimeout   time.Duration
	maxIdle       int // of one host

	mu    sync.Mutex
	idle  map[string][]*upstreamConn // by host, the last used at the end
	timer *time.Timer                // runs while there may be idle connections
}

// upstreamConn is used by one goroutine at a time, but for Close.
type upstreamConn struct {
	net.Conn
	raw     syscall.RawConn // nil: none of the system's, and used once
	host    string
	out     *bufio.Writer
	in      *bufio.Reader
	left    int64 // bytes that may still be read
	failed  error // the last read's
	written int64
	used    bool // at least one answer came over it
	since   time.Time
}

var errHeaderTooLong = errors.New("the header of the answer is too long")

// Read counts against what may be read, and keeps why it failed: those who read a
// header take half a line for a bad one.
func (c *upstreamConn) Read(b []byte) (n int, err error) {
	if c.left <= 0 {
		c.failed = errHeaderTooLong
		return 0, c.failed
	}
	n, c.failed = c.Conn.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, c.failed
}

// Write counts what was written.
func (c *upstreamConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written += int64(n)
	return n, err
}

// mine says whether a request can be sent directly.
func (d *direct) mine(r *http.Request) bool {
	if !canAsk || r.URL == nil || r.URL.Scheme != "http" || r.URL.Host == "" || r.Method == http.MethodConnect ||
		r.Body != nil && r.Body != http.NoBody || r.ContentLength != 0 || len(r.Trailer) > 0 || len(r.TransferEncoding) > 0 || r.Close {
		return false
	}
	for _, name := range [...]string{"Upgrade", "Expect", "Connection"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	// What is written would be changed where it is not valid; http.Transport says so.
	for name, values := range r.Header {
		if !isToken(name) {
			return false
		}
		for _, v := range values {
			if !isFieldValue(v) {
				return false
			}
		}
	}
	return isToken(r.Method)
}

func isToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// RoundTrip implements [http.RoundTripper].
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if !d.mine(r) {
		return d.next.RoundTrip(r)
	}
	for {
		if err := context.Cause(r.Context()); err != nil {
			return nil, err
		}
		c, err := d.get(r)
		if err != nil {
			return nil, err
		}
		resp, again, err := d.exchange(c, r)
		if err == nil || !again {
			return resp, err
		}
	}
}

// repeatable says whether a request may be sent twice, by http.Transport's rule.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return len(r.Header["Idempotency-Key"]) > 0 || len(r.Header["X-Idempotency-Key"]) > 0
}

// exchange sends the request and reads the header of the answer. again: the request may
// be sent once more.
func (d *direct) exchange(c *upstreamConn, r *http.Request) (resp *http.Response, again bool, err error) {
	ctx := r.Context()
	// Closing is the one thing that ends writes and reads alike, and a connection with
	// half an answer on it is of no more use.
	stop := context.AfterFunc(ctx, func() { _ = c.Conn.Close() })
	defer func() {
		if err == nil {
			return
		}
		if !stop() {
			again, err = false, context.Cause(ctx)
		}
		_ = c.Conn.Close()
	}()
	used := c.used
	if d.headerTimeout > 0 {
		_ = c.SetDeadline(time.Now().Add(d.headerTimeout)) // a closed connection fails right below
	}
	c.written, c.left = 0, maxAnswerHeader
	if err = r.Write(c.out); err == nil {
		err = c.out.Flush()
	}
	if err != nil {
		return nil, used && (c.written == 0 || repeatable(r)), fmt.Errorf("send the request: %w", err)
	}
	if _, err = c.in.Peek(1); err != nil {
		timeout := errors.Is(err, os.ErrDeadlineExceeded)
		return nil, used && !timeout && repeatable(r), fmt.Errorf("wait for the answer: %w", err)
	}
	if resp, err = c.readHeader(r); err != nil {
		return nil, false, fmt.Errorf("read the answer: %w", err)
	}
	c.used, c.left = true, math.MaxInt64
	if d.headerTimeout > 0 {
		_ = c.SetDeadline(time.Time{}) // a closed connection fails at the first read
	}
	body := &answerBody{d: d, c: c, ctx: ctx, stop: stop, from: resp.Body, keep: !resp.Close}
	if resp.Body == http.NoBody {
		body.finish(true)
		return resp, false, nil
	}
	resp.Body = body
	return resp, false, nil
}

// readHeader reads up to the header of the answer that counts.
func (c *upstreamConn) readHeader(r *http.Request) (*http.Response, error) {
	trace := httptrace.ContextClientTrace(r.Context())
	for {
		resp, err := http.ReadResponse(c.in, r)
		if err != nil && c.failed != nil && !errors.Is(c.failed, io.EOF) {
			return nil, c.failed
		}
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the upstream switched protocols unasked")
		case resp.StatusCode >= 200:
			return resp, nil
		case trace != nil && trace.Got1xxResponse != nil:
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
			c.left = maxAnswerHeader // whoever sees them decides how many
		}
	}
}

// answerBody gives the connection back when it has been read to its end.
type answerBody struct {
	d    *direct
	c    *upstreamConn
	ctx  context.Context
	stop func() bool // the context's hold on the connection; false: it has closed it
	keep bool
	// settled: it is decided what becomes of the connection, which may be another's by now.
	settled atomic.Bool

	mu   sync.Mutex // a body may be closed while it is read
	from io.Reader  // nil once the connection isn't this body's any more
	err  error      // what Read returns then
}

// here reports whether a body of this length has come as a whole already. Nobody must have
// read of it.
func (b *answerBody) here(length int64) bool {
	return length >= 0 && int64(b.c.in.Buffered()) >= length
}

func (b *answerBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from == nil {
		return 0, b.err
	}
	n, err := b.from.Read(p)
	if err != nil {
		if ended := b.finish(errors.Is(err, io.EOF)); ended != nil && !errors.Is(err, io.EOF) {
			err = ended
		}
		b.err = err
	}
	return n, err
}

// Close closes the connection, unless the body was read to its end. A read that waits
// ends.
func (b *answerBody) Close() error {
	if b.mu.TryLock() {
		defer b.mu.Unlock()
		if b.from != nil {
			_ = b.finish(false)
			b.err = http.ErrBodyReadAfterClose
		}
		return nil
	}
	if b.settled.CompareAndSwap(false, true) {
		_ = b.c.Conn.Close()
	}
	return nil
}

// finish lets go of the connection. An error is why the request ended early.
func (b *answerBody) finish(whole bool) error {
	b.from = nil
	mine := b.stop()
	if mine && whole && b.keep && b.c.raw != nil && b.c.in.Buffered() == 0 && b.settled.CompareAndSwap(false, true) {
		b.d.put(b.c)
		return nil
	}
	_ = b.c.Conn.Close()
	if !mine {
		return context.Cause(b.ctx)
	}
	return nil
}

// get returns an idle connection on which nothing has happened, or a new one.
func (d *direct) get(r *http.Request) (*upstreamConn, error) {
	host := r.URL.Host
	for {
		c := d.pop(host)
		if c == nil {
			break
		}
		if quiet(c.raw) {
			return c, nil
		}
		_ = c.Conn.Close()
	}
	address := host
	if r.URL.Port() == "" {
		address = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	conn, err := d.dial(r.Context(), "tcp", address)
	if err != nil {
		if ended := context.Cause(r.Context()); ended != nil {
			return nil, ended
		}
		return nil, err
	}
	c := &upstreamConn{Conn: conn, host: host}
	if system, ok := conn.(syscall.Conn); ok {
		if c.raw, err = system.SyscallConn(); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("reach into the connection: %w", err)
		}
	}
	c.in, c.out = bufio.NewReader(c), bufio.NewWriter(c)
	return c, nil
}

func (d *direct) pop(host string) *upstreamConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.idle[host]
	if len(all) == 0 {
		return nil
	}
	c := all[len(all)-1]
	all[len(all)-1] = nil
	d.idle[host] = all[:len(all)-1]
	return c
}

func (d *direct) put(c *upstreamConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle[c.host]) >= d.maxIdle {
		_ = c.Conn.Close()
		return
	}
	if d.idle == nil {
		d.idle = map[string][]*upstreamConn{}
	}
	c.since = time.Now()
	d.idle[c.host] = append(d.idle[c.host], c)
	if d.timer == nil {
		d.timer = time.AfterFunc(d.idleTimeout, d.sweep)
	}
}

// sweep closes what has been idle for too long.
func (d *direct) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = nil
	now, next := time.Now(), time.Duration(-1)
	for host, all := range d.idle {
		n := 0 // the longest idle come first
		for n < len(all) && now.Sub(all[n].since) >= d.idleTimeout {
			_ = all[n].Conn.Close()
			n++
		}
		if all = slices.Delete(all, 0, n); len(all) == 0 {
			delete(d.idle, host)
			continue
		}
		d.idle[host] = all
		if left := d.idleTimeout - now.Sub(all[0].since); next < 0 || left < next {
			next = left
		}
	}
	if next >= 0 {
		d.timer = time.AfterFunc(next, d.sweep)
	}
}

// CloseIdleConnections closes those on which no request is.
func (d *direct) CloseIdleConnections() {
	d.mu.Lock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	for _, all := range d.idle {
		for _, c := range all {
			_ = c.Conn.Close()
		}
	}
	clear(d.idle)
	d.mu.Unlock()
	if next, ok := d.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}
