package event

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/revcast/revcast/internal/token"
)

const (
	maxAnswer = 1 << 20 // bytes
	// pollTimeout is how long a transmitter may hold a poll before it counts as out of
	// reach. Most answer within a minute, whether they have something or not.
	pollTimeout = 2 * time.Minute
	firstRetry  = time.Second
	lastRetry   = 30 * time.Second
	// idle is the least time from one poll to the next where nothing new came: a
	// transmitter may not know how to wait, or not listen.
	idle = time.Second

	askedAtOnce = 100 // tokens
)

// Poller fetches Security Event Tokens from a transmitter (RFC 8936). It remembers
// nothing beyond its life: what was not acknowledged comes again.
type Poller struct {
	// URL is the transmitter's polling endpoint.
	URL string
	// Token returns the bearer token to show there. nil: none is shown.
	Token func() (string, error)
	// Client's Transport is used, and nothing else of it. nil: one of its own.
	Client *http.Client
	// Handle carries out what a token says, and returns once that is durable. An
	// [Error] refuses the token for good: the transmitter is told so. After any other
	// error the token comes again. It is called for one token at a time.
	Handle func(ctx context.Context, raw string) error
	// Logger gets a line when polling starts to fail, and when it works again. nil:
	// [slog.Default].
	Logger *slog.Logger

	succeeded atomic.Int64 // Unix milliseconds
}

// LastSuccess returns when a poll was last answered and all of it carried out; zero where
// none was. Safe for concurrent use.
func (p *Poller) LastSuccess() time.Time {
	if at := p.succeeded.Load(); at > 0 {
		return time.UnixMilli(at)
	}
	return time.Time{}
}

// pollRequest is RFC 8936 section 2.2.
type pollRequest struct {
	MaxEvents         int               `json:"maxEvents"`
	ReturnImmediately bool              `json:"returnImmediately"`
	Ack               []string          `json:"ack,omitempty"`
	SetErrs           map[string]setErr `json:"setErrs,omitempty"`
}

type setErr struct {
	Err         string `json:"err"`
	Description string `json:"description"`
}

// pollAnswer is RFC 8936 section 2.3.
type pollAnswer struct {
	Sets          map[string]string `json:"sets"`
	MoreAvailable bool              `json:"moreAvailable"`
}

// outbox has what became of tokens since the transmitter was last told.
type outbox struct {
	ack  []string
	errs map[string]setErr
}

// lacksOneOf reports whether a token is new: not one that the transmitter sends again
// though it was told what became of it.
func (o outbox) lacksOneOf(sets map[string]string) bool {
	for jti := range sets {
		if _, refused := o.errs[jti]; !refused && !slices.Contains(o.ack, jti) {
			return true
		}
	}
	return false
}

// trouble is why a poll came to nothing. Its state tells one line in the log from the
// next; the cause may be worded otherwise each time.
type trouble struct {
	state string
	cause error
}

// Run polls until ctx ends. It is called once, and returns when nothing of it runs any
// more.
func (p *Poller) Run(ctx context.Context) {
	log := cmp.Or(p.Logger, slog.Default())
	client := p.Client
	if client == nil {
		client = token.NewHTTPClient()
		defer client.CloseIdleConnections()
	}
	client = token.Restrict(client)
	var (
		told  outbox
		state string
		retry = firstRetry
	)
	for ctx.Err() == nil {
		started := time.Now()
		answer, wrong := p.poll(ctx, client, told)
		news := told.lacksOneOf(answer.Sets)
		if wrong == nil {
			told, wrong = p.handle(ctx, log, answer)
		}
		if ctx.Err() != nil {
			return
		}
		var pause time.Duration
		switch {
		case wrong != nil:
			if state != wrong.state {
				log.Warn("security events can't be fetched or carried out", "state", wrong.state, "error", wrong.cause)
			}
			state = wrong.state
			pause, retry = jitter(retry), min(2*retry, lastRetry)
		default:
			if state != "" {
				log.Info("fetching security events works again")
			}
			state, retry = "", firstRetry
			p.succeeded.Store(time.Now().UnixMilli())
			if !news {
				pause = max(0, idle-time.Since(started))
			}
		}
		wait(ctx, pause)
	}
}

// poll tells the transmitter what became of earlier tokens, and fetches more. Where it
// fails, the transmitter may not have heard, and is to be told again.
func (p *Poller) poll(ctx context.Context, client *http.Client, told outbox) (pollAnswer, *trouble) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	body, err := json.Marshal(pollRequest{
		MaxEvents: askedAtOnce, Ack: told.ack, SetErrs: told.errs,
	}, json.Deterministic(true))
	if err != nil {
		return pollAnswer{}, &trouble{"request", fmt.Errorf("couldn't write the request: %w", err)}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return pollAnswer{}, &trouble{"request", fmt.Errorf("couldn't make the request: %w", bare(err))}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "revcast")
	if len(told.errs) > 0 {
		r.Header.Set("Content-Language", "en") // of the descriptions
	}
	if p.Token != nil {
		bearer, err := p.Token()
		if err != nil {
			return pollAnswer{}, &trouble{"token", fmt.Errorf("couldn't get the token for the transmitter: %w", err)}
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := client.Do(r)
	if err != nil {
		return pollAnswer{}, &trouble{"unreachable", fmt.Errorf("couldn't poll: %w", bare(err))}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return pollAnswer{}, &trouble{fmt.Sprint("status ", response.StatusCode), fmt.Errorf("couldn't poll: answer is %d", response.StatusCode)}
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return pollAnswer{}, &trouble{"unreachable", fmt.Errorf("couldn't read the answer: %w", err)}
	case len(b) > maxAnswer:
		return pollAnswer{}, &trouble{"answer", errors.New("the answer is larger than 1 MiB")}
	}
	var answer pollAnswer
	if jsontext.Value(b).Kind() != jsontext.KindBeginObject || json.Unmarshal(b, &answer) != nil {
		return pollAnswer{}, &trouble{"answer", errors.New("the answer is not one strict JSON object of sets")}
	}
	return answer, nil
}

// handle carries out tokens, and returns what the transmitter is to be told. What is
// in trouble is left out of that, so that it comes again.
func (p *Poller) handle(ctx context.Context, log *slog.Logger, answer pollAnswer) (outbox, *trouble) {
	var told outbox
	var wrong *trouble
	refused := 0
	for _, jti := range slices.Sorted(maps.Keys(answer.Sets)) {
		err := p.Handle(ctx, answer.Sets[jti])
		if ctx.Err() != nil {
			break // whatever it says, it may not have had the time
		}
		if e, ok := errors.AsType[*Error](err); ok {
			if told.errs == nil {
				told.errs = map[string]setErr{}
			}
			told.errs[jti] = setErr{e.Code, e.Problem}
			if refused++; refused == 1 {
				defer func() {
					log.Warn("security events are refused", "count", refused, "first_code", e.Code, "first_problem", e.Problem)
				}()
			}
			continue
		}
		if err != nil {
			wrong = &trouble{"store", fmt.Errorf("couldn't carry out a security event: %w", err)}
			continue
		}
		told.ack = append(told.ack, jti)
	}
	return told, wrong
}

// bare takes the URL, which may hold a secret, out of an error of package http.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// jitter returns something between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
