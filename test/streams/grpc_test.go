package streams

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// service is the API's gRPC.
type service struct {
	grpc_testing.UnimplementedTestServiceServer
	api *api
}

// serveGRPC returns the address of an API that speaks gRPC.
func serveGRPC(t *testing.T, a *api) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, &service{api: a})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return ln.Addr().String()
}

func (s *service) enter(ctx context.Context) (*call, func()) {
	return s.api.enter(strings.Join(metadata.ValueFromIncomingContext(ctx, callHeader), ""))
}

func (s *service) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	c, leave := s.enter(ctx)
	defer leave()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.release:
		return &grpc_testing.SimpleResponse{}, nil
	}
}

// StreamingOutputCall sends as long as it can.
func (s *service) StreamingOutputCall(asked *grpc_testing.StreamingOutputCallRequest, to grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	c, leave := s.enter(to.Context())
	defer leave()
	size := 100
	for _, p := range asked.GetResponseParameters() {
		size = int(p.GetSize())
	}
	answer := &grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
	for to.Send(answer) == nil && pause(to.Context()) {
		c.got.Add(1)
	}
	return to.Context().Err()
}

// StreamingInputCall takes what comes.
func (s *service) StreamingInputCall(from grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	c, leave := s.enter(from.Context())
	defer leave()
	for {
		if _, err := from.Recv(); err != nil {
			return err
		}
		c.got.Add(1)
	}
}

// FullDuplexCall answers each message with one.
func (s *service) FullDuplexCall(both grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	_, leave := s.enter(both.Context())
	defer leave()
	for {
		if _, err := both.Recv(); err != nil {
			return err
		}
		if err := both.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// dialGRPC returns a client with a connection of its own.
func dialGRPC(w *world, url, name, token string) (grpc_testing.TestServiceClient, context.Context) {
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return grpc_testing.NewTestServiceClient(conn),
		metadata.AppendToOutgoingContext(w.Context(), "authorization", "Bearer "+token, callHeader, name)
}

func outcome(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return "whole"
	}
	return status.Code(err).String() + " " + err.Error()
}

// until receives until that fails, and says how.
func until[M any](receive func() (M, error), received *atomic.Int64) func() string {
	return func() string {
		for {
			if _, err := receive(); err != nil {
				return outcome(err)
			}
			received.Add(1)
		}
	}
}

func serverStream(w *world, url, name, token string, _ *call) (func() string, func() error) {
	client, ctx := dialGRPC(w, url, name, token)
	stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
	if err != nil {
		w.Fatal(err)
	}
	received := new(atomic.Int64)
	return until(stream.Recv, received), func() error { return grows(received) }
}

func clientStream(w *world, url, name, token string, c *call) (func() string, func() error) {
	client, ctx := dialGRPC(w, url, name, token)
	stream, err := client.StreamingInputCall(ctx)
	if err != nil {
		w.Fatal(err)
	}
	go func() {
		for stream.Send(&grpc_testing.StreamingInputCallRequest{}) == nil && pause(ctx) {
		}
	}()
	return func() string { return outcome(stream.RecvMsg(new(grpc_testing.StreamingInputCallResponse))) },
		func() error { return grows(&c.got) }
}

func bothStreams(w *world, url, name, token string, _ *call) (func() string, func() error) {
	client, ctx := dialGRPC(w, url, name, token)
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		w.Fatal(err)
	}
	received := new(atomic.Int64)
	return until(stream.Recv, received), func() error {
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			return err
		}
		return grows(received)
	}
}

func unary(w *world, url, name, token string, c *call) (func() string, func() error) {
	client, ctx := dialGRPC(w, url, name, token)
	saw := make(chan string, 1)
	go func() {
		_, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		saw <- outcome(err)
	}()
	sees := sync.OnceValue(func() string { return <-saw })
	return sees, func() error {
		close(c.release)
		if text := sees(); text != "whole" {
			return errors.New(text)
		}
		return nil
	}
}
