package sidecar

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Both kinds are there from the start, so that the first failure is an increase.
func TestUpstreamErrorsAreCounted(t *testing.T) {
	s, err := New(Config{Decider: fake{}, Upstream: &url.URL{Scheme: "http", Host: "a"}, Ready: func() error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	counted := func(unreachable, timeout string) {
		t.Helper()
		if err := testutil.CollectAndCompare(s, strings.NewReader(`
# HELP revcast_upstream_errors_total Requests that the upstream did not answer, by kind.
# TYPE revcast_upstream_errors_total counter
revcast_upstream_errors_total{kind="timeout"} `+timeout+`
revcast_upstream_errors_total{kind="unreachable"} `+unreachable+"\n"), "revcast_upstream_errors_total"); err != nil {
			t.Error(err)
		}
	}
	fail := func(err error) {
		s.upstreamFailed(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), err)
	}
	counted("0", "0")
	fail(errors.New("connection refused"))
	fail(errors.New("connection reset"))
	fail(context.DeadlineExceeded)
	fail(errTwoTokens) // not the upstream's
	counted("2", "1")
}

// A check with a long body is answered: Envoy may be told to take an error for a yes.
func TestExtAuthzTakesLongChecks(t *testing.T) {
	g := guard(t, nil)
	address := serveHTTP2(t, g.Handler(ExtAuthzListener))
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
		Method: "POST", Path: "/x", RawBody: make([]byte, 8<<20), HeaderMap: &core.HeaderMap{},
	}}}}
	a, err := auth.NewAuthorizationClient(conn).Check(t.Context(), r)
	if err != nil || a.GetDeniedResponse().GetStatus().GetCode() != 401 {
		t.Errorf("%v %v", a, err)
	}
}

// serveHTTP2 serves HTTP/2 without TLS, and HTTP/1, until the test ends.
func serveHTTP2(t *testing.T, h http.Handler) (address string) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
