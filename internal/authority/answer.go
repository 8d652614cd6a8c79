package authority

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
	bytesType  = "application/octet-stream"
	retryAfter = 1 // seconds, with every 503

	// patience is how long a peer may take over the next piece of a body, whichever
	// way it flows.
	patience = 30 * time.Second
	// shortBody is how long a request of at most maxBody may take to arrive.
	shortBody = 10 * time.Second
	maxBody   = 64 << 10
)

// errorAnswer is the body of every error: RFC 6749 section 5.2.
type errorAnswer struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitzero"`
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v, json.Deterministic(true)) // claims are a map
	if err != nil {                                        // a value of ours that has no JSON: a bug, and not the caller's to read
		status, body = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a peer that left is not told
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	writeJSON(w, status, errorAnswer{code, description})
}

// readBody reads a short body whole, of a request that says once that it is of one of
// some types. Where there is none, ok is false and the outcome says why.
func readBody(w http.ResponseWriter, r *http.Request, types ...string) (body []byte, o outcome, ok bool) {
	if !hasType(r, types...) {
		return nil, refuse(badRequest, "the content type must be "+strings.Join(types, " or ")), false
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(shortBody)) // not every writer has deadlines
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, refuse(tooLarge, "body is larger than 64 KiB"), false
	}
	if err != nil {
		return nil, refuse(badRequest, errBodyCut.Error()), false
	}
	// The server watches the connection by reading it: with the deadline left in
	// place, a slow commit would look like a caller that hung up.
	_ = control.SetReadDeadline(time.Time{})
	return body, outcome{}, true
}

// hasType reports whether the request says, once, that its body is of one of some types.
func hasType(r *http.Request, types ...string) bool {
	said := r.Header.Values("Content-Type")
	if len(said) != 1 {
		return false
	}
	got, _, err := mime.ParseMediaType(said[0])
	return err == nil && slices.Contains(types, got)
}

// patientReader grants each read of a body its own deadline, and no further one
// once ctx is done.
type patientReader struct {
	ctx     context.Context
	body    io.Reader
	control *http.ResponseController
}

func (r patientReader) Read(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(time.Now().Add(patience))
	if r.ctx.Err() != nil { // after the deadline is set, so that wake can't come between
		return 0, context.Cause(r.ctx)
	}
	n, err := r.body.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && r.ctx.Err() != nil {
		err = context.Cause(r.ctx)
	}
	return n, err
}

// wake makes a read under way return. For [context.AfterFunc] on ctx.
func (r patientReader) wake() { _ = r.control.SetReadDeadline(time.Unix(1, 0)) }

// patientWriter grants each write of a long answer its own deadline, in place of
// the server's for the whole.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func newPatientWriter(w http.ResponseWriter) patientWriter {
	return patientWriter{w, http.NewResponseController(w)}
}

const (
	writePiece = 64 << 10
	copyPiece  = 1 << 20
	// A piece has longer than a small one: a reader that takes 9 KB a second is served.
	copyPatience = 4 * patience
)

func (w patientWriter) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		_ = w.control.SetWriteDeadline(time.Now().Add(patience))
		var m int
		m, err = w.ResponseWriter.Write(p[n:min(len(p), n+writePiece)])
		n += m
	}
	return n, err
}

// copy sends all of r. A file goes out without passing through this process, so the
// pieces are read from it directly. A peer that left gets no more: the length that
// it was told shows it.
func (w patientWriter) copy(r io.Reader) {
	for {
		_ = w.control.SetWriteDeadline(time.Now().Add(copyPatience))
		if _, err := io.CopyN(w.ResponseWriter, r, copyPiece); err != nil {
			return
		}
	}
}

// done lifts the deadline, which would otherwise outlive the answer and cut off a
// later one on the same connection.
func (w patientWriter) done() { _ = w.control.SetWriteDeadline(time.Time{}) }
