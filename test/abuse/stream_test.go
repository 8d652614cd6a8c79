//go:build fault

package abuse

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// result is a line of the answer to a stream.
type result struct {
	Position    uint64            `json:"position"`
	Selector    map[string]string `json:"selector"`
	Error       string            `json:"error"`
	Description string            `json:"error_description"`
}

// splitLines reads all lines of an answer.
func splitLines(body string) (all []result) {
	for line := range strings.Lines(body) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil
		}
		all = append(all, r)
	}
	return all
}

// selectors writes n lines that revoke by jti, beginning with that of a number.
func (w *world) selectors(to io.Writer, from, n int) error {
	out := bufio.NewWriterSize(to, 64<<10)
	for i := range n {
		if _, err := fmt.Fprintf(out, `{"issuer":%q,"selector":{"jti":"line-%d"}}`+"\n", w.issuer.Issuer, from+i); err != nil {
			return err
		}
	}
	return out.Flush()
}

// stream sends n lines in one request, beginning with that of a number, and checks
// that each is answered as stored, in order.
func (w *world) stream(from, n int) (took time.Duration) {
	w.Helper()
	began := time.Now()
	body, sender := io.Pipe()
	go func() { _ = sender.CloseWithError(w.selectors(sender, from, n)) }()
	r, err := http.NewRequest(http.MethodPost, w.authority.URL+"/v1/revocations", body)
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.SetBasicAuth(admin.ID, admin.Secret)
	client := *w.client
	client.Timeout = 0
	resp, err := client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		w.Fatalf("a stream: %s", resp.Status)
	}
	answers, read := bufio.NewScanner(resp.Body), 0
	for ; answers.Scan(); read++ {
		if !bytes.HasPrefix(answers.Bytes(), []byte(`{"position":`)) ||
			!bytes.Contains(answers.Bytes(), fmt.Appendf(nil, `"selector":{"jti":"line-%d"}`, from+read)) {
			w.Fatalf("line %d of the answer: %s", read, answers.Text())
		}
	}
	if answers.Err() != nil || read != n {
		w.Fatalf("%d lines of %d were answered: %v", read, n, answers.Err())
	}
	return time.Since(began)
}

// short is how many lines a request has that is not a long one.
const short = 10_000

// A request of a million lines is answered line by line, and takes no memory by its
// length. What is stored for the first time does: the list's, the log's buffers, and
// as much again between garbage collections. How much is told here, of new lines in one
// request; what is asserted is what the same lines take in another: the log stores them
// once more.
func TestMillionLines(t *testing.T) {
	fresh := max(*lines, 300_000) // the log's buffers must be as many as they get
	w := newWorld(t, map[string]map[string]any{admin.ID: {"max_entries": 2*fresh + short}}, nil)
	w.stream(0, short)
	before, _ := w.memory()
	list := w.authority.Metric(t, "revcast_list_bytes")
	w.resetPeak()
	took := w.stream(short, fresh)
	after, peak := w.memory()
	t.Logf("%d new lines in one request: %.0f a second; memory %d MiB before, %d MiB after, %d MiB at most; the list grew by %.0f MiB",
		fresh, float64(fresh)/took.Seconds(), before/mib, after/mib, peak/mib, (w.authority.Metric(t, "revcast_list_bytes")-list)/mib)

	before = after
	w.resetPeak()
	stored := w.stored()
	took = w.stream(short, *lines)
	after, peak = w.memory()
	if got := w.stored() - stored; got != *lines {
		t.Errorf("%d were stored, of %d", got, *lines)
	}
	t.Logf("%d lines in one request, once more: %.0f a second; memory %d MiB before, %d MiB after, %d MiB at most",
		*lines, float64(*lines)/took.Seconds(), before/mib, after/mib, peak/mib)
	if peak-before >= 64_000_000 {
		t.Errorf("the authority grew by %d bytes", peak-before)
	}
}

// A sender that reads no answers is slowed down, and takes the authority no memory.
func TestSenderThatReadsNothingIsHeld(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.stream(0, short)
	w.resetPeak()
	before, _ := w.memory()
	c := w.mustDial()
	head := fmt.Sprintf("POST /v1/revocations HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n"+
		"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", basic(admin))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	var chunk bytes.Buffer
	sent, lines, cut := 0, 0, []byte(nil)
	for cut == nil {
		if lines > 2_000_000 {
			t.Fatalf("%d MiB were taken, and no answer was read", sent/mib)
		}
		chunk.Reset()
		if err := w.selectors(&chunk, short+lines, 500); err != nil {
			t.Fatal(err)
		}
		lines += 500
		b := fmt.Appendf(nil, "%x\r\n%s\r\n", chunk.Len(), chunk.Bytes())
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(b)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			cut = b[n:]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_, peak := w.memory()
	t.Logf("held after %d lines, %.1f MiB; memory %d MiB before, %d MiB at most", lines, float64(sent)/mib, before/mib, peak/mib)
	if peak-before >= 64_000_000 {
		t.Errorf("the authority grew by %d bytes", peak-before)
	}
	if a := w.revoke(web, w.token(web)); a.Status != http.StatusOK {
		t.Errorf("meanwhile: %+v", a)
	}

	// It goes on where it reads after all.
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(append(cut, "0\r\n\r\n"...))
		failed <- err
	}()
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answers, read := bufio.NewScanner(resp.Body), 0
	for ; answers.Scan(); read++ {
		if !bytes.HasPrefix(answers.Bytes(), []byte(`{"position":`)) {
			t.Fatalf("line %d of the answer: %s", read, answers.Text())
		}
	}
	if err := errors.Join(<-failed, answers.Err()); err != nil || read != lines {
		t.Errorf("%d lines of %d were answered: %v", read, lines, err)
	}
}
