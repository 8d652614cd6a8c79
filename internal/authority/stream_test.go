package authority

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/pkg/denylist"
)

// serve runs the authority on a real connection, as deadlines and full duplex
// need one.
func serve(t *testing.T, a *Authority) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(a)
	s.Config.RegisterOnShutdown(a.Stop)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func streamTo(t *testing.T, s *httptest.Server, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/v1/revocations", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson; charset=utf-8")
	r.Header.Set("Authorization", basic(client.GrantSubject, adminSecret))
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func lineFor(sub string) string {
	return fmt.Sprintf(`{"issuer":%q,"selector":{"sub":%q},"reason":%q}`, issuer, sub, sub)
}

// positionFromReason answers with the number that a revocation's reason is.
func positionFromReason(r denylist.Revocation) uint64 {
	n, err := strconv.ParseUint(r.Reason, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func TestStreamAnswersEachLineByItself(t *testing.T) {
	fail := errors.New("disk of 10.0.0.7 is full")
	log := &fakeLog{}
	log.append = func(_ context.Context, rs []denylist.Revocation) (uint64, error) {
		if rs[0].Reason == "7" {
			return 0, fail
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		log.stored = append(log.stored, rs...)
		return positionFromReason(rs[0]), nil
	}
	var lines bytes.Buffer
	s := serve(t, newAuthority(t, log, logged(&lines)))
	long := func(to int) string {
		l := lineFor("6")
		return l[:len(l)-1] + strings.Repeat(" ", to-len(l)) + "}"
	}
	input := []struct{ line, want string }{
		{lineFor("1"), `"position":1,`},
		{`{"issuer":`, `"error":"invalid_request"`},
		{lineFor("2") + "\r", `"position":2,`},
		{fmt.Sprintf(`{"issuer":%q,"selector":{"jti":"x"}}`, issuer), `"error":"access_denied"`},
		{"", `"error":"invalid_request"`},
		{`{"issuer":"https://elsewhere","selector":{"sub":"a"}}`, `"error":"invalid_request"`},
		{long(maxLine + 1), `16 KiB`},
		{long(3 * maxLine), `16 KiB`},
		{long(maxLine), `"position":6,`},
		{lineFor("7"), `"error":"temporarily_unavailable"`},
		{lineFor("8"), `"position":8,`},
	}
	var body strings.Builder
	for i, in := range input {
		if i > 0 {
			body.WriteByte('\n')
		}
		body.WriteString(in.line) // the last one has no newline
	}
	resp := streamTo(t, s, strings.NewReader(body.String()))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")
	if len(got) != len(input) {
		t.Fatalf("%d lines for %d: %s", len(got), len(input), all)
	}
	for i, in := range input {
		if !strings.Contains(got[i], in.want) {
			t.Errorf("line %d: %s, want %s", i, got[i], in.want)
		}
	}
	if n := len(log.all()); n != 4 {
		t.Errorf("stored %d", n)
	}
	checkSilent(t, "the answer", string(all), "10.0.0.7")
}

// A hundred thousand lines against a log that is slow: never more in flight than
// the window, and all are answered in order.
func TestStreamIsBounded(t *testing.T) {
	const lines = 100_000
	var inFlightNow, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	log := &fakeLog{append: func(ctx context.Context, rs []denylist.Revocation) (uint64, error) {
		n := inFlightNow.Add(1)
		defer inFlightNow.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == inFlight {
			once.Do(func() { close(full) })
		}
		select {
		case <-full: // nothing is answered before the window is full
			return positionFromReason(rs[0]), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}}
	s := serve(t, newAuthority(t, log))
	in, out := io.Pipe()
	sender := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(out)
		for i := range lines {
			_, _ = w.WriteString(lineFor(strconv.Itoa(i)) + "\n")
		}
		sender <- errors.Join(w.Flush(), out.Close())
	}()
	answers := bufio.NewScanner(streamTo(t, s, in).Body)
	n := 0
	for ; answers.Scan(); n++ {
		if !strings.HasPrefix(answers.Text(), fmt.Sprintf(`{"position":%d,`, n)) {
			t.Fatalf("line %d: %s", n, answers.Text())
		}
	}
	if err := answers.Err(); err != nil || n != lines {
		t.Fatalf("%d answers: %v", n, err)
	}
	if err := <-sender; err != nil {
		t.Error(err)
	}
	if m := most.Load(); m != inFlight {
		t.Errorf("%d were in flight at most, want %d", m, inFlight)
	}
}

// A log that stands still makes the sender stand still, with the window full and
// no more of the body read than fits a buffer; when it moves again, so does all.
func TestStreamHoldsItsSenderBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lines = 10_000
		var inFlightNow, sent atomic.Int64
		open := make(chan struct{})
		a := newAuthority(t, &fakeLog{append: func(ctx context.Context, rs []denylist.Revocation) (uint64, error) {
			inFlightNow.Add(1)
			defer inFlightNow.Add(-1)
			<-open
			return positionFromReason(rs[0]), nil
		}})
		in, out := io.Pipe()
		go func() {
			defer out.Close()
			for i := range lines {
				io.WriteString(out, lineFor(strconv.Itoa(i))+"\n")
				sent.Add(1)
			}
		}()
		r := httptest.NewRequest(http.MethodPost, "/v1/revocations", in)
		r.Header.Set("Content-Type", "application/x-ndjson")
		r.Header.Set("Authorization", basic(client.GrantSubject, adminSecret))
		answer := make(chan *httptest.ResponseRecorder)
		go func() { answer <- do(a, r) }()

		synctest.Wait()
		if n := inFlightNow.Load(); n != inFlight {
			t.Errorf("%d in flight, want %d", n, inFlight)
		}
		if n, most := sent.Load(), int64(inFlight+1+maxLine/len(lineFor("0"))); n > most {
			t.Errorf("%d lines were taken, want at most %d", n, most)
		}
		close(open)
		if n := strings.Count((<-answer).Body.String(), `"position"`); n != lines {
			t.Errorf("%d answers", n)
		}
	})
}

// An answer goes out when it is there, not when the stream ends.
func TestStreamFlushes(t *testing.T) {
	s := serve(t, newAuthority(t, &fakeLog{}))
	in, out := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := io.WriteString(out, lineFor("1")+"\n")
		first <- err
	}()
	answers := bufio.NewReader(streamTo(t, s, in).Body)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, fmt.Sprintf(`"position":%d,`, n)) {
			t.Fatalf("answer %d: %q, %v", n, got, err)
		}
		if n == 3 {
			break
		}
		if _, err := io.WriteString(out, lineFor("x")+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(answers); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

// A body that breaks off stores only the lines that ended.
func TestStreamCutOff(t *testing.T) {
	log := &fakeLog{}
	a := newAuthority(t, log)
	r := httptest.NewRequest(http.MethodPost, "/v1/revocations",
		io.MultiReader(strings.NewReader(lineFor("1")+"\n"+lineFor("2")), brokenReader{}))
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Authorization", basic(client.GrantSubject, adminSecret))
	w := do(a, r)
	got := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
	if len(got) != 2 || !strings.Contains(got[0], `"position":1`) || !strings.Contains(got[1], "to its end") {
		t.Errorf("%q", got)
	}
	if n := len(log.all()); n != 1 {
		t.Errorf("stored %d", n)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Stop ends a stream whose sender is idle, and its last line says so.
func TestStreamStops(t *testing.T) {
	a := newAuthority(t, &fakeLog{})
	s := serve(t, a)
	in, out := io.Pipe()
	defer out.Close()
	go io.WriteString(out, lineFor("1")+"\n")
	answers := bufio.NewReader(streamTo(t, s, in).Body)
	if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, `"position":1`) {
		t.Fatalf("%q, %v", got, err)
	}
	stopped := time.Now()
	a.Stop()
	rest, err := io.ReadAll(answers)
	if took := time.Since(stopped); took > patience/2 {
		t.Errorf("it took %s: only the sender's own deadline ended it", took)
	}
	if err != nil || !strings.Contains(string(rest), `"error":"temporarily_unavailable"`) || strings.Count(string(rest), "\n") != 1 {
		t.Errorf("%q, %v", rest, err)
	}
}

// A peer that leaves ends the reading of its stream. What was read is stored.
func TestStreamPeerLeaves(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	log := &fakeLog{}
	log.append = func(ctx context.Context, rs []denylist.Revocation) (uint64, error) {
		if rs[0].Reason == "2" {
			close(started)
			<-release
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		log.stored = append(log.stored, rs...)
		return positionFromReason(rs[0]), ctx.Err()
	}
	a := newAuthority(t, log)
	left, ended := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		context.AfterFunc(r.Context(), func() { close(left) })
		a.ServeHTTP(w, r)
	}))
	defer s.Close()
	in, out := io.Pipe()
	go io.WriteString(out, lineFor("1")+"\n"+lineFor("2")+"\n")
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/revocations", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Authorization", basic(client.GrantSubject, adminSecret))
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-started
	leave()
	out.CloseWithError(context.Canceled)
	<-left
	close(release)
	<-ended
	if n := counter(t, a, "revcast_revoke_requests_total", selectorDialect, "revoked"); n != 2 || len(log.all()) != 2 {
		t.Errorf("counted %v, stored %v", n, log.all())
	}
}

func TestConcurrentClients(t *testing.T) {
	log := &fakeLog{}
	a := newAuthority(t, log)
	s := serve(t, a)
	const each = 50
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range each {
				speakers["rfc7009"].check(t, do(a, speakers["rfc7009"].request("web", webSecret, "own")), revoked)
			}
		})
		all.Go(func() {
			for range each {
				checkJSON(t, do(a, postSelector(client.GrantSubject, lineFor("1"))), 200, "")
			}
		})
		all.Go(func() {
			resp := streamTo(t, s, strings.NewReader(strings.Repeat(lineFor("1")+"\n", each)))
			if b, err := io.ReadAll(resp.Body); err != nil || bytes.Count(b, []byte(`"position"`)) != each {
				t.Errorf("%s, %v", b, err)
			}
		})
	}
	all.Wait()
	if n := len(log.all()); n != 4*3*each {
		t.Errorf("stored %d", n)
	}
	if n := counter(t, a, "revcast_revoke_requests_total", selectorDialect, "revoked"); n != 4*2*each {
		t.Errorf("counted %v", n)
	}
}
