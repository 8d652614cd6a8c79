package broadcast

import (
	"log/slog"

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
	// MonitorURLs are the servers' monitoring addresses (http://host:8222), to ask whether
	// they fsync before they acknowledge, and are well.
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
