// Package verifiergrpc holds gRPC calls to the same decision as [verifier.Verifier.Middleware]
// does HTTP requests: interceptors for servers of google.golang.org/grpc.
//
//	unary, stream := verifiergrpc.For(func(method string) *verifier.Verifier { return v })
//	server := grpc.NewServer(grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))
//
// The token is the bearer token of the call's metadata "authorization". A handler finds its
// claims with [verifier.FromContext].
//
// Invariants:
//
//   - One decision: whatever the middleware would refuse is refused here, in the same
//     words. 401 is UNAUTHENTICATED, 400 INVALID_ARGUMENT, 403 PERMISSION_DENIED, and 503
//     UNAVAILABLE. A handler runs for allowed calls only.
//   - Open calls end: when the token is not accepted any more, the handler's context ends
//     (see [verifier.Verifier.Hold]), a stream's RecvMsg and SendMsg return, even those
//     that are waiting, and give and take no message from then on. Whatever the handler
//     returns after that, the client gets the refusal that a new call would.
//   - Handlers are never left behind: the interceptors return when the handler has. One
//     that neither looks at its context nor receives or sends goes on until it returns.
//
// So that they can be left behind, a stream's receiving and sending are each done by a
// goroutine of their own, which ends with the stream. A message given to a RecvMsg that
// has failed may still be written to, and one given to a SendMsg read: don't use it
// again. Generated code doesn't.
package verifiergrpc
