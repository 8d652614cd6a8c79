package harness

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Relay passes TCP connections on to a target, and can disturb them. Where it has
// several, they take turns, and those that take no connection are left out. Safe for
// concurrent use.
type Relay struct {
	Address string // host:port to connect to

	targets []string
	turn    atomic.Uint32
	ln      net.Listener
	running sync.WaitGroup

	mu      sync.Mutex // guards the rest
	trouble trouble
	changed chan struct{} // closed and replaced when trouble changes
	closed  bool
	conns   map[*net.TCPConn]struct{}
}

// trouble is what a relay does to connections.
type trouble struct {
	blackhole, reset bool
	delay            time.Duration
}

// NewRelay starts a relay to targets, host:port. It ends with the test.
func NewRelay(t testing.TB, targets ...string) *Relay {
	t.Helper()
	address := FreeAddress(t)
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("listen for a relay: %v", err)
	}
	r := &Relay{
		Address: address, targets: targets, ln: ln, changed: make(chan struct{}), conns: map[*net.TCPConn]struct{}{},
	}
	r.running.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

// Blackhole keeps connections open and accepts new ones, but no byte moves and
// nobody learns of an end. What was under way is delivered after Heal.
func (r *Relay) Blackhole() { r.set(trouble{blackhole: true}) }

// Reset resets all connections, and every new one.
func (r *Relay) Reset() { r.set(trouble{reset: true}) }

// Delay delivers every byte that much later, in both directions.
func (r *Relay) Delay(d time.Duration) { r.set(trouble{delay: d}) }

// Heal ends whatever there was.
func (r *Relay) Heal() { r.set(trouble{}) }

func (r *Relay) set(next trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = next
	if next.reset {
		r.resetAll()
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Relay) resetAll() {
	for c := range r.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
		delete(r.conns, c)
	}
}

func (r *Relay) close() {
	_ = r.ln.Close()
	r.mu.Lock()
	r.closed = true
	r.resetAll()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.running.Wait()
}

// pass waits until what came at arrived may be delivered.
func (r *Relay) pass(arrived time.Time) (ok bool) {
	for {
		r.mu.Lock()
		now, changed, closed := r.trouble, r.changed, r.closed
		r.mu.Unlock()
		if closed || now.reset {
			return false
		}
		var due <-chan time.Time
		if !now.blackhole {
			left := time.Until(arrived.Add(now.delay))
			if left <= 0 {
				return true
			}
			due = time.After(left)
		}
		select {
		case <-changed:
		case <-due:
		}
	}
}

// keep notes a connection, so that Reset reaches it.
func (r *Relay) keep(conn net.Conn) *net.TCPConn {
	c := conn.(*net.TCPConn)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
	if r.closed || r.trouble.reset {
		r.resetAll()
	}
	return c
}

func (r *Relay) drop(c *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	_ = c.Close()
}

func (r *Relay) accept() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.serve(r.keep(conn)) })
	}
}

func (r *Relay) dial() (conn net.Conn, err error) {
	turn := int(r.turn.Add(1))
	for i := range r.targets {
		if conn, err = net.DialTimeout("tcp", r.targets[(turn+i)%len(r.targets)], 5*time.Second); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (r *Relay) serve(client *net.TCPConn) {
	defer r.drop(client)
	if !r.pass(time.Now()) {
		return
	}
	conn, err := r.dial()
	if err != nil {
		_ = client.SetLinger(0) // as if there were no relay
		return
	}
	server := r.keep(conn)
	defer r.drop(server)
	var both sync.WaitGroup
	both.Go(func() { r.pump(server, client) })
	both.Go(func() { r.pump(client, server) })
	both.Wait()
}

// piece is what one read returned.
type piece struct {
	arrived time.Time
	bytes   []byte
	err     error
}

// pump delivers what src sends to dst, its end too.
func (r *Relay) pump(dst, src *net.TCPConn) {
	pieces := make(chan piece, 64)
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		defer close(pieces)
		for {
			b := make([]byte, 32<<10)
			n, err := src.Read(b)
			pieces <- piece{time.Now(), b[:n], err}
			if err != nil {
				return
			}
		}
	})
	for p := range pieces {
		ok := r.pass(p.arrived)
		if ok {
			_, err := dst.Write(p.bytes)
			ok = err == nil
		}
		switch {
		case ok && p.err == nil:
			continue
		case ok && errors.Is(p.err, io.EOF):
			_ = dst.CloseWrite()
		default:
			_, _ = src.Close(), dst.Close()
		}
		for range pieces { // so that the reader ends
		}
		return
	}
}
