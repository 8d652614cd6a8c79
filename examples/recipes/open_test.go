package recipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gingonic "github.com/gin-gonic/gin"
	labstack "github.com/labstack/echo/v5"

	echo "github.com/revcast/revcast/examples/recipes/echo"
	gin "github.com/revcast/revcast/examples/recipes/gin"

	"github.com/revcast/revcast/internal/token/tokentest"
	"github.com/revcast/revcast/pkg/denylist"
	"github.com/revcast/revcast/pkg/verifier"
)

// ginLog is where gin's loggers write: they are global.
var ginLog logged

func TestMain(m *testing.M) {
	gingonic.SetMode(gingonic.ReleaseMode)
	gingonic.DefaultErrorWriter = &ginLog
	os.Exit(m.Run())
}

// logged is what was written to a log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// take returns what was logged since the last time.
func (l *logged) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// cut opens a stream, revokes its token once it flows, and returns how it ended.
func cut(t *testing.T, api *httptest.Server, path string, list *denylist.List, token string) error {
	t.Helper()
	resp := open(t, api.Client(), api.URL+path, []string{"Bearer " + token})
	defer resp.Body.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(resp.Body, first); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.StatusCode, err)
	}
	revoke(t, list, "jti", "t-1", time.Time{})
	_, err := io.Copy(io.Discard, resp.Body)
	return err
}

// An open answer is cut when its token is revoked: never ended as if it were whole, and
// never logged as a crash.
func TestOpenAnswersAreCut(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, r := range recipes {
			if !r.routes {
				continue
			}
			t.Run(protocol+"/"+r.name, func(t *testing.T) {
				list, crashes := denylist.New(), &logged{}
				list.Advance(time.Now())
				idp := httptest.NewServer(tokentest.NewIdP(key))
				defer idp.Close()
				api := httptest.NewUnstartedServer(r.start(t, list, idp.URL))
				api.Config.ErrorLog = log.New(crashes, "", 0)
				start(api, protocol)
				defer api.Close()
				ginLog.take()

				if err := cut(t, api, "/events", list, key.Token(claims(nil))); err == nil {
					t.Error("the answer ended as if it were whole")
				} else if protocol == "HTTP/1.1" && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the answer ended with %v", err)
				}
				api.Close() // waits for the handlers
				if text := crashes.take() + ginLog.take(); text != "" {
					t.Errorf("logged: %s", text)
				}
			})
		}
	}
}

func start(s *httptest.Server, protocol string) {
	if s.EnableHTTP2 = protocol == "HTTP/2"; s.EnableHTTP2 {
		s.StartTLS()
	} else {
		s.Start()
	}
}

// gin's recovery stands behind Accept: it answers for handlers that crash.
func TestGinStillRecovers(t *testing.T) {
	list := denylist.New()
	list.Advance(time.Now())
	idp := httptest.NewServer(tokentest.NewIdP(key))
	defer idp.Close()
	engine := gingonic.New()
	engine.Use(gin.Accept(newVerifier(t, list, idp.URL)), gingonic.Recovery())
	engine.GET("/crash", func(*gingonic.Context) { panic("crashed") })
	api := httptest.NewServer(engine)
	defer api.Close()
	got := get(t, api.URL+"/crash", []string{"Bearer " + key.Token(claims(nil))})
	if text := ginLog.take(); got.status != http.StatusInternalServerError || !strings.Contains(text, "crashed") {
		t.Errorf("%d %q, logged %q", got.status, got.body, text)
	}
}

// Handlers see the held request, and only for a good token. What stands outside of Accept
// goes on after it, with the request that it had.
func TestAcceptHandsTheHeldRequestOnAndBack(t *testing.T) {
	list := denylist.New()
	list.Advance(time.Now())
	idp := httptest.NewServer(tokentest.NewIdP(key))
	defer idp.Close()
	v := newVerifier(t, list, idp.URL)
	var held, before, after context.Context

	engine := gingonic.New()
	engine.Use(func(c *gingonic.Context) {
		before = c.Request.Context()
		c.Next()
		after = c.Request.Context()
	}, gin.Accept(v))
	engine.GET("/", func(c *gingonic.Context) { held = c.Request.Context(); c.String(http.StatusOK, gin.Claims(c).Subject) })

	e := labstack.New()
	e.Use(func(next labstack.HandlerFunc) labstack.HandlerFunc {
		return func(c *labstack.Context) error {
			before = c.Request().Context()
			err := next(c)
			after = c.Request().Context()
			return err
		}
	}, echo.Accept(v))
	e.GET("/", func(c *labstack.Context) error {
		held = c.Request().Context()
		return c.String(http.StatusOK, echo.Claims(c).Subject)
	})

	for name, h := range map[string]http.Handler{"gin": engine, "echo": e} {
		ask := func(token string) *httptest.ResponseRecorder {
			held, before, after = nil, nil, nil
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			h.ServeHTTP(w, r)
			if before == nil || after != before || after.Err() != nil {
				t.Errorf("%s: outside, the context was %v and is %v", name, before, after)
			}
			return w
		}
		if w := ask(key.Token(claims(nil))); w.Code != http.StatusOK || w.Body.String() != "alice" || held == nil || verifier.FromContext(held) == nil {
			t.Errorf("%s: %d %q, inside the context was %v", name, w.Code, w.Body, held)
		}
		if w := ask(forger.Token(claims(nil))); w.Code != http.StatusUnauthorized || held != nil {
			t.Errorf("%s: %d for a forged token, inside the context was %v", name, w.Code, held)
		}
	}
}
