package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
)

func TestReadAlgorithms(t *testing.T) {
	keys := map[string]*tokentest.Key{"RSA": rsaKey(), "ES256": es256(),
		"ES384": tokentest.NewKey("e384", "ES384"), "ES512": tokentest.NewKey("e512", "ES512"),
		"EdDSA": tokentest.NewKey("ed", "EdDSA")}
	for name := range algorithms {
		t.Run(name, func(t *testing.T) {
			k, ok := keys[name]
			if !ok {
				rsaKey := *keys["RSA"]
				rsaKey.Alg = name
				k = &rsaKey
			}
			r := newReader(t, tokentest.NewIdP(k), name)
			start(t, r)
			raw := k.Token(goodClaims(nil))
			v, err := r.Read(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if v.Issuer != issuerA || v.KeyID != k.KID || v.Alg != name || v.Text("sub") != "alice" {
				t.Errorf("got %+v", v)
			}
			if v.Fingerprint != denylist.FingerprintOf(raw[:strings.LastIndexByte(raw, '.')]) {
				t.Error("fingerprint is not that of header.payload")
			}
		})
	}
}

func hostSwitch(hosts map[string]*tokentest.IdP) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) { return hosts[r.URL.Host].RoundTrip(r) }
}

func rawSignature(raw string) string {
	b, err := base64.RawURLEncoding.DecodeString(raw[strings.LastIndexByte(raw, '.')+1:])
	if err != nil {
		panic(err)
	}
	return string(b)
}

// inDER spells an ES256 signature as other protocols do.
func inDER(s string) string {
	b, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes([]byte(s[:32])), new(big.Int).SetBytes([]byte(s[32:]))})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestReadAttacks has every way in which a forged, ambiguous or second spelling of
// a token was seen to pass a verifier.
func TestReadAttacks(t *testing.T) {
	rs, es, stranger := rsaKey(), es256(), tokentest.NewKey("r1", "RS256")
	idp := tokentest.NewIdP(rs, es)
	r := newReader(t, idp, "RS256", "ES256")
	start(t, r)

	good := toJSON(goodClaims(nil))
	const head = `{"alg":"RS256","kid":"r1","typ":"at+jwt"}`
	header := func(h string) string { return rs.Sign(h, good) }
	payload := func(p string) string { return rs.Sign(head, p) }
	// with adds members behind the good claims.
	with := func(members string) string { return payload(strings.TrimSuffix(good, "}") + "," + members + "}") }
	claim := func(name string, v any) string { return payload(toJSON(goodClaims(map[string]any{name: v}))) }
	valid := payload(good)
	dot := strings.LastIndexByte(valid, '.')
	input, signature := valid[:dot], valid[dot+1:]

	hmac := func(secret []byte) string {
		in := b64(`{"alg":"HS256","kid":"r1"}`) + "." + b64(good)
		s, err := jwt.SigningMethodHS256.Sign(in, secret)
		if err != nil {
			t.Fatal(err)
		}
		return in + "." + b64(string(s))
	}
	der, err := x509.MarshalPKIXPublicKey(rs.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	es256Valid := es.Sign(`{"alg":"ES256","kid":"e1"}`, good)
	es256Input := es256Valid[:strings.LastIndexByte(es256Valid, '.')]
	// A 256-byte signature ends in a letter with four unused bits.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	other := func(s string) string {
		i := strings.IndexByte(letters, s[len(s)-1])
		return s[:len(s)-1] + letters[i^1:i^1+1]
	}
	loose := func(s string) string { // so does text whose length is not a multiple of three
		if len(s)%3 == 0 {
			s += " "
		}
		return other(b64(s))
	}

	for _, c := range []struct {
		name, raw string
		want      error
	}{
		{"empty", "", ErrNotCompact},
		{"opaque", "8xLOxBtZp8", ErrNotCompact},
		{"two parts", input, ErrNotCompact},
		{"four parts", valid + ".x", ErrNotCompact},
		{"JWE", "a.b.c.d.e", ErrNotCompact},
		{"no signature", input + ".", ErrNotCompact},
		{"no header", "." + valid[strings.IndexByte(valid, '.')+1:], ErrNotCompact},
		{"no payload", b64(head) + ".." + signature, ErrNotCompact},
		{"CR LF in the signature", input + "." + signature[:9] + "\r\n" + signature[9:], ErrNotCompact},
		{"LF at the end", valid + "\n", ErrNotCompact},
		{"space before", " " + valid, ErrNotCompact},
		{"padding", valid + "==", ErrNotCompact},
		{"standard alphabet", b64(head) + "." + b64(good) + ".+/+/", ErrNotCompact},
		{"8 KiB and a byte", input + "." + strings.Repeat("A", MaxSize-len(input)), ErrTooLarge},

		{"unused bits in the signature", input + "." + other(signature), ErrMalformed},
		{"unused bits in the header", rs.SignInput(loose(head) + "." + b64(good)), ErrMalformed},
		{"unused bits in the payload", rs.SignInput(b64(head) + "." + loose(good)), ErrMalformed},
		{"a letter too few", input + "." + signature[1:], ErrMalformed},

		{"alg none, some signature", b64(`{"alg":"none"}`) + "." + b64(good) + ".AAAA", ErrAlgorithm},
		{"alg None", header(`{"alg":"None","kid":"r1"}`), ErrAlgorithm},
		{"alg rs256", header(`{"alg":"rs256","kid":"r1"}`), ErrAlgorithm},
		{"alg not pinned", header(`{"alg":"RS384","kid":"r1"}`), ErrAlgorithm},
		{"HS256, empty secret", hmac(nil), ErrAlgorithm},
		{"HS256, public key as secret", hmac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), ErrAlgorithm},
		{"alg of another key", header(`{"alg":"ES256","kid":"r1"}`), ErrAlgorithm},
		{"no alg", header(`{"kid":"r1"}`), ErrMalformed},
		{"alg null", header(`{"alg":null,"kid":"r1"}`), ErrMalformed},
		{"alg in capitals", header(`{"ALG":"RS256","kid":"r1"}`), ErrMalformed},
		{"two alg", header(`{"alg":"none","alg":"RS256","kid":"r1"}`), ErrMalformed},
		{"two alg, one escaped", header(`{"alg":"RS256","\u0061lg":"RS256","kid":"r1"}`), ErrMalformed},
		{"unknown crit", header(`{"alg":"RS256","kid":"r1","crit":["x"],"x":1}`), ErrMalformed},
		{"empty crit", header(`{"alg":"RS256","kid":"r1","crit":[]}`), ErrMalformed},
		{"crit null", header(`{"alg":"RS256","kid":"r1","crit":null}`), ErrMalformed},
		{"b64 false", header(`{"alg":"RS256","kid":"r1","b64":false}`), ErrMalformed},
		{"kid number", header(`{"alg":"RS256","kid":1}`), ErrMalformed},
		{"kid null", header(`{"alg":"RS256","kid":null}`), ErrMalformed},
		{"kid empty", header(`{"alg":"RS256","kid":""}`), ErrMalformed},
		{"typ null", header(`{"alg":"RS256","kid":"r1","typ":null}`), ErrMalformed},
		{"typ number", header(`{"alg":"RS256","kid":"r1","typ":1}`), ErrMalformed},
		{"logout token", header(`{"alg":"RS256","kid":"r1","typ":"logout+jwt"}`), ErrType},
		{"security event", header(`{"alg":"RS256","kid":"r1","typ":"secevent+jwt"}`), ErrType},
		{"DPoP proof", header(`{"alg":"RS256","kid":"r1","typ":"dpop+jwt"}`), ErrType},
		{"any typ", header(`{"alg":"RS256","kid":"r1","typ":"x"}`), ErrType},
		{"typ empty", header(`{"alg":"RS256","kid":"r1","typ":""}`), ErrType},
		{"header array", rs.Sign(`["RS256"]`, good), ErrMalformed},
		{"header null", rs.Sign(`null`, good), ErrMalformed},
		{"header trailing", rs.Sign(head+`{}`, good), ErrMalformed},

		{"another key with the kid", stranger.Sign(head, good), ErrSignature},
		{"own key in the header", stranger.Sign(`{"alg":"RS256","kid":"r1","jwk":`+toJSON(stranger.JWK())+`}`, good), ErrSignature},
		{"jku in the header", stranger.Sign(`{"alg":"RS256","kid":"r1","jku":"https://evil.example/"}`, good), ErrSignature},
		{"x5u in the header", stranger.Sign(`{"alg":"RS256","kid":"r1","x5u":"https://evil.example/"}`, good), ErrSignature},
		{"x5c in the header", stranger.Sign(`{"alg":"RS256","kid":"r1","x5c":["`+base64.StdEncoding.EncodeToString(der)+`"]}`, good), ErrSignature},
		{"RSA signature behind a zero", input + "." + b64("\x00"+rawSignature(valid)), ErrSignature},
		{"RSA signature without its last byte", input + "." + b64(rawSignature(valid)[:255]), ErrSignature},
		{"ES256 signature of zeros", es256Input + "." + b64(strings.Repeat("\x00", 64)), ErrSignature},
		{"ES256 signature in DER", es256Input + "." + b64(inDER(rawSignature(es256Valid))), ErrSignature},
		{"ES256 signature behind zeros", es256Input + "." + b64("\x00"+rawSignature(es256Valid)[:32]+"\x00"+rawSignature(es256Valid)[32:]), ErrSignature},
		{"RSA signature for ES256", es256Input + "." + signature, ErrSignature},
		{"payload changed", b64(head) + "." + b64(strings.Replace(good, "alice", "admin", 1)) + "." + signature, ErrSignature},

		{"payload null", payload(`null`), ErrMalformed},
		{"payload string", payload(`"x"`), ErrMalformed},
		{"payload array", payload(`[` + good + `]`), ErrMalformed},
		{"payload not JSON", payload(`hello`), ErrMalformed},
		{"trailing JSON", payload(good + `{"jti":"x"}`), ErrMalformed},
		{"trailing comma", payload(strings.TrimSuffix(good, "}") + `,}`), ErrMalformed},
		{"two jti", with(`"jti":"t-2"`), ErrMalformed},
		{"two jti, one escaped", with(`"\u006ati":"t-2"`), ErrMalformed},
		{"two names deep inside", with(`"x":[{"y":{"z":1,"z":2}}]`), ErrMalformed},
		{"invalid UTF-8", with("\"x\":\"\xff\""), ErrMalformed},
		{"lone surrogate", with(`"x":"\ud800"`), ErrMalformed},
		{"number too large", with(`"x":1e400`), ErrMalformed},
		{"NaN", with(`"x":NaN`), ErrMalformed},

		{"no iss", claim("iss", nil), ErrMalformed},
		{"iss with long s", payload(toJSON(goodClaims(map[string]any{"iss": nil, "i\u017f\u017f": issuerA}))), ErrMalformed},
		{"iss in capitals", payload(toJSON(goodClaims(map[string]any{"iss": nil, "ISS": issuerA}))), ErrMalformed},
		{"iss empty", claim("iss", ""), ErrMalformed},
		{"iss array", claim("iss", []string{issuerA}), ErrMalformed},
		{"another issuer", claim("iss", issuerB), ErrUnknownIssuer},
		{"issuer with a slash more", claim("iss", issuerA+"/"), ErrUnknownIssuer},

		{"no exp", claim("exp", nil), ErrMalformed},
		{"exp null", with(`"exp":null`), ErrMalformed},
		{"exp 0", claim("exp", 0), ErrMalformed},
		{"exp less than a second", claim("exp", 0.5), ErrMalformed},
		{"exp negative", claim("exp", -1), ErrMalformed},
		{"exp string", claim("exp", "4102444800"), ErrMalformed},
		{"exp 9.2e18", claim("exp", 9.2e18), ErrMalformed},
		{"exp in the year 10000", claim("exp", yearTenThousand), ErrMalformed},
		{"exp in milliseconds", claim("exp", 4102444800000), ErrMalformed},
		{"iat null", payload(strings.Replace(good, `"iat":`, `"iat":null,"x":`, 1)), ErrMalformed},
		{"iat string", claim("iat", "1"), ErrMalformed},
		{"iat 1e300", claim("iat", 1e300), ErrMalformed},
		{"nbf boolean", claim("nbf", true), ErrMalformed},
		{"jti number", claim("jti", 7), ErrMalformed},
		{"jti array", claim("jti", []string{"a"}), ErrMalformed},
		{"jti null", payload(strings.Replace(good, `"jti":"t-1"`, `"jti":null`, 1)), ErrMalformed},
		{"sub number", claim("sub", 7), ErrMalformed},
		{"sid object", claim("sid", map[string]any{}), ErrMalformed},
		{"client_id array", claim("client_id", []string{"web"}), ErrMalformed},
		{"azp boolean", claim("azp", true), ErrMalformed},
		{"aud number", claim("aud", 7), ErrMalformed},
		{"aud of numbers", claim("aud", []int{7}), ErrMalformed},
		{"aud null", payload(strings.Replace(good, `"aud":"api"`, `"aud":null`, 1)), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := r.Read(t.Context(), c.raw)
			if !errors.Is(err, c.want) || errors.Is(err, ErrKeysUnavailable) {
				t.Fatalf("got %+v, %v; want %v", v, err, c.want)
			}
			if v != nil {
				t.Error("a token beside an error")
			}
			for _, part := range strings.Split(c.raw, ".") {
				if len(part) > 8 && strings.Contains(err.Error(), part) {
					t.Errorf("the error quotes the token: %v", err)
				}
			}
			if label := Reason(err); label == "" || label == "other" {
				t.Errorf("no label for %v", err)
			}
		})
	}
	if n := idp.Fetches.Load(); n != 1 {
		t.Errorf("%d fetches for tokens that name known keys", n)
	}
}

// TestReadAccepts has what looks unusual and is right.
func TestReadAccepts(t *testing.T) {
	rs, es := rsaKey(), es256()
	r := newReader(t, tokentest.NewIdP(rs, es), "RS256", "ES256")
	start(t, r)
	good := toJSON(goodClaims(nil))
	for name, raw := range map[string]string{
		"no typ":                 rs.Sign(`{"alg":"RS256","kid":"r1"}`, good),
		"typ jwt":                rs.Sign(`{"alg":"RS256","kid":"r1","typ":"jwt"}`, good),
		"typ AT+JWT":             rs.Sign(`{"alg":"RS256","kid":"r1","typ":"AT+JWT"}`, good),
		"typ application/at+jwt": rs.Sign(`{"alg":"RS256","kid":"r1","typ":"application/at+jwt"}`, good),
		"white space":            rs.Sign("{ \"alg\" : \"RS256\", \"kid\":\"r1\"}\n", "\t"+good+"\r\n"),
		"escaped name":           rs.Sign(`{"\u0061lg":"RS256","kid":"r1"}`, good),
		"no kid, one key fits":   rs.Sign(`{"alg":"RS256"}`, good),
		"exp with a fraction":    rs.Sign(`{"alg":"RS256","kid":"r1"}`, toJSON(goodClaims(map[string]any{"exp": 4102444800.75}))),
		"exactly 8 KiB":          exactly(rs, MaxSize),
	} {
		t.Run(name, func(t *testing.T) {
			v, err := r.Read(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if v.KeyID != "r1" { // a token without kid must not dodge a revocation by kid
				t.Errorf("KeyID is %q", v.KeyID)
			}
			if _, err := v.DenylistToken(); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("names that differ in case", func(t *testing.T) {
		v, err := r.Read(t.Context(), rs.Token(goodClaims(map[string]any{"JTI": "t-2", "Sub": "bob"})))
		if err != nil {
			t.Fatal(err)
		}
		if v.Text("jti") != "t-1" || v.Text("sub") != "alice" {
			t.Errorf("got jti %q, sub %q", v.Text("jti"), v.Text("sub"))
		}
	})

	t.Run("the twin of an ES256 signature", func(t *testing.T) {
		raw := es.Token(goodClaims(nil))
		dot := strings.LastIndexByte(raw, '.')
		s, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
		if err != nil {
			t.Fatal(err)
		}
		twin := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(s[32:]))
		twin.FillBytes(s[32:])
		a, err := r.Read(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Read(t.Context(), raw[:dot+1]+base64.RawURLEncoding.EncodeToString(s))
		if err != nil {
			t.Fatal(err)
		}
		if a.Fingerprint != b.Fingerprint {
			t.Error("two spellings of the signature give two fingerprints")
		}
	})
}

// exactly signs a token of n bytes.
func exactly(k *tokentest.Key, n int) string {
	for _, space := range []string{"", " ", "  "} { // base64url has no text of 4n+1 letters
		h := fmt.Sprintf(`{"alg":%q,"kid":%q}%s`, k.Alg, k.KID, space)
		for fill := n/2 + 500; fill < n; fill++ {
			p := toJSON(goodClaims(map[string]any{"x": strings.Repeat("x", fill)}))
			signature := base64.RawURLEncoding.EncodedLen(256)
			if size := len(b64(h)) + len(b64(p)) + signature + 2; size == n {
				return k.Sign(h, p)
			} else if size > n {
				break
			}
		}
	}
	panic(fmt.Sprintf("no token of %d bytes", n))
}

// TestReadPSSSalt: RFC 7518 section 3.5 wants a salt as long as the hash.
func TestReadPSSSalt(t *testing.T) {
	k := *rsaKey()
	k.Alg = "PS256"
	r := newReader(t, tokentest.NewIdP(&k), "PS256")
	start(t, r)
	input := b64(`{"alg":"PS256","kid":"r1"}`) + "." + b64(toJSON(goodClaims(nil)))
	sum := sha256.Sum256([]byte(input))
	for salt, want := range map[int]error{32: nil, 20: ErrSignature, 0: ErrSignature} {
		if salt == 0 {
			salt = 1 // 0 means auto to the signer
		}
		s, err := rsa.SignPSS(rand.Reader, k.Private.(*rsa.PrivateKey), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(t.Context(), input+"."+b64(string(s))); !errors.Is(err, want) {
			t.Errorf("salt of %d bytes: %v", salt, err)
		}
	}
}

// TestReadCurve: ES256 is P-256 and nothing else, even if the key claims it.
func TestReadCurve(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &tokentest.Key{KID: "e1", Alg: "ES384", Private: private, Extra: map[string]any{"alg": nil}}
	r := newReader(t, tokentest.NewIdP(k), "ES256", "ES384")
	start(t, r)
	if _, err := r.Read(t.Context(), k.Sign(`{"alg":"ES256","kid":"e1"}`, toJSON(goodClaims(nil)))); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("got %v", err)
	}
}

// TestReadIssuersApart: a key vouches for its own issuer, whatever the kid.
func TestReadIssuersApart(t *testing.T) {
	a, b := tokentest.NewKey("k", "ES256"), tokentest.NewKey("k", "ES256")
	idpA, idpB := tokentest.NewIdP(a), tokentest.NewIdP(b)
	both := tokentest.NewIdP()
	both.AnswerFunc(hostSwitch(map[string]*tokentest.IdP{"a.example": idpA, "b.example": idpB}))
	r, err := NewReader([]Issuer{
		{Issuer: issuerA, JWKSURI: "https://a.example/jwks", Algorithms: []string{"ES256"}},
		{Issuer: issuerB, JWKSURI: "https://b.example/jwks", Algorithms: []string{"ES256"}},
	}, both.Client(), silent)
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	for _, c := range []struct {
		key  *tokentest.Key
		iss  string
		want error
	}{{a, issuerA, nil}, {b, issuerB, nil}, {b, issuerA, ErrSignature}, {a, issuerB, ErrSignature}} {
		if _, err := r.Read(t.Context(), c.key.Token(goodClaims(map[string]any{"iss": c.iss}))); !errors.Is(err, c.want) {
			t.Errorf("iss %s: got %v, want %v", c.iss, err, c.want)
		}
	}
}

// TestReadForgedAllocatesLittle: what a stranger sends is not built up in memory
// before its signature is checked.
func TestReadForgedAllocatesLittle(t *testing.T) {
	k := es256()
	r := newReader(t, tokentest.NewIdP(k), "ES256")
	start(t, r)
	raw := k.Sign(`{"alg":"ES256","kid":"e1"}`,
		`{"iss":"`+issuerA+`","exp":4102444800,"x":[`+strings.Repeat("[],", 1900)+`[]]}`)
	other := k.Token(goodClaims(nil))
	forged := raw[:strings.LastIndexByte(raw, '.')] + other[strings.LastIndexByte(other, '.'):]
	got := testing.AllocsPerRun(20, func() {
		if _, err := r.Read(t.Context(), forged); !errors.Is(err, ErrSignature) {
			t.Fatal(err)
		}
	})
	if got > 120 {
		t.Errorf("%v allocations for a forged token", got)
	}
}
