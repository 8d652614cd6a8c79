package verifiergrpc_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const issuer = "https://idp.example"

var key = sync.OnceValue(func() *tokentest.Key { return tokentest.NewKey("e1", "ES256") })

// rig is a verifier, and what it asks.
type rig struct {
	*verifier.Verifier
	list   *denylist.List
	offset atomic.Int64 // of the clock
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{list: denylist.New()}
	var err error
	r.Verifier, err = verifier.New(verifier.Config{
		Denylist: r.list, HTTPClient: tokentest.NewIdP(key()).Client(), Logger: slog.New(slog.DiscardHandler), Now: r.now,
		Issuers: []verifier.Issuer{{Issuer: issuer, JWKSURI: "https://idp.example/jwks", Algorithms: []string{"ES256"}, Audiences: []string{"api"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func (r *rig) now() time.Time          { return time.Now().Add(time.Duration(r.offset.Load())) }
func (r *rig) forward(d time.Duration) { r.offset.Add(int64(d)) }

// fresh says that the list is complete as of now.
func (r *rig) fresh() *rig {
	r.list.Advance(r.now())
	return r
}

func (r *rig) revoke(jti string) {
	r.list.Add(denylist.Revocation{Issuer: issuer, Selector: denylist.One("jti", jti), Expires: time.Now().Add(2 * time.Hour)}.Entry())
}

func claims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": "alice", "aud": "api", "jti": "t-1", "scope": "read", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	return c
}

// service has one method of each kind; all streams are handled alike.
type service struct {
	pb.UnimplementedTestServiceServer
	unary  func(context.Context) error
	stream func(grpc.ServerStream) error
}

func (s *service) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Username: "secret"}, s.unary(ctx)
}

func (s *service) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	return s.stream(stream)
}

func (s *service) StreamingInputCall(stream grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	if err := s.stream(stream); err != nil {
		return err
	}
	return stream.SendAndClose(&pb.StreamingInputCallResponse{})
}

func (s *service) FullDuplexCall(stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	return s.stream(stream)
}

// serve starts a server on the loopback and returns a connection to it. choose is for
// [verifiergrpc.For]; nil: without the interceptors.
func serve(t testing.TB, s *service, choose func(method string) *verifier.Verifier) *grpc.ClientConn {
	t.Helper()
	var options []grpc.ServerOption
	if choose != nil {
		unary, stream := verifiergrpc.For(choose)
		options = append(options, grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))
	}
	server := grpc.NewServer(options...)
	pb.RegisterTestServiceServer(server, s)
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = connection.Close()
		server.Stop()
		running.Wait()
	})
	return connection
}

// calling returns the context of a call with these values of authorization, which takes
// no longer than tests may.
func calling(t testing.TB, authorization ...string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	return metadata.NewOutgoingContext(ctx, md)
}

// drain receives until the stream's end.
func drain(s interface {
	Recv() (*pb.StreamingOutputCallResponse, error)
}) error {
	for {
		if _, err := s.Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
