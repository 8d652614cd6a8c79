package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/token/tokentest"
)

const pollURL = "https://transmitter.example/poll?key=hidden"

// transmitter answers polls with a script, and then holds them.
type transmitter struct {
	mu      sync.Mutex
	asked   []pollRequest
	at      []time.Time
	headers []http.Header
	script  []func(*http.Request) (*http.Response, error)
}

func (x *transmitter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost { // as some answer whatever they are asked
		return tokentest.Response(r, http.StatusOK, `{"sets":{"x":"set x"}}`), nil
	}
	var asked pollRequest
	if err := json.UnmarshalRead(r.Body, &asked, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("not a poll: %w", err)
	}
	x.mu.Lock()
	n := len(x.asked)
	x.asked, x.at, x.headers = append(x.asked, asked), append(x.at, time.Now()), append(x.headers, r.Header)
	x.mu.Unlock()
	if n < len(x.script) {
		return x.script[n](r)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func answers(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) { return tokentest.Response(r, status, body), nil }
}

func sends(more bool, jtis ...string) func(*http.Request) (*http.Response, error) {
	sets := map[string]string{}
	for _, jti := range jtis {
		sets[jti] = "set " + jti
	}
	b, err := json.Marshal(pollAnswer{sets, more})
	if err != nil {
		panic(err)
	}
	return answers(http.StatusOK, string(b))
}

// polled is what a poller did in a while of fake time.
type polled struct {
	*transmitter
	handled []string
	log     string
	// succeeded is how long before the end the last poll succeeded; -1: none did.
	succeeded time.Duration
}

// poll runs a poller for that long.
func poll(t *testing.T, long time.Duration, change func(*Poller), handle func(raw string) error, script ...func(*http.Request) (*http.Response, error)) polled {
	t.Helper()
	done := polled{transmitter: &transmitter{script: script}}
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		p := &Poller{
			URL: pollURL, Token: func() (string, error) { return "secret-bearer", nil },
			Client: &http.Client{Transport: done.transmitter},
			Handle: func(_ context.Context, raw string) error {
				done.handled = append(done.handled, raw)
				return handle(raw)
			},
			Logger: slog.New(slog.NewTextHandler(&lines, nil)),
		}
		if change != nil {
			change(p)
		}
		stop := tokentest.Run(t, p.Run)
		time.Sleep(long)
		synctest.Wait()
		if done.succeeded = -1; !p.LastSuccess().IsZero() {
			done.succeeded = time.Since(p.LastSuccess())
		}
		stop()
		done.log = lines.String()
	})
	if strings.Contains(done.log, "hidden") || strings.Contains(done.log, "secret") || strings.Contains(done.log, "set ") {
		t.Errorf("the log tells secrets: %s", done.log)
	}
	return done
}

func fine(string) error { return nil }

func TestPollTellsWhatBecameOfEvents(t *testing.T) {
	stored := 0
	got := poll(t, time.Minute, nil, func(raw string) error {
		switch raw {
		case "set b":
			return fmt.Errorf("couldn't read it: %w", refuse(InvalidAudience, "wrong audience"))
		case "set c":
			if stored++; stored < 3 {
				return errors.New("log is away")
			}
		}
		return nil
	}, sends(false, "a", "b", "c"), sends(false, "c"), sends(false, "c"))
	want := []pollRequest{
		{MaxEvents: 100},
		{MaxEvents: 100, Ack: []string{"a"}, SetErrs: map[string]setErr{"b": {"invalid_audience", "wrong audience"}}},
		{MaxEvents: 100},
		{MaxEvents: 100, Ack: []string{"c"}},
	}
	if !reflect.DeepEqual(got.asked, want) {
		t.Errorf("asked %+v\nwant  %+v", got.asked, want)
	}
	if want := []string{"set a", "set b", "set c", "set c", "set c"}; !slices.Equal(got.handled, want) {
		t.Errorf("handled %q", got.handled)
	}
	for n, h := range got.headers {
		if h.Get("Authorization") != "Bearer secret-bearer" || h.Get("Content-Type") != "application/json" {
			t.Errorf("poll %d has headers %v", n, slices.Sorted(maps.Keys(h)))
		}
		if (h.Get("Content-Language") == "en") != (n == 1) {
			t.Errorf("poll %d has Content-Language %q", n, h.Get("Content-Language"))
		}
	}
	if n := strings.Count(got.log, "\n"); n != 3 { // refused, in trouble, works again
		t.Errorf("%d lines: %s", n, got.log)
	}
}

// TestPollFailureChangesNothing: what is no answer acknowledges nothing and loses
// nothing: the transmitter is told again.
func TestPollFailureChangesNothing(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"no connection":   func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") },
		"503":             answers(503, `{"sets":{"x":"set x"}}`),
		"401":             answers(401, ``),
		"202":             answers(202, `{"sets":{"x":"set x"}}`),
		"empty":           answers(200, ``),
		"null":            answers(200, `null`),
		"array":           answers(200, `[{"sets":{"x":"set x"}}]`),
		"cut":             answers(200, `{"sets":{"x":"set x"}`),
		"trailing":        answers(200, `{"sets":{"x":"set x"}}{}`),
		"jti twice":       answers(200, `{"sets":{"x":"set x","x":"set y"}}`),
		"sets twice":      answers(200, `{"sets":{"x":"set x"},"sets":{}}`),
		"sets array":      answers(200, `{"sets":["set x"]}`),
		"set object":      answers(200, `{"sets":{"x":{}}}`),
		"more a string":   answers(200, `{"sets":{"x":"set x"},"moreAvailable":"true"}`),
		"not UTF-8":       answers(200, "{\"sets\":{\"x\":\"set \xff\"}}"),
		"larger than MiB": answers(200, `{"sets":{"x":"set x"}}`+strings.Repeat(" ", maxAnswer)),
		"elsewhere": func(r *http.Request) (*http.Response, error) {
			response := tokentest.Response(r, 307, "")
			response.Header.Set("Location", "https://evil.example/poll")
			return response, nil
		},
		"plain http": func(r *http.Request) (*http.Response, error) {
			response := tokentest.Response(r, 307, "")
			response.Header.Set("Location", "http://transmitter.example/poll")
			return response, nil
		},
		"to GET": func(r *http.Request) (*http.Response, error) {
			response := tokentest.Response(r, 302, "")
			response.Header.Set("Location", pollURL)
			return response, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := poll(t, time.Minute, nil, fine, sends(true, "a"), answer, sends(true))
			if !slices.Equal(got.handled, []string{"set a"}) {
				t.Errorf("handled %q", got.handled)
			}
			if len(got.asked) != 4 || !slices.Equal(got.asked[1].Ack, []string{"a"}) || !slices.Equal(got.asked[2].Ack, []string{"a"}) || got.asked[3].Ack != nil {
				t.Errorf("asked %+v", got.asked)
			}
			if n := strings.Count(got.log, "\n"); n != 2 {
				t.Errorf("%d lines: %s", n, got.log)
			}
		})
	}
}

func TestPollFollowsRedirectsWithinTheHost(t *testing.T) {
	there := func(r *http.Request) (*http.Response, error) {
		response := tokentest.Response(r, 307, "")
		response.Header.Set("Location", "/poll/v2")
		return response, nil
	}
	got := poll(t, time.Second, nil, fine, there, sends(false, "a"))
	if !slices.Equal(got.handled, []string{"set a"}) || got.headers[1].Get("Authorization") == "" {
		t.Errorf("handled %q: %s", got.handled, got.log)
	}
}

// TestPromptPoll: while there is something to fetch, nobody waits.
func TestPromptPoll(t *testing.T) {
	got := poll(t, time.Hour, nil, fine, sends(true, "a", "b"), sends(true, "c", "d"), sends(false, "e"))
	if n := len(got.asked); n < 4 || got.at[3] != got.at[0] {
		t.Fatalf("%d polls at %v", n, got.at)
	}
	// The transmitter held the fourth: a time limit is no change of state worth more
	// than a line, and ends in another poll.
	if n := len(got.asked); n < 20 || n > 40 {
		t.Errorf("%d polls in an hour", n)
	}
	if n := strings.Count(got.log, "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, got.log)
	}
}

// TestPollBounded: a transmitter that answers at once with nothing new is not asked
// more than once a second, and one that fails ever more seldom.
func TestPollBounded(t *testing.T) {
	script := func(f func(*http.Request) (*http.Response, error)) []func(*http.Request) (*http.Response, error) {
		return slices.Repeat([]func(*http.Request) (*http.Response, error){f}, 1000)
	}
	for name, c := range map[string]struct {
		answer      func(*http.Request) (*http.Response, error)
		least, most int
	}{
		"nothing":                  {sends(false), 600, 601},
		"nothing, and more of it":  {sends(true), 600, 601},
		"the same again and again": {sends(true, "a"), 600, 602},
		"failure":                  {answers(500, ""), 20, 50},
	} {
		t.Run(name, func(t *testing.T) {
			got := poll(t, 10*time.Minute, nil, fine, script(c.answer)...)
			if n := len(got.asked); n < c.least || n > c.most {
				t.Errorf("%d polls in ten minutes", n)
			}
			for i := 1; i < len(got.at); i++ {
				if d := got.at[i].Sub(got.at[i-1]); d > lastRetry {
					t.Errorf("%v from one poll to the next", d)
				}
			}
			if n := strings.Count(got.log, "\n"); n > 1 {
				t.Errorf("%d lines", n)
			}
		})
	}
}

func TestPollLogsEachChangeOfState(t *testing.T) {
	got := poll(t, time.Hour, nil, fine, answers(500, ""), answers(500, ""), answers(401, ""), answers(401, ""), sends(false, "a"), answers(401, ""), sends(false, "b"))
	if n := strings.Count(got.log, "\n"); n != 6 { // 500, 401, works, 401, works, and held
		t.Errorf("%d lines: %s", n, got.log)
	}
}

// What nobody may notice otherwise: that events have not come for a while.
func TestPollTellsWhenItLastSucceeded(t *testing.T) {
	if got := poll(t, time.Minute, nil, fine, answers(500, ""), answers(401, "")).succeeded; got != -1 {
		t.Errorf("%v ago, and none did", got)
	}
	if got := poll(t, time.Minute, nil, fine, sends(false, "a")).succeeded; got != time.Minute {
		t.Errorf("%v ago", got)
	}
	stored := errors.New("log is away")
	if got := poll(t, time.Minute, nil, func(string) error { return stored }, sends(false, "a")).succeeded; got != -1 {
		t.Errorf("%v ago, though nothing was stored", got)
	}
}

func TestPollWithoutToken(t *testing.T) {
	got := poll(t, time.Second, func(p *Poller) { p.Token = nil }, fine, sends(false, "a"))
	if _, ok := got.headers[0]["Authorization"]; ok || len(got.handled) != 1 {
		t.Errorf("headers %v, handled %q", got.headers[0], got.handled)
	}
	fails := 0
	got = poll(t, time.Minute, func(p *Poller) {
		p.Token = func() (string, error) {
			if fails++; fails == 1 {
				return "", errors.New("no such file")
			}
			return "x", nil
		}
	}, fine, sends(false, "a"))
	if len(got.handled) != 1 || !strings.Contains(got.log, "no such file") {
		t.Errorf("handled %q: %s", got.handled, got.log)
	}
}

// What was carried out while polling is ended comes again: it is not told, and nothing
// is left running.
func TestPollEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		x := &transmitter{script: []func(*http.Request) (*http.Response, error){sends(true, "a", "b")}}
		handled := 0
		p := &Poller{URL: pollURL, Client: &http.Client{Transport: x}, Handle: func(context.Context, string) error {
			handled++
			cancel()
			return nil
		}}
		p.Run(ctx)
		if handled != 1 || len(x.asked) != 1 {
			t.Errorf("%d handled, %d polls", handled, len(x.asked))
		}
	})
}
