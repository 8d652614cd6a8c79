package smuggling

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// upstream is an API that keeps every byte it gets. It reads requests by the letter of
// RFC 9112, and whatever another parser could read otherwise is a problem.
type upstream struct {
	URL string

	mu       sync.Mutex
	conns    map[net.Conn]*bytes.Buffer // what came since the last reset
	resets   int
	requests []*got
	problems []string
}

// got is a request as it came.
type got struct {
	method, target string
	header         []field
	trailer        []field
	body           string
	cut            bool
}

func (g *got) values(name string) (all []string) {
	for _, f := range g.header {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{URL: "http://" + ln.Addr().String(), conns: map[net.Conn]*bytes.Buffer{}}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		u.mu.Lock()
		for c := range u.conns {
			_ = c.Close()
		}
		u.mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns[c] = &bytes.Buffer{}
			u.mu.Unlock()
			running.Go(func() { u.serve(c) })
		}
	})
	return u
}

// tee keeps what a connection delivers.
type tee struct {
	net.Conn
	u *upstream
}

func (r tee) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	r.u.conns[r.Conn].Write(p[:n])
	return n, err
}

func (u *upstream) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(tee{c, u})
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		u.mu.Lock()
		began := u.resets
		u.mu.Unlock()
		g := &got{}
		err := g.read(in, func() { _, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n") })
		u.mu.Lock()
		if began != u.resets { // the end of an earlier case's, which was cut
			u.mu.Unlock()
			return
		}
		if g.cut = errors.Is(err, io.ErrUnexpectedEOF); err != nil && !g.cut {
			u.problems = append(u.problems, err.Error())
		}
		u.requests = append(u.requests, g)
		u.mu.Unlock()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
	}
}

// reset forgets what came so far; take returns what came since.
func (u *upstream) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests, u.problems = nil, nil
	u.resets++
	for _, b := range u.conns {
		b.Reset()
	}
}

func (u *upstream) take() (requests []*got, raw [][]byte, problems []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, b := range u.conns {
		if b.Len() > 0 {
			raw = append(raw, bytes.Clone(b.Bytes()))
		}
	}
	return slices.Clone(u.requests), raw, slices.Clone(u.problems)
}

var (
	startLine  = regexp.MustCompile(`^([!#$%&'*+.^_|~0-9A-Za-z-]+) (/[!-~]*) HTTP/1\.1$`)
	headerLine = regexp.MustCompile(`^([!#$%&'*+.^_|~0-9A-Za-z-]+): ?([ -~\x80-\xff]*)$`)
	chunkLine  = regexp.MustCompile(`^[0-9a-f]{1,8}$`)
	lengthOnly = regexp.MustCompile(`^[0-9]{1,9}$`)
)

// line reads one that ends with CR LF and holds neither otherwise.
func line(in *bufio.Reader) (string, error) {
	s, err := in.ReadString('\n')
	if err != nil {
		return "", io.ErrUnexpectedEOF
	}
	s, ok := strings.CutSuffix(s, "\r\n")
	if !ok || strings.ContainsAny(s, "\r\n\x00") {
		return "", fmt.Errorf("line %q", s)
	}
	return s, nil
}

func headerFields(in *bufio.Reader) (list []field, err error) {
	for {
		s, err := line(in)
		if err != nil || s == "" {
			return list, err
		}
		m := headerLine.FindStringSubmatch(s)
		if m == nil {
			return nil, fmt.Errorf("field %q", s)
		}
		list = append(list, field{m[1], m[2]})
	}
}

func (g *got) read(in *bufio.Reader, goOn func()) error {
	first, err := line(in)
	if err != nil {
		return err
	}
	m := startLine.FindStringSubmatch(first)
	if m == nil {
		return fmt.Errorf("request line %q", first)
	}
	g.method, g.target = m[1], m[2]
	if g.header, err = headerFields(in); err != nil {
		return err
	}
	lengths, codings := g.values("Content-Length"), g.values("Transfer-Encoding")
	switch {
	case len(g.values("Host")) != 1:
		return fmt.Errorf("hosts %q", g.values("Host"))
	case len(lengths)+len(codings) > 1:
		return fmt.Errorf("lengths %q and codings %q", lengths, codings)
	}
	if len(g.values("Expect")) > 0 {
		goOn()
	}
	if len(codings) == 1 {
		if codings[0] != "chunked" {
			return fmt.Errorf("coding %q", codings[0])
		}
		return g.readChunks(in)
	}
	if len(lengths) == 0 {
		return nil
	}
	if !lengthOnly.MatchString(lengths[0]) {
		return fmt.Errorf("length %q", lengths[0])
	}
	n, err := strconv.Atoi(lengths[0])
	if err != nil {
		return err
	}
	return g.readBody(in, n)
}

func (g *got) readBody(in *bufio.Reader, n int) error {
	b := make([]byte, n)
	n, err := io.ReadFull(in, b)
	g.body += string(b[:n])
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (g *got) readChunks(in *bufio.Reader) error {
	for {
		s, err := line(in)
		if err != nil {
			return err
		}
		if !chunkLine.MatchString(s) {
			return fmt.Errorf("chunk %q", s)
		}
		n, err := strconv.ParseInt(s, 16, 32)
		if err != nil {
			return err
		}
		if n == 0 {
			g.trailer, err = headerFields(in)
			return err
		}
		if err := g.readBody(in, int(n)); err != nil {
			return err
		}
		if s, err := line(in); err != nil || s != "" {
			return errors.Join(err, fmt.Errorf("chunk %q is followed by %q", g.body, s))
		}
	}
}

// goReads counts the requests that net/http reads in what came over a connection.
func goReads(raw []byte) (n int) {
	in := bufio.NewReader(bytes.NewReader(raw))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return n
		}
		n++
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return n
		}
	}
}
