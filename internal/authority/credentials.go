package authority

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/revcast/revcast/internal/client"
)

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
