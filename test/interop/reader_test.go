//go:build interop

package interop

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/test/harness"
)

// TestVectorsInAnotherLanguage runs the vectors through reader.mjs.
func TestVectorsInAnotherLanguage(t *testing.T) {
	t.Logf("checked: %s", run(t, "", "vectors.mjs", "../../internal/wire/testdata"))
}

// admin may revoke anything.
var admin = harness.Client{ID: "admin", Secret: "secret-admin", Revoke: []string{"any"}}

// TestWireReaderInAnotherLanguageAgrees revokes in many ways at a real authority.
// reader.mjs and the Go side must then hold the same list and judge the same of
// every token, whether an entry came to the reader in the snapshot or in the log
// after it.
func TestWireReaderInAnotherLanguageAgrees(t *testing.T) {
	main, other := harness.NewIssuer(t), harness.NewIssuer(t)
	trusted := []harness.Trust{main.Trust, other.Trust}
	authority := harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: trusted, Clients: []harness.Client{admin},
	})
	now := time.Now().Truncate(time.Second)
	corpus := tokens(main, other, now)

	revokeSome(t, authority, main, other, corpus[:len(corpus)/8], now, "early")
	early := fetch(t, authority.URL+wire.SnapshotPath)
	last := revokeSome(t, authority, main, other, corpus[len(corpus)/8:len(corpus)/4], now, "late")

	whole, list, want := readSnapshot(t, authority.URL, last)
	if len(want) < 60 {
		t.Fatalf("the authority's list has %d entries only", len(want))
	}
	reader := newTokenReader(t, trusted)
	var verdicts []denylist.Status
	count := map[denylist.Status]int{}
	list.Advance(time.Now())
	for _, raw := range corpus {
		verdict := judge(t, reader, list, raw)
		verdicts = append(verdicts, verdict)
		count[verdict]++
	}
	t.Logf("%d entries; of %d tokens, %d are revoked and %d clear", len(want), len(corpus), count[denylist.Revoked], count[denylist.Clear])
	if count[denylist.Revoked] < len(corpus)/4 || count[denylist.Clear] < len(corpus)/4 || count[denylist.Unknown] > 0 {
		t.Fatal("these tokens tell little")
	}

	for name, address := range map[string]string{
		"snapshot":                     authority.URL,
		"early snapshot, then the log": withSnapshot(t, authority.URL, early),
	} {
		t.Run(name, func(t *testing.T) {
			var got struct {
				Epoch  string
				At     uint64
				Unread int
				Rows   []row
			}
			if err := json.Unmarshal(run(t, "", "reader.mjs", "list", address), &got); err != nil {
				t.Fatal(err)
			}
			if got.Unread != 0 || got.Epoch != whole.Epoch || got.At < whole.Position {
				t.Errorf("it stands at %d of %s, with %d messages unread; want at least %d of %s",
					got.At, got.Epoch, got.Unread, whole.Position, whole.Epoch)
			}
			rows := joined(got.Rows)
			for _, r := range without(rows, want) {
				t.Errorf("it has, and the Go side doesn't: %+v", r)
			}
			for _, r := range without(want, rows) {
				t.Errorf("it lacks: %+v", r)
			}
			said := strings.Fields(string(run(t, strings.Join(corpus, "\n"), "reader.mjs", "judge", address)))
			if len(said) != len(corpus) {
				t.Fatalf("%d answers for %d tokens", len(said), len(corpus))
			}
			for i, verdict := range verdicts {
				if said[i] != verdict.String() {
					t.Errorf("it says %s, and the Go side %s: %s", said[i], verdict, corpus[i])
				}
			}
		})
	}
}

// tokens are made of few enough values that most selectors of revokeSome match some
// of them and spare others.
func tokens(main, other *harness.Issuer, now time.Time) (raw []string) {
	random := rand.New(rand.NewPCG(1, 2)) // the same each time
	pick := func(values ...any) any { return values[random.IntN(len(values))] }
	for i := range 400 {
		exp := now.Add(time.Duration(600+random.IntN(3000)) * time.Second).Unix()
		claims := map[string]any{
			"jti": fmt.Sprint("token-", i), "sub": pick("alice", "bob", "carol", "日本é\"\\", "dave", "erin"),
			"client_id": pick("web", "spa", "cli"), "sid": fmt.Sprint("session-", random.IntN(40)),
			"tenant": pick(42, "42", 42.5, -7, "x", true, nil, 9007199254740991), "plan": pick("free", "paid", ""),
			"groups": pick([]any{"users"}, []any{"users", "admins"}, "admins", []any{}, []any{[]any{"admins"}}),
			"roles":  pick([]any{1, 7}, []any{"7"}, []any{2, true}, 7, nil), "aud": pick("api", []any{"api", "web"}, "web"),
			"iat": pick(now.Unix(), now.Unix()-1, now.Unix()-60, now.Unix()-61, now.Unix()-59),
			"exp": pick(exp, exp/600*600, exp/600*600+1, float64(exp/600*600)+0.5),
		}
		for _, name := range []string{"sid", "tenant", "plan", "groups", "roles", "iat"} {
			if random.IntN(8) == 0 {
				delete(claims, name)
			}
		}
		if i%5 == 0 {
			delete(claims, "jti")
		}
		issuer := main
		if i%10 == 9 {
			issuer = other
		}
		raw = append(raw, issuer.Token(claims))
	}
	return raw
}

// revokeSome revokes every other of some tokens at /oauth2/revoke, and many by
// selector. stage, which is early or late, keeps what it does apart from the other
// time. It returns the position of the last revocation.
func revokeSome(t *testing.T, authority *harness.Process, main, other *harness.Issuer, some []string, now time.Time, stage string) (last uint64) {
	t.Helper()
	for i, raw := range some {
		if i%2 == 0 {
			postForm(t, admin, authority.URL+"/oauth2/revoke", url.Values{"token": {raw}})
		}
	}
	cut := func(ago time.Duration) string { return now.Add(-ago).Format(time.RFC3339) }
	type object = map[string]any
	said := []object{
		{"selector": object{"jti": "token-300"}},
		{"selector": object{"sid": "session-1"}},
		{"selector": object{"sid": "session-2"}, "issued_before": cut(time.Minute)},
		{"selector": object{"sub": "alice"}, "issued_before": cut(time.Minute)},
		{"selector": object{"sub": "carol"}, "issued_before": cut(time.Hour)},
		{"selector": object{"sub": "日本é\"\\", "client_id": "web"}, "issued_before": cut(0)},
		{"selector": object{"tenant": 42, "plan": "paid"}, "issued_before": cut(time.Second)},
		{"selector": object{"tenant": true}, "issued_before": cut(0), "reason": "a <b> & \u2028 c"},
	}
	if stage == "late" {
		said = []object{
			{"selector": object{"jti": "token-301"}, "expires": now.Add(2 * time.Hour).Format(time.RFC3339)},
			{"selector": object{"sid": "session-2"}},
			{"selector": object{"sub": "carol"}, "issued_before": cut(time.Minute)},
			{"selector": object{"sub": "carol"}, "issued_before": cut(0), "expires": now.Add(time.Hour).Format(time.RFC3339)},
			{"selector": object{"tenant": "-7"}, "issued_before": cut(0)},
			{"selector": object{"tenant": 9007199254740991}, "issued_before": cut(time.Minute)},
			{"selector": object{"groups": "admins", "roles": 7}, "issued_before": cut(time.Minute)},
			{"selector": object{"aud": "web", "groups": "users", "sub": "bob"}, "issued_before": cut(0)},
			{"issuer": other.Issuer, "selector": object{}, "issued_before": cut(time.Minute)},
			{"issuer": other.Issuer, "selector": object{"kid": harness.KeyID}, "issued_before": cut(59 * time.Second)},
		}
	}
	for i := range 10 { // further entries
		said = append(said, object{"selector": object{"sub": fmt.Sprint(stage, "-", i)}, "issued_before": cut(0)})
	}
	var lines bytes.Buffer
	for _, one := range said {
		if one["issuer"] == nil {
			one["issuer"] = main.Issuer
		}
		one["confirm"] = true // for the wide ones
		if err := json.NewEncoder(&lines).Encode(one); err != nil {
			t.Fatal(err)
		}
	}
	answers := post(t, admin, authority.URL+"/v1/revocations", "application/x-ndjson", lines.String())
	got := strings.Split(strings.TrimSpace(answers.body), "\n")
	if len(got) != len(said) {
		t.Fatalf("%d answers to %d lines", len(got), len(said))
	}
	for i, line := range got {
		var answer struct{ Position uint64 }
		if err := json.Unmarshal([]byte(line), &answer); err != nil || answer.Position == 0 {
			t.Fatalf("%v: %s", said[i], line)
		}
		last = max(last, answer.Position)
	}
	return last
}

// readSnapshot reads the first snapshot that holds all up to a position: one may be
// served for a while.
func readSnapshot(t *testing.T, address string, position uint64) (wire.Snapshot, *denylist.List, []row) {
	t.Helper()
	_, ring, err := wire.ParseDiscovery(fetch(t, address+wire.DiscoveryPath))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		snapshot, sections, err := ring.ReadSnapshot(bytes.NewReader(fetch(t, address+wire.SnapshotPath)))
		if err != nil {
			t.Fatal(err)
		}
		list := denylist.New()
		var rows []row
		for s, err := range sections {
			if err != nil {
				t.Fatal(err)
			}
			list.AddSection(s)
			rows = append(rows, rowsOf(s)...)
		}
		if snapshot.Position >= position {
			return snapshot, list, rows
		}
		if time.Now().After(deadline) {
			t.Fatalf("the snapshot stays at %d, before %d", snapshot.Position, position)
		}
	}
}

func fetch(t *testing.T, address string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := do(t, request)
	if got.status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", address, got.status, got.body)
	}
	return []byte(got.body)
}

// withSnapshot is the authority with another snapshot.
func withSnapshot(t *testing.T, authority string, snapshot []byte) string {
	t.Helper()
	target, err := url.Parse(authority)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	mux.HandleFunc(wire.SnapshotPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(snapshot) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// row is an entry as reader.mjs prints it.
type row struct {
	Shape           []string
	Digest          string
	Window, Expires int64
	Cutoff          float64 // 2^63: it denies all. The others are exact.
}

func (r row) id() string { return fmt.Sprintf("%d %q %s", r.Window, r.Shape, r.Digest) }

func rowsOf(s denylist.Section) (rows []row) {
	shape := s.Shape.Names()
	for i, digest := range s.Digests {
		r := row{Shape: shape, Digest: hex.EncodeToString(digest[:]), Window: s.Window}
		if s.Window == 0 {
			r.Cutoff, r.Expires = float64(s.Cuts[i].Cutoff), s.Cuts[i].Expires
		}
		rows = append(rows, r)
	}
	return rows
}

// joined makes one of rows that share a digest, as the authority does: reader.mjs
// keeps those of the log apart.
func joined(rows []row) (all []row) {
	for _, r := range rows {
		i := slices.IndexFunc(all, func(o row) bool { return o.id() == r.id() })
		if i < 0 {
			all = append(all, r)
			continue
		}
		all[i].Cutoff, all[i].Expires = max(all[i].Cutoff, r.Cutoff), max(all[i].Expires, r.Expires)
	}
	return all
}

// without returns the rows of a that b doesn't have.
func without(a, b []row) (rest []row) {
	for _, r := range a {
		if !slices.ContainsFunc(b, func(o row) bool {
			return o.id() == r.id() && o.Cutoff == r.Cutoff && o.Expires == r.Expires
		}) {
			rest = append(rest, r)
		}
	}
	return rest
}

func newTokenReader(t *testing.T, trusted []harness.Trust) *token.Reader {
	t.Helper()
	var issuers []token.Issuer
	for _, i := range trusted {
		issuers = append(issuers, token.Issuer{Issuer: i.Issuer, JWKSURI: i.JWKSURI, Algorithms: i.Algorithms})
	}
	reader, err := token.NewReader(issuers, nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reader.Run(t.Context())
	}()
	t.Cleanup(func() { <-ended })
	for deadline := time.Now().Add(harness.ReadyTimeout); ; time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(reader.KeyStatuses(), func(s token.KeyStatus) bool { return s.Keys == 0 }) {
			return reader
		}
		if time.Now().After(deadline) {
			t.Fatal("the issuers' keys don't come")
		}
	}
}

func judge(t *testing.T, reader *token.Reader, list *denylist.List, raw string) denylist.Status {
	t.Helper()
	verified, err := reader.Read(t.Context(), raw)
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	prepared, err := verified.DenylistToken()
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return list.CheckToken(prepared, time.Now()).Status
}
