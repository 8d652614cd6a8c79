package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/revcast/revcast/pkg/verifier"
)

// proxy is the door in front of the API.
func (s *Sidecar) proxy() http.Handler {
	upstream := &httputil.ReverseProxy{
		Rewrite:        s.rewrite,
		ModifyResponse: modifyResponse,
		Transport:      s.engine,
		BufferPool:     newBuffers(),
		ErrorLog:       slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
		ErrorHandler:   s.upstreamFailed,
	}
	// What is on this stack stays for as long as the request is open: little.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r, release := s.admit(w, r)
		if r == nil {
			return
		}
		defer release()
		drain := time.Duration(0)
		if u, ok := w.(*upload); ok {
			defer func() { u.settle(drain) }()
		}
		upstream.ServeHTTP(w, r)
		release() // from here on it is known for good whether the request was ended
		ended := verifier.EndedBy(r.Context()) != nil
		// An answer that was whole in the moment in which its request was ended: the
		// connection has a deadline now, and must not go on to another request.
		if ended && r.ProtoMajor == 1 && w.Header().Get("Connection") != "close" {
			panic(http.ErrAbortHandler)
		}
		if !ended {
			drain = drainWithin
		}
	})
}

// endWithin is how long it may take to tell a client that its request has ended, once the
// token is not accepted any more.
const endWithin = 500 * time.Millisecond

// admit returns the request to pass on, the writer of its answer, and what to call when
// it is over; no request where it has answered itself.
func (s *Sidecar) admit(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, func()) {
	a := s.decideProxied(r)
	s.count(ProxyDoor, &a)
	if !a.passes() {
		hurry(w, r)
		refuse(w, r, a.refusal())
		return nil, nil, nil
	}
	if r.Method == http.MethodConnect {
		hurry(w, r)
		writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this proxy opens no tunnels")
		return nil, nil, nil
	}
	// An answer may go on for longer than a request has to arrive. Whoever has a good
	// token may take its time to send a body, too.
	control := http.NewResponseController(w)
	hasBody := r.Body != nil && r.Body != http.NoBody
	awaited := a.public && hasBody
	if !awaited {
		arrived(control)
	}
	var socket *websockets
	if isWebsocket(r.Header) {
		socket = &websockets{ResponseWriter: w}
		w = socket
	}
	held, release := r.Context(), func() {}
	if !a.public {
		held, release = a.by.HoldResponse(held, a.Decision, w, endWithin)
		if ended := verifier.EndedBy(held); ended != nil { // since the decision
			release()
			if hasBody { // nobody waits for the rest
				closeGently(w)
				_ = control.SetReadDeadline(time.Unix(1, 0))
			}
			refuseEnded(w, r, ended)
			return nil, nil, nil
		}
	}
	if socket != nil {
		socket.ctx = held
	}
	r = r.WithContext(held)
	if a.path != r.URL.EscapedPath() {
		r.URL = withPath(r.URL, a.path)
	}
	if awaited {
		r.Body = &arriving{r.Body, control}
	}
	if hasBody && r.ProtoMajor == 1 && socket == nil {
		w = newUpload(w, r)
	}
	if !a.public {
		guardForm(r)
	}
	return w, r, release
}

// takeWithin is how long a client of HTTP/2 may take to take an answer that is not the API's.
const takeWithin = 10 * time.Second

// hurry keeps a client whose window is closed from holding the answer for ever. A
// deadline of HTTP/1 would be the connection's, and not this answer's alone.
func hurry(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(takeWithin)) // not every writer has deadlines
	}
}

func (s *Sidecar) decideProxied(r *http.Request) answer {
	// HTTP/2 can say what a line of HTTP/1 would be divided by, and hosts that are none.
	if strings.IndexByte(r.URL.RawQuery, ' ') >= 0 || strings.ContainsAny(r.Host, `/\?#@ `) ||
		len(s.gate.routes) > 0 && strings.IndexByte(r.RequestURI, '#') >= 0 {
		return s.gate.own(r.Context(), badPath, false)
	}
	if r.URL.Opaque != "" || !strings.HasPrefix(r.URL.Path, "/") {
		if r.Method != http.MethodConnect || len(s.gate.routes) > 0 {
			return s.gate.own(r.Context(), badPath, false)
		}
	}
	path := r.URL.EscapedPath()
	if s.upstream.Path != "" && s.upstream.Path != "/" {
		// Dots, in whatever spelling, would lead out of the upstream's own path.
		var ok bool
		if path, ok = normalPath(path); !ok {
			return s.gate.own(r.Context(), badPath, false)
		}
	}
	return s.gate.decide(r.Context(), asked{r.Method, path, r.URL.RawQuery, r.Header})
}

func withPath(u *url.URL, escaped string) *url.URL {
	c := *u
	// A normal path has good escapes only.
	if path, err := url.PathUnescape(escaped); err == nil {
		c.Path, c.RawPath = path, escaped
	}
	return &c
}

// newEngine returns what sends requests over a transport's connections, or over some like
// them.
func newEngine(t *http.Transport, headerTimeout time.Duration) http.RoundTripper {
	if t.Protocols != nil { // it speaks HTTP/2 alone
		return t
	}
	return &direct{
		next: t,
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return t.DialContext(ctx, network, address)
		},
		headerTimeout: headerTimeout, idleTimeout: t.IdleConnTimeout, maxIdle: t.MaxIdleConnsPerHost,
	}
}

// newTransport returns the transport to an upstream, and the URL that it is asked by.
func newTransport(upstream *url.URL, headerTimeout time.Duration) (*http.Transport, *url.URL) {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		// Proxy stays nil: a request with a token goes to the upstream, whatever
		// HTTP_PROXY says.
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          512,
		MaxIdleConnsPerHost:   512, // there is one host
		IdleConnTimeout:       60 * time.Second,
		DisableCompression:    true, // bodies pass as they are
		ForceAttemptHTTP2:     true,
	}
	to := *upstream
	switch upstream.Scheme {
	case "unix":
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", upstream.Path)
		}
		to = url.URL{Scheme: "http", Host: "localhost"}
	case "h2c":
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
		to.Scheme = "http"
	}
	return t, &to
}

// rewrite makes the upstream's request of the client's. ReverseProxy has dropped
// the hop-by-hop headers, and what Connection named, from Out.
func (s *Sidecar) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(s.upstream)
	// The API is told the name that it was called by: links that it makes stay right.
	r.Out.Host = r.In.Host
	// ReverseProxy drops parameters that Go can't parse, in case its user decided by
	// the query. Nothing here does but whether it holds a token.
	r.Out.URL.RawQuery = r.In.URL.RawQuery

	h := r.Out.Header
	s.identities.scrub(h)
	s.identities.scrub(r.Out.Trailer)
	r.SetXForwarded()
	if ip, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		h["X-Real-Ip"] = []string{ip}
	}
	// "Connection: Authorization" would have the upstream see a request without the
	// token that it was let through for.
	h["Authorization"] = r.In.Header["Authorization"]
	if claims := verifier.FromContext(r.In.Context()); claims != nil {
		s.identities.set(h, claims)
	} else {
		anonymous(h)
		r.Out.URL.RawQuery = withoutTokens(r.Out.URL.RawQuery)
	}
	if !isWebsocket(h) {
		// h2c asks for a connection on which the next requests are not decided on.
		delete(h, "Upgrade")
		delete(h, "Connection")
		delete(h, "Http2-Settings")
	}
}

func isWebsocket(h http.Header) bool { return strings.EqualFold(h.Get("Upgrade"), "websocket") }

// modifyResponse sees to it that what has come of an answer goes on at once, and that a
// gRPC answer that is cut short says why.
func modifyResponse(r *http.Response) error {
	// ReverseProxy flushes at every write where it doesn't know the length. (An interval
	// would do as well, and costs a timer for each answer: docs/decisions/15.)
	b, ours := r.Body.(*answerBody)
	if r.Body != http.NoBody && r.StatusCode != http.StatusSwitchingProtocols && !(ours && b.here(r.ContentLength)) {
		r.ContentLength = -1
	}
	if isGRPC(r.Header) {
		r.Body = &endedStream{r.Body, r.Request.Context(), r}
	}
	return nil
}

// refuseEnded answers a request that was ended before the upstream had answered.
func refuseEnded(w http.ResponseWriter, r *http.Request, ended *verifier.Ended) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // it has a deadline
	}
	refuse(w, r, verifier.RefusalOf(ended.Decision))
}

// upstreamFailed answers where the upstream did not.
func (s *Sidecar) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	if ended := verifier.EndedBy(r.Context()); ended != nil {
		refuseEnded(w, r, ended)
		return
	}
	if errors.Is(err, errTwoTokens) {
		hurry(w, r)
		refuse(w, r, verifier.RefusalOf(verifier.Decision{Reason: verifier.Ambiguous}))
		return
	}
	if errors.Is(err, errLate) || wasLate(w) {
		hurry(w, r)
		writeError(w, http.StatusRequestTimeout, "request_timeout", "the body of the request did not arrive in time")
		return
	}
	if r.Context().Err() != nil {
		// The client is gone, or this process is about to be.
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	hurry(w, r)
	// The request's path and query may hold what does not belong into logs.
	s.Logger.Warn("the upstream did not answer", "method", r.Method, "err", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		s.failures[timedOut].Add(1)
		writeError(w, http.StatusGatewayTimeout, "gateway_timeout", "the API did not answer in time")
		return
	}
	s.failures[unreachable].Add(1)
	writeError(w, http.StatusBadGateway, "bad_gateway", "the API can't be reached")
}

// buffers are for copying bodies.
type buffers struct{ sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (b *buffers) Get() []byte  { return b.Pool.Get().(*[32 << 10]byte)[:] }
func (b *buffers) Put(p []byte) { b.Pool.Put((*[32 << 10]byte)(p)) }
