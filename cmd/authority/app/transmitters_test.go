package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/token/tokentest"
)

// fakeTransmitter has events to be polled (RFC 8936), and keeps each until it hears what
// became of it.
type fakeTransmitter struct {
	idp    *tokentest.IdP
	bearer string

	mu       sync.Mutex
	events   map[string]string
	acked    []string
	errs     map[string]string
	refused  int           // polls without the bearer token
	refusing func()        // called with the first of them
	told     chan struct{} // closed when nothing is left
}

func (f *fakeTransmitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/jwks" {
		f.idp.ServeHTTP(w, r)
		return
	}
	f.mu.Lock()
	if r.Header.Get("Authorization") != "Bearer "+f.bearer {
		if f.refused++; f.refused == 1 {
			f.refusing()
		}
		f.mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var asked struct {
		Ack     []string `json:"ack"`
		SetErrs map[string]struct {
			Err         string `json:"err"`
			Description string `json:"description"`
		} `json:"setErrs"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		f.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	had := len(f.events)
	for _, jti := range asked.Ack {
		f.acked = append(f.acked, jti)
		delete(f.events, jti)
	}
	for jti, e := range asked.SetErrs {
		f.errs[jti] = e.Err
		delete(f.events, jti)
	}
	if had > 0 && len(f.events) == 0 {
		close(f.told)
	}
	b, err := json.Marshal(map[string]any{"sets": f.events, "moreAvailable": false})
	waits := len(f.events) == 0
	f.mu.Unlock()
	if err != nil {
		panic(err)
	}
	if waits {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

// The whole way of an event that is fetched: from a transmitter through the log to the
// answer who is revoked, and back to the transmitter. The token to show there is read
// for each poll.
func TestDurablePolledEvents(t *testing.T) {
	key := tokentest.NewKey("k", "ES256")
	dir := t.TempDir()
	f := &fakeTransmitter{
		idp: tokentest.NewIdP(key), bearer: "the-right-one", events: map[string]string{}, errs: map[string]string{}, told: make(chan struct{}),
	}
	tokenFile := write(t, filepath.Join(dir, "token"), "the-wrong-one\n")
	f.refusing = func() { write(t, tokenFile, f.bearer+"\n") }
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	event := func(jti, aud, sub string) {
		f.events[jti] = key.Sign(`{"alg":"ES256","kid":"k","typ":"secevent+jwt"}`, fmt.Sprintf(
			`{"iss":"https://tx.example","aud":%q,"jti":%q,"iat":%d,"sub_id":{"format":"iss_sub","iss":"https://idp.example","sub":%q},`+
				`"events":{"https://schemas.openid.net/secevent/caep/event-type/session-revoked":{"reason_admin":{"en":"left"}}}}`,
			aud, jti, time.Now().Unix(), sub))
	}
	event("1", "https://revoke.example", "alice")
	event("2", "https://somebody-else.example", "bob")
	event("3", "https://revoke.example", "carol")
	f.events["4"] = "rubbish"

	cfg := testConfig(t)
	cfg.Clients = []Client{{ID: "admin", SecretSHA256: hashed("one"), Revoke: []string{"subject"}}}
	cfg.Transmitters = []Transmitter{{
		Issuer: "https://tx.example", JWKSURI: server.URL + "/jwks", Algorithms: []string{"ES256"},
		Audiences: []string{"https://revoke.example"}, Issuers: []string{"https://idp.example"},
		PollURL: server.URL + "/poll", PollTokenFile: tokenFile,
	}}
	addrs, stop := start(t, cfg)
	select {
	case <-f.told:
	case <-time.After(time.Minute):
		t.Fatal("the transmitter was not told what became of its events")
	}
	live := func(addrs Addrs, sub string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addrs.HTTP+"/v1/revocations?issuer=https://idp.example&sub="+sub, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("admin", "one")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			Live        bool `json:"live"`
			Revocations []struct {
				By     string `json:"by"`
				Reason string `json:"reason"`
			} `json:"revocations"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp.Status, err)
		}
		if !answer.Live {
			return ""
		}
		return answer.Revocations[0].By + ": " + answer.Revocations[0].Reason
	}
	for sub, want := range map[string]string{
		"alice": "https://tx.example: session-revoked: left", "bob": "", "carol": "https://tx.example: session-revoked: left",
	} {
		if got := live(addrs, sub); got != want {
			t.Errorf("%s is revoked by %q, want %q", sub, got, want)
		}
	}
	f.mu.Lock()
	slices.Sort(f.acked)
	if !slices.Equal(slices.Compact(f.acked), []string{"1", "3"}) || f.errs["2"] != "invalid_audience" || f.errs["4"] != "invalid_request" || len(f.errs) != 2 || f.refused == 0 {
		t.Errorf("acknowledged %v, refused %v, %d polls with the wrong token", f.acked, f.errs, f.refused)
	}
	f.mu.Unlock()
	_, metrics := get(t, "http://"+addrs.HTTP+"/metrics")
	for _, line := range []string{`{dialect="security_event",outcome="revoked"} `, `{dialect="security_event",outcome="bad_request"} `} {
		if !strings.Contains(metrics, "\nrevcast_revoke_requests_total"+line) {
			t.Errorf("not counted: %s", line)
		}
	}
	if err := stop(); err != nil { // while a poll is held
		t.Error(err)
	}
	// They are in the log, not in the process.
	addrs, _ = start(t, cfg)
	if live(addrs, "alice") == "" {
		t.Error("forgotten with a restart")
	}
}

func TestTransmittersAreCheckedAtTheStart(t *testing.T) {
	good := Transmitter{Issuer: "https://idp.example", JWKSURI: "http://127.0.0.1:1/jwks", Algorithms: []string{"ES256"}, Audiences: []string{"a"}}
	for want, change := range map[string]func(*Transmitter){
		"config: transmitters[0].issuer":          func(x *Transmitter) { x.Issuer = "" },
		"config: transmitters[0].jwks_uri":        func(x *Transmitter) { x.JWKSURI = "" },
		"config: transmitters[0].algorithms[0]":   func(x *Transmitter) { x.Algorithms = []string{"HS256"} },
		"config: transmitters[0].audiences":       func(x *Transmitter) { x.Audiences = nil },
		"config: transmitters[0].issuers":         func(x *Transmitter) { x.Issuers = []string{"https://other.example"} },
		"config: transmitters[0].push_token_sha2": func(x *Transmitter) { x.PushTokenSHA256 = "secret" },
		"config: transmitters[0].poll_url":        func(x *Transmitter) { x.PollURL = "ftp://x" },
		"config: transmitters[0].poll_token_file": func(x *Transmitter) { x.PollTokenFile = "x" },
	} {
		cfg := testConfig(t)
		one := good
		change(&one)
		cfg.Transmitters = []Transmitter{one}
		err := Run(t.Context(), cfg, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	cfg := testConfig(t)
	cfg.Transmitters = []Transmitter{good} // about its own tokens, where nothing else is said
	if got := cfg.complete().Transmitters[0].Issuers; !slices.Equal(got, []string{"https://idp.example"}) || cfg.Transmitters[0].Issuers != nil {
		t.Error(got, cfg.Transmitters[0].Issuers)
	}
}
