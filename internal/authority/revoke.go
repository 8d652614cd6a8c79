package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

// command is a request to revoke the token that it presents.
type command struct {
	credentials client.Credentials
	token       string
	hint        string // token_type_hint: advice, and not needed to find a JWT's kind
}

// appendTimeout bounds how long a caller waits to hear that nothing is known to be
// stored: a log that can't write may not say so.
const appendTimeout = 15 * time.Second

// revoke carries out a command: it authenticates the client, reads the token, and
// stores what follows.
func (a *Authority) revoke(ctx context.Context, c command, now time.Time) outcome {
	who, err := a.clients.Authenticate(ctx, c.credentials, now)
	if err != nil {
		return a.stranger(c.credentials, err)
	}
	o := a.revokeToken(ctx, who, c.token, now)
	o.client = who.ID()
	return o
}

// stranger is the outcome for credentials that belong to no client: the same for
// every reason, so that it tells nothing about which clients there are.
func (a *Authority) stranger(c client.Credentials, err error) outcome {
	if errors.Is(err, client.ErrUnavailable) {
		return outcome{kind: unavailable, why: client.ErrUnavailable.Error(), cause: err, client: a.clients.Claimed(c)}
	}
	method := c.Method
	if method == "" {
		method = "other"
	}
	a.metrics.authFailures.WithLabelValues(method).Inc()
	return outcome{
		kind: badClient, why: "client authentication failed",
		client: a.clients.Claimed(c), challenge: c.Challenge,
	}
}

func (a *Authority) revokeToken(ctx context.Context, who *client.Client, raw string, now time.Time) outcome {
	v, err := a.tokens.Read(ctx, raw)
	if err != nil {
		return unread(err)
	}
	issuer, ok := a.issuers[v.Issuer]
	if !ok { // whoever reads tokens knows an issuer that nobody configured here
		return outcome{kind: unavailable, why: "the token can't be checked now", cause: fmt.Errorf("issuer %.128q is not configured", v.Issuer)}
	}
	switch {
	case !now.Before(v.Expires.Add(denylist.Grace)): // until then, by its own clock and leeway, a verifier may still accept it
		return outcome{kind: nothing, cause: token.ErrExpired}
	case v.Expires.Sub(now) > issuer.MaxTokenLifetime+2*denylist.MaxLeeway:
		// A verifier grants a leeway to the lifetime, and one to an iat ahead of its clock.
		return outcome{kind: badRequest, why: fmt.Sprintf(
			"the token lives longer than max_token_lifetime of its issuer, %s: its revocation could not outlive it", issuer.MaxTokenLifetime)}
	case !who.May(client.GrantAny, client.GrantIssuer) && !issuer.owns(who.ID(), v):
		return refuse(notOwner, "the token was issued to another client")
	}
	return a.append(ctx, denylist.Revocation{
		Issuer: v.Issuer, Selector: selectorOf(v), Expires: v.Expires, ExactExpiry: true,
		At: now, By: who.ID(), Reason: "token presented for revocation",
	})
}

// unread is the outcome for a token that could not be read. What no verifier will
// ever accept needs no revocation and is none of the caller's mistakes (RFC 7009
// section 2.2); what may yet be genuine must not be answered as done.
func unread(err error) outcome {
	switch {
	case errors.Is(err, token.ErrKeysUnavailable): // asked first: see [token.ErrUnknownKey]
		return outcome{kind: unavailable, why: "the keys of the token's issuer can't be had now", cause: err}
	case errors.Is(err, token.ErrTooLarge):
		return refuse(badRequest, "the token is larger than 8 KiB")
	case errors.Is(err, token.ErrNotCompact):
		return refuse(unsupported, "the token is not a JWT in compact form")
	// The caller can't help it where these two are our mistake, but the operator can.
	case errors.Is(err, token.ErrUnknownIssuer):
		return outcome{kind: unknownIssuer, cause: err}
	case errors.Is(err, token.ErrAlgorithm):
		return outcome{kind: badAlgorithm, cause: err}
	}
	for _, final := range []error{token.ErrMalformed, token.ErrType, token.ErrUnknownKey, token.ErrSignature} {
		if errors.Is(err, final) {
			return outcome{kind: nothing, cause: err}
		}
	}
	return outcome{kind: unavailable, why: "the token can't be checked now", cause: err}
}

// owns reports whether a token belongs to a client: the first of the issuer's
// client claims that the token has decides, so that a second one can't contradict.
func (i Issuer) owns(id string, v *token.Verified) bool {
	for _, claim := range i.ClientClaims {
		if value, ok := v.Values[claim]; ok {
			return value == any(id)
		}
	}
	return false
}

// selectorOf names one token: by its jti, or where it has none, by its fingerprint.
func selectorOf(v *token.Verified) denylist.Selector {
	if jti := v.Text(denylist.JTI); jti != "" {
		if s, err := denylist.NewSelector(map[string]string{denylist.JTI: jti}); err == nil {
			return s
		}
	}
	return denylist.One(denylist.Fingerprint, v.Fingerprint)
}

// append stores one revocation. Its outcome is revoked only if the log says so.
func (a *Authority) append(ctx context.Context, r denylist.Revocation) outcome {
	if err := r.Validate(); err != nil {
		return refuse(badRequest, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	position, err := a.log.Append(ctx, r)
	if err != nil {
		return outcome{kind: unavailable, why: "the revocation is not known to be stored: try again", cause: err, stored: r}
	}
	return outcome{kind: revoked, position: position, stored: r}
}

// record counts and logs an outcome. Selector values are personal data and a jti
// stands for its token: the log names shapes only.
func (a *Authority) record(ctx context.Context, dialect string, o outcome) {
	a.metrics.requests.WithLabelValues(dialect, o.kind.String()).Inc()
	attrs := []slog.Attr{slog.String("dialect", dialect), slog.String("client", o.client)}
	level, message := slog.LevelWarn, "revocation refused"
	switch o.kind {
	case revoked:
		level, message = slog.LevelInfo, "revoked"
		attrs = append(attrs, slog.String("issuer", o.stored.Issuer),
			slog.String("shape", o.stored.Selector.Shape().String()), slog.Uint64("position", o.position))
	case nothing:
		level, message = slog.LevelInfo, "nothing to revoke"
	case unknownIssuer:
		message = "nothing revoked: a verifier that knows the token's issuer still accepts it; issuers must hold every verifier's"
	case badAlgorithm:
		message = "nothing revoked: a verifier that allows the token's algorithm still accepts it; algorithms must hold every verifier's"
	case unavailable:
		level, message = slog.LevelError, "revocation not known to be stored"
		if ctx.Err() != nil {
			level, message = slog.LevelInfo, "caller hung up before the revocation was known to be stored"
		}
	}
	if o.kind != revoked {
		why := o.why
		if o.cause != nil {
			why = o.cause.Error()
		}
		attrs = append(attrs, slog.String("outcome", o.kind.String()), slog.String("why", why))
	}
	a.logger.LogAttrs(ctx, level, message, attrs...)
}
