package sidecar

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
)

const (
	grpcStatus  = "Grpc-Status"
	grpcMessage = "Grpc-Message"
)

// isGRPC reports whether a message with this header is one of "gRPC over HTTP2".
func isGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

func statusOf(r verifier.Refusal) (code, message string) {
	return strconv.Itoa(int(verifiergrpc.CodeOf(r))), r.Text // texts need no escapes
}

// refuse answers a request at the proxy in the protocol that it came in.
func refuse(w http.ResponseWriter, r *http.Request, refusal verifier.Refusal) {
	if r.ProtoMajor < 2 || !isGRPC(r.Header) {
		refusal.Write(w)
		return
	}
	// Trailers-Only of "gRPC over HTTP2": a status without a message.
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	code, message := statusOf(refusal)
	h.Set(grpcStatus, code)
	h.Set(grpcMessage, message)
	w.WriteHeader(http.StatusOK)
}

// endedStream is the body of a gRPC answer. Where its request was ended for its token,
// it ends with the status that says so, in place of an error.
type endedStream struct {
	io.ReadCloser
	ctx      context.Context
	response *http.Response
}

func (e *endedStream) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	ended := verifier.EndedBy(e.ctx)
	if ended == nil {
		return n, err
	}
	if e.response.Trailer == nil {
		e.response.Trailer = http.Header{}
	}
	for name := range e.response.Trailer {
		e.response.Trailer[name] = nil // of a status that never came
	}
	code, message := statusOf(verifier.RefusalOf(ended.Decision))
	e.response.Trailer.Set(grpcStatus, code)
	e.response.Trailer.Set(grpcMessage, message)
	return n, io.EOF
}
