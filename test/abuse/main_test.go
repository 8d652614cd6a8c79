//go:build fault

package abuse

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revcast/revcast/test/harness"
)

var (
	lines  = flag.Int("lines", 100_000, "how many TestMillionLines sends in one request")
	during = flag.Duration("during", 4*time.Second, "how long each flood lasts")
	logins = flag.Int("logins", 4000, "how many of each kind TestUnknownClientTakesAsLong sends")
)

// The clients. Rates and quotas of those that are not named in a test's Edit are the
// defaults.
var (
	web   = harness.Client{ID: "web", Secret: "secret-of-web"}
	other = harness.Client{ID: "other", Secret: "secret-of-other"}
	admin = harness.Client{ID: "admin", Secret: "secret-of-admin", Revoke: []string{"any"}}
	// strangerToAll is no client.
	strangerToAll = harness.Client{ID: "who", Secret: "guess"}
)

// world is an issuer and an authority, and what a test does with them.
type world struct {
	*testing.T
	issuer    *harness.Issuer
	authority *harness.Process
	fetches   *atomic.Int64 // of the issuer's key document
	client    *http.Client
	serial    *atomic.Int64
}

// newWorld starts an authority. Nothing it starts is left over when the test ends.
// limits change the entries of clients in the configuration, by id.
func newWorld(t *testing.T, limits map[string]map[string]any, edit func(config map[string]any)) *world {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) }) // comes last
	w := &world{t, harness.NewIssuer(t), nil, &atomic.Int64{}, &http.Client{
		Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16},
	}, &atomic.Int64{}}
	t.Cleanup(w.client.CloseIdleConnections)
	trust := w.issuer.Trust
	trust.JWKSURI = w.countFetches(trust.JWKSURI)
	w.authority = harness.StartAuthority(t, harness.AuthorityOptions{
		Issuers: []harness.Trust{trust}, Clients: []harness.Client{web, other, admin},
		Edit: func(config map[string]any) {
			// Else there is a line for each revocation. Refusals are logged, as they would be.
			config["log"] = map[string]any{"level": "warn"}
			for _, one := range config["clients"].([]any) {
				c := one.(map[string]any)
				for name, v := range limits[c["id"].(string)] {
					c[name] = v
				}
			}
			if edit != nil {
				edit(config)
			}
		},
	})
	return w
}

// countFetches puts a counter in front of a key document.
func (w *world) countFetches(uri string) string {
	address := harness.FreeAddress(w)
	ln, err := net.Listen("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.fetches.Add(1)
		resp, err := w.client.Get(uri)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(rw, resp.Body)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ln)
	}()
	w.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return "http://" + address + "/jwks"
}

// claims are those of a token that belongs to a client, good for hours.
func (w *world) claims(owner harness.Client) map[string]any {
	now := time.Now()
	return map[string]any{
		"client_id": owner.ID, "sub": "nobody", "jti": fmt.Sprintf("token-%d", w.serial.Add(1)),
		"iat": now.Unix(), "exp": now.Add(6 * time.Hour).Unix(),
	}
}

func (w *world) token(owner harness.Client) string { return w.issuer.Token(w.claims(owner)) }

func (w *world) tokens(owner harness.Client, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = w.token(owner)
	}
	return all
}

// answer is what came back.
type answer struct {
	Status     int
	RetryAfter string
	Body       string
}

func (w *world) do(r *http.Request) (answer, error) {
	resp, err := w.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), string(body)}, err
}

// post fails the test where no answer comes.
func (w *world) post(path, contentType string, who harness.Client, body string) answer {
	w.Helper()
	r, err := http.NewRequest(http.MethodPost, w.authority.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.SetBasicAuth(who.ID, who.Secret)
	a, err := w.do(r)
	if err != nil {
		w.Fatalf("%s: %v", path, err)
	}
	return a
}

func (w *world) revoke(who harness.Client, token string) answer {
	w.Helper()
	return w.post("/oauth2/revoke", formType, who, url.Values{"token": {token}}.Encode())
}

// mustRevokePaced revokes so many tokens of a client a second, and returns how long
// each answer took.
func (w *world) mustRevokePaced(who harness.Client, aSecond int, d time.Duration) []time.Duration {
	w.Helper()
	tokens := w.tokens(who, int(d/(time.Second/time.Duration(aSecond))))
	return paced(aSecond, d, func(i int) {
		r, err := http.NewRequest(http.MethodPost, w.authority.URL+"/oauth2/revoke", strings.NewReader(url.Values{"token": {tokens[i]}}.Encode()))
		if err != nil {
			w.Error(err)
			return
		}
		r.Header.Set("Content-Type", formType)
		r.SetBasicAuth(who.ID, who.Secret)
		if a, err := w.do(r); err != nil || a.Status != http.StatusOK {
			w.Errorf("a genuine token of another client: %+v, %v", a, err)
		}
	})
}

const formType = "application/x-www-form-urlencoded"

func (w *world) metric(name string) float64 {
	w.Helper()
	return w.authority.Metric(w, name)
}

// stored is how many revocations the log has acknowledged since the start.
func (w *world) stored() int { return int(w.metric("revcast_log_revocations_total")) }

const mib = 1 << 20

// memory is what the kernel says of the authority, in bytes: now, and at most so far.
func (w *world) memory() (rss, peak int) {
	w.Helper()
	u := harness.UsageOf(w, w.authority.PID())
	return u.RSS, u.Peak
}

// resetPeak has the kernel count the most memory that is held from now on.
func (w *world) resetPeak() {
	w.Helper()
	harness.ResetPeak(w, w.authority.PID())
}

// waitFor waits until something is so, for at most limit.
func (w *world) waitFor(what string, limit time.Duration, so func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited %s in vain: %s", limit, what)
		}
	}
}

// raw is a connection to the authority, for what no HTTP client would send.
type raw struct {
	*net.TCPConn
	answers *bufio.Reader
}

func newRaw(conn *net.TCPConn) raw { return raw{conn, bufio.NewReader(conn)} }

func (w *world) dial() (raw, error) { return dial(strings.TrimPrefix(w.authority.URL, "http://")) }

func (w *world) mustDial() raw {
	w.Helper()
	c, err := w.dial()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	return c
}

func basic(who harness.Client) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who.ID+":"+who.Secret))
}

// revokeRequest is the bytes of a request to revoke a token.
func revokeRequest(who harness.Client, token string) []byte {
	body := url.Values{"token": {token}}.Encode()
	return fmt.Appendf(nil, "POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		basic(who), formType, len(body), body)
}

// next reads an answer, and no more of it than a generator can afford.
func (c raw) next() (a answer, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case first && len(line) >= 12:
			a.Status, err = strconv.Atoi(string(line[9:12]))
		case len(line) == 0:
			body := make([]byte, length)
			_, err = io.ReadFull(c.answers, body)
			a.Body = string(body)
			return a, err
		case string(name) == "Content-Length":
			length, err = strconv.Atoi(string(value))
		case string(name) == "Retry-After":
			a.RetryAfter = string(value)
		}
		if err != nil {
			return a, err
		}
	}
}

// paced calls f so often a second for a while, each call at its time whatever the one
// before took, and returns how long after that time each was over.
func paced(aSecond int, d time.Duration, f func(i int)) (took []time.Duration) {
	every := time.Second / time.Duration(aSecond)
	n := int(d / every)
	took = make([]time.Duration, n)
	began := time.Now()
	done := make(chan struct{})
	for i := range n {
		due := began.Add(time.Duration(i) * every)
		time.Sleep(time.Until(due))
		go func() {
			f(i)
			took[i] = time.Since(due)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	return took
}

// quantile returns that of all, which it sorts.
func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

// mustBeError is for a body of RFC 6749 section 5.2.
func (w *world) mustBeError(a answer, code string) {
	w.Helper()
	if !strings.Contains(a.Body, `"error":"`+code+`"`) || !strings.Contains(a.Body, `"error_description":"`) {
		w.Errorf("%d: %s", a.Status, a.Body)
	}
}
