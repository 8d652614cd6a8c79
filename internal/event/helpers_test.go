package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/token/tokentest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerA = "https://a.example"
	issuerB = "https://b.example"
	here    = "https://authority.example/global-token-revocation"
)

// now is when all that is in testdata is read.
var now = time.Unix(1_800_000_000, 0)

var rules = Rules{
	Audiences: []string{"receiver"}, Issuers: []string{issuerA, issuerB},
	TokensCarrySID: map[string]bool{issuerB: true}, ClientClaims: map[string][]string{issuerB: {"client_id", "azp"}},
}

var logoutRules = LogoutRules{Audiences: []string{"app", "web"}}

var typOf = map[token.Kind]string{token.LogoutToken: "logout+jwt", token.SecurityEvent: "secevent+jwt", token.Assertion: "JWT"}

// provider signs and reads what issuers A and B say.
type provider struct {
	key    *tokentest.Key
	reader *token.Reader
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{key: tokentest.NewKey("k", "EdDSA")}
	silent := slog.New(slog.DiscardHandler)
	var issuers []token.Issuer
	for _, name := range []string{issuerA, issuerB} {
		issuers = append(issuers, token.Issuer{Issuer: name, JWKS: tokentest.Document(p.key), Algorithms: []string{"EdDSA"}})
	}
	var err error
	if p.reader, err = token.NewReader(issuers, nil, silent); err != nil {
		t.Fatal(err)
	}
	tokentest.Run(t, p.reader.Run)
	if _, err := p.read(t.Context(), token.SecurityEvent, `{"iss":"`+issuerA+`"}`); err != nil { // waits for the keys
		t.Fatal(err)
	}
	return p
}

// read signs a payload and reads it, as a door does.
func (p *provider) read(ctx context.Context, kind token.Kind, payload string) (*token.Verified, error) {
	v, err := p.reader.ReadAs(ctx, kind, p.key.Sign(`{"alg":"EdDSA","kid":"k","typ":"`+typOf[kind]+`"}`, payload))
	return v, Refused(err)
}

// said is what a message of any kind says.
type said struct {
	over []Over
	more []string
}

// readers read the messages that directories of testdata hold.
var readers = map[string]func(p *provider, ctx context.Context, payload string) (said, error){
	"logout": func(p *provider, ctx context.Context, payload string) (said, error) {
		v, err := p.read(ctx, token.LogoutToken, payload)
		if err != nil {
			return said{}, err
		}
		over, err := Logout(v, logoutRules, now)
		return said{over: over}, err
	},
	"events": func(p *provider, ctx context.Context, payload string) (said, error) {
		v, err := p.read(ctx, token.SecurityEvent, payload)
		if err != nil {
			return said{}, err
		}
		s, err := Events(v, rules, now)
		out := said{over: s.Over}
		if s.Verification {
			out.more = append(out.more, fmt.Sprintf("verification %q", s.State))
		}
		if s.Ignored > 0 {
			out.more = append(out.more, fmt.Sprint("ignored ", s.Ignored))
		}
		return out, err
	},
	"global": func(_ *provider, _ context.Context, payload string) (said, error) {
		over, err := GlobalRevocation([]byte(payload), rules, now)
		return said{over: over}, err
	},
}

// render writes what was understood as files in testdata have it.
func render(s said, err error) string {
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return "no refusal: " + err.Error()
		}
		if e.Unmappable {
			return e.Code + " unmappable " + e.Problem
		}
		return e.Code + " " + e.Problem
	}
	var lines []string
	for _, o := range s.over {
		line := o.Issuer + " " + o.Selector.String()
		if !o.Before.IsZero() {
			line += fmt.Sprint(" before ", o.Before.Unix())
		}
		if !o.Since.Equal(o.Before) {
			line += fmt.Sprint(" since ", o.Since.Unix())
		}
		lines = append(lines, fmt.Sprintf("%s %q", line, o.Reason))
	}
	return strings.Join(append(lines, s.more...), "\n")
}

// file is a message, and what it says or why it is refused.
type file struct {
	name, payload, want string
	good                bool
}

func files(t testing.TB, kind string) []file {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", kind, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	good := 0
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		payload, want, ok := strings.Cut(string(b), "\n--\n")
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		f := file{name, payload, strings.TrimSpace(want), strings.HasPrefix(name, "good-")}
		if !ok || !f.good && !strings.HasPrefix(name, "bad-") {
			t.Fatalf("%s is not a message, a line of two dashes, and what becomes of it", path)
		}
		if f.good {
			good++
		}
		all = append(all, f)
	}
	if good < 5 || len(all)-good < 5 {
		t.Fatalf("%d good and %d bad messages in %s", good, len(all)-good, kind)
	}
	return all
}
