package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshEvery  = 5 * time.Minute
	onDemandEvery = 5 * time.Second // between fetches for the sake of unknown keys
	onDemandWait  = 2 * time.Second
	fetchTimeout  = 5 * time.Second
	firstRetry    = 500 * time.Millisecond
	// lastRetry and a fetch that hangs until its timeout are together less than the
	// 10 seconds in which an issuer's recovery must be noticed.
	lastRetry = 4 * time.Second
)

var (
	errTooSoon  = errors.New("the last fetch is less than 5 seconds ago")
	errOverlap  = errors.New("the fetch was under way already")
	errTimeout  = errors.New("the fetch takes longer than 2 seconds")
	errEnded    = errors.New("fetching has ended")
	errNotYet   = errors.New("not fetched yet")
	errUnusable = errors.New("unusable in the key document")
)

// keySet holds the keys of one issuer. Its Run goroutine is the only one that
// fetches; everyone else reads the current snapshot or waits for a fetch.
type keySet struct {
	issuer, uri string
	fixed       []byte // the document, where it is not fetched
	secret      bool   // there is no document, and one key without a name
	store       *store // nil: nothing is kept on disk
	client      *http.Client
	log         *slog.Logger
	leeway      time.Duration
	keep        time.Duration // how long withdrawn keys are remembered; 0: not at all

	current atomic.Pointer[snapshot] // nil until the first good document
	wake    chan struct{}            // says that pending waits to be started

	mu        sync.Mutex // guards the rest
	pending   *fetch     // asked for or under way
	lastStart time.Time
	asOf      time.Time // when the fetch of the last good document began
	loaded    time.Time // when it was had
	lastErr   error     // of the last fetch; nil if it succeeded
	ended     bool

	document [sha256.Size]byte // owned by run: of the current document
}

// fetch is one attempt that many may wait for.
type fetch struct {
	started bool // guarded by keySet.mu
	done    chan struct{}
	err     error // may be read when done is closed
}

func newKeySet(i Issuer, client *http.Client, log *slog.Logger) *keySet {
	s := &keySet{
		issuer: i.Issuer, uri: i.JWKSURI, fixed: i.JWKS, client: client, log: log.With("issuer", i.Issuer), leeway: i.Leeway,
		wake: make(chan struct{}, 1), lastErr: errNotYet,
	}
	if i.Secret != nil {
		s.secret, s.lastErr = true, nil
		s.current.Store(&snapshot{keys: []*key{{}}})
	}
	return s
}

// run fetches now, every five minutes, sooner after a failure and when asked to,
// until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer s.end()
	if s.secret {
		return
	}
	retry := firstRetry
	for {
		err := s.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		next := refreshEvery
		if err == nil {
			retry = firstRetry
		} else {
			next, retry = retry, min(2*retry, lastRetry)
		}
		if !s.await(ctx, next) {
			return
		}
	}
}

// await waits until somebody has asked for a fetch, but no longer than d. It reports
// whether there shall be one.
func (s *keySet) await(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-s.wake:
			if s.asked() { // or else the timer came first and served it
				return true
			}
		}
	}
}

func (s *keySet) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending != nil
}

// attempt carries out the pending fetch, or one of its own.
func (s *keySet) attempt(ctx context.Context) error {
	s.mu.Lock()
	if s.pending == nil {
		s.pending = &fetch{done: make(chan struct{})}
	}
	f := s.pending
	f.started = true
	s.lastStart = time.Now()
	s.mu.Unlock()

	document, err := s.load(ctx)

	s.mu.Lock()
	before := s.lastErr
	s.pending, s.lastErr = nil, err
	if err == nil {
		s.asOf, s.loaded = s.lastStart, time.Now()
	}
	loaded := s.loaded
	s.mu.Unlock()
	f.err = err
	close(f.done)
	if err == nil && s.store != nil {
		s.store.keep(s.issuer, s.uri, document, loaded)
	}

	switch {
	case ctx.Err() != nil:
	case err != nil && (before == nil || before.Error() != err.Error()):
		message := "an issuer's keys stay as they are"
		if s.current.Load() == nil {
			message = "an issuer's keys aren't known, and none of its tokens can be read"
		}
		s.log.Warn(message, "jwks_uri", s.uri, "error", err)
	case err == nil && before != nil && before != errNotYet:
		s.log.Info("fetching keys works again", "jwks_uri", s.uri)
	}
	return err
}

// load fetches the document and, if it is good, makes it current.
func (s *keySet) load(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	document, err := s.fixed, error(nil)
	if document == nil {
		if document, err = fetchDocument(ctx, s.client, s.uri); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(document)
	old := s.current.Load()
	if old != nil && sum == s.document {
		return document, nil
	}
	next, err := parseJWKS(document, old)
	if err != nil {
		return nil, err
	}
	if s.keep > 0 {
		next.remember(old, time.Now(), s.keep)
	}
	s.document = sum
	s.current.Store(next)
	s.retire(old, next)
	return document, nil
}

// retire marks the keys that next no longer has, and reports what changed.
func (s *keySet) retire(old, next *snapshot) {
	kept := make(map[*key]bool, len(next.keys))
	for _, k := range next.keys {
		kept[k] = true
	}
	retired := 0
	if old != nil {
		for _, k := range old.keys {
			if !kept[k] {
				k.retired.Store(true)
				retired++
			}
		}
	}
	for kid, err := range next.unusable {
		level := slog.LevelWarn
		if errors.Is(err, errOtherUse) {
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, "key left out", "kid", cut(kid), "error", err)
	}
	s.log.Info("keys changed", "keys", len(next.keys), "retired", retired, "left_out", len(next.unusable))
}

func (s *keySet) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.pending != nil {
		s.pending.err = errEnded
		close(s.pending.done)
		s.pending = nil
	}
}

// lookup returns the key that a token names. A known key is answered at once. For
// an unknown one it waits for a fetch, if one may start or is under way, and no
// longer than ctx and two seconds. See [ErrUnknownKey] for the errors.
func (s *keySet) lookup(ctx context.Context, h header) (*key, error) {
	k, err := s.current.Load().find(h)
	if k != nil || errors.Is(err, ErrAlgorithm) {
		return k, err
	}
	why := s.refresh(ctx)
	now := s.current.Load()
	if now == nil {
		return nil, s.neverLoaded(why)
	}
	k, err = now.find(h)
	switch {
	case k != nil || errors.Is(err, ErrAlgorithm):
		return k, err
	case err != nil:
		// The issuer may mend its document: the token's time may be still to come.
		why = fmt.Errorf("%w: %w", errUnusable, err)
	case why == nil:
		return nil, fmt.Errorf("%w: kid %.64q of %.128q", ErrUnknownKey, h.kid, s.issuer)
	}
	return nil, fmt.Errorf("%w: kid %.64q of %.128q (%w: %w)", ErrUnknownKey, h.kid, s.issuer, ErrKeysUnavailable, why)
}

// neverLoaded is the error for a token of an issuer without keys, after a refresh.
func (s *keySet) neverLoaded(why error) error {
	if why == nil || errors.Is(why, errTooSoon) || errors.Is(why, errTimeout) {
		why = s.status()
	}
	return fmt.Errorf("%w: none of %.128q loaded so far: %w", ErrKeysUnavailable, s.issuer, why)
}

// settle sees to it that the keys are known as they were when a token can have been
// signed, if it is genuine: after issued, which is zero where the token doesn't say,
// or else now. It returns nil if they are. For that it may wait as refresh does;
// tokens that were issued before a fetch of the last few seconds cost nothing.
func (s *keySet) settle(ctx context.Context, issued time.Time) error {
	err := s.refresh(ctx)
	if err != nil && s.knownSince(issued) { // by the fetch that keeps another one off, or was under way
		return nil
	}
	return err
}

func (s *keySet) knownSince(issued time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// iat counts whole seconds.
	return !issued.IsZero() && time.Since(s.asOf) <= onDemandEvery && s.asOf.After(issued.Add(s.leeway+time.Second))
}

// refresh waits for a fetch. It returns nil if one that started after the call
// succeeded, else what was in the way.
func (s *keySet) refresh(ctx context.Context) error {
	s.mu.Lock()
	f := s.pending
	overlap := f != nil && f.started
	if f == nil {
		var err error
		switch {
		case s.ended:
			err = errEnded
		case !s.lastStart.IsZero() && time.Since(s.lastStart) < onDemandEvery:
			err = errTooSoon
		}
		if err != nil {
			s.mu.Unlock()
			return err
		}
		f = &fetch{done: make(chan struct{})}
		s.pending = f
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()

	timer := time.NewTimer(onDemandWait)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
		return errTimeout
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.err == nil && overlap {
		return errOverlap
	}
	return f.err
}

// status says why the keys were never loaded; nil if they were.
func (s *keySet) status() error {
	if s.current.Load() != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastErr
}

func cut(s string) string { return s[:min(len(s), 64)] }
