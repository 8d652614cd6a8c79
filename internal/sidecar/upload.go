package sidecar

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// drainWithin is how long the rest of a body is waited for, once its request has been
// answered: a client may read its answer only when it has sent all.
const drainWithin = 3 * time.Second

// errLate: the body of a request that nobody vouches for took too long.
var errLate = errors.New("the body did not arrive in time")

// upload is the answer to a request of HTTP/1 with a body, which may come, and reaches
// the client, while the body is still on its way. Then it is the connection's last: what
// is left of a body must not be taken for a request.
type upload struct {
	http.ResponseWriter
	control *http.ResponseController
	whole   atomic.Bool // the body has been read to its end
	closed  atomic.Bool // nobody wants more of it
	reading sync.Mutex  // held by a read
	late    bool
}

// newUpload puts the body of a request in an upload's care.
func newUpload(w http.ResponseWriter, r *http.Request) *upload {
	u := &upload{ResponseWriter: w, control: http.NewResponseController(w)}
	_ = u.control.EnableFullDuplex() // or else the server reads the rest before it answers
	r.Body = uploadBody{r.Body, u}
	return u
}

func (u *upload) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func (u *upload) WriteHeader(status int) {
	if status >= 200 && !u.whole.Load() {
		u.Header().Set("Connection", "close")
	}
	u.ResponseWriter.WriteHeader(status)
}

// settle ends a read that waits. The server is about to read what is left of the body:
// for so long.
func (u *upload) settle(drain time.Duration) {
	if u.whole.Load() {
		return
	}
	u.closed.Store(true)
	closeGently(u.ResponseWriter)
	_ = u.control.SetReadDeadline(time.Unix(1, 0)) // not every writer has deadlines
	u.reading.Lock()
	defer u.reading.Unlock()
	if drain > 0 {
		_ = u.control.SetReadDeadline(time.Now().Add(drain))
	}
}

// closeGently has a server of HTTP/1 close the connection behind the answer in two steps:
// its own half, and half a second later what the client may still send on. Or else the
// client may meet the closed connection before it has read the answer. It is what the
// server does behind a body that is larger than it may be, as more than nothing is here.
func closeGently(w http.ResponseWriter) {
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}

// wasLate reports whether the body failed with errLate: the request's context ends
// with a read that fails, so that its error may be known before the read's.
func wasLate(w http.ResponseWriter) bool {
	u, ok := w.(*upload)
	if !ok {
		return false
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	return u.late
}

// uploadBody is the body. Close does not wait for a read, as the server's would.
type uploadBody struct {
	io.ReadCloser
	of *upload
}

func (b uploadBody) Read(p []byte) (int, error) {
	b.of.reading.Lock()
	defer b.of.reading.Unlock()
	if b.of.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.of.whole.Store(true)
	}
	b.of.late = b.of.late || errors.Is(err, errLate)
	return n, err
}

func (b uploadBody) Close() error {
	b.of.closed.Store(true)
	return nil
}

// arriving is the body of a request that nobody vouches for.
type arriving struct {
	io.ReadCloser
	control *http.ResponseController
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == io.EOF {
		arrived(a.control)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errLate
	}
	return n, err
}

// arrived lifts the deadline that the server sets for a request to arrive. Not every
// writer has deadlines.
func arrived(c *http.ResponseController) { _ = c.SetReadDeadline(time.Time{}) }
