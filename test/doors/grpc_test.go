//go:build doors

package doors

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
)

// called is how gRPC says it. Whether there is a token is not told apart.
var called = words{
	allowed: codes.OK.String(), refused: codes.Unauthenticated.String(), missing: codes.Unauthenticated.String(),
	ambiguous: codes.InvalidArgument.String(), unavailable: codes.Unavailable.String(),
}

// unary is a call of a gRPC service behind the interceptors.
func (s *site) unary() func(request) string {
	service := serve(s.T, s.verifier)
	return func(r request) string {
		ctx, cancel := calling(r)
		defer cancel()
		_, err := service.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return status.Code(err).String()
	}
}

// stream is a call that goes on, whose first message counts.
func (s *site) stream() func(request) string {
	service := serve(s.T, s.verifier)
	return func(r request) string {
		ctx, cancel := calling(r)
		defer cancel()
		stream, err := service.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return status.Code(err).String()
	}
}

func calling(r request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	for _, value := range r.authorization {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
	}
	return ctx, cancel
}

// serve runs a gRPC service, every server's own: health.
func serve(t *testing.T, v *verifier.Verifier) grpc_health_v1.HealthClient {
	t.Helper()
	server := grpc.NewServer(grpc.UnaryInterceptor(verifiergrpc.Unary(v)), grpc.StreamInterceptor(verifiergrpc.Stream(v)))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return grpc_health_v1.NewHealthClient(connection)
}
