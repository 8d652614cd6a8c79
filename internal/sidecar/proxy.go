package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
)

// proxy is the door in front of the API.
func (s *Sidecar) proxy() http.Handler {
	upstream := &httputil.ReverseProxy{
		Rewrite:       s.rewrite,
		Transport:     s.transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
		ErrorHandler:  s.upstreamFailed,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := s.Decider.DecideRequest(r.Context(), r.Header, r.URL.RawQuery); d.Outcome != verifier.Allowed {
			verifier.WriteRefusal(w, d)
			return
		}
		if r.Method == http.MethodConnect {
			writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this proxy opens no tunnels")
			return
		}
		// Whoever has a good token may take its time to send a body. Not every writer has
		// deadlines.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		upstream.ServeHTTP(w, r)
	})
}

func newTransport(headerTimeout time.Duration) *http.Transport {
	return &http.Transport{
		// Proxy stays nil: a request with a token goes to the upstream, whatever
		// HTTP_PROXY says.
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          512,
		MaxIdleConnsPerHost:   512, // there is one host
		IdleConnTimeout:       60 * time.Second,
		DisableCompression:    true, // bodies pass as they are
		ForceAttemptHTTP2:     true,
	}
}

// rewrite makes the upstream's request of the client's. ReverseProxy has dropped
// the hop-by-hop headers, and what Connection named, from Out.
func (s *Sidecar) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(s.Upstream)
	// The API is told the name that it was called by: links that it makes stay right.
	r.Out.Host = r.In.Host
	// ReverseProxy drops parameters that Go can't parse, in case its user decided by
	// the query. Nothing here does.
	r.Out.URL.RawQuery = r.In.URL.RawQuery

	h := r.Out.Header
	for name := range h {
		if ours(name) {
			delete(h, name)
		}
	}
	r.SetXForwarded()
	if ip, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		h.Set("X-Real-Ip", ip)
	}
	// "Connection: Authorization" would have the upstream see a request without the
	// token that it was let through for.
	h["Authorization"] = r.In.Header["Authorization"]
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") {
		h.Del("Upgrade")
		h.Del("Connection")
		h.Del("Http2-Settings")
	}
}

// ours reports whether only this proxy may set a header, in any spelling: CGI and
// WSGI servers can't tell X_Real_Ip from X-Real-Ip.
func ours(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-")
}

// upstreamFailed answers where the upstream did not.
func (s *Sidecar) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		// The client is gone, or this process is about to be.
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	// The request's path and query may hold what does not belong into logs.
	s.Logger.Warn("the upstream did not answer", "method", r.Method, "err", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		writeError(w, http.StatusGatewayTimeout, "gateway_timeout", "the API did not answer in time")
		return
	}
	writeError(w, http.StatusBadGateway, "bad_gateway", "the API can't be reached")
}
