//go:build fault

package fault

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
)

const endWithin = 5 * time.Second

// TestGracefulShutdown ends both binaries in the middle of work.
func TestGracefulShutdown(t *testing.T) {
	w := newWorld(t, nil)
	t.Run("Authority", func(t *testing.T) { endAuthority(w.in(t)) })
	t.Run("Sidecar", func(t *testing.T) { endSidecar(w.in(t)) })
}

// Requests under way are answered, long-polls and streams end, and what was
// answered with 200 is there afterwards.
func endAuthority(w *world) {
	for round := range 5 {
		a := w.fromStart()
		var l load
		stop := l.begin(w)
		w.waitSince(time.Now(), "revocations are answered", func() bool { return l.count() > 100 })

		var polls atomic.Int64
		waiting := make(chan struct{})
		go func() {
			defer close(waiting)
			parallel(20, func(int) { polls.Add(w.poll(a.ring, a.track.Position())) })
		}()
		half := w.tokens(20)
		halfSent, rest := make([]answer, len(half)), make(chan struct{})
		halves := make(chan struct{})
		go func() {
			defer close(halves)
			parallel(len(half), func(i int) { halfSent[i] = w.revokeInHalves(half[i], rest) })
		}()
		streamed := make(chan string, 1)
		ctx, cancel := context.WithTimeout(w.Context(), patience)
		lines, tokens := w.fat(1)
		begun := make(chan struct{})
		go func() { streamed <- w.openStream(ctx, lines[0], begun) }()
		<-begun
		time.Sleep(300 * time.Millisecond)

		time.AfterFunc(200*time.Millisecond, func() { close(rest) })
		exit := w.authority.Terminate(endWithin)
		stop()
		<-waiting
		<-halves
		for _, a := range halfSent {
			if a.status != http.StatusOK {
				w.Errorf("a revocation under way when the end began: %+v", a)
			}
		}
		last := <-streamed
		cancel()
		if exit.Code != 0 {
			w.Errorf("exit code %d", exit.Code)
		}
		w.authority.Start()
		w.authority.WaitReady()
		l.wait()
		a.follow()
		acked := append(append(l.acked, tokens...), half...)
		if n := missing(a.list, acked); n > 0 {
			w.Errorf("%d of %d answered with 200 are gone", n, len(acked))
		}
		if !strings.Contains(last, "shutting down") {
			w.Errorf("the open stream's last line: %q", last)
		}
		w.Logf("round %d: exit 0 after %s, with %d answered with 200 (0 lost), %d unanswered, after %d long-polls and with 20 more, 20 bodies and a stream open",
			round, exit.Took.Round(time.Millisecond), len(acked), len(l.unanswered), polls.Load())
	}
}

// revokeInHalves sends the second half of the request's body once rest is closed.
func (w *world) revokeInHalves(t token, rest <-chan struct{}) answer {
	body, send := io.Pipe()
	defer func() { _ = body.Close() }()
	go func() {
		text := "token=" + t.raw
		_, _ = io.WriteString(send, text[:len(text)/2])
		<-rest
		_, _ = io.WriteString(send, text[len(text)/2:])
		_ = send.Close()
	}()
	r, err := http.NewRequest(http.MethodPost, w.authority.URL+"/oauth2/revoke", body)
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(web.ID, web.Secret)
	}
	return w.do(r, err)
}

// poll follows the log by long-polls until one fails, and returns how many didn't.
func (w *world) poll(ring wire.Keyring, after uint64) (n int64) {
	for {
		nonce := rand.Text()
		r, err := http.NewRequest(http.MethodGet,
			fmt.Sprintf("%s%s?after=%d&nonce=%s&wait=15s", w.authority.URL, wire.LogPath, after, nonce), nil)
		page, err := ring.ReadPage(strings.NewReader(w.do(r, err).body), after, nonce)
		if err != nil {
			return n
		}
		if records := page.Records; len(records) > 0 {
			after = records[len(records)-1].Position
		}
		n++
	}
}

// openStream sends one line, leaves the body open, and returns the answer's last
// line. It closes begun after the first.
func (w *world) openStream(ctx context.Context, line string, begun chan struct{}) (last string) {
	body, send := io.Pipe()
	defer func() { _ = send.Close() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.authority.URL+"/v1/revocations", body)
	if err != nil {
		close(begun)
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.SetBasicAuth(admin.ID, admin.Secret)
	go func() { _, _ = io.WriteString(send, line+"\n") }()
	resp, err := w.client.Do(r)
	if err != nil {
		close(begun)
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	all := make([]byte, 0, 4096)
	for once, b := false, make([]byte, 4096); ; {
		n, err := resp.Body.Read(b)
		all = append(all, b[:n]...)
		if !once {
			close(begun)
			once = true
		}
		if err != nil {
			break
		}
	}
	text := bytes.Split(bytes.TrimSpace(all), []byte("\n"))
	return string(text[len(text)-1])
}

// Requests that are on their way to the API when the end begins get its answer.
func endSidecar(w *world) {
	sidecar := w.sidecar(w.authority.URL, freshness{})
	sidecar.WaitReady()
	good := w.token(nil)
	const slow = 100
	before := w.served.Load()
	answers := make([]answer, slow)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		parallel(slow, func(i int) {
			r, err := http.NewRequest(http.MethodGet, sidecar.URL+"/?pause=1500ms", nil)
			if err == nil {
				r.Header.Set("Authorization", "Bearer "+good.raw)
			}
			answers[i] = w.do(r, err)
		})
	}()
	w.waitSince(time.Now(), "the requests are with the API", func() bool { return w.served.Load() == before+slow })
	exit := sidecar.Terminate(endWithin)
	<-ended
	for _, a := range answers {
		if a.status != http.StatusOK || a.body != apiSays {
			w.Errorf("a request under way: %+v", a)
		}
	}
	if exit.Code != 0 {
		w.Errorf("exit code %d", exit.Code)
	}
	if a := w.call(sidecar, good); a.status != 0 {
		w.Errorf("after the end: %+v", a)
	}
	w.Logf("exit 0 after %s, with %d requests under way answered", exit.Took.Round(time.Millisecond), slow)
	// What it knew is there for the next.
	sidecar.Start()
	sidecar.WaitReady()
	w.mustServe(sidecar, good)
}
