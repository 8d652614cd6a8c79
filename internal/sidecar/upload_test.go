package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const upTo1000 = "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + goodToken + "\r\nContent-Length: 1000\r\n"

// reads is an API that waits for the whole body.
func reads(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, r.Body)
}

// An answer that comes before the body has come reaches a client that goes on holding
// it, and the connection is the next request's no more.
func TestProxyDeliversEarlyAnswers(t *testing.T) {
	early := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		if r.Header.Get("Content-Type") != "" {
			reads(w, r)
		}
		w.Header().Set("Connection", "close")
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"too large":       {upTo1000 + "\r\nhalf", 413},
		"chunks":          {strings.Replace(upTo1000, "Content-Length: 1000", "Transfer-Encoding: chunked", 1) + "\r\n4\r\nhalf\r\n", 413},
		"on public paths": {strings.Replace(upTo1000, "/", "/public/x", 1) + "\r\nhalf", 413},
		"100-continue":    {upTo1000 + "Expect: 100-continue\r\n\r\n", 413},
		"two tokens":      {upTo1000 + "Content-Type: application/x-www-form-urlencoded\r\n\r\na=b&access_token=x", 400},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, early, func(t *testing.T, conn net.Conn) {
				began := time.Now()
				write(t, conn, c.request)
				reader := bufio.NewReader(conn)
				resp, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if took := time.Since(began); err != nil || resp.StatusCode != c.status || !resp.Close || took > 2*time.Second {
					t.Errorf("%s after %s: close %v, %q %v", resp.Status, took, resp.Close, body, err)
				}
				// What follows is of the body, whatever it looks like.
				go func() { _, _ = io.WriteString(conn, strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 3)) }()
				if rest, err := io.ReadAll(reader); len(rest) > 0 {
					t.Errorf("answered, too: %q %v", rest, err)
				}
				if took := time.Since(began); took > 2*time.Second+drainWithin {
					t.Errorf("held for %s", took)
				}
			})
		})
	}
}

// An upstream that answers while it reads is heard while its client sends.
func TestProxyStreamsInBothDirections(t *testing.T) {
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		_ = control.SetReadDeadline(time.Time{})
		w.WriteHeader(http.StatusOK)
		lines := bufio.NewReader(r.Body)
		for {
			_ = control.Flush()
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "echo "+line)
		}
	}, func(t *testing.T, conn net.Conn) {
		write(t, conn, strings.Replace(upTo1000, "Content-Length: 1000", "Transfer-Encoding: chunked", 1)+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 4 {
			time.Sleep(20 * time.Second)
			line := fmt.Sprintf("line %d\n", i)
			write(t, conn, fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
			if got, err := lines.ReadString('\n'); err != nil || got != "echo "+line {
				t.Fatalf("%q %v", got, err)
			}
		}
		write(t, conn, "0\r\n\r\n")
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	})
}

// A connection over which a body came whole goes on.
func TestProxyKeepsConnectionsOfUploads(t *testing.T) {
	upstream := api(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	proxy, _, _ := proxied(t, upstream, nil)
	conn := dial(t, proxy)
	reader := bufio.NewReader(conn)
	for range 20 {
		write(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+goodToken+"\r\nContent-Length: 4\r\n\r\nbody")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || resp.Close || string(body) != "body" {
			t.Fatalf("close %v, %q %v", resp.Close, body, err)
		}
	}
}
