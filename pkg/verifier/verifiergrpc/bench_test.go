package verifiergrpc_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// BenchmarkMessage is what a small message of a stream takes on the loopback, behind the
// interceptor; "ns/more" is by how much that is above a server without, in the same run.
func BenchmarkMessage(b *testing.B) {
	receive := func(s grpc.ServerStream) error {
		var m pb.StreamingOutputCallRequest
		for {
			if err := s.RecvMsg(&m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	echo := func(s grpc.ServerStream) error {
		var m pb.StreamingOutputCallRequest
		for {
			if err := s.RecvMsg(&m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(&pb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	}
	const some = 20_000
	send := func(s grpc.ServerStream) error {
		for range some {
			if err := s.SendMsg(&pb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range []struct {
		name     string
		handler  func(grpc.ServerStream) error
		messages int
		asks     bool // the client sends them
		waits    bool // for an answer to each
	}{{"received", receive, some, true, false}, {"sent", send, some, false, false}, {"echoed", echo, some / 4, true, true}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b).fresh()
			ctx := calling(b, "Bearer "+key().Token(claims(nil)))
			var clients [2]pb.TestServiceClient
			for at, choose := range []func(string) *verifier.Verifier{nil, func(string) *verifier.Verifier { return r.Verifier }} {
				clients[at] = pb.NewTestServiceClient(serve(b, &service{stream: c.handler}, choose))
			}
			var took [2]time.Duration
			for range b.N {
				for at, client := range clients {
					began := time.Now()
					stream, err := client.FullDuplexCall(context.WithoutCancel(ctx))
					if err != nil {
						b.Fatal(err)
					}
					for i := 0; c.asks && i < c.messages; i++ {
						if err := stream.Send(&pb.StreamingOutputCallRequest{}); err != nil {
							b.Fatal(err)
						}
						if c.waits {
							if _, err := stream.Recv(); err != nil {
								b.Fatal(err)
							}
						}
					}
					_ = stream.CloseSend()
					if err := drain(stream); err != nil {
						b.Fatal(err)
					}
					took[at] += time.Since(began)
				}
			}
			messages := float64(b.N) * float64(c.messages)
			b.ReportMetric(float64(took[0].Nanoseconds())/messages, "ns/bare")
			b.ReportMetric(float64((took[1]-took[0]).Nanoseconds())/messages, "ns/more")
		})
	}
}
