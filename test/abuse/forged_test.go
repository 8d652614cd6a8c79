//go:build fault

package abuse

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/revcast/revcast/test/harness"
)

// forgeries returns tokens that nobody issued, by what is wrong with them. None is of
// more than 8 KiB: those are refused before anything is looked at.
func (w *world) forgeries() map[string]string {
	sign := func(claims, header map[string]any, key any, method jwt.SigningMethod) string {
		t := jwt.NewWithClaims(method, jwt.MapClaims(claims))
		maps.Copy(t.Header, header)
		signed, err := t.SignedString(key)
		if err != nil {
			w.Fatal(err)
		}
		return signed
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			w.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	// The signature of another token, so that it is one.
	forge := func(change func(header, claims map[string]any)) string {
		header := map[string]any{"alg": "ES256", "kid": harness.KeyID, "typ": "at+jwt"}
		claims := w.claims(web)
		claims["iss"] = w.issuer.Issuer
		change(header, claims)
		genuine := w.token(web)
		return text(header) + "." + text(claims) + genuine[strings.LastIndexByte(genuine, '.'):]
	}
	hs256 := w.claims(web)
	hs256["iss"] = w.issuer.Issuer
	return map[string]string{
		"wrong signature": forge(func(_, _ map[string]any) {}),
		// One that could be of a key that the issuer has just published, and one that can't.
		"wrong signature, no iat":  forge(func(_, claims map[string]any) { delete(claims, "iat") }),
		"wrong signature, old iat": forge(func(_, claims map[string]any) { claims["iat"] = time.Now().Add(-time.Hour).Unix() }),
		"unknown key":              forge(func(header, _ map[string]any) { header["kid"] = "k2" }),
		"unknown issuer":           forge(func(_, claims map[string]any) { claims["iss"] = "https://nobody.example" }),
		"alg none":                 forge(func(header, _ map[string]any) { header["alg"] = "none" }),
		"HMAC with a public text":  sign(hs256, map[string]any{"kid": harness.KeyID, "typ": "at+jwt"}, []byte("public"), jwt.SigningMethodHS256),
		"8 KiB of claims":          forge(func(_, claims map[string]any) { claims["pad"] = strings.Repeat("x", 5700) }),
		"claims that nest": forge(func(_, claims map[string]any) {
			claims["pad"] = json.RawMessage(strings.Repeat("[", 2500) + strings.Repeat("]", 2500))
		}),
		"garbage of three parts": strings.Repeat("x", 100) + "." + strings.Repeat("y", 200) + "." + strings.Repeat("z", 86),
		"garbage of one part":    strings.Repeat("x", 400),
	}
}

// Forged tokens store nothing, fetch nothing, and keep nobody from revoking. Whoever
// presents them here may ask as often as it can.
func TestForgedTokensStoreNothing(t *testing.T) {
	w := newWorld(t, map[string]map[string]any{web.ID: {"rate": 1_000_000}}, nil)
	forged := w.forgeries()
	var requests [][]byte
	for kind, token := range forged {
		if len(token) > 8<<10 {
			t.Fatalf("%s: %d bytes", kind, len(token))
		}
		a := w.revoke(web, token)
		t.Logf("%s: %d %s", kind, a.Status, strings.TrimSpace(a.Body))
		switch a.Status { // never as a mistake of ours, nor as something stored
		case 200, 503:
		case 400:
			w.mustBeError(a, "unsupported_token_type")
		default:
			t.Errorf("%s: %d %s", kind, a.Status, a.Body)
		}
		requests = append(requests, revokeRequest(web, token))
	}
	const conns, inRow, aSecond = 8, 8, 20
	w.while(conns, inRow, requests, func() { time.Sleep(time.Second) }) // warms everything
	w.resetPeak()
	before, _ := w.memory()
	stored, fetches, began := w.stored(), w.fetches.Load(), time.Now()

	var genuine []time.Duration
	said := w.while(conns, inRow, requests, func() { genuine = w.mustRevokePaced(other, aSecond, *during) })

	fetched, allowed := w.fetches.Load()-fetches, int64(time.Since(began)/(5*time.Second))+2 // the first, and the periodic one
	if fetched > allowed {
		t.Errorf("the issuer's keys were fetched %d times, where %d would do", fetched, allowed)
	}
	if got := w.stored() - stored; got != len(genuine) {
		t.Errorf("%d revocations were stored, of %d genuine tokens", got, len(genuine))
	}
	_, peak := w.memory()
	if peak-before > 64*mib {
		t.Errorf("the authority grew by %d MiB", (peak-before)/mib)
	}
	if promised := quantile(genuine, 0.99); promised > 2*time.Second {
		t.Errorf("a genuine token was revoked after %s", promised)
	}
	t.Logf("forged: %s; %d fetches of keys; memory %d MiB before, %d MiB at most", &said, fetched, before/mib, peak/mib)
	t.Logf("%d genuine tokens meanwhile: p50 %s, p99 %s", len(genuine), quantile(genuine, 0.5), quantile(genuine, 0.99))
}
