package verifier_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

func Example() {
	list := denylist.New() // go feed.Follow(ctx, list, feed.Config{...}) keeps it in step
	v, err := verifier.New(verifier.Config{
		Denylist: list,
		Issuers: []verifier.Issuer{{
			Issuer:     "https://idp.example",
			JWKSURI:    "https://idp.example/jwks",
			Algorithms: []string{"RS256", "ES256"},
			Audiences:  []string{"api"},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()

	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s\n", verifier.FromContext(r.Context()).Subject)
	})
	log.Print(http.ListenAndServe("127.0.0.1:9000", v.Middleware(api)))
}
