// Package recipe puts Revcast's middleware into gin. Mind the order: gin.Recovery goes
// behind Accept (so no gin.Default), since it swallows the panic that cuts an answer, and
// logs it. And streams must look at the context of c.Request: c.Done() is another.
package recipe

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/revcast/revcast/pkg/verifier"
)

// Router is an API with a route for anyone, some for good tokens, and one for those that
// have a scope.
func Router(v *verifier.Verifier) *gin.Engine {
	engine := gin.New()

	anyone := engine.Group("/", gin.Recovery())
	anyone.GET("/health", func(c *gin.Context) { c.String(http.StatusOK, "fine\n") })

	api := engine.Group("/", Accept(v), gin.Recovery())
	api.GET("/hello", hello)
	api.GET("/events", events)

	admin := engine.Group("/admin", Accept(v.Requiring(verifier.Requirement{Scopes: []string{"admin"}})), gin.Recovery())
	admin.GET("/hello", hello)
	return engine
}

const claimsKey = "revcast.claims"

// Accept lets requests through that v accepts. They end when their token stops being
// accepted: their context is cancelled, and the connection is cut.
func Accept(v *verifier.Verifier) gin.HandlerFunc {
	return func(c *gin.Context) {
		before, accepted := c.Request, false
		v.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			accepted = true
			c.Request = r
			c.Set(claimsKey, verifier.FromContext(r.Context()))
			c.Next()
		})).ServeHTTP(c.Writer, before)
		c.Request = before // what stands outside gets back a context that goes on
		if !accepted {
			c.Abort()
		}
	}
}

// Claims returns the claims of the accepted token. It panics on routes without Accept.
func Claims(c *gin.Context) *verifier.Claims { return c.MustGet(claimsKey).(*verifier.Claims) }

func hello(c *gin.Context) { c.String(http.StatusOK, "hello, %s\n", Claims(c).Subject) }

func events(c *gin.Context) {
	c.Header("Content-Type", "text/event-stream")
	for {
		fmt.Fprintf(c.Writer, "data: %s\n\n", time.Now().Format(time.RFC3339))
		c.Writer.Flush()
		select {
		case <-c.Request.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}
