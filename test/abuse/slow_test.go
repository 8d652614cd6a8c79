//go:build fault

package abuse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// shortRequest is how long a request has to arrive; what comes on top is for a busy
	// machine.
	shortRequest = 10 * time.Second
	grace        = 4 * time.Second
)

// cutOff reads until the authority closes the connection, and returns the status of
// its answer, or 0 where it gave none, and how long it took.
func (c raw) cutOff(began time.Time) (status int, after time.Duration, err error) {
	_ = c.SetReadDeadline(began.Add(shortRequest + grace))
	if a, err := c.next(); err == nil {
		status = a.Status
		_, err = io.Copy(io.Discard, c.answers)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return status, time.Since(began), err
		}
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, time.Since(began), err
	}
	return status, time.Since(began), nil // closed or reset
}

// trickle sends text, a piece a second, until the authority won't have any more.
func (c raw) trickle(text string, piece int) {
	for len(text) > 0 {
		n := min(piece, len(text))
		if _, err := io.WriteString(c, text[:n]); err != nil {
			return
		}
		text = text[n:]
		time.Sleep(time.Second)
	}
}

// Whoever sends too slowly, too much or nothing at all is cut off in time; others are
// served meanwhile; and what it took is given back.
func TestSlowAndEndlessRequestsAreCutOff(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.revoke(web, w.token(web))
	w.client.CloseIdleConnections()
	head := func(path, contentType, more string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nContent-Type: %s\r\n%s\r\n", path, basic(admin), contentType, more)
	}
	long := strings.Repeat("x", 1<<20)
	const chunked, tenK = "Transfer-Encoding: chunked\r\n", "Content-Length: 10000\r\n"
	cases := map[string]struct {
		send   func(c raw)
		status []int // any of these; 0: closed without an answer
		within time.Duration
	}{
		"a body of a byte a second": {func(c raw) {
			_, _ = io.WriteString(c, head("/oauth2/revoke", formType, tenK))
			c.trickle(long[:60], 1)
		}, []int{400}, shortRequest},
		"a JSON body of a byte a second": {func(c raw) {
			_, _ = io.WriteString(c, head("/v1/revocations", "application/json", tenK))
			c.trickle(long[:60], 1)
		}, []int{400}, shortRequest},
		"chunks that never end": {func(c raw) {
			_, _ = io.WriteString(c, head("/oauth2/revoke", formType, chunked))
			for range 60 {
				if _, err := io.WriteString(c, "1\r\nx\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, []int{400}, shortRequest},
		"fast chunks that never end": {func(c raw) {
			_, _ = io.WriteString(c, head("/oauth2/revoke", formType, chunked))
			for {
				if _, err := io.WriteString(c, "10000\r\n"+long[:1<<16]+"\r\n"); err != nil {
					return
				}
			}
		}, []int{413, 0}, shortRequest}, // 0: it is reset before a sender that never reads looks for an answer
		"a length of more than is sent": {func(c raw) {
			_, _ = io.WriteString(c, head("/oauth2/revoke", formType, tenK)+"token=x")
		}, []int{400}, shortRequest},
		"a length beyond what is taken": {func(c raw) {
			_, _ = io.WriteString(c, head("/oauth2/revoke", formType, "Content-Length: 100000000\r\n")+"token=x")
		}, []int{400, 413}, shortRequest},
		"a stream of a stranger": {func(c raw) {
			_, _ = io.WriteString(c, strings.Replace(head("/v1/revocations", "application/x-ndjson", tenK), basic(admin), basic(strangerToAll), 1)+"{")
		}, []int{401}, shortRequest},
		"a body that nobody asked for": {func(c raw) {
			_, _ = io.WriteString(c, "GET /.well-known/revcast HTTP/1.1\r\nHost: a\r\n"+tenK+"\r\nx")
		}, []int{200}, shortRequest},
		"headers of a byte a second": {func(c raw) { c.trickle(head("/oauth2/revoke", formType, tenK), 1) }, []int{0, 400, 408}, shortRequest},
		"900 KiB of one header": {func(c raw) {
			_, _ = io.WriteString(c, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nX-Long: "+long[:900<<10]+"\r\n\r\n")
		}, []int{431, 0}, time.Second},
		"900 KiB of headers": {func(c raw) {
			_, _ = io.WriteString(c, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-Short: "+long[:1000]+"\r\n", 920)+"\r\n")
		}, []int{431, 0}, time.Second},
		"900 KiB of a path": {func(c raw) {
			_, _ = io.WriteString(c, "GET /"+long[:900<<10]+" HTTP/1.1\r\nHost: a\r\n\r\n")
		}, []int{431, 0}, time.Second},
		"nothing": {func(raw) {}, []int{0}, shortRequest},
	}
	const halfOpen = 1000
	goroutines, files := w.metric("go_goroutines"), w.metric("process_open_fds")
	began := time.Now()
	var running sync.WaitGroup
	for name, c := range cases {
		conn := w.mustDial()
		// What a sender that doesn't read is answered may be lost with a reset.
		running.Go(func() {
			var sending sync.WaitGroup
			began := time.Now()
			sending.Go(func() { c.send(conn) })
			status, after, err := conn.cutOff(began)
			_ = conn.Close()
			sending.Wait()
			t.Logf("%s: %d after %s", name, status, after.Round(10*time.Millisecond))
			if ok := false; err != nil {
				t.Errorf("%s: not cut off after %s", name, after)
			} else {
				for _, s := range c.status {
					ok = ok || s == status
				}
				if !ok || after > c.within+grace {
					t.Errorf("%s: %d after %s", name, status, after)
				}
			}
		})
	}
	for i := range halfOpen {
		conn, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nX-Half: "[:20+i%25])
			if _, after, err := conn.cutOff(began); err != nil {
				t.Errorf("half a request: not cut off after %s", after)
			} else if after < shortRequest-time.Second { // else the others had them beside them for the whole time
				t.Errorf("half a request: cut off after %s already", after)
			}
		})
	}
	w.waitFor("all are connected", 5*time.Second, func() bool { return w.metric("process_open_fds") > files+halfOpen })
	took := w.mustRevokePaced(other, 20, shortRequest-time.Since(began)-time.Second)
	if p99 := quantile(took, 0.99); p99 > 2*time.Second {
		t.Errorf("others waited %s", p99)
	}
	t.Logf("others meanwhile: p50 %s, p99 %s", quantile(took, 0.5), quantile(took, 0.99))
	running.Wait()
	w.client.CloseIdleConnections()
	w.waitFor("files and goroutines go back", 5*time.Second, func() bool {
		return w.metric("process_open_fds") <= files+5 && w.metric("go_goroutines") <= goroutines+10
	})
	t.Logf("files %.0f before and %.0f after, goroutines %.0f and %.0f", files, w.metric("process_open_fds"), goroutines, w.metric("go_goroutines"))
}
