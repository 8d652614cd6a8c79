package app

import (
	"bytes"
	"log/slog"

	"github.com/revcast/revcast/internal/authority"
	"github.com/revcast/revcast/internal/config"
	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/internal/token"
)

func transmittersOf(list []Transmitter, logger *slog.Logger) (*token.Reader, []authority.Transmitter, error) {
	var signers []token.Issuer
	var all []authority.Transmitter
	for _, t := range list {
		signers = append(signers, token.Issuer{Issuer: t.Issuer, JWKSURI: t.JWKSURI, Algorithms: t.Algorithms})
		all = append(all, authority.Transmitter{
			Issuer: t.Issuer, Audiences: t.Audiences, Issuers: t.Issuers, PushTokenSHA256: t.PushTokenSHA256,
		})
	}
	reader, err := token.NewReader(signers, nil, logger)
	if err != nil {
		return nil, nil, config.Errorf("transmitters", "%v", err)
	}
	return reader, all, nil
}

// poller fetches a transmitter's events. Its token is read for each poll, so that it
// can be changed.
func (t Transmitter) poller(key string, face *authority.Authority, logger *slog.Logger) (*event.Poller, error) {
	p := &event.Poller{URL: t.PollURL, Handle: face.TakeEvent, Logger: logger.With("transmitter", t.Issuer)}
	if t.PollTokenFile != "" {
		p.Token = func() (string, error) {
			b, err := config.SecretFile(key+".poll_token_file", t.PollTokenFile)
			if b = bytes.TrimSpace(b); err == nil && len(b) == 0 {
				err = config.Errorf(key+".poll_token_file", "%s is empty", t.PollTokenFile)
			}
			return string(b), err
		}
		if _, err := p.Token(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// warnOfPlain tells of secrets that others on the way could read.
func warnOfPlain(cfg Config, logger *slog.Logger) {
	for _, i := range cfg.Issuers {
		if token.IsPlain(i.Relay.RevocationEndpoint) {
			logger.Warn("clients' secrets and tokens are sent on over plain http", "revocation_endpoint", i.Relay.RevocationEndpoint)
		}
	}
	for _, t := range cfg.Transmitters {
		if token.IsPlain(t.PollURL) {
			logger.Warn("security events are fetched over plain http", "transmitter", t.Issuer)
		}
	}
}
