package authority

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// pipes is a listener without sockets, for bubbles of fake time.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// inFakeTime serves an authority with the ReadTimeout that its process sets, and
// connects to it.
func inFakeTime(t *testing.T, log *fakeLog, f func(*testing.T, net.Conn, *bufio.Reader)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn)}
		p.closed, p.close = context.WithCancel(context.Background())
		s := &http.Server{Handler: newAuthority(t, log), ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.Serve(p)
		}()
		near, far := net.Pipe()
		p.conns <- far
		defer func() {
			_ = near.Close()
			_ = s.Close()
			<-ended
		}()
		_ = near.SetDeadline(time.Now().Add(time.Hour))
		f(t, near, bufio.NewReader(near))
	})
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Error(err)
	}
}

// A long-poll is answered when its wait is over, be it with a body that never comes;
// a connection that is kept goes on.
func TestSlowLongPoll(t *testing.T) {
	for name, body := range map[string]string{"ordinary": "", "phantom body": "Content-Length: 100\r\n"} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{page: func(ctx context.Context, _ uint64, wait time.Duration, _ string) ([]byte, error) {
				select {
				case <-time.After(wait):
					return []byte("page"), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}}
			inFakeTime(t, log, func(t *testing.T, conn net.Conn, answers *bufio.Reader) {
				for range 2 {
					began := time.Now()
					send(t, conn, "GET /v1/log?after=0&wait=25 HTTP/1.1\r\nHost: a\r\n"+body+"\r\n")
					resp, err := http.ReadResponse(answers, nil)
					if err != nil {
						t.Fatal(err)
					}
					page, err := io.ReadAll(resp.Body)
					if err != nil || resp.StatusCode != 200 || string(page) != "page" || time.Since(began) != 25*time.Second {
						t.Fatal(resp.Status, string(page), err, time.Since(began))
					}
					if resp.Close != (body != "") {
						t.Error("the connection is kept, though its body never came, or lost:", resp.Close)
					}
					if resp.Close {
						return
					}
				}
			})
		})
	}
}

// A stream may pause for longer than a request has to arrive, and each of its lines
// be stored slowly.
func TestSlowStream(t *testing.T) {
	log := &fakeLog{append: func(_ context.Context, r []denylist.Revocation) (uint64, error) {
		time.Sleep(appendTimeout - time.Second)
		return positionFromReason(r[0]), nil
	}}
	inFakeTime(t, log, func(t *testing.T, conn net.Conn, answers *bufio.Reader) {
		send(t, conn, "POST /v1/revocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"+
			"Authorization: "+basic(client.GrantSubject, adminSecret)+"\r\n\r\n")
		var resp *http.Response
		var lines *bufio.Reader
		for range 4 {
			line := lineFor("1") + "\n"
			time.Sleep(patience - appendTimeout)
			send(t, conn, fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
			if resp == nil {
				var err error
				if resp, err = http.ReadResponse(answers, nil); err != nil {
					t.Fatal(err)
				}
				lines = bufio.NewReader(resp.Body)
			}
			if answer, err := lines.ReadString('\n'); err != nil || !strings.Contains(answer, `"position":1`) {
				t.Fatal(answer, err)
			}
		}
		send(t, conn, "0\r\n\r\n")
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Error(string(rest), err)
		}
	})
}

// A log that takes long does not look like a caller that hung up, and one that never
// answers is a 503.
func TestDurableLogThatNeverAnswers(t *testing.T) {
	log := &fakeLog{append: func(ctx context.Context, _ []denylist.Revocation) (uint64, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}}
	inFakeTime(t, log, func(t *testing.T, conn net.Conn, answers *bufio.Reader) {
		began := time.Now()
		send(t, conn, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
			"Content-Length: 9\r\nAuthorization: "+basic("web", webSecret)+"\r\n\r\ntoken=own")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if took := time.Since(began); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || took != appendTimeout {
			t.Errorf("%s after %s", resp.Status, took)
		}
	})
}
