package verifiergrpc

import (
	"context"
	"sync"

	"github.com/revcast/revcast/pkg/verifier"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// stream is a call's stream for as long as its context goes on.
type stream struct {
	grpc.ServerStream
	held     context.Context
	receiver caller
	sender   caller
}

func newStream(s grpc.ServerStream, held context.Context) *stream {
	return &stream{ServerStream: s, held: held, receiver: caller{call: s.RecvMsg}, sender: caller{call: s.SendMsg}}
}

func (s *stream) Context() context.Context { return s.held }
func (s *stream) RecvMsg(m any) error      { return s.receiver.do(s.held, m) }
func (s *stream) SendMsg(m any) error      { return s.sender.do(s.held, m) }

// caller makes calls, one after another, that nothing can interrupt, in a goroutine of
// its own, so that who waits can leave. The goroutine starts at the first call, and ends
// with the context; a call that is under way then ends with the stream, which is when
// the handler has returned. (A goroutine for each call takes about three times as long:
// BenchmarkMessage.)
type caller struct {
	call    func(m any) error
	start   sync.Once
	asked   chan any
	results chan result
}

type result struct {
	err      error
	panicked any
}

func (c *caller) do(ctx context.Context, m any) error {
	if ctx.Err() != nil {
		return over(ctx)
	}
	c.start.Do(func() {
		c.asked, c.results = make(chan any, 1), make(chan result, 1)
		go c.run(ctx)
	})
	c.asked <- m // doesn't wait: a call that was left behind has been the last
	select {
	case <-ctx.Done():
		return over(ctx)
	case r := <-c.results:
		if r.panicked != nil {
			panic(r.panicked) // where the server's recovery can find it
		}
		if ctx.Err() != nil {
			return over(ctx)
		}
		return r.err
	}
}

func (c *caller) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-c.asked:
			c.results <- c.try(m) // doesn't wait, even if nobody does for it
		}
	}
}

func (c *caller) try(m any) (r result) {
	defer func() { r.panicked = recover() }()
	return result{err: c.call(m)}
}

// over is what a stream's calls return when its context has ended.
func over(ctx context.Context) error {
	if ended := verifier.EndedBy(ctx); ended != nil {
		return refusal(ended.Decision)
	}
	return status.FromContextError(ctx.Err()).Err()
}
