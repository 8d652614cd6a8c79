package verifiergrpc_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const refused = "the access token is invalid, expired or revoked"

// ends has what ends open calls, and what their clients get.
var ends = map[string]struct {
	happens func(*rig)
	want    codes.Code
	words   string
}{
	"revoked": {func(r *rig) { r.revoke("t-1") }, codes.Unauthenticated, refused},
	"expired": {func(r *rig) { r.forward(2 * time.Hour); r.fresh() }, codes.Unauthenticated, refused},
	"stale":   {func(r *rig) { r.forward(10 * time.Minute) }, codes.Unavailable, "the access token can't be checked now"},
}

func receive(s grpc.ServerStream) error { return s.RecvMsg(new(pb.StreamingOutputCallRequest)) }
func send(s grpc.ServerStream) error {
	return s.SendMsg(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, 1<<10)}})
}

func until(call func(grpc.ServerStream) error, s grpc.ServerStream) error {
	for {
		if err := call(s); err != nil {
			return err
		}
	}
}

// TestPromptOpenStreamsEnd: whatever a handler does and returns, its client gets the
// refusal, and the handler is told.
func TestPromptOpenStreamsEnd(t *testing.T) {
	other := errors.New("a handler's own")
	for name, c := range map[string]struct {
		handle func(grpc.ServerStream) error // returns what its last call did
		as     error                         // what the handler returns then
		reads  bool                          // the client does, before the end
	}{
		"receives":                {receive, nil, true},
		"receives and fails":      {receive, other, true},
		"waits for its context":   {func(s grpc.ServerStream) error { <-s.Context().Done(); return receive(s) }, nil, true},
		"waits, and sends then":   {func(s grpc.ServerStream) error { <-s.Context().Done(); return send(s) }, nil, true},
		"sends":                   {func(s grpc.ServerStream) error { return until(send, s) }, nil, true},
		"sends, and nobody reads": {func(s grpc.ServerStream) error { return until(send, s) }, other, false},
		"sends and receives at once": {func(s grpc.ServerStream) error {
			received := make(chan error, 1)
			go func() { received <- until(receive, s) }()
			return errors.Join(until(send, s), <-received)
		}, nil, true},
	} {
		for why, end := range ends {
			t.Run(name+", "+why, func(t *testing.T) {
				r := newRig(t).fresh()
				began, returned := make(chan context.Context, 1), make(chan error, 1)
				connection := serve(t, &service{stream: func(s grpc.ServerStream) error {
					if err := send(s); err != nil {
						return err
					}
					began <- s.Context()
					returned <- c.handle(s)
					return c.as
				}}, func(string) *verifier.Verifier { return r.Verifier })
				stream, err := pb.NewTestServiceClient(connection).FullDuplexCall(calling(t, "Bearer "+key().Token(claims(nil))))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
				answered := make(chan error, 1)
				read := func() { answered <- drain(stream) }
				if c.reads {
					go read()
				}
				held := <-began
				at := time.Now()
				end.happens(r)
				<-held.Done()
				err = <-returned
				if !c.reads {
					go read()
				}
				for _, err := range append(joined(err), <-answered) {
					if got := status.Convert(err); got.Code() != end.want || got.Message() != end.words {
						t.Errorf("%v", err)
					}
				}
				t.Logf("the client knew after %s", time.Since(at).Round(time.Millisecond))
				if verifier.EndedBy(held) == nil || r.Stats().Open != 0 {
					t.Errorf("ended by %v, %d are open", context.Cause(held), r.Stats().Open)
				}
			})
		}
	}
}

func joined(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

// TestPromptOpenUnaryCallsEnd: an answer that comes after the end is not given.
func TestPromptOpenUnaryCallsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(ctx context.Context, ended <-chan struct{})
		as     error
	}{
		"waits for its context":           {func(ctx context.Context, _ <-chan struct{}) { <-ctx.Done() }, nil},
		"waits for its context and fails": {func(ctx context.Context, _ <-chan struct{}) { <-ctx.Done() }, status.Error(codes.NotFound, "no")},
		"never looks":                     {func(_ context.Context, ended <-chan struct{}) { <-ended }, nil},
	} {
		for why, end := range ends {
			t.Run(name+", "+why, func(t *testing.T) {
				r := newRig(t).fresh()
				began, ended := make(chan context.Context, 1), make(chan struct{})
				connection := serve(t, &service{unary: func(ctx context.Context) error {
					began <- ctx
					c.handle(ctx, ended)
					return c.as
				}}, func(string) *verifier.Verifier { return r.Verifier })
				ctx, answered := calling(t, "Bearer "+key().Token(claims(nil))), make(chan error, 1)
				go func() {
					answer, err := pb.NewTestServiceClient(connection).UnaryCall(ctx, &pb.SimpleRequest{})
					if answer != nil {
						t.Errorf("answered %v", answer)
					}
					answered <- err
				}()
				held := <-began
				end.happens(r)
				<-held.Done()
				close(ended)
				if got := status.Convert(<-answered); got.Code() != end.want || got.Message() != end.words {
					t.Error(got)
				}
			})
		}
	}
}

// TestNothingPassesAfterTheEnd: neither messages that are waiting to be received, nor any
// that are sent.
func TestNothingPassesAfterTheEnd(t *testing.T) {
	r := newRig(t).fresh()
	began, returned := make(chan context.Context, 1), make(chan struct{})
	connection := serve(t, &service{stream: func(s grpc.ServerStream) error {
		defer close(returned)
		if err := receive(s); err != nil {
			return err
		}
		began <- s.Context()
		<-s.Context().Done()
		for range 100 {
			if err := receive(s); status.Code(err) != codes.Unauthenticated {
				t.Errorf("received: %v", err)
			}
			if err := send(s); status.Code(err) != codes.Unauthenticated {
				t.Errorf("sent: %v", err)
			}
		}
		return nil
	}}, func(string) *verifier.Verifier { return r.Verifier })
	stream, err := pb.NewTestServiceClient(connection).FullDuplexCall(calling(t, "Bearer "+key().Token(claims(nil))))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := stream.Send(&pb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	<-began
	r.revoke("t-1")
	if m, err := stream.Recv(); m != nil || status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v %v", m, err)
	}
	<-returned
}

// TestOtherCallsGoOn: only the calls of the token that is revoked end.
func TestOtherCallsGoOn(t *testing.T) {
	r := newRig(t).fresh()
	connection := serve(t, &service{stream: func(s grpc.ServerStream) error {
		for {
			if err := receive(s); err != nil {
				return err
			}
			if err := send(s); err != nil {
				return err
			}
		}
	}}, func(string) *verifier.Verifier { return r.Verifier })
	var streams []grpc.BidiStreamingClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]
	talk := func(at int) error {
		_ = streams[at].Send(&pb.StreamingOutputCallRequest{})
		_, err := streams[at].Recv()
		return err
	}
	for at, jti := range []string{"t-1", "t-2"} {
		stream, err := pb.NewTestServiceClient(connection).FullDuplexCall(calling(t, "Bearer "+key().Token(claims(map[string]any{"jti": jti}))))
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
		if err := talk(at); err != nil {
			t.Fatal(err)
		}
	}
	r.revoke("t-1")
	if _, err := streams[0].Recv(); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	for range 10 {
		if err := talk(1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoGoroutineOutlivesItsCall: neither of streams that end well, nor of those that are
// ended, nor of those whose client leaves. The server goes on.
func TestNoGoroutineOutlivesItsCall(t *testing.T) {
	r := newRig(t).fresh()
	var running sync.WaitGroup
	var waits atomic.Bool
	connection := serve(t, &service{stream: func(s grpc.ServerStream) error {
		running.Add(1)
		defer running.Done()
		_, _ = receive(s), send(s)
		if waits.Load() {
			_ = receive(s)
		}
		return nil
	}}, func(string) *verifier.Verifier { return r.Verifier })
	client := pb.NewTestServiceClient(connection)
	open := func(ctx context.Context) grpc.BidiStreamingClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse] {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&pb.StreamingOutputCallRequest{})
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	ctx := calling(t, "Bearer "+key().Token(claims(nil)))
	if err := drain(open(ctx)); err != nil { // the connection's own are there from now on
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	for range 20 {
		if err := drain(open(ctx)); err != nil {
			t.Error(err)
		}
	}
	waits.Store(true)
	leaves, leave := context.WithCancel(ctx)
	left := open(leaves)
	leave()
	if err := drain(left); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	ended := open(ctx)
	r.revoke("t-1")
	if err := drain(ended); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	running.Wait()
	goleak.VerifyNone(t, before)
}

// TestPanicsReachTheHandler: what panics below the interceptor does so where a server's
// recovery finds it.
func TestPanicsReachTheHandler(t *testing.T) {
	r := newRig(t).fresh()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+key().Token(claims(nil))))
	defer func() {
		if got := recover(); got != "broken codec" {
			t.Errorf("%v", got)
		}
		if n := r.Stats().Open; n != 0 {
			t.Errorf("%d are open", n)
		}
	}()
	below := fake{ctx: ctx, receive: func() error { panic("broken codec") }}
	_ = verifiergrpc.Stream(r.Verifier)(nil, below, &grpc.StreamServerInfo{}, func(_ any, s grpc.ServerStream) error { return s.RecvMsg(nil) })
}

// TestContextsEndedByOthersEndTheStream: one that waits behind a context which an
// interceptor before this has ended can't be watched any more, so that it ends.
func TestContextsEndedByOthersEndTheStream(t *testing.T) {
	r := newRig(t).fresh()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+key().Token(claims(nil))))
	ctx, cancel := context.WithCancel(ctx)
	released := make(chan struct{})
	defer close(released)
	below := fake{ctx: ctx, receive: func() error {
		cancel()
		<-released
		return nil
	}}
	err := verifiergrpc.Stream(r.Verifier)(nil, below, &grpc.StreamServerInfo{}, func(_ any, s grpc.ServerStream) error { return s.RecvMsg(nil) })
	if status.Code(err) != codes.Canceled {
		t.Error(err)
	}
}
