package sidecar

import (
	"context"
	"net/http"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/revcast/revcast/pkg/verifier/verifiergrpc"
)

// maxCheck bounds what Envoy sends: a request's header, and where it is told to, some of
// the body. What is longer is an error, which Envoy may be told to take for a yes.
const maxCheck = 64 << 20

// extAuthz is the door for Envoy's external authorization over gRPC
// (envoy.service.auth.v3).
func (s *Sidecar) extAuthz() http.Handler {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxCheck))
	auth.RegisterAuthorizationServer(server, &authorization{sidecar: s})
	return server
}

type authorization struct {
	auth.UnimplementedAuthorizationServer
	sidecar *Sidecar
}

// Check never errs: Envoy may be told to take an error for a yes.
func (z *authorization) Check(ctx context.Context, r *auth.CheckRequest) (*auth.CheckResponse, error) {
	s := z.sidecar
	about := r.GetAttributes().GetRequest().GetHttp()
	h := headerOf(about)
	var a answer
	if path, rawQuery, ok := splitTarget(about.GetPath()); ok || about.GetPath() == "" {
		a = s.gate.decide(ctx, asked{about.GetMethod(), path, rawQuery, h})
	} else {
		a = s.gate.own(ctx, badPath, false)
	}
	s.count(ExtAuthzDoor, &a)
	if !a.passes() {
		return denied(&a), nil
	}
	told := http.Header{}
	if a.Claims != nil {
		s.identities.set(told, a.Claims)
	}
	ok := &auth.OkHttpResponse{Headers: optionsOf(told)}
	// Envoy deletes after it has set: a header that is told is overwritten instead.
	for name := range h {
		if _, said := told[name]; !said && s.identities.names(name) {
			ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(name))
		}
	}
	for _, one := range s.identities.told {
		if _, said := told[one.Header]; !said && h[one.Header] == nil {
			ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(one.Header))
		}
	}
	if a.public {
		anonymous(h)
		if len(h["Authorization"]) == 0 {
			ok.HeadersToRemove = append(ok.HeadersToRemove, "authorization")
		}
		ok.QueryParametersToRemove = []string{"access_token"}
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)}, HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

// headerOf makes a header of what Envoy says: each line where it sends them as they
// came, or else those of a name joined with commas. No credentials that we take have one.
func headerOf(about *auth.AttributeContext_HttpRequest) http.Header {
	h := http.Header{}
	if lines := about.GetHeaderMap().GetHeaders(); len(lines) > 0 {
		for _, line := range lines {
			value := line.GetValue()
			if value == "" {
				value = string(line.GetRawValue())
			}
			h.Add(line.GetKey(), value)
		}
		return h
	}
	for name, value := range about.GetHeaders() {
		h.Add(name, value)
	}
	if joined := h["Authorization"]; len(joined) == 1 && strings.Contains(joined[0], ",") {
		h["Authorization"] = strings.Split(joined[0], ",")
	}
	return h
}

// optionsOf has Envoy set these fields, in place of any of the same name.
func optionsOf(h http.Header) (options []*core.HeaderValueOption) {
	for name, values := range h {
		options = append(options, &core.HeaderValueOption{
			Header:       &core.HeaderValue{Key: strings.ToLower(name), Value: values[0]},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return options
}

func denied(a *answer) *auth.CheckResponse {
	refusal := a.checkRefusal()
	h := http.Header{}
	refusal.Header(h)
	no := &auth.DeniedHttpResponse{
		Status: &kind.HttpStatus{Code: kind.StatusCode(refusal.Status)}, Headers: optionsOf(h), Body: refusal.Body(),
	}
	return &auth.CheckResponse{
		Status:       &status.Status{Code: int32(verifiergrpc.CodeOf(refusal)), Message: refusal.Text},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: no},
	}
}
