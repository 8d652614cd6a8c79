package broadcast

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// External is a NATS cluster with JetStream that others run.
type External struct {
	URL             string // one or more, separated by commas; may carry user and password
	Login           Login  // in place of a user in URL
	CredentialsFile string // a NATS credentials file; empty: none
	Replicas        int    // of the stream
	// VerifierURL and VerifierLogin are what discovery hands to verifiers. The user must
	// be one that may only subscribe to revcast.live.>
	VerifierURL   string
	VerifierLogin Login
	// MonitorURLs are the servers' monitoring addresses (http://host:8222), to prove
	// that they fsync before they acknowledge.
	MonitorURLs []string
}

// Login is a user of NATS, and how its password is had: for each connection anew, so
// that it may change.
type Login struct {
	User     string // empty: none
	Password func() (string, error)
}

func (x External) connect(log *slog.Logger, options ...nats.Option) (*nats.Conn, error) {
	if x.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(x.CredentialsFile))
	}
	if x.Login.User != "" {
		options = append(options, nats.UserInfoHandler(func() (string, string) {
			password, err := x.Login.Password()
			if err != nil { // the server will refuse us, and we shall try again
				log.Error("can't have the password for NATS", "user", x.Login.User, "error", err)
			}
			return x.Login.User, password
		}))
	}
	return nats.Connect(x.URL, options...)
}

// proveFsync warns about servers that acknowledge before they fsync, or about
// which that isn't known: an acknowledged revocation could be lost with the power.
func (x External) proveFsync(ctx context.Context, log *slog.Logger) {
	const advice = "set jetstream.sync_interval: always on every server"
	if len(x.MonitorURLs) == 0 {
		log.Warn("can't tell whether the NATS cluster fsyncs before it acknowledges: "+advice+
			", and name the servers' monitoring addresses for a check", "key", "nats.monitor_urls")
	}
	for _, u := range x.MonitorURLs {
		switch ok, err := syncsAlways(ctx, u); {
		case err != nil:
			log.Warn("can't tell whether a NATS server fsyncs before it acknowledges: "+advice, "server", u, "error", err)
		case !ok:
			log.Error("a NATS server acknowledges before it fsyncs, so revocations can be lost with the power: "+advice, "server", u)
		default:
			log.Info("the NATS server fsyncs before it acknowledges", "server", u)
		}
	}
}

func syncsAlways(ctx context.Context, monitor string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(monitor, "/")+"/varz", nil)
	if err != nil {
		return false, fmt.Errorf("ask /varz: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, fmt.Errorf("ask /varz: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	var varz struct {
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&varz); err != nil {
		return false, fmt.Errorf("read /varz: %w", err)
	}
	return varz.JetStream.Config.SyncAlways, nil
}
