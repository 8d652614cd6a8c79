package authority

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/client"
)

// caller is what a request says about its client: where it can be read in several
// ways, all of them, and the first that authenticates counts. Never empty.
type caller []client.Credentials

func as(all ...client.Credentials) caller { return all }

// credentialParameters are the parameters of a form that say who calls.
var credentialParameters = []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2

// oauthCaller reads the credentials of RFC 6749 section 2.3, RFC 7523 section 2.2
// and RFC 8705 section 2. A request that uses more than one method is refused, and
// why says so.
func oauthCaller(r *http.Request, f form) (c caller, why string) {
	basic, sent, why := basicCredentials(r)
	if why != "" {
		return nil, why
	}
	id, secret, assertion := f.Get("client_id"), f.Get("client_secret"), f.Get("client_assertion")
	switch {
	case sent && secret != "", sent && assertion != "":
		return nil, "there are credentials in the Authorization header and in the body"
	case secret != "" && assertion != "":
		return nil, "there are both client_secret and client_assertion"
	case sent:
		// A client_id in the body picks among the readings of the header, and can't
		// contradict them all.
		if id != "" && len(basic.Logins) > 0 {
			basic.Logins = slices.DeleteFunc(basic.Logins, func(l client.Login) bool { return l.ID != id })
			if len(basic.Logins) == 0 {
				return nil, "client_id is not the client of the Authorization header"
			}
		}
		return as(basic), ""
	case assertion != "":
		if f.Get("client_assertion_type") != assertionType {
			return nil, "client_assertion_type must be " + assertionType
		}
		c := client.Credentials{Method: client.PrivateKeyJWT, Assertion: assertion}
		if id != "" {
			c.Logins = []client.Login{{ID: id}}
		}
		return as(c), ""
	case secret != "" && id == "":
		return nil, "client_id is missing"
	case secret != "":
		return as(client.Credentials{Method: client.SecretPost, Logins: []client.Login{{ID: id, Secret: secret}}}), ""
	case id != "":
		return byID(r, id), ""
	}
	return as(client.Credentials{Challenge: true}), ""
}

// byID is the caller of whom nothing is sent but an id: a public client, or one whose
// certificate speaks for it.
func byID(r *http.Request, id string) (c caller) {
	named := []client.Login{{ID: id}}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c = as(client.Credentials{Method: client.TLSClientAuth, Logins: named, Certificates: r.TLS.VerifiedChains[0]})
	}
	return append(c, client.Credentials{Method: client.None, Logins: named})
}

// authenticate returns the client that calls, if it may do so now; else the outcome.
func (a *Authority) authenticate(ctx context.Context, all caller, now time.Time) (who *client.Client, o outcome, ok bool) {
	var err error
	for _, c := range all {
		if who, err = a.clients.Authenticate(ctx, c, now); err == nil {
			break
		}
		if errors.Is(err, client.ErrUnavailable) {
			return nil, outcome{kind: unavailable, why: client.ErrUnavailable.Error(), cause: err, client: a.clients.Claimed(c)}, false
		}
	}
	if err != nil {
		c := all[0]
		method := c.Method
		if method == "" {
			method = "other"
		}
		a.metrics.authFailures.WithLabelValues(method).Inc()
		// The same for every reason, so that it tells nothing about which clients there are.
		return nil, outcome{kind: badClient, why: client.ErrFailed.Error(), client: a.clients.Claimed(c),
			challenge: slices.ContainsFunc(all, func(c client.Credentials) bool { return c.Challenge })}, false
	}
	if retry, ok := who.Admit(now); !ok {
		return nil, outcome{kind: limited, why: "the client asks more often than its rate", client: who.ID(), retry: retry}, false
	}
	return who, outcome{}, true
}

// basicCredentials reads the Authorization header. Where it is no Basic that can be
// read, the credentials are empty and authenticate no one. It errs where there is
// more than one header.
//
// RFC 6749 has both halves form-encoded before RFC 7617 joins them with a colon,
// and half the clients leave that out. So there are two readings, and the secret
// tells which one was meant. An id with a colon needs the encoded spelling.
func basicCredentials(r *http.Request) (c client.Credentials, sent bool, bad string) {
	headers := r.Header.Values("Authorization")
	switch len(headers) {
	case 0:
		return client.Credentials{}, false, ""
	case 1:
	default:
		return client.Credentials{}, true, "there is more than one Authorization header"
	}
	c.Challenge = true
	scheme, value, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return c, true, ""
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimLeft(value, " "))
	if err != nil {
		return c, true, ""
	}
	id, secret, ok := strings.Cut(string(b), ":")
	if !ok || secret == "" {
		return c, true, ""
	}
	c.Method = client.SecretBasic
	c.Logins = []client.Login{{ID: id, Secret: secret}}
	decoded := client.Login{}
	if decoded.ID, err = url.QueryUnescape(id); err != nil {
		return c, true, ""
	}
	if decoded.Secret, err = url.QueryUnescape(secret); err != nil {
		return c, true, ""
	}
	if decoded != c.Logins[0] {
		c.Logins = append(c.Logins, decoded)
	}
	return c, true, ""
}
