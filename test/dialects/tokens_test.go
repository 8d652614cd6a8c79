package dialects

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/test/harness"
)

// token is one that every case has, made anew for it.
type token struct {
	client string
	user   string // default alice
	left   time.Duration
	live   bool                         // active, unless the case revokes it
	lacks  string                       // a claim
	pad    int                          // bytes of a claim that nobody needs
	by     func(*world) *harness.Issuer // who signs, if not the issuer
	alter  func(string) string          // what happens to it after signing
}

var (
	forger    = func(w *world) *harness.Issuer { return w.forger }
	elsewhere = func(w *world) *harness.Issuer { return w.elsewhere }
)

var tokens = map[string]token{
	"own":          {client: "web", left: time.Hour, live: true},
	"sibling":      {client: "web", left: time.Hour, live: true}, // the same user's, of the same client
	"neighbour":    {client: "web", left: time.Hour, live: true, user: "bob"},
	"no-jti":       {client: "web", left: time.Hour, live: true, user: "carol", lacks: "jti"},
	"odd":          {client: "odd/1", left: time.Hour, live: true},
	"foreign":      {client: "other", left: time.Hour, live: true},
	"public":       {client: "spa", left: time.Hour, live: true},
	"keyed":        {client: keyed, left: time.Hour, live: true},
	"nobodys":      {left: time.Hour, live: true},
	"just-expired": {client: "web", left: -14 * time.Minute, user: "dave"},
	"expired":      {client: "web", left: -16 * time.Minute, user: "dave"},
	"long-lived":   {client: "web", left: 2 * tokenLifetime},
	"forged":       {client: "web", left: time.Hour, by: forger},
	"unknown":      {client: "web", left: time.Hour, by: elsewhere},
	"tampered":     {client: "web", left: time.Hour, alter: tamper},
	"unsigned":     {client: "web", left: time.Hour, alter: unsign},
	"huge":         {client: "web", left: time.Hour, pad: 9 << 10},
}

// tamper makes a token another user's.
func tamper(raw string) string {
	parts := strings.Split(raw, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "alice", "mallory", 1)))
	return strings.Join(parts, ".")
}

func unsign(raw string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + strings.Split(raw, ".")[1] + ".AA"
}

// fixture makes one run's tokens.
type fixture struct {
	world *world
	tag   string // in what must differ from other runs
	now   time.Time
	made  map[string]string
}

func newFixture(w *world) *fixture {
	return &fixture{w, rand.Text(), time.Now(), map[string]string{}}
}

func (f *fixture) jti(name string) string { return name + "-" + f.tag }

func (f *fixture) sub(name string) string {
	user := tokens[name].user
	if user == "" {
		user = "alice"
	}
	return user + "-" + f.tag
}

func (f *fixture) exp(name string) int64 { return f.now.Add(tokens[name].left).Unix() }

// iat lies so far back that no key of its time can be unknown now.
func (f *fixture) iat(name string) int64 { return min(f.exp(name), f.now.Unix()) - 600 }

func (f *fixture) token(name string) string {
	if f.made[name] != "" {
		return f.made[name]
	}
	k := tokens[name]
	claims := map[string]any{
		"iss": f.world.issuer.Issuer, "jti": f.jti(name), "sub": f.sub(name), "iat": f.iat(name), "exp": f.exp(name), "aud": "api",
	}
	if k.client != "" {
		claims["client_id"] = k.client
	}
	if k.pad > 0 {
		claims["pad"] = strings.Repeat("x", k.pad)
	}
	delete(claims, k.lacks)
	by := f.world.issuer
	if k.by != nil {
		by = k.by(f.world)
	}
	if by == f.world.elsewhere {
		claims["iss"] = by.Issuer
	}
	raw := by.Token(claims)
	if k.alter != nil {
		raw = k.alter(raw)
	}
	f.made[name] = raw
	return raw
}

// keyed is a client that signs assertions (RFC 7523).
const keyed = "keyed"

// assertion is one for an audience: the same as often as a case names it.
func (f *fixture) assertion(audience string) string {
	name := "assertion for " + audience
	if f.made[name] == "" {
		claims, err := json.Marshal(map[string]any{
			"iss": keyed, "sub": keyed, "aud": audience, "jti": f.jti(name), "iat": f.now.Unix(), "exp": f.now.Add(time.Minute).Unix(),
		})
		if err != nil {
			panic(err) // all of them are texts and numbers
		}
		f.made[name] = f.world.clientKey.Sign(`{"alg":"ES256","typ":"JWT"}`, string(claims))
	}
	return f.made[name]
}

var placeholder = regexp.MustCompile(`\{\{(\w+)(?: ([^}]*))?\}\}`)

// placeholders are what may stand in a case between {{ and }}.
var placeholders = map[string]func(f *fixture, argument string) string{
	"token": (*fixture).token,
	"jti":   (*fixture).jti,
	"sub":   (*fixture).sub,
	"exp":   func(f *fixture, name string) string { return strconv.FormatInt(f.exp(name), 10) },
	"iat":   func(f *fixture, name string) string { return strconv.FormatInt(f.iat(name), 10) },
	"iss":   func(f *fixture, _ string) string { return f.world.issuer.Issuer },
	// assertion is one of the client keyed, for an audience.
	"assertion": (*fixture).assertion,
	// base64 is for the Authorization header.
	"base64": func(_ *fixture, text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) },
	// fill is that many letters.
	"fill": func(_ *fixture, n string) string { k, _ := strconv.Atoi(n); return strings.Repeat("x", k) },
	// fingerprint is that of an opaque token, tokenprint that of a JWT.
	"fingerprint": func(_ *fixture, raw string) string { return denylist.FingerprintOf(raw) },
	"tokenprint": func(f *fixture, name string) string {
		raw := f.token(name)
		return denylist.FingerprintOf(raw[:strings.LastIndex(raw, ".")])
	},
}

func (f *fixture) expand(t *testing.T, text string) string {
	t.Helper()
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		value, known := placeholders[m[1]]
		switch _, isToken := tokens[m[2]]; {
		case !known:
			t.Fatalf("%s: there is no such placeholder", s)
		case !isToken && strings.Contains(" token sub exp iat tokenprint ", " "+m[1]+" "):
			t.Fatalf("%s: there is no such token", s)
		}
		return value(f, m[2])
	})
}
