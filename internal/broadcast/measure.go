package broadcast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/wire"
)

const (
	measureEvery   = 15 * time.Second
	monitorTimeout = 3 * time.Second
	maxMonitor     = 1 << 20 // bytes of an answer
)

// size is how large the stream is, and may become.
type size struct{ bytes, max uint64 }

// Server is what is known about a server of an external cluster.
type Server struct {
	URL     string // its monitoring address
	Healthy bool   // it answers, and has caught up with the others
	// Known says that it has told whether it fsyncs before it acknowledges, and Syncs what.
	Known, Syncs bool
}

// measure asks the stream for its size, and an external cluster's servers how they are,
// until ctx ends. While the stream doesn't answer, what it said last stands: others tell
// that it is away.
func (l *Log) measure(ctx context.Context) {
	var servers []Server
	if l.cfg.External != nil {
		for _, u := range l.cfg.External.MonitorURLs {
			servers = append(servers, Server{URL: u})
		}
		if len(servers) == 0 {
			l.log.Warn("can't tell whether the NATS cluster fsyncs before it acknowledges: "+syncAdvice+
				", and name the servers' monitoring addresses for a check", "key", "nats.monitor_urls")
		}
	}
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for first := true; ; first = false {
		l.measureStream(ctx)
		now := make([]Server, len(servers))
		for i, was := range servers {
			now[i] = l.inspect(ctx, was, first)
		}
		servers = now
		l.servers.Store(&servers)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (l *Log) measureStream(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if stream, err := l.js.Stream(ctx, wire.Stream); err == nil {
		info := stream.CachedInfo()
		l.size.Store(&size{info.State.Bytes, uint64(max(0, info.Config.MaxBytes))})
	}
}

const syncAdvice = "set jetstream.sync_interval: always on every server"

// inspect asks a server how it is, and tells of a change. One that acknowledges before it
// fsyncs could lose acknowledged revocations with the power.
func (l *Log) inspect(ctx context.Context, was Server, first bool) Server {
	now := was // what it said of itself stands while it is away
	now.Healthy = ask(ctx, was.URL, "/healthz", nil) == nil
	var varz struct {
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	err := ask(ctx, was.URL, "/varz", &varz)
	if err == nil {
		now.Known, now.Syncs = true, varz.JetStream.Config.SyncAlways
	}
	switch {
	case err != nil && first && ctx.Err() == nil:
		l.log.Warn("can't tell yet whether a NATS server fsyncs before it acknowledges; asking again", "server", was.URL, "error", err)
	case now == was || was.Known && now.Syncs == was.Syncs:
	case now.Syncs:
		l.log.Info("the NATS server fsyncs before it acknowledges", "server", was.URL)
	case now.Known:
		l.log.Error("a NATS server acknowledges before it fsyncs, so revocations can be lost with the power: "+syncAdvice, "server", was.URL)
	}
	return now
}

// monitors are asked rarely: no connection is kept for that.
var monitors = &http.Client{Timeout: monitorTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}

// ask reads a page of a server's monitoring address as JSON, into something or nothing.
func ask(ctx context.Context, monitor, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(monitor, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	response, err := monitors.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxMonitor))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
