package verifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// ends waits for a context to be ended, and returns why it was.
func ends(t testing.TB, ctx context.Context) Reason {
	t.Helper()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the request goes on")
	}
	ended := EndedBy(ctx)
	if ended == nil {
		t.Fatalf("ended by %v", context.Cause(ctx))
	}
	return ended.Reason
}

// goesOn looks at all open requests now, and reports one that has been ended.
func (r *rig) goesOn(t testing.TB, ctx context.Context) {
	t.Helper()
	r.requests.look(r.clock.now())
	if ctx.Err() != nil {
		t.Errorf("ended: %v", context.Cause(ctx))
	}
}

func (r *rig) open(t testing.TB, raw string) context.Context {
	t.Helper()
	d := r.Decide(t.Context(), raw)
	ctx, release := r.Hold(t.Context(), d)
	t.Cleanup(release)
	if d.Outcome != Allowed || ctx.Err() != nil || FromContext(ctx) != d.Claims {
		t.Fatalf("%+v: %v", d, context.Cause(ctx))
	}
	return ctx
}

// TestPromptOpenRequestsEnd: an open request ends with each kind of revocation that its
// token matches, and no other does.
func TestPromptOpenRequestsEnd(t *testing.T) {
	for claim, value := range map[string]string{"jti": "t-1", "sub": "alice", "client_id": "web", "tenant": "blue", denylist.KeyID: "e1"} {
		t.Run(claim, func(t *testing.T) {
			r := newRig(t, nil).fresh()
			theirs := r.open(t, es256().Token(claims(map[string]any{"tenant": "blue"})))
			derived, cancel := context.WithTimeout(theirs, time.Hour)
			defer cancel()
			others := r.open(t, rsaKey().Token(claims(map[string]any{"jti": "t-2", "sub": "bob", "client_id": "spa", "tenant": "red"})))
			r.list.Add(revocation(claim, value))
			if why := ends(t, derived); why != Revoked {
				t.Errorf("ended as %s", why)
			}
			if ended := EndedBy(theirs); ended.Verdict.Shape.String() != denylist.One(claim, value).Shape().String() || ended.Issuer != issuer {
				t.Errorf("%+v", ended)
			}
			r.goesOn(t, others)
			if n := r.Stats().Open; n != 1 {
				t.Errorf("%d are open", n)
			}
		})
	}
}

// TestPromptBetweenDecisionAndHold: a revocation that comes after the decision and
// before the request is held ends it at once.
func TestPromptBetweenDecisionAndHold(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(nil)), Clear)
	r.list.Add(revocation("jti", "t-1"))
	r.Close() // nobody watches any more: what is told is told by Hold itself
	ctx, release := r.Hold(t.Context(), d)
	defer release()
	if ctx.Err() == nil || EndedBy(ctx).Reason != Revoked || r.Stats().Open != 0 {
		t.Errorf("%v, %d open", context.Cause(ctx), r.Stats().Open)
	}
}

func TestHoldOfARefusedDecisionHasEnded(t *testing.T) {
	r := newRig(t, nil).fresh()
	for _, d := range []Decision{{}, {Outcome: Allowed}, r.Decide(t.Context(), "opaque")} {
		ctx, release := r.Hold(t.Context(), d)
		if ctx.Err() == nil || EndedBy(ctx).Reason != d.Reason || FromContext(ctx) != nil {
			t.Errorf("%+v: %v", d, context.Cause(ctx))
		}
		release()
	}
}

// TestFreshOrUnknownEndsOpenRequests: time ends requests as it refuses them.
func TestFreshOrUnknownEndsOpenRequests(t *testing.T) {
	raw := es256().Token(claims(map[string]any{"exp": time.Now().Add(10 * time.Minute).Unix()}))
	for _, c := range []struct {
		name   string
		config func(*Config)
		age    time.Duration // what passes; the list is not kept fresh
		fresh  bool          // it is
		ends   Reason        // "": it goes on
	}{
		{"stale under deny", nil, 6 * time.Minute, false, Stale},
		{"stale under allow", func(c *Config) { c.OnStale = Allow }, 6 * time.Minute, false, ""},
		{"almost stale", nil, 4 * time.Minute, false, ""},
		{"expired", nil, 11 * time.Minute, true, Expired},
		{"within leeway", nil, 10*time.Minute + 20*time.Second, true, ""},
		{"outliving its expiry", func(c *Config) { c.OutliveExpiry = true }, 11 * time.Minute, true, ""},
		{"outliving its expiry on a stale list", func(c *Config) { c.OutliveExpiry = true }, 11 * time.Minute, false, Stale},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.config).fresh()
			ctx := r.open(t, raw)
			r.clock.forward(c.age)
			if c.fresh {
				r.fresh()
			}
			if c.ends == "" {
				r.goesOn(t, ctx)
				r.list.Add(revocation("jti", "t-1"))
				c.ends = Revoked // even so
			}
			if why := ends(t, ctx); why != c.ends {
				t.Errorf("ended as %s, want %s", why, c.ends)
			}
		})
	}
}

func TestOpenRequestsEndWithTheirKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil).fresh()
		ctx := r.open(t, es256().Token(claims(nil)))
		r.idp.Serve(rsaKey())
		time.Sleep(4 * time.Minute)
		r.fresh().goesOn(t, ctx)
		time.Sleep(time.Minute + time.Second) // the document is fetched every five minutes
		if why := EndedBy(ctx); why == nil || why.Reason != UnknownKey {
			t.Errorf("ended by %v", why)
		}
	})
}

func TestReleasedRequestsAreLeftAlone(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(nil)), Clear)
	var contexts []context.Context
	var releases []func()
	for range 1000 {
		ctx, release := r.Hold(t.Context(), d)
		contexts, releases = append(contexts, ctx), append(releases, release)
	}
	for i := range contexts { // from both ends and the middle of each shard's list
		releases[i*7%1000]()
	}
	releases[0]()
	if n := r.Stats().Open; n != 0 {
		t.Errorf("%d are open", n)
	}
	r.list.Add(revocation("jti", "t-1"))
	r.requests.look(r.clock.now())
	for _, ctx := range contexts {
		if EndedBy(ctx) != nil || !errors.Is(ctx.Err(), context.Canceled) {
			t.Fatal(context.Cause(ctx))
		}
	}
}

// TestPromptOpenRequestsUnderConcurrency: whenever requests start, none stays open that
// a revocation covers.
func TestPromptOpenRequestsUnderConcurrency(t *testing.T) {
	r := newRig(t, nil).fresh()
	const users = 40
	var revoked [users]atomic.Bool
	issued := time.Now().Unix() // before any cut-off
	var running sync.WaitGroup
	for worker := range 4 {
		running.Go(func() {
			for i := range users {
				user := (i*7 + worker) % users
				raw := es256().Token(claims(map[string]any{"sub": fmt.Sprint("user-", user), "jti": fmt.Sprint(user, "-", worker), "iat": issued}))
				for range 20 {
					before := revoked[user].Load()
					d := r.Decide(t.Context(), raw)
					if before && d.Outcome == Allowed {
						t.Errorf("user %d is allowed", user)
					}
					if d.Outcome != Allowed {
						break
					}
					ctx, release := r.Hold(t.Context(), d)
					if user%2 == 0 { // these end by themselves
						release()
						continue
					}
					running.Go(func() {
						defer release()
						if why := ends(t, ctx); why != Revoked {
							t.Errorf("ended as %s", why)
						}
					})
				}
			}
		})
	}
	for user := range users {
		r.list.Add(revocation("sub", fmt.Sprint("user-", user)))
		revoked[user].Store(true)
	}
	running.Wait()
	if n := r.Stats().Open; n != 0 {
		t.Errorf("%d are open", n)
	}
}

// TestMiddlewareEndsOpenRequests: whatever the handler does, it ends, and the client
// sees that its answer is not whole.
func TestMiddlewareEndsOpenRequests(t *testing.T) {
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request) error{
		"waits for its context": func(w http.ResponseWriter, r *http.Request) error {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return context.Cause(r.Context())
		},
		"has not answered": func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return context.Cause(r.Context())
		},
		"writes and never looks": func(w http.ResponseWriter, _ *http.Request) error {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
					return err
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					return err
				}
			}
		},
		"reads and never looks": func(w http.ResponseWriter, r *http.Request) error {
			w.(http.Flusher).Flush()
			_, err := io.Copy(io.Discard, r.Body)
			return err
		},
	} {
		for _, two := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, two), func(t *testing.T) {
				r := newRig(t, nil).fresh()
				began, returned := make(chan context.Context, 1), make(chan error, 1)
				api := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					began <- r.Context()
					_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 always is
					returned <- handler(w, r)
				})))
				api.EnableHTTP2 = two
				api.StartTLS()
				defer api.Close()
				var body io.Reader
				stopSending := func() {}
				if strings.HasPrefix(name, "reads") {
					reader, sender := io.Pipe()
					stopSending = func() { _ = sender.Close() }
					body = reader
				}
				request, err := http.NewRequestWithContext(t.Context(), "POST", api.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", "Bearer "+es256().Token(claims(nil)))
				answered := make(chan error, 1)
				go func() {
					response, err := api.Client().Do(request)
					if err == nil {
						_, err = io.Copy(io.Discard, response.Body)
						_ = response.Body.Close()
					}
					answered <- err
				}()
				ctx := <-began
				r.list.Add(revocation("jti", "t-1"))
				if why := ends(t, ctx); why != Revoked {
					t.Errorf("ended as %s", why)
				}
				if err := <-returned; err == nil {
					t.Error("the handler saw nothing of it")
				}
				stopSending() // net/http's client waits for its body even when the connection is gone
				if err := <-answered; err == nil {
					t.Error("the client takes its answer for whole")
				}
				counted := func() bool { return strings.Contains(fmt.Sprint(r.Stats().Decisions), "revoked 0 1}") }
				for deadline := time.Now().Add(5 * time.Second); !counted(); time.Sleep(time.Millisecond) { // beside the request
					if time.Now().After(deadline) {
						t.Fatalf("not counted: %v", r.Stats().Decisions)
					}
				}
			})
		}
	}
}

// deadlines are a writer's.
type deadlines struct {
	http.ResponseWriter
	read, write atomic.Pointer[time.Time]
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read.Store(&t); return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write.Store(&t); return nil }

// TestHeldResponsesEndInTime: from the end on nothing is read, and soon nothing written;
// of a request that is over, nothing is touched.
func TestHeldResponsesEndInTime(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(nil)), Clear)
	var open, over deadlines
	ctx, release := r.HoldResponse(t.Context(), d, &open, time.Minute)
	_, released := r.HoldResponse(t.Context(), d, &over, time.Minute)
	released()
	r.list.Add(revocation("jti", "t-1"))
	if why := ends(t, ctx); why != Revoked {
		t.Error(why)
	}
	release() // waits for who is about to set deadlines
	now := time.Now()
	if read, write := open.read.Load(), open.write.Load(); read == nil || write == nil ||
		read.After(now) || write.Before(now.Add(30*time.Second)) || write.After(now.Add(time.Minute)) {
		t.Errorf("reads end %v, writes %v, at %v", read, write, now)
	}
	if over.read.Load() != nil || over.write.Load() != nil {
		t.Error("a request that is over is touched")
	}
}

// TestMiddlewareLeavesTheNextRequestAlone: a connection that goes on to another request
// is not cut for one that is over.
func TestMiddlewareLeavesTheNextRequestAlone(t *testing.T) {
	r := newRig(t, nil).fresh()
	api := httptest.NewServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, FromContext(r.Context()).Subject)
	})))
	defer api.Close()
	for i := range 200 {
		raw := es256().Token(claims(map[string]any{"jti": fmt.Sprint("t-", i), "sub": fmt.Sprint("user-", i)}))
		request, err := http.NewRequestWithContext(t.Context(), "GET", api.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+raw)
		response, err := api.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || string(body) != fmt.Sprint("user-", i) {
			t.Errorf("%s %v", body, err)
		}
		r.list.Add(revocation("jti", fmt.Sprint("t-", i)))
	}
}

// TestRequiring: what a route asks for comes on top, and tells nothing about a token
// that is no good.
func TestRequiring(t *testing.T) {
	raw := es256().Token(claims(map[string]any{"aud": []string{"api", "admin"}}))
	r := newRig(t, nil).fresh()
	allow, deny := Allow, Deny
	for _, c := range []struct {
		name string
		need Requirement
		want Reason
	}{
		{"nothing", Requirement{}, Clear},
		{"its audience", Requirement{Audiences: []string{"x", "admin"}}, Clear},
		{"another audience", Requirement{Audiences: []string{"x"}}, WrongAudience},
		{"its scopes", Requirement{Scopes: []string{"write", "read"}}, Clear},
		{"a scope more", Requirement{Scopes: []string{"read", "admin"}}, InsufficientScope},
		{"part of a scope", Requirement{Scopes: []string{"rea"}}, InsufficientScope},
	} {
		if got := r.Requiring(c.need).Decide(t.Context(), raw); got.Reason != c.want || got.Outcome != outcomes[c.want] {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	strict := r.Requiring(Requirement{Scopes: []string{"admin"}, Audiences: []string{"api"}})
	trusting := r.Requiring(Requirement{OnStale: &allow})
	if strict.Requiring(Requirement{}).Decide(t.Context(), raw).Reason != Clear {
		t.Error("what was required before still is")
	}
	w := httptest.NewRecorder()
	WriteRefusal(w, strict.Decide(t.Context(), raw))
	if w.Code != 403 || w.Header().Get("WWW-Authenticate") != `Bearer error="insufficient_scope"` {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}

	open := func(v *Verifier) context.Context {
		ctx, release := v.Hold(t.Context(), v.Decide(t.Context(), raw))
		t.Cleanup(release)
		return ctx
	}
	by, trusted, denied := open(r.Verifier), open(trusting), open(trusting.Requiring(Requirement{OnStale: &deny}))
	r.clock.forward(6 * time.Minute)
	if why := ends(t, by); why != Stale {
		t.Error(why)
	}
	if why := ends(t, denied); why != Stale {
		t.Error(why)
	}
	r.goesOn(t, trusted)
	if got := trusting.Decide(t.Context(), raw); got.Reason != StaleAllowed {
		t.Errorf("%+v", got)
	}
	r.list.Add(revocation("sub", "alice"))
	if got := strict.Decide(t.Context(), raw); got.Reason != Revoked {
		t.Errorf("a scope is told of a revoked token: %+v", got)
	}
	if why := ends(t, trusted); why != Revoked {
		t.Error(why)
	}
}

// TestHeldContextIsAnyOther: what can be cancelled is made late, and nobody notices.
func TestHeldContextIsAnyOther(t *testing.T) {
	r := newRig(t, nil).fresh()
	d := r.want(t, es256().Token(claims(nil)), Clear)
	type mine struct{}
	parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), mine{}, "value"))
	gone := errors.New("the client is gone")

	asked, release := r.Hold(parent, d)
	defer release()
	late, releaseLate := r.Hold(parent, d)
	defer releaseLate()
	over, releaseOver := r.Hold(parent, d)
	releaseOver()

	before := runtime.NumGoroutine()
	child, cancelChild := context.WithCancel(asked)
	defer cancelChild()
	called := make(chan struct{})
	defer context.AfterFunc(asked, func() { close(called) })()
	if n := runtime.NumGoroutine(); n != before {
		t.Errorf("%d goroutines more", n-before)
	}
	if asked.Value(mine{}) != "value" || late.Value(mine{}) != "value" || asked.Err() != nil || late.Err() != nil {
		t.Error("values or errors differ")
	}
	if !errors.Is(over.Err(), context.Canceled) || EndedBy(over) != nil {
		t.Error("a request that is over goes on")
	}
	<-over.Done()
	cancel(gone)
	<-child.Done()
	<-called
	for _, ctx := range []context.Context{asked, child, late} {
		if !errors.Is(ctx.Err(), context.Canceled) || context.Cause(ctx) != gone || EndedBy(ctx) != nil {
			t.Errorf("%v, because of %v", ctx.Err(), context.Cause(ctx))
		}
	}
}
