package streams

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
)

// deaf is how many such clients there are at once: more than the goroutines that come and
// go by themselves.
const deaf = 8

// fullOf waits until the API can send nothing more to any of these.
func fullOf(calls []*call) {
	for _, c := range calls {
		<-c.began
	}
	for got, more := int64(0), int64(-1); got != more || got == 0; time.Sleep(300 * time.Millisecond) {
		got, more = more, 0
		for _, c := range calls {
			more += c.got.Load()
		}
	}
}

// TestClientThatReadsNothing does not keep its request: the API sees the end as soon as
// that of any other, and the sidecar is done with it soon after.
func TestClientThatReadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	before, staying := w.goroutines(), 0
	for _, k := range []struct {
		name, door string
		// open asks for more than fits between API and client. rest reads what has come.
		open func(name, token string) (rest func() string)
		want string // that rest begins with
		kept int    // goroutines of connections that stay, for the next request
	}{
		{"download", overHTTP, func(name, token string) func() string {
			conn := dialRaw(w, w.doors[overHTTP])
			fmt.Fprintf(conn, "GET /flood HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n%s: %s\r\n\r\n", token, callHeader, name)
			return func() string { return ending(conn) }
		}, "cut", 0},
		{"websocket", overHTTP, func(name, token string) func() string {
			_, reader := dialFrames(w, w.doors[overHTTP], name, token, "flood")
			return func() string { return ending(reader) }
		}, "cut", 0},
		{"download, HTTP/2", overHTTP, func(name, token string) func() string {
			client := client(2)
			resp, err := client.Do(newRequest(w, "GET", w.doors[overHTTP]+"/flood", name, token, nil))
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(client.CloseIdleConnections)
			return func() string {
				_, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return fmt.Sprint("cut ", err)
			}
		}, "cut stream error", 2},
		{"gRPC", overH2C, func(name, token string) func() string {
			client, ctx := dialGRPC(w, w.doors[overH2C], name, token)
			stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
				ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 32 << 10}},
			})
			if err != nil {
				w.Fatal(err)
			}
			return func() string {
				for {
					if _, err := stream.Recv(); err != nil {
						return outcome(err)
					}
				}
			}
		}, "Internal", 3},
	} {
		t.Run(k.name, func(t *testing.T) {
			token := w.token("alice", time.Hour)
			staying += deaf * k.kept
			var calls []*call
			var rests []func() string
			for i := range deaf {
				name := fmt.Sprint("reads nothing: ", k.name, i)
				calls = append(calls, w.api.expect(name))
				rests = append(rests, k.open(name, token))
			}
			fullOf(calls)
			answered := w.revoke(token)
			var upstream time.Duration
			for _, c := range calls {
				select {
				case <-c.ended:
				case <-time.After(5 * time.Second):
					t.Fatal("the API sees no end")
				}
				upstream = max(upstream, c.at.Sub(answered))
			}
			var left int
			w.await("nothing is left of the requests", 3*time.Second, func() bool {
				left = w.goroutines() - before - staying
				return w.openRequests() == 0 && left < deaf
			})
			t.Logf("after the answer: the API saw the last end after %s, %d goroutines more than before after %s", upstream.Round(time.Millisecond), left, time.Since(answered).Round(time.Millisecond))
			if upstream > within {
				t.Error("the API saw the end too late")
			}
			for _, rest := range rests {
				if saw := rest(); !strings.HasPrefix(saw, k.want) {
					t.Errorf("the client saw %s", saw)
				}
			}
		})
	}
}

// TestClientThatSendsNothing hears that its request has ended, though the rest of it is
// still to come. net/http would wait for that first.
func TestClientThatSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		token, name := w.token("alice", time.Hour), strings.Fields(framing)[0]
		c := w.api.expect(name)
		conn := dialRaw(w, w.doors[overHTTP])
		fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n%s: %s\r\n%s\r\n\r\n3\r\nabc\r\n", token, callHeader, name, framing)
		<-c.began
		answered := w.revoke(token)
		_ = conn.SetReadDeadline(answered.Add(within))
		text, err := io.ReadAll(conn)
		if !strings.HasPrefix(string(text), "HTTP/1.1 401 ") || err != nil {
			t.Errorf("%s: %q %v", framing, text, err)
		}
		t.Logf("%s: told and closed after %s", framing, time.Since(answered).Round(time.Millisecond))
	}
}

// TestClientThatSendsOn hears that its request has ended, though it looks for an answer
// only now and then. A connection closed under what it sends would lose the answer.
func TestClientThatSendsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for framing, more := range map[string]string{"Content-Length: 5000": "more", "Transfer-Encoding: chunked": "4\r\nmore\r\n"} {
		token, name := w.token("alice", time.Hour), "sends on: "+framing
		c := w.api.expect(name)
		conn := dialRaw(w, w.doors[overHTTP])
		fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n%s: %s\r\n%s\r\n\r\n%s", token, callHeader, name, framing, more)
		<-c.began
		answered := w.revoke(token)
		for time.Since(answered) < 200*time.Millisecond {
			if _, err := io.WriteString(conn, more); err != nil {
				t.Fatalf("%s: sending: %v", framing, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		_ = conn.SetReadDeadline(answered.Add(within))
		text, err := io.ReadAll(conn)
		if !strings.HasPrefix(string(text), "HTTP/1.1 401 ") || err != nil {
			t.Errorf("%s: %q %v", framing, text, err)
		}
	}
}

func dialRaw(w *world, url string) net.Conn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ending reads all, and tells whether an answer in chunks is whole.
func ending(from io.Reader) string {
	last := make([]byte, 0, 64<<10)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		last = append(last, buf[:n]...)
		last = last[max(0, len(last)-5):]
		if err != nil {
			if string(last) == "0\r\n\r\n" {
				return "whole"
			}
			return "cut"
		}
	}
}
