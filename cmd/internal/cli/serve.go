package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Drain is how long requests under way are given when a process ends. What comes
// after it (closing the log, saving state) has the rest of 5 seconds.
const Drain = 4 * time.Second

// readTimeout is how long a request may take to arrive.
const readTimeout = 10 * time.Second

// takeTimeout is how long a client of HTTP/2 may leave a connection without a sign of life:
// for half of it nothing need come, and then a PING is to be answered. One that takes no
// more bytes can't, and an end of a single stream could not be told. Slow clients hold
// streams back by flow control, and answer. (A limit to how long a write takes doesn't do
// the same: the kernel may take the last bytes when nobody takes them from it.)
const takeTimeout = 30 * time.Second

// maxStreams is how many requests a client of HTTP/2 may have open on a connection.
const maxStreams = 100

// Server is an HTTP handler at a bound address.
type Server struct {
	Name     string
	Listener net.Listener
	Handler  http.Handler
	// HTTP2 lets clients speak HTTP/2 without TLS, if they know beforehand that they may
	// (RFC 9113 section 3.3). There is no upgrade to it.
	HTTP2 bool
	// Stop, where set, is called before requests are waited for: it ends those that
	// would never end by themselves.
	Stop func()
}

// Serve serves until ctx ends or a listener fails; then it accepts nothing more,
// waits up to [Drain] for requests under way, and cuts what is left, upgraded
// connections too. It closes the listeners.
//
// A request must have arrived 10 seconds after it began, body included: what a
// handler leaves unread is read before its answer goes out, and a client that never
// sends it would hold a goroutine. A handler that grants its client longer moves or
// lifts the deadline with [http.ResponseController]. There is no limit to how long an
// answer takes: log pages are long-polls, and a proxied answer may go on for hours.
func Serve(ctx context.Context, logger *slog.Logger, servers ...Server) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The requests' context outlives ctx: they are to finish.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut() // no server knows of upgraded connections
	failed := make(chan error, len(servers))
	var running sync.WaitGroup
	for _, s := range servers {
		server := &http.Server{
			Handler: s.Handler, BaseContext: func(net.Listener) context.Context { return requests },
			ReadTimeout: readTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
			ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		}
		if s.HTTP2 {
			server.Protocols = new(http.Protocols)
			server.Protocols.SetHTTP1(true)
			server.Protocols.SetUnencryptedHTTP2(true)
			server.HTTP2 = &http.HTTP2Config{SendPingTimeout: takeTimeout / 2, PingTimeout: takeTimeout / 2, MaxConcurrentStreams: maxStreams}
		}
		running.Go(func() {
			if err := server.Serve(s.Listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", s.Name, err)
				stop()
			}
		})
		running.Go(func() {
			<-ctx.Done()
			if s.Stop != nil {
				s.Stop()
			}
			limit, done := context.WithTimeout(context.WithoutCancel(ctx), Drain)
			defer done()
			if err := server.Shutdown(limit); err != nil {
				logger.Warn("requests did not end in time and were cut", "server", s.Name)
				_ = server.Close() // nothing is left to be done about an error
			}
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
