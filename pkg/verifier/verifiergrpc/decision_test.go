package verifiergrpc_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// calls has a call of each kind; each returns how it ended for the client.
var calls = map[string]func(context.Context, pb.TestServiceClient) error{
	"unary": func(ctx context.Context, c pb.TestServiceClient) error {
		_, err := c.UnaryCall(ctx, &pb.SimpleRequest{})
		return err
	},
	"server stream": func(ctx context.Context, c pb.TestServiceClient) error {
		s, err := c.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
		if err != nil {
			return err
		}
		return drain(s)
	},
	"client stream": func(ctx context.Context, c pb.TestServiceClient) error {
		s, err := c.StreamingInputCall(ctx)
		if err != nil {
			return err
		}
		_, err = s.CloseAndRecv()
		return err
	},
	"both streams": func(ctx context.Context, c pb.TestServiceClient) error {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		return drain(s)
	},
}

// TestOneDecision: every kind of call is let through or refused as HTTP requests are by
// the middleware, in the same words.
func TestOneDecision(t *testing.T) {
	bearer := func(changes map[string]any) string { return "Bearer " + key().Token(claims(changes)) }
	forged := "Bearer " + tokentest.NewKey("e1", "ES256").Token(claims(nil))
	never := func(*rig) {}
	for name, c := range map[string]struct {
		authorization []string
		before        func(*rig)
		need          verifier.Requirement
		want          codes.Code
		words         string
	}{
		"valid":             {[]string{bearer(nil)}, never, verifier.Requirement{}, codes.OK, ""},
		"valid and enough":  {[]string{bearer(nil)}, never, verifier.Requirement{Scopes: []string{"read"}}, codes.OK, ""},
		"none":              {nil, never, verifier.Requirement{}, codes.Unauthenticated, "is needed"},
		"another scheme":    {[]string{"Basic YWxpY2U6"}, never, verifier.Requirement{}, codes.Unauthenticated, "is needed"},
		"two values":        {[]string{bearer(nil), bearer(nil)}, never, verifier.Requirement{}, codes.InvalidArgument, "one bearer"},
		"two in one":        {[]string{bearer(nil) + "," + bearer(nil)}, never, verifier.Requirement{}, codes.InvalidArgument, "one bearer"},
		"forged":            {[]string{forged}, never, verifier.Requirement{}, codes.Unauthenticated, "expired or revoked"},
		"opaque":            {[]string{"Bearer opaque"}, never, verifier.Requirement{}, codes.Unauthenticated, "expired or revoked"},
		"another audience":  {[]string{bearer(map[string]any{"aud": "x"})}, never, verifier.Requirement{}, codes.Unauthenticated, "expired or revoked"},
		"audience required": {[]string{bearer(nil)}, never, verifier.Requirement{Audiences: []string{"admin"}}, codes.Unauthenticated, "expired or revoked"},
		"scope required":    {[]string{bearer(nil)}, never, verifier.Requirement{Scopes: []string{"admin"}}, codes.PermissionDenied, "not for this"},
		"revoked":           {[]string{bearer(nil)}, func(r *rig) { r.revoke("t-1") }, verifier.Requirement{}, codes.Unauthenticated, "expired or revoked"},
		"revoked, and a scope required": {[]string{bearer(nil)}, func(r *rig) { r.revoke("t-1") },
			verifier.Requirement{Scopes: []string{"admin"}}, codes.Unauthenticated, "expired or revoked"},
		"expired": {[]string{bearer(nil)}, func(r *rig) { r.forward(2 * time.Hour); r.fresh() }, verifier.Requirement{}, codes.Unauthenticated, "expired or revoked"},
		"stale":   {[]string{bearer(nil)}, func(r *rig) { r.forward(10 * time.Minute) }, verifier.Requirement{}, codes.Unavailable, "can't be checked"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).fresh()
			c.before(r)
			v := r.Requiring(c.need)
			var handled atomic.Int32
			handle := func(ctx context.Context) error {
				handled.Add(1)
				if got := verifier.FromContext(ctx); got == nil || got.Subject != "alice" {
					t.Errorf("claims %+v", got)
				}
				return nil
			}
			s := &service{unary: handle, stream: func(s grpc.ServerStream) error { return handle(s.Context()) }}
			client := pb.NewTestServiceClient(serve(t, s, func(string) *verifier.Verifier { return v }))

			recorder, request := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			for _, value := range c.authorization {
				request.Header.Add("Authorization", value)
			}
			v.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(recorder, request)
			byHTTP := map[int]codes.Code{200: codes.OK, 400: codes.InvalidArgument, 401: codes.Unauthenticated,
				403: codes.PermissionDenied, 503: codes.Unavailable}[recorder.Code]
			var body struct {
				Words string `json:"error_description"`
			}
			if byHTTP != codes.OK {
				if err := json.Unmarshal(recorder.Body.Bytes(), &body); err != nil {
					t.Fatal(err)
				}
			}
			for kind, call := range calls {
				before := handled.Load()
				got := status.Convert(call(calling(t, c.authorization...), client))
				if got.Code() != c.want || got.Code() != byHTTP {
					t.Errorf("%s: %v, and HTTP says %d", kind, got, recorder.Code)
				}
				if !strings.Contains(got.Message(), c.words) || got.Message() != body.Words {
					t.Errorf("%s: %q, and HTTP says %q", kind, got.Message(), body.Words)
				}
				if ran := handled.Load() > before; ran != (c.want == codes.OK) {
					t.Errorf("%s: the handler ran: %v", kind, ran)
				}
			}
			if n := r.Stats().Open; n != 0 {
				t.Errorf("%d are still held", n)
			}
		})
	}
}

// TestFreshOrUnknownWhileLoading: nothing is let through on a list that is loading.
func TestFreshOrUnknownWhileLoading(t *testing.T) {
	r := newRig(t)
	client := pb.NewTestServiceClient(serve(t, &service{}, func(string) *verifier.Verifier { return r.Verifier }))
	for kind, call := range calls {
		if err := call(calling(t, "Bearer "+key().Token(claims(nil))), client); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestForAsksByMethod: each method has its own verifier, public ones are anyone's, whatever
// token they are called with, and those without any are nobody's.
func TestForAsksByMethod(t *testing.T) {
	r := newRig(t).fresh()
	strict := r.Requiring(verifier.Requirement{Scopes: []string{"admin"}})
	none := func(context.Context) error { return nil }
	connection := serve(t, &service{unary: none, stream: func(grpc.ServerStream) error { return nil }}, func(method string) *verifier.Verifier {
		switch method {
		case healthpb.Health_Check_FullMethodName, healthpb.Health_Watch_FullMethodName:
			return verifiergrpc.Public
		case pb.TestService_StreamingInputCall_FullMethodName:
			return nil // forgotten
		case pb.TestService_FullDuplexCall_FullMethodName:
			return strict
		}
		return r.Verifier
	})
	client, doctor := pb.NewTestServiceClient(connection), healthpb.NewHealthClient(connection)
	for _, authorization := range [][]string{nil, {"Bearer opaque"}, {"Bearer a", "Bearer b"}} {
		if _, err := doctor.Check(calling(t, authorization...), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("%v: %v", authorization, err)
		}
		watch, err := doctor.Watch(calling(t, authorization...), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if err != nil {
			t.Errorf("%v: %v", authorization, err)
		}
		if _, err := client.UnaryCall(calling(t, authorization...), &pb.SimpleRequest{}); err == nil {
			t.Errorf("%v: a method that isn't public is called", authorization)
		}
	}
	good := "Bearer " + key().Token(claims(nil))
	for kind, want := range map[string]codes.Code{"unary": codes.OK, "server stream": codes.OK, "both streams": codes.PermissionDenied, "client stream": codes.PermissionDenied} {
		if err := calls[kind](calling(t, good), client); status.Code(err) != want {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestUnaryAndStreamAskOneVerifier(t *testing.T) {
	r := newRig(t).fresh()
	for _, raw := range []string{key().Token(claims(nil)), "opaque"} {
		want := codes.OK
		if raw == "opaque" {
			want = codes.Unauthenticated
		}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+raw))
		_, err := verifiergrpc.Unary(r.Verifier)(ctx, nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return nil, nil })
		if status.Code(err) != want {
			t.Errorf("%s: %v", raw, err)
		}
		err = verifiergrpc.Stream(r.Verifier)(nil, fake{ctx: ctx}, &grpc.StreamServerInfo{}, func(any, grpc.ServerStream) error { return nil })
		if status.Code(err) != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// fake is a stream without a network.
type fake struct {
	grpc.ServerStream
	ctx     context.Context
	receive func() error
}

func (f fake) Context() context.Context { return f.ctx }
func (f fake) RecvMsg(any) error        { return f.receive() }
func (f fake) SendMsg(any) error        { return nil }
