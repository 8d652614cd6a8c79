//go:build doors

package doors

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"strings"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// decision is what every door is to say of a case, each in its own words.
type decision string

const (
	allowed     decision = "allowed"
	refused     decision = "refused"     // the token is at fault
	missing     decision = "missing"     // there is none
	ambiguous   decision = "ambiguous"   // there is more than one
	unavailable decision = "unavailable" // nobody knows
)

// request is what a client sends: everything that a case can vary.
type request struct {
	authorization []string // each a header
	query         string
	token         string // for doors that are handed a token; empty where the case is about more
}

func bearer(token string) request { return request{[]string{"Bearer " + token}, "", token} }

// headers is a request that has no meaning to doors that are handed a token.
func headers(authorization ...string) request { return request{authorization: authorization} }

// testCase is a request and what is to come of it.
type testCase struct {
	name string
	make func(*world) request
	want decision
	// own: reverse proxies may refuse it with a status of their own.
	own bool
	// revoke ends what was allowed until then. want is for after it.
	revoke func(w *world, r request)
}

// forged are cases of tokens that are not good, or not alone.
var forged = []testCase{
	{name: "valid", make: with(nil), want: allowed},
	{name: "valid RS256", make: by("RS256"), want: allowed},
	{name: "valid PS256", make: by("PS256"), want: allowed},
	{name: "valid EdDSA", make: by("EdDSA"), want: allowed},
	{name: "valid HS256", make: by("HS256"), want: allowed},
	{name: "lower-case bearer", want: allowed, make: func(w *world) request { return headers("bearer " + w.token(nil)) }},
	{name: "no token", want: missing, make: func(*world) request { return headers() }},
	{name: "empty token", want: missing, make: func(*world) request { return headers("Bearer ") }},
	{name: "Basic", want: missing, make: func(*world) request { return headers("Basic d2ViOnNlY3JldA==") }},
	{name: "expired", make: with(map[string]any{"exp": ago(2 * time.Minute)}), want: refused},
	{name: "not yet valid", make: with(map[string]any{"nbf": ago(-10 * time.Minute)}), want: refused},
	{name: "issued tomorrow", make: with(map[string]any{"iat": ago(-24 * time.Hour), "exp": ago(-25 * time.Hour)}), want: refused},
	{name: "no expiry", make: with(map[string]any{"exp": nil}), want: refused},
	{name: "wrong issuer", make: with(map[string]any{"iss": "https://other.example"}), want: refused},
	{name: "another issuer's name", want: refused, make: func(w *world) request {
		return bearer(w.issuer.keys["ES256"].Token(w.claims(w.byKey, nil)))
	}},
	{name: "wrong audience", make: with(map[string]any{"aud": "another"}), want: refused},
	{name: "no audience", make: with(map[string]any{"aud": nil}), want: refused},
	{name: "forged with another key", want: refused, make: func(w *world) request {
		return bearer(w.forged())
	}},
	{name: "forged payload", want: refused, make: func(w *world) request {
		good, other := strings.Split(w.token(nil), "."), strings.Split(w.token(map[string]any{"sub": "root"}), ".")
		return bearer(good[0] + "." + other[1] + "." + good[2])
	}},
	{name: "alg none", want: refused, make: func(w *world) request {
		return bearer(encode(`{"alg":"none","typ":"at+jwt"}`) + "." + encode(text(w.T, w.claims(w.issuer, nil))) + ".")
	}},
	{name: "alg none with a signature", want: refused, make: func(w *world) request {
		return bearer(w.signed(w.issuer.keys["ES256"], map[string]any{"alg": "none"}))
	}},
	{name: "HS256 with the public key", want: refused, make: func(w *world) request { return bearer(w.hmacOfPublicKey()) }},
	{name: "HS256 with another secret", want: refused, make: func(w *world) request {
		return bearer(tokentest.NewKey("", "HS256").Token(w.claims(w.bySecret, nil)))
	}},
	{name: "ES256 for who has a secret", want: refused, make: func(w *world) request {
		return bearer(w.issuer.keys["ES256"].Token(w.claims(w.bySecret, nil)))
	}},
	{name: "RS256 with an EC kid", want: refused, make: func(w *world) request {
		return bearer(w.signed(w.issuer.keys["RS256"], map[string]any{"kid": "kid-ES256"}))
	}},
	{name: "ES256 by its name, RS256 by its kid", want: refused, make: func(w *world) request {
		return bearer(w.signed(w.issuer.keys["ES256"], map[string]any{"kid": "kid-RS256"}))
	}},
	{name: "unknown kid", make: header(map[string]any{"kid": "another"}), want: refused},
	{name: "unknown crit", make: header(map[string]any{"crit": []string{"exp"}, "exp": 1}), want: refused},
	{name: "b64 false", make: header(map[string]any{"crit": []string{"b64"}, "b64": false}), want: refused},
	{name: "b64 false, not crit", make: header(map[string]any{"b64": false}), want: refused},
	{name: "a logout token", make: header(map[string]any{"typ": "logout+jwt"}), want: refused},
	{name: "a security event", make: header(map[string]any{"typ": "secevent+jwt"}), want: refused},
	{name: "jwk of its own", want: refused, make: func(w *world) request {
		own := tokentest.NewKey("own", "ES256")
		return bearer(w.signed(own, map[string]any{"jwk": own.JWK()}))
	}},
	{name: "jku of its own", want: refused, make: func(w *world) request {
		own := newIssuer(w.T)
		return bearer(w.signed(own.keys["ES256"], map[string]any{"jku": own.JWKSURI}))
	}},
	{name: "a claim twice", want: refused, make: func(w *world) request {
		claims := text(w.T, w.claims(w.issuer, nil))
		return bearer(w.issuer.keys["ES256"].Sign(`{"alg":"ES256","kid":"kid-ES256","typ":"at+jwt"}`, `{"sub":"bob",`+claims[1:]))
	}},
	{name: "payload null", make: payload("null"), want: refused},
	{name: "payload array", make: payload("[]"), want: refused},
	{name: "exp as text", make: with(map[string]any{"exp": "4102444800"}), want: refused},
	{name: "oversized", make: with(map[string]any{"pad": strings.Repeat("x", 9<<10)}), want: refused, own: true},
	{name: "garbage", want: refused, make: func(*world) request { return bearer("garbage") }},
	{name: "three words", want: refused, make: func(*world) request { return bearer("a.b.c") }},
	{name: "two tokens in a header", want: ambiguous, make: func(w *world) request { return headers("Bearer " + w.token(nil) + " " + w.token(nil)) }},
	{name: "two tokens and a comma", want: ambiguous, make: func(w *world) request { return headers("Bearer " + w.token(nil) + ", Bearer " + w.token(nil)) }},
	{name: "two headers", want: ambiguous, own: true, make: func(w *world) request { return headers("Bearer "+w.token(nil), "Bearer "+w.token(nil)) }},
	{name: "two headers, one of them Basic", want: ambiguous, own: true, make: func(w *world) request {
		return headers("Basic d2ViOnNlY3JldA==", "Bearer "+w.token(nil))
	}},
	{name: "token in the query too", want: ambiguous, make: func(w *world) request {
		return request{[]string{"Bearer " + w.token(nil)}, "a=b&access_token=" + w.token(nil), ""}
	}},
	{name: "token in the query, escaped name", want: ambiguous, make: func(w *world) request {
		return request{[]string{"Bearer " + w.token(nil)}, "%61ccess_token=" + w.token(nil), ""}
	}},
	{name: "token in the query only", want: missing, make: func(w *world) request { return request{query: "access_token=" + w.token(nil)} }},
}

// revoked are cases of tokens that are good until something is revoked.
var revoked = []testCase{
	{name: "revoked: itself", make: with(nil), want: refused, revoke: func(w *world, r request) { w.revoke(r.token) }},
	{name: "revoked: itself, RS256", make: by("RS256"), want: refused, revoke: func(w *world, r request) { w.revoke(r.token) }},
	{name: "revoked: itself, without jti", make: with(map[string]any{"jti": nil}), want: refused, revoke: func(w *world, r request) { w.revoke(r.token) }},
	{name: "revoked: itself, HS256", make: by("HS256"), want: refused, revoke: func(w *world, r request) { w.revoke(r.token) }},
	revokedBy("jti", map[string]any{"jti": "its-own-jti"}),
	revokedBy("sid", map[string]any{"sid": "session-1"}),
	revokedBy("sub", map[string]any{"sub": "carol"}),
	revokedBy("client_id", map[string]any{"client_id": "old-app"}),
	revokedBy("sub and client_id", map[string]any{"sub": "dave", "client_id": "another-app"}),
	revokedBy("a claim of one's own", map[string]any{"tenant": "acme"}),
	{name: "revoked: by one of a claim's values", make: with(map[string]any{"groups": []string{"staff", "night-shift"}}), want: refused,
		revoke: func(w *world, _ request) { w.revokeBy(w.issuer, map[string]any{"groups": "night-shift"}, nil) }},
	{name: "revoked: by kid", want: refused, make: func(w *world) request { return bearer(w.byKey.keys["ES256"].Token(w.claims(w.byKey, nil))) },
		revoke: func(w *world, _ request) { w.revokeBy(w.byKey, map[string]any{"kid": "kid-ES256"}, nil) }},
	{name: "another key of that issuer", want: allowed, make: func(w *world) request { return bearer(w.byKey.keys["RS256"].Token(w.claims(w.byKey, nil))) },
		revoke: func(*world, request) {}},
	{name: "revoked: the whole issuer", want: refused, make: func(w *world) request { return bearer(w.byIssuer.keys["EdDSA"].Token(w.claims(w.byIssuer, nil))) },
		revoke: func(w *world, _ request) { w.revokeBy(w.byIssuer, map[string]any{}, nil) }},
	{name: "before a cut-off", make: with(map[string]any{"sub": "erin", "iat": ago(40 * time.Second)}), want: refused,
		revoke: func(w *world, _ request) {
			w.revokeBy(w.issuer, map[string]any{"sub": "erin"}, map[string]any{"issued_before": time.Now().Add(-25 * time.Second).UTC().Format(time.RFC3339)})
		}},
	{name: "after a cut-off", make: with(map[string]any{"sub": "erin", "iat": ago(0)}), want: allowed, revoke: func(*world, request) {}},
	{name: "half of a selector", make: with(map[string]any{"sub": "dave"}), want: allowed, revoke: func(*world, request) {}},
}

// revokedBy is a token with some claims, which a selector of just these ends.
func revokedBy(name string, claims map[string]any) testCase {
	return testCase{name: "revoked: by " + name, make: with(claims), want: refused, revoke: func(w *world, _ request) { w.revokeBy(w.issuer, claims, nil) }}
}

// moment is a time that is worked out when a token is made.
type moment time.Duration

func ago(d time.Duration) moment { return moment(d) }

func with(claims map[string]any) func(*world) request {
	return func(w *world) request {
		claims := maps.Clone(claims)
		for name, v := range claims {
			if d, ok := v.(moment); ok {
				claims[name] = time.Now().Add(-time.Duration(d)).Unix()
			}
		}
		return bearer(w.token(claims))
	}
}

func by(alg string) func(*world) request {
	return func(w *world) request { return bearer(w.of(alg).keys[alg].Token(w.claims(w.of(alg), nil))) }
}

func header(members map[string]any) func(*world) request {
	return func(w *world) request { return bearer(w.signed(w.issuer.keys["ES256"], members)) }
}

func payload(text string) func(*world) request {
	return func(w *world) request {
		return bearer(w.issuer.keys["ES256"].Sign(`{"alg":"ES256","kid":"kid-ES256","typ":"at+jwt"}`, text))
	}
}

// hmacOfPublicKey is signed with what everybody knows, in the form that keys are usually
// handed around in.
func (w *world) hmacOfPublicKey() string {
	der, err := x509.MarshalPKIXPublicKey(w.issuer.keys["RS256"].Private.Public())
	if err != nil {
		w.Fatal(err)
	}
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	input := encode(`{"alg":"HS256","kid":"kid-RS256","typ":"at+jwt"}`) + "." + encode(text(w.T, w.claims(w.issuer, nil)))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
