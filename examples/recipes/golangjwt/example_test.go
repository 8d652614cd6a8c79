package recipe_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"

	recipe "github.com/revcast/revcast/examples/recipes/golangjwt"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/feed"
)

// This is a whole main: the list, what keeps it in step, and the API.
func Example() {
	list := denylist.New() // five minutes without contact are allowed: see denylist.MaxStaleness
	go func() {
		log.Fatal(feed.Follow(context.Background(), list, feed.Config{
			Authority: "https://authority.example",
			StateFile: "revcast.state", // so that it can start while the authority is away
		}))
	}()

	pem, err := os.ReadFile("idp.pem")
	if err != nil {
		log.Fatal(err)
	}
	key, err := jwt.ParseRSAPublicKeyFromPEM(pem)
	if err != nil {
		log.Fatal(err)
	}
	// One key that never changes. For a JWKS, take MicahParks/keyfunc.
	keys := func(*jwt.Token) (any, error) { return key, nil }

	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject, _ := recipe.Claims(r.Context()).GetSubject()
		fmt.Fprintln(w, "hello,", subject)
	})
	server := http.Server{
		Addr: "127.0.0.1:9000", Handler: recipe.Protect(list, keys, hello),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute,
	}
	log.Fatal(server.ListenAndServe())
}
