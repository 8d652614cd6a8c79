package verifiergrpc_test

import (
	"log"
	"net"
	"strings"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
	"google.golang.org/grpc"
)

func Example() {
	list := denylist.New() // go feed.Follow(ctx, list, feed.Config{...}) keeps it in step
	v, err := verifier.New(verifier.Config{Denylist: list, Issuers: []verifier.Issuer{{
		Issuer: "https://idp.example", JWKSURI: "https://idp.example/jwks", Algorithms: []string{"RS256"}, Audiences: []string{"api"},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()

	unary, stream := verifiergrpc.For(func(method string) *verifier.Verifier {
		if strings.HasPrefix(method, "/grpc.health.v1.Health/") {
			return verifiergrpc.Public // anyone may ask
		}
		return v // or v.Requiring(...), where a method needs more
	})
	server := grpc.NewServer(grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))

	listener, err := net.Listen("tcp", "127.0.0.1:9001")
	if err != nil {
		log.Fatal(err)
	}
	log.Print(server.Serve(listener)) // after the services are registered
}
