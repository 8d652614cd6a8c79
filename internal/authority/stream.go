package authority

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/client"
)

const (
	maxLine = 16 << 10 // bytes, without its newline
	// inFlight bounds the lines of one stream that are read and not yet answered. A
	// group commit takes them together, so it need not be large.
	inFlight = 256
)

var (
	errBodyCut      = errors.New("the body could not be read to its end")
	errLineTooLong  = errors.New("a line is at most 16 KiB")
	errGone         = errors.New("the client is not what it was: this line and those after it were not read")
	errShuttingDown = errors.New("the authority is shutting down: this line and those after it were not read")
)

// streamRevocations answers a line per line, in order. Lines are stored beside
// each other, at most inFlight of them: a slow log slows the reading of the body,
// and so its sender.
//
// What ends the stream early is its last line, since the status went out with the
// first.
func (a *Authority) streamRevocations(w http.ResponseWriter, r *http.Request, who *client.Client) {
	out := newPatientWriter(w)
	_ = out.control.EnableFullDuplex() // without it (HTTP/1), the first answer would swallow the rest of the body
	w.Header().Set("Content-Type", ndjsonType)

	// What was read is carried out, whatever becomes of the peer. The request's own
	// context must not decide: the server cancels it when a read fails, be it by wake.
	ctx := context.WithoutCancel(r.Context())
	reading, stopReading := context.WithCancelCause(r.Context())
	defer stopReading(nil)
	defer context.AfterFunc(a.stopping, func() { stopReading(errShuttingDown) })()
	body := patientReader{reading, r.Body, out.control}
	defer context.AfterFunc(reading, body.wake)()

	// The lines in flight, in order: what the channel holds, and the one whose turn
	// it is.
	answers := make(chan chan outcome, inFlight-1)
	written := make(chan struct{})
	go func() {
		defer close(written)
		a.writeAnswers(ctx, func() { stopReading(nil) }, out, answers)
	}()

	lines := bufio.NewReaderSize(body, maxLine+1)
	for more := true; more; {
		line, err := nextLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		answer := make(chan outcome, 1)
		answers <- answer // ends soon: writeAnswers goes on without a peer, and append is bounded
		switch {
		case reading.Err() != nil:
			err = context.Cause(reading)
		case err == nil && !a.clients.Still(who):
			err = errGone
		}
		switch {
		case errors.Is(err, errLineTooLong):
			answer <- outcome{kind: badRequest, why: err.Error(), client: who.ID()}
		case errors.Is(err, errGone):
			answer <- outcome{kind: badClient, why: err.Error(), client: who.ID()}
			more = false
		case errors.Is(err, errShuttingDown):
			answer <- outcome{kind: unavailable, why: err.Error(), client: who.ID()}
			more = false
		case err != nil:
			answer <- outcome{kind: badRequest, why: errBodyCut.Error(), client: who.ID()}
			more = false
		default:
			now := a.now()
			revocation, planned, ok := a.plan(who, line, now)
			if !ok {
				answer <- planned
				continue
			}
			go func() { answer <- a.carryOut(ctx, who, revocation, planned, now) }()
		}
	}
	close(answers)
	<-written
	out.done()
}

// writeAnswers writes each answer when its turn comes, and flushes whenever it
// would have to wait. Where the peer is gone it says so and goes on without
// writing: what is under way still counts and is logged.
func (a *Authority) writeAnswers(ctx context.Context, gone func(), out patientWriter, answers <-chan chan outcome) {
	buffered := bufio.NewWriterSize(out, writePiece) // its errors stick
	unsent := false
	flush := func() {
		if !unsent { // nothing may go out before the first answer: the peer could wait for "100 Continue"
			return
		}
		unsent = false
		if errors.Join(buffered.Flush(), out.control.Flush()) != nil {
			gone()
		}
	}
	defer flush()
	for {
		var answer chan outcome
		var more bool
		select {
		case answer, more = <-answers:
		default:
			flush()
			answer, more = <-answers
		}
		if !more {
			return
		}
		var o outcome
		select {
		case o = <-answer:
		default:
			flush()
			o = <-answer
		}
		a.record(ctx, selectorDialect, o)
		line, err := lineOf(o)
		if err == nil {
			_, err = buffered.Write(append(line, '\n'))
		}
		if err != nil {
			gone()
		}
		unsent = true
	}
}

func lineOf(o outcome) ([]byte, error) {
	if o.kind == revoked {
		return json.Marshal(answerOf(o))
	}
	return json.Marshal(errorAnswer{kinds[o.kind].code, o.why})
}

// nextLine returns the next line without its newline, valid until the next call.
// It errs with errLineTooLong after having passed over such a line, with io.EOF at
// the end, and with another error where the body breaks off: a line that does is
// never returned.
func nextLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, errLineTooLong
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return line, nil // the last line may lack its newline
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line, []byte("\n")), nil
}
