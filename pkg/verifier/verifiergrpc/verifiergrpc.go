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
	if v == nil {
		panic("verifiergrpc: the verifier is nil, which would let everyone in")
	}
	return func(string) *verifier.Verifier { return v }
}

// For returns the interceptors of a server whose methods need different things. choose
// is asked at each call who decides on a method, by its full name as in
// "/grpc.health.v1.Health/Check": a verifier, or one that asks for more
// ([verifier.Verifier.Requiring]). nil lets anyone call the method, and no token is
// looked at. So name the public methods, and have a verifier for all others, whatever
// they are: a map's nil would let everyone in where a name is missing.
func For(choose func(fullMethod string) *verifier.Verifier) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	unary := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		v := choose(info.FullMethod)
		if v == nil {
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
		if v == nil {
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
	credentials := http.Header{"Authorization": metadata.ValueFromIncomingContext(ctx, "authorization")}
	d := v.DecideRequest(ctx, credentials, "")
	if d.Outcome != verifier.Allowed {
		return refusal(d)
	}
	held, release := v.Hold(ctx, d)
	defer release()
	err := handle(held)
	if ended := verifier.EndedBy(held); ended != nil {
		return refusal(ended.Decision)
	}
	return err
}

// refusal renders a decision that doesn't allow, as [verifier.WriteRefusal] does.
func refusal(d verifier.Decision) error {
	switch {
	case d.Outcome != verifier.Refused:
		return status.Error(codes.Unavailable, "the access token can't be checked now")
	case d.Reason == verifier.Missing:
		return status.Error(codes.Unauthenticated, "a bearer access token is needed")
	case d.Reason == verifier.Ambiguous:
		return status.Error(codes.InvalidArgument, "the request must carry one bearer access token")
	case d.Reason == verifier.InsufficientScope:
		return status.Error(codes.PermissionDenied, "the access token is not for this request")
	}
	return status.Error(codes.Unauthenticated, "the access token is invalid, expired or revoked")
}
