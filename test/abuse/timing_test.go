//go:build fault

package abuse

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/revcast/revcast/test/harness"
)

// A failed login takes as long for a client that there isn't as for one that there is,
// as far as anyone can tell over a connection of his own.
func TestUnknownClientTakesAsLong(t *testing.T) {
	const signs, nobody = "signs", "singe" // of one length, as all that differs
	w := newWorld(t, nil, func(config map[string]any) {
		config["public_url"] = "https://revoke.example"
		config["clients"] = append(config["clients"].([]any), map[string]any{
			"id": signs, "auth": []string{"private_key_jwt"}, "algorithms": []string{"ES256"},
			"jwks_uri": config["issuers"].([]any)[0].(map[string]any)["jwks_uri"],
		})
	})
	token := w.token(web)
	assertion := func(id, signature string) string {
		claims := jwt.MapClaims{
			"iss": id, "sub": id, "aud": "https://revoke.example", "jti": "a", "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
		}
		unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
		unsigned.Header["kid"] = harness.KeyID
		text, err := unsigned.SigningString()
		if err != nil {
			t.Fatal(err)
		}
		return text + signature
	}
	asserted := func(id string) []byte {
		body := url.Values{
			"token": {token}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion": {assertion(id, token[strings.LastIndexByte(token, '.'):])},
		}.Encode()
		return fmt.Appendf(nil, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", formType, len(body), body)
	}
	guess := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for _, c := range []struct {
		name           string
		known, unknown []byte
	}{
		{"client_secret_basic", revokeRequest(harness.Client{ID: "web", Secret: guess}, token), revokeRequest(harness.Client{ID: "who", Secret: guess}, token)},
		{"private_key_jwt", asserted(signs), asserted(nobody)},
	} {
		if len(c.known) != len(c.unknown) {
			t.Fatalf("%s: requests of %d and %d bytes", c.name, len(c.known), len(c.unknown))
		}
		// Twice the same beside the other, in turns and each time in another order: what
		// else runs here hits all of them.
		requests := [][]byte{c.known, c.known, c.unknown}
		took := make([][]float64, len(requests))
		conn := w.mustDial()
		for round := range *logins + 100 {
			for _, i := range rand.Perm(len(requests)) {
				began := time.Now()
				_ = conn.SetDeadline(began.Add(20 * time.Second))
				if _, err := conn.Write(requests[i]); err != nil {
					t.Fatal(err)
				}
				a, err := conn.next()
				if err != nil || a.Status != http.StatusUnauthorized {
					t.Fatalf("%s: %+v, %v", c.name, a, err)
				}
				if round >= 100 { // all is warm
					took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/1000)
				}
			}
		}
		noise, signal := mannWhitney(took[0], took[1]), mannWhitney(slices.Concat(took[0], took[1]), took[2])
		same, differs := spread(took[0], took[1]), spread(slices.Concat(took[0], took[1]), took[2])
		median := quantileOf(took[0], 0.5)
		t.Logf("%s, %d each: median %.1f us; quartiles differ by %.2f us between the same, %.2f us from an unknown client; z %.2f and %.2f",
			c.name, *logins, median, same, differs, noise, signal)
		// By chance, z is beyond 6 once in 500 million times. Where z says that there is a
		// difference, it must be one that disappears in what the same request differs by.
		if math.Abs(signal) > 6*max(1, math.Abs(noise)) && differs > 4*max(same, median/100) {
			t.Errorf("%s: whether there is a client shows in the time: %.2f us, beside %.2f us of noise", c.name, differs, same)
		}
	}
}

// mannWhitney returns how many standard deviations the order of two samples is from
// what chance would give.
func mannWhitney(a, b []float64) (z float64) {
	type one struct {
		v     float64
		fromB bool
	}
	all := make([]one, 0, len(a)+len(b))
	for _, v := range a {
		all = append(all, one{v, false})
	}
	for _, v := range b {
		all = append(all, one{v, true})
	}
	slices.SortFunc(all, func(x, y one) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	ranks := 0.0 // of b; equal ones share theirs
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		for k := i; k < j; k++ {
			if all[k].fromB {
				ranks += float64(i+j+1) / 2
			}
		}
		i = j
	}
	n, m := float64(len(a)), float64(len(b))
	u := ranks - m*(m+1)/2
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}

// spread returns the largest difference of the quartiles of two samples.
func spread(a, b []float64) (most float64) {
	for _, q := range []float64{0.25, 0.5, 0.75} {
		most = max(most, math.Abs(quantileOf(a, q)-quantileOf(b, q)))
	}
	return most
}

func quantileOf(all []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)))]
}
