// Package recipe puts Revcast's middleware into Echo. Mind that echo.WrapMiddleware would
// do it too, but leaves the request's context cancelled for what stands outside of it and
// for the error handler. middleware.Recover may stand anywhere: it lets cuts through.
package recipe

import (
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/revcast/revcast/pkg/verifier"
)

// Router is an API with a route for anyone, some for good tokens, and one for those that
// have a scope.
func Router(v *verifier.Verifier) *echo.Echo {
	e := echo.New()
	e.Use(middleware.Recover())
	e.GET("/health", func(c *echo.Context) error { return c.String(http.StatusOK, "fine\n") })

	api := e.Group("", Accept(v))
	api.GET("/hello", hello)
	api.GET("/events", events)

	admin := e.Group("/admin", Accept(v.Requiring(verifier.Requirement{Scopes: []string{"admin"}})))
	admin.GET("/hello", hello)
	return e
}

const claimsKey = "revcast.claims"

// Accept lets requests through that v accepts. They end when their token stops being
// accepted: their context is cancelled, and the connection is cut.
func Accept(v *verifier.Verifier) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) (err error) {
			before := c.Request()
			v.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				c.Set(claimsKey, verifier.FromContext(r.Context()))
				err = next(c)
			})).ServeHTTP(c.Response(), before)
			c.SetRequest(before)
			return err
		}
	}
}

// Claims returns the claims of the accepted token; nil on routes without Accept.
func Claims(c *echo.Context) *verifier.Claims {
	claims, _ := echo.ContextGet[*verifier.Claims](c, claimsKey)
	return claims
}

func hello(c *echo.Context) error { return c.String(http.StatusOK, "hello, "+Claims(c).Subject+"\n") }

func events(c *echo.Context) error {
	w := c.Response()
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		fmt.Fprintf(w, "data: %s\n\n", time.Now().Format(time.RFC3339))
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-c.Request().Context().Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
