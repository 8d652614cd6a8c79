package verifiergrpc

import (
	"context"
	"net/http"

	"github.com/revcast/revcast/pkg/verifier"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Unary returns an interceptor that asks v about each unary call. Streams need [Stream].
func Unary(v *verifier.Verifier) grpc.UnaryServerInterceptor {
	unary, _ := For(always(v))
	return unary
}

// Stream returns an interceptor that asks v about each stream. Unary calls need [Unary].
func Stream(v *verifier.Verifier) grpc.StreamServerInterceptor {
	_, stream := For(always(v))
	return stream
}

func always(v *verifier.Verifier) func(string) *verifier.Verifier {
	return func(string) *verifier.Verifier { return v }
}

// Public stands for the verifier of methods that anyone may call. No token is looked at.
var Public = new(verifier.Verifier)

// For returns the interceptors of a server whose methods need different things. choose
// is asked at each call who decides on a method, by its full name as in
// "/grpc.health.v1.Health/Check": a verifier, one that asks for more
// ([verifier.Verifier.Requiring]), or [Public]. Nobody may call a method for which it
// is nil.
func For(choose func(fullMethod string) *verifier.Verifier) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	unary := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		v := choose(info.FullMethod)
		if v == Public {
			return handler(ctx, request)
		}
		var answer any
		err := hold(ctx, v, func(held context.Context) (err error) {
			answer, err = handler(held, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
	stream := func(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		v := choose(info.FullMethod)
		if v == Public {
			return handler(server, s)
		}
		return hold(s.Context(), v, func(held context.Context) error {
			return handler(server, newStream(s, held))
		})
	}
	return unary, stream
}

// hold lets a call through if its token is accepted, and for as long as it is.
func hold(ctx context.Context, v *verifier.Verifier, handle func(held context.Context) error) error {
	if v == nil {
		return status.Error(codes.PermissionDenied, "this method can't be called")
	}
	credentials := http.Header{"Authorization": metadata.ValueFromIncomingContext(ctx, "authorization")}
	d := v.DecideRequest(ctx, credentials, "")
	if d.Outcome != verifier.Allowed {
		return refusal(d)
	}
	held, release := v.Hold(ctx, d)
	defer release()
	if ended := verifier.EndedBy(held); ended != nil { // revoked since the decision
		return refusal(ended.Decision)
	}
	err := handle(held)
	if ended := verifier.EndedBy(held); ended != nil {
		return refusal(ended.Decision)
	}
	return err
}

// CodeOf returns the status of gRPC that says what a refusal does by HTTP.
func CodeOf(r verifier.Refusal) codes.Code {
	switch r.Status {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusBadRequest:
		return codes.InvalidArgument
	}
	return codes.Unavailable
}

func refusal(d verifier.Decision) error {
	r := verifier.RefusalOf(d)
	return status.Error(CodeOf(r), r.Text)
}
