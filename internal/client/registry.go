package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revcast/revcast/internal/token"
)

// maxStrangers bounds the accounts that are kept of ids that no client has.
const maxStrangers = 1000

// Options are what a [Registry] needs besides its clients.
type Options struct {
	// Audiences are what the authority is called by in assertions: its issuer, the URLs
	// of its endpoints. Without one no client has PrivateKeyJWT.
	Audiences []string
	Logger    *slog.Logger // nil: nothing is logged
	// HTTPClient fetches keys; its Transport is used, and nothing else of it. nil: each
	// client's keys have one of their own.
	HTTPClient *http.Client
	Now        func() time.Time // nil: time.Now
}

// Registry holds the clients. Safe for concurrent use.
type Registry struct {
	audiences []string
	logger    *slog.Logger
	http      *http.Client
	now       func() time.Time
	// nobody stands in for a client that doesn't exist, so that asking for one takes
	// as long as wrong credentials. What it has is random: nothing is known to match it.
	nobody        Client
	nobodysReader *token.Reader

	current atomic.Pointer[list]

	mu       sync.Mutex // guards the rest, and is held while current changes
	accounts map[string]*account
	ctx      context.Context // of Run; nil when it doesn't run
	reading  sync.WaitGroup  // the readers of keys
}

// list is what one configuration says. Immutable.
type list struct {
	byID       map[string]*Client
	ids        []string // sorted
	methods    []string
	algorithms []string
	origins    map[string]bool
}

// New makes a registry. An error names the field that is wrong, in the words of the
// configuration file. Keys of clients are had once [Registry.Run] runs.
func New(clients []Config, o Options) (*Registry, error) {
	r := &Registry{
		audiences: slices.Clone(o.Audiences), logger: o.Logger, http: o.HTTPClient, now: o.Now,
		nobody:   Client{certificate: randomCertificateName()},
		accounts: map[string]*account{},
	}
	if slices.Contains(r.audiences, "") {
		return nil, errors.New("audiences can't hold an empty string")
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	_, _ = rand.Read(r.nobody.secret[:])
	var err error
	if r.nobodysReader, err = newNobodysReader(); err != nil {
		return nil, fmt.Errorf("make a reader of nobody's assertions: %w", err)
	}
	r.current.Store(&list{})
	if err := r.Replace(clients); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace has the registry know these clients and no others. Where it errs, with the
// name of the field that is wrong, nothing has changed. A client that stays keeps its
// keys, if they are to come from where they came from, and what it has used of its
// limits. A [Client] that was returned before goes on working.
func (r *Registry) Replace(clients []Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.current.Load()
	next := &list{byID: make(map[string]*Client, len(clients)), origins: map[string]bool{}}
	for i, given := range clients {
		c, err := given.check()
		if err != nil {
			return fmt.Errorf("clients[%d].%w", i, err)
		}
		if next.byID[c.id] != nil {
			return fmt.Errorf("clients[%d].id: %q is there twice", i, c.id)
		}
		if c.uses(PrivateKeyJWT) {
			if len(r.audiences) == 0 {
				return fmt.Errorf("clients[%d].auth can't hold %q: the authority has no name that an assertion could be for", i, PrivateKeyJWT)
			}
			if before := old.byID[c.id]; before != nil && before.keys != nil && before.keys.same(given) {
				c.keys = before.keys
			} else if c.keys, err = newKeys(given, r.http, r.logger); err != nil {
				return fmt.Errorf("clients[%d].%w", i, err)
			}
		}
		next.byID[c.id] = c
		for _, o := range given.AllowedOrigins {
			next.origins[o] = true
		}
	}
	next.ids = slices.Sorted(maps.Keys(next.byID))
	for _, m := range authMethods {
		if slices.ContainsFunc(next.ids, func(id string) bool { return next.byID[id].uses(m) }) {
			next.methods = append(next.methods, m)
		}
	}
	for _, a := range token.Algorithms() {
		if slices.ContainsFunc(next.ids, func(id string) bool {
			return next.byID[id].uses(PrivateKeyJWT) && slices.Contains(next.byID[id].algorithms, a)
		}) {
			next.algorithms = append(next.algorithms, a)
		}
	}
	r.take(old, next) // nothing errs from here on
	return nil
}

// take makes next the list. r.mu is held.
func (r *Registry) take(old, next *list) {
	now := r.now()
	for id, c := range next.byID {
		if r.accounts[id] == nil {
			r.accounts[id] = newAccount()
		}
		c.account = r.accounts[id]
		c.account.limit(c.limits, now)
		if c.keys != nil {
			r.read(c.keys)
		}
	}
	r.current.Store(next)
	for id, before := range old.byID {
		after := next.byID[id]
		if before.keys != nil && before.keys.stop != nil && (after == nil || after.keys != before.keys) {
			before.keys.stop()
		}
	}
	// A client that comes back finds what was counted, so that none is rid of it by
	// being away for a moment.
	strangers := 0
	for id, a := range r.accounts {
		if next.byID[id] != nil {
			continue
		}
		if strangers++; strangers > maxStrangers || a.idle(now) {
			strangers--
			delete(r.accounts, id)
		}
	}
}

// read runs the reader of some keys, if it should run and doesn't. r.mu is held.
func (r *Registry) read(k *keys) {
	if r.ctx == nil || k.stop != nil {
		return
	}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(r.ctx)
	r.reading.Go(func() { k.reader.Run(ctx) })
}

// Run fetches the keys of the clients that have some, also of those to come, and keeps
// them up to date until ctx ends. It is called once, and returns when nothing of it
// runs any more.
func (r *Registry) Run(ctx context.Context) {
	r.mu.Lock()
	r.ctx = ctx
	for _, c := range r.current.Load().byID {
		if c.keys != nil {
			r.read(c.keys)
		}
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.ctx = nil // so that none is added while they are waited for
	r.mu.Unlock()
	r.reading.Wait()
}

// Methods returns the methods that some client may use, in the order in which they
// are declared.
func (r *Registry) Methods() []string { return slices.Clone(r.current.Load().methods) }

// AllowsOrigin reports whether some client's scripts come from a web origin.
func (r *Registry) AllowsOrigin(origin string) bool { return r.current.Load().origins[origin] }

// Algorithms returns what the assertions of some client may be signed with.
func (r *Registry) Algorithms() []string { return slices.Clone(r.current.Load().algorithms) }

// Still reports whether a client that was authenticated before would be, and might do the
// same: who goes on for long with one request asks now and then.
func (r *Registry) Still(c *Client) bool {
	known := r.current.Load().byID[c.id]
	return known != nil && (known == c || known.secret == c.secret && known.keys == c.keys && known.certificate == c.certificate &&
		slices.Equal(known.auth, c.auth) && slices.Equal(known.grants, c.grants))
}
