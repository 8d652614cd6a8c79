package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer   = "https://idp.example"
	lifetime = time.Hour
)

// now is the instant of all tests: not a whole second, as no real one is.
var now = time.Date(2026, 9, 1, 12, 0, 0, 345678901, time.UTC)

// fakeLog keeps what it is told to, unless it has an err. Its other methods answer
// what their fields say.
type fakeLog struct {
	mu        sync.Mutex
	err       error
	stored    []denylist.Revocation
	append    func(context.Context, []denylist.Revocation) (uint64, error) // nil: as above
	page      func(context.Context, uint64, time.Duration, string) ([]byte, error)
	snapshot  []byte
	discovery wire.Discovery
	ready     error
}

func (l *fakeLog) Append(ctx context.Context, revocations ...denylist.Revocation) (uint64, error) {
	if l.append != nil {
		return l.append(ctx, revocations)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.stored = append(l.stored, revocations...)
	return uint64(len(l.stored)), nil
}

func (l *fakeLog) Settle(context.Context) {}

func (l *fakeLog) Find(_ context.Context, issuer string, s denylist.Selector, _ time.Time, most int) (found []Stored, more bool, err error) {
	for i, r := range l.all() {
		if r.Issuer == issuer && r.Selector.String() == s.String() {
			found = append(found, Stored{uint64(i + 1), r})
		}
	}
	return found[max(0, len(found)-most):], len(found) > most, l.err
}

func (l *fakeLog) Page(ctx context.Context, after uint64, wait time.Duration, nonce string) ([]byte, error) {
	return l.page(ctx, after, wait, nonce)
}

func (l *fakeLog) Snapshot(context.Context) (io.ReadSeekCloser, error) {
	if l.snapshot == nil {
		return nil, errors.New("no snapshot yet")
	}
	return content{bytes.NewReader(l.snapshot)}, nil
}

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

func (l *fakeLog) Discovery() (wire.Discovery, error) { return l.discovery, l.err }
func (l *fakeLog) Ready() error                       { return l.ready }

func (l *fakeLog) all() []denylist.Revocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]denylist.Revocation(nil), l.stored...)
}

// fakeTokens knows tokens by name.
type fakeTokens map[string]func() (*token.Verified, error)

func (t fakeTokens) ReadAs(_ context.Context, _ token.Kind, raw string) (*token.Verified, error) {
	if read, ok := t[raw]; ok {
		return read()
	}
	return nil, fmt.Errorf("%w: not one of the test's", token.ErrMalformed)
}

// claims makes a token of the issuer that lives for a while yet.
func claims(left time.Duration, values map[string]any) func() (*token.Verified, error) {
	return func() (*token.Verified, error) {
		return &token.Verified{
			Issuer: issuer, KeyID: "k1", Expires: now.Add(left).Truncate(time.Second), IssuedAt: now,
			Values: values, Fingerprint: denylist.FingerprintOf("header.payload"),
		}, nil
	}
}

func fails(err error) func() (*token.Verified, error) {
	return func() (*token.Verified, error) { return nil, fmt.Errorf("read a token: %w", err) }
}

var testTokens = fakeTokens{
	"own":            claims(lifetime, map[string]any{"jti": "j1", "client_id": "web", "sub": "alice"}),
	"own.nojti":      claims(lifetime, map[string]any{"client_id": "web"}),
	"own.emptyjti":   claims(lifetime, map[string]any{"jti": "", "client_id": "web"}),
	"own.azp":        claims(lifetime, map[string]any{"jti": "j2", "azp": "web"}),
	"contradictory":  claims(lifetime, map[string]any{"jti": "j3", "client_id": "other", "azp": "web"}),
	"other":          claims(lifetime, map[string]any{"jti": "j4", "client_id": "other"}),
	"nobody's":       claims(lifetime, map[string]any{"jti": "j5"}),
	"odd.client":     claims(lifetime, map[string]any{"jti": "j6", "client_id": 7.0}),
	"spa's":          claims(lifetime, map[string]any{"jti": "j7", "client_id": "spa"}),
	"expired":        claims(-denylist.Grace-time.Second, map[string]any{"jti": "j8", "client_id": "web"}),
	"within.grace":   claims(-denylist.Grace+2*time.Second, map[string]any{"jti": "j9", "client_id": "web"}),
	"skewed":         claims(lifetime+2*denylist.MaxLeeway, map[string]any{"jti": "j10", "client_id": "web"}),
	"long.lived":     claims(lifetime+2*denylist.MaxLeeway+2*time.Second, map[string]any{"jti": "j11", "client_id": "web"}),
	"forged":         fails(token.ErrSignature),
	"garbage":        fails(token.ErrMalformed),
	"foreign.type":   fails(token.ErrType),
	"foreign.issuer": fails(token.ErrUnknownIssuer),
	"foreign.alg":    fails(token.ErrAlgorithm),
	"foreign.key":    fails(token.ErrUnknownKey),
	"opaque":         fails(token.ErrNotCompact),
	"huge":           fails(token.ErrTooLarge),
	"keys.away":      fails(token.ErrKeysUnavailable),
	"key.maybe":      fails(errors.Join(token.ErrUnknownKey, token.ErrKeysUnavailable)),
	"forged.maybe":   fails(errors.Join(token.ErrSignature, token.ErrKeysUnavailable)),
	"other.failure":  fails(errors.New("something new")),
	"unconfigured": func() (*token.Verified, error) {
		v, _ := claims(lifetime, map[string]any{"jti": "j12", "client_id": "web"})()
		v.Issuer = "https://elsewhere.example"
		return v, nil
	},
}

var allGrants = []string{
	client.GrantOwn, client.GrantSubject, client.GrantSession, client.GrantClient, client.GrantIssuer, client.GrantAny,
}

const (
	webSecret   = "s3cret-of/web"
	oddID       = "od:d+id-%2D"
	oddSecret   = "a:b%20c+d-e&f=\u00fc"
	adminSecret = "admin's"
)

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func testClients() []client.Config {
	list := []client.Config{
		{ID: "web", SecretSHA256: hash(webSecret)},
		{ID: "spa", Auth: []string{client.None}},
		{ID: oddID, SecretSHA256: hash(oddSecret)},
		{ID: "post-only", SecretSHA256: hash("p"), Auth: []string{client.SecretPost}},
		{ID: "basic-only", SecretSHA256: hash("b"), Auth: []string{client.SecretBasic}},
		{ID: "both", SecretSHA256: hash("x"), Auth: []string{client.SecretBasic, client.None}, Revoke: []string{client.GrantAny}},
	}
	for _, g := range allGrants {
		list = append(list, client.Config{ID: g, SecretSHA256: hash(adminSecret), Revoke: []string{g}})
	}
	return list
}

func newAuthority(t testing.TB, log Log, change ...func(*Config)) *Authority {
	t.Helper()
	c := Config{
		Log: log, List: denylist.New(), Tokens: testTokens, Issuers: []Issuer{{Issuer: issuer, MaxTokenLifetime: lifetime}},
		Clients: registry(t, testClients()...), Now: func() time.Time { return now }, Version: "test",
	}
	for _, f := range change {
		f(&c)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func registry(t testing.TB, list ...client.Config) *client.Registry {
	t.Helper()
	r, err := client.New(list, client.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// realReader reads tokens that some keys of the issuer signed, as an authority does.
func realReader(t testing.TB, keys ...*tokentest.Key) *token.Reader {
	t.Helper()
	return readerOf(t, tokentest.NewIdP(keys...), token.Issuer{Issuer: issuer, Audiences: []string{"api"}, MaxLifetime: lifetime}, token.ForRevoking())
}

// readerOf reads what one identity provider has signed, and has its keys.
func readerOf(t testing.TB, idp *tokentest.IdP, i token.Issuer, options ...token.Option) *token.Reader {
	t.Helper()
	i.JWKSURI, i.Algorithms = "https://idp.example/jwks", []string{"EdDSA", "ES256"}
	reader, err := token.NewReader([]token.Issuer{i}, idp.Client(), slog.New(slog.DiscardHandler), options...)
	if err != nil {
		t.Fatal(err)
	}
	tokentest.Run(t, reader.Run)
	for reader.Ready() != nil {
		runtime.Gosched()
	}
	return reader
}

// ordinary are the claims of a token that is good at a time, with changes.
func ordinary(at time.Time, changes values) values {
	return with(values{
		"iss": issuer, "sub": "alice", "client_id": "web", "aud": "api", "jti": "j1", "scope": "read write",
		"iat": at.Unix(), "exp": at.Add(lifetime).Unix(), "tenant": "not passed on",
	}, changes)
}

// logged collects the log, for what must not be in it.
func logged(into *bytes.Buffer) func(*Config) {
	return func(c *Config) {
		c.Logger = slog.New(slog.NewJSONHandler(into, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// checkJSON fails unless the answer has the status and is JSON with the error code;
// none where code is empty.
func checkJSON(t *testing.T, w *httptest.ResponseRecorder, status int, code string) (body map[string]any) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q", got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Errorf("the body is not JSON: %v: %q", err, w.Body)
	}
	if got, _ := body["error"].(string); got != code {
		t.Errorf("error %q, want %q: %s", got, code, w.Body)
	}
	if retry := w.Header().Get("Retry-After"); (status == http.StatusServiceUnavailable) != (retry != "") {
		t.Errorf("Retry-After is %q on status %d", retry, status)
	}
	return body
}

// checkSilent fails if any of the words is in the text.
func checkSilent(t *testing.T, where, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if strings.Contains(text, word) {
			t.Errorf("%s says %q: %s", where, word, text)
		}
	}
}

// someone is a client with some grants.
func someone(t testing.TB, grants ...string) *client.Client {
	t.Helper()
	all := registry(t, client.Config{ID: "c", SecretSHA256: hash("x"), Revoke: grants})
	who, err := all.Authenticate(t.Context(), client.Credentials{Method: client.SecretPost, Logins: []client.Login{{ID: "c", Secret: "x"}}}, now)
	if err != nil {
		t.Fatal(err)
	}
	return who
}
