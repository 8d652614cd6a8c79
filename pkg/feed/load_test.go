package feed

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// scripted is an authority without NATS whose every answer a test decides.
type scripted struct {
	*httptest.Server
	mu         sync.Mutex
	signers    []wire.Signer // discovery names all, and the first signs
	epoch      string
	messages   [][]byte           // of the log, from position 1 on
	entries    [][]denylist.Entry // the same
	snapshotAt int                // the position of the snapshot; -1: the log's end
	// send, where set, sends a snapshot some other way than whole.
	send func(w http.ResponseWriter, content []byte)
	// page, where set, is called before a log page is sent, and may refuse it.
	page func(after int) bool
	// says, where set, changes what heartbeats say.
	says func(h *wire.Heartbeat)
}

func script(t *testing.T, epoch string) *scripted {
	t.Helper()
	s := &scripted{epoch: epoch, signers: []wire.Signer{testSigner()}, snapshotAt: -1}
	mux := http.NewServeMux()
	mux.HandleFunc(wire.DiscoveryPath, func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		d := wire.Discovery{
			Version: wire.Version, Epoch: s.epoch, Snapshot: wire.SnapshotPath, Log: wire.LogPath,
			Live: wire.Live{URL: "nats://127.0.0.1:1", Subject: wire.LiveSubjects},
		}
		for _, signer := range s.signers {
			d.SigningKeys = append(d.SigningKeys, wire.SigningKeyOf(signer.Public()))
		}
		_ = json.NewEncoder(w).Encode(d)
	})
	mux.HandleFunc(wire.SnapshotPath, func(w http.ResponseWriter, _ *http.Request) {
		content := s.snapshot(t)
		s.mu.Lock()
		send := s.send
		s.mu.Unlock()
		if send != nil {
			send(w, content)
			return
		}
		_, _ = w.Write(content)
	})
	mux.HandleFunc(wire.LogPath, func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.FormValue("after"))
		s.mu.Lock()
		page := s.page
		s.mu.Unlock()
		if page != nil && !page(after) {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		var b []byte
		for i := after; i < len(s.messages); i++ {
			b = wire.AppendRecord(b, wire.Record{Position: uint64(i + 1), Message: s.messages[i]})
		}
		h, err := s.signers[0].SealHeartbeat(s.heartbeat(r.FormValue("nonce")))
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(wire.AppendPage(b, h))
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// chain returns the chain at a position. The caller holds s.mu.
func (s *scripted) chain(position int) wire.Chain {
	c := wire.ChainStart(s.epoch)
	for i, m := range s.messages[:position] {
		c = c.Next(uint64(i+1), wire.HashOf(m))
	}
	return c
}

// heartbeat says where the log stands. The caller holds s.mu.
func (s *scripted) heartbeat(nonce string) wire.Heartbeat {
	now := time.Now()
	n := len(s.messages)
	h := wire.Heartbeat{Epoch: s.epoch, Position: uint64(n), Chain: s.chain(n), AsOf: now, IssuedAt: now, Nonce: nonce}
	if s.says != nil {
		s.says(&h)
	}
	return h
}

func (s *scripted) snapshot(t *testing.T) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.snapshotAt
	if at < 0 {
		at = len(s.messages)
	}
	var b bytes.Buffer
	head := wire.Snapshot{Epoch: s.epoch, Position: uint64(at), Chain: s.chain(at), IssuedAt: time.Now()}
	if err := s.signers[0].WriteSnapshot(&b, head, denylist.Sections(slices.Concat(s.entries[:at]...))); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

// revoke puts one message with a revocation of each token into the log.
func (s *scripted) revoke(t *testing.T, jtis ...string) (tokens []*denylist.Token) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	exp := now.Add(time.Hour)
	var encoded [][]byte
	var entries []denylist.Entry
	for _, jti := range jtis {
		r := denylist.Revocation{Issuer: issuer, Selector: denylist.One(denylist.JTI, jti), Expires: exp, ExactExpiry: true, At: now}
		e, err := wire.EncodeEntry(r)
		if err != nil {
			t.Fatal(err)
		}
		encoded, entries, tokens = append(encoded, e), append(entries, r.Entry()), append(tokens, tokenOf(t, jti, exp))
	}
	s.messages, s.entries = append(s.messages, s.signers[0].SealBatch(s.epoch, now, encoded)), append(s.entries, entries)
	return tokens
}

func (s *scripted) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// live hands a message of the log and a heartbeat to a feed, as NATS does.
func (s *scripted) live(t *testing.T, f *Feed, position int) {
	t.Helper()
	s.mu.Lock()
	message := s.messages[position-1]
	s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	opened, err := f.ring.Open(message)
	if err != nil {
		t.Error(err)
		return
	}
	f.message(uint64(position), message, opened, time.Now())
}

func (s *scripted) beat(f *Feed) {
	s.mu.Lock()
	h := s.heartbeat("")
	s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heartbeat(h, time.Now())
}

// starts makes a feed that has taken up its state file, and whose questions the
// test asks. It ends without an orderly end.
func starts(t *testing.T, url, path string) *Feed {
	t.Helper()
	f, err := New(denylist.New(), Config{Authority: url, StateFile: path, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	f.restore()
	t.Cleanup(func() { kill(f) })
	return f
}

func kill(f *Feed) {
	if f.conn != nil {
		f.conn.Close()
	}
	f.client.CloseIdleConnections()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.discard()
	f.state = nil
}

func mustAsk(t *testing.T, f *Feed) {
	t.Helper()
	if err := f.ask(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func noneLeft(t *testing.T, path string) {
	t.Helper()
	if left, err := filepath.Glob(path + newState); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func numbered(name string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint(name, i))
	}
	return names
}

func fresh(list *denylist.List) bool {
	age, ok := list.Age(time.Now())
	return ok && age < 30*time.Second
}

// damage flips a bit of a file in place; negative offsets count from the end.
func damage(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := file.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func stranger() wire.Signer {
	return wire.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)))
}

// outrun makes a feed whose list knows more of the log than its state file will, since
// the snapshot that it is about to load is older than what it knew: of six messages,
// the snapshot has three.
func outrun(t *testing.T, damaged bool) (s *scripted, f *Feed, path string, tokens []*denylist.Token) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "there")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "state")
	s = script(t, "e")
	for i := range 3 {
		tokens = append(tokens, s.revoke(t, fmt.Sprint("a", i))...)
	}
	f = starts(t, s.URL, path)
	mustAsk(t, f)
	for i := range 3 {
		tokens = append(tokens, s.revoke(t, fmt.Sprint("b", i))...)
	}
	if damaged { // the base breaks, and it alone had them
		for i := range 3 {
			s.live(t, f, 4+i)
		}
		s.beat(f)
		f.state.frames = 1 << 40
		f.save()
		if len(f.recent) > 0 || f.state.held != 6 {
			t.Fatal("the frames were not merged")
		}
		damage(t, path, 50)
		f.state.frames = 1 << 40
		f.save()
	} else { // they came with a snapshot that could not be written
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		if err := f.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
	}
	if f.position.confirmed.position != 6 || revoked(f.list, tokens) != 6 || f.stateErrors != 1 || f.state != nil && !f.state.behind {
		t.Fatalf("the test is void: at %d, %+v", f.position.confirmed.position, f.state)
	}
	s.change(func() { s.snapshotAt = 3 })
	f.saveAfter = time.Time{}
	return s, f, path, tokens
}

// honest checks that a restart from the state file would claim no more than it has.
func honest(t *testing.T, path string, tokens []*denylist.Token, when string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	g, list := restored(t, b, time.Now())
	if n := revoked(list, tokens); n < len(tokens) && (fresh(list) && g.last.Position > 3 || g.position.confirmed.position > 3) {
		t.Errorf("%s: %d of %d revocations, at %d, fresh %v", when, n, len(tokens), g.position.confirmed.position, fresh(list))
	}
}

func eachOutrun(t *testing.T, test func(t *testing.T, s *scripted, f *Feed, path string, tokens []*denylist.Token)) {
	for name, damaged := range map[string]bool{"the base was damaged": true, "a newer one could not be written": false} {
		t.Run(name, func(t *testing.T) {
			s, f, path, tokens := outrun(t, damaged)
			test(t, s, f, path, tokens)
		})
	}
}

func TestFreshAStateFileOfAnOlderSnapshotIsNotFreshBeforeTheLogAfterItIsThere(t *testing.T) {
	eachOutrun(t, func(t *testing.T, s *scripted, f *Feed, path string, tokens []*denylist.Token) {
		s.change(func() {
			s.send = func(w http.ResponseWriter, content []byte) {
				most := len(content) - 80
				_, _ = w.Write(content[:most])
				_ = http.NewResponseController(w).Flush()
				eventually(t, "the new file is begun", func() bool {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.nextState != nil
				})
				s.beat(f)
				_, _ = w.Write(content[most:])
			}
			s.page = func(int) bool {
				honest(t, path, tokens, "killed with the snapshot loaded")
				s.beat(f)
				honest(t, path, tokens, "killed after another heartbeat")
				return true
			}
		})
		mustAsk(t, f)
		honest(t, path, tokens, "afterwards")
		if _, list := restored(t, content(t, path), time.Now()); !fresh(list) || revoked(list, tokens) != len(tokens) {
			t.Errorf("in the end: fresh %v, %d of %d", fresh(list), revoked(list, tokens), len(tokens))
		}
	})
}

func TestFreshAStateFileOfAnOlderSnapshotIsNotFreshWhereTheLogAfterItDoesNotCome(t *testing.T) {
	eachOutrun(t, func(t *testing.T, s *scripted, f *Feed, path string, tokens []*denylist.Token) {
		s.change(func() { s.page = func(after int) bool { return after != 3 } })
		if err := f.ask(t.Context(), 0); err == nil || f.state == nil || f.state.behind {
			t.Fatal("the log was read after the snapshot: the test is void")
		}
		honest(t, path, tokens, "without the log")
		tokens = append(tokens, s.revoke(t, "c")...)
		mustAsk(t, f) // from where the list is
		if revoked(f.list, tokens) != 7 || f.last.Position != 7 {
			t.Fatal("the list was held up")
		}
		honest(t, path, tokens, "with the log after what the list knew")
		f.state.frames = 1 << 40
		f.save()
		s.beat(f)
		honest(t, path, tokens, "after a merge")
		f.stop()
		honest(t, path, tokens, "after an orderly end")

		g := starts(t, s.URL, path)
		s.change(func() { s.page = nil })
		mustAsk(t, g)
		g.save()
		if h, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) != 7 || !fresh(list) || h.position.confirmed.position != 7 {
			t.Errorf("in the end: %d of 7 revocations, at %d, fresh %v", revoked(list, tokens), h.position.confirmed.position, fresh(list))
		}
	})
}

func TestFinalWhatWasTakenFromPagesAfterAnOlderSnapshotSurvivesAMerge(t *testing.T) {
	eachOutrun(t, func(t *testing.T, _ *scripted, f *Feed, path string, tokens []*denylist.Token) {
		mustAsk(t, f)
		f.state.frames = 1 << 40
		f.save()
		if f.state.frames > 1<<20 {
			t.Fatal("not merged")
		}
		if _, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) != len(tokens) {
			t.Errorf("%d of %d revocations; fresh %v", revoked(list, tokens), len(tokens), fresh(list))
		}
	})
}

// broken are ways in which a snapshot can arrive that is not the authority's.
func broken() map[string]func(w http.ResponseWriter, content []byte) {
	whole := func(change func(b []byte) []byte) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, content []byte) { _, _ = w.Write(change(bytes.Clone(content))) }
	}
	flip := func(at int) func(b []byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 4; return b }
	}
	cut := func(part float64, less int) func(b []byte) []byte {
		return func(b []byte) []byte { return b[:int(float64(len(b))*part)-less] }
	}
	breaks := func(part float64) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:int(float64(len(content))*part)])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	return map[string]func(http.ResponseWriter, []byte){
		"altered in the header":              whole(flip(40)),
		"altered in a digest":                whole(flip(1000)),
		"altered in a later section":         whole(flip(-10000)),
		"with a wrong signature":             whole(flip(-1)),
		"with another key's id":              whole(flip(-70)),
		"without a signature":                whole(cut(1, 72)),
		"with half of one":                   whole(cut(1, 30)),
		"that ends early":                    whole(cut(.5, 0)),
		"that ends at once":                  whole(cut(0, 0)),
		"with more after it":                 whole(func(b []byte) []byte { return append(b, 0) }),
		"whose connection breaks":            breaks(.5),
		"whose connection breaks at once":    breaks(.01),
		"whose connection breaks in the end": breaks(.999),
	}
}

func TestSignedASnapshotThatIsNotWholeChangesNothing(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		t.Run(fmt.Sprint("state file ", keeps), func(t *testing.T) {
			s := script(t, "e")
			known := s.revoke(t, "a", "b", "c")
			path := ""
			if keeps {
				path = filepath.Join(t.TempDir(), "state")
			}
			f := starts(t, s.URL, path)
			mustAsk(t, f)
			state := f.state
			before := counts(f.list)
			var file []byte
			if keeps {
				file = content(t, path)
			}
			victims := s.revoke(t, numbered("victim", 2*denylist.SectionSize)...)
			check := func(what string) {
				t.Helper()
				f.mu.Lock()
				defer f.mu.Unlock()
				if after := counts(f.list); !reflect.DeepEqual(before, after) || revoked(f.list, victims) > 0 {
					t.Errorf("a snapshot %s changed the list: %+v, then %+v", what, before, after)
				}
				if f.nextState != nil || f.state != state || f.position.confirmed.position != 1 || f.stateErrors > 0 {
					t.Errorf("a snapshot %s changed the state: at %d, %d errors", what, f.position.confirmed.position, f.stateErrors)
				}
				if keeps {
					if !bytes.Equal(content(t, path), file) {
						t.Errorf("a snapshot %s changed the state file", what)
					}
					noneLeft(t, path)
				}
			}
			ways := broken()
			ways["of a stranger"] = func(w http.ResponseWriter, _ []byte) {
				s.change(func() { s.signers = []wire.Signer{stranger()} })
				b := s.snapshot(t)
				s.change(func() { s.signers = []wire.Signer{testSigner()} })
				_, _ = w.Write(b)
			}
			for what, send := range ways {
				s.change(func() { s.send = send })
				if err := f.load(t.Context()); err == nil {
					t.Errorf("a snapshot %s was taken", what)
				}
				check(what)
			}
			s.change(func() { s.send = nil })
			if err := f.load(t.Context()); err != nil || revoked(f.list, victims) != len(victims) || revoked(f.list, known) != 3 {
				t.Errorf("and the whole one was not taken: %v", err)
			}
		})
	}
}

func TestFreshAStateFileThatLacksASnapshotIsNotToldThatItIsComplete(t *testing.T) {
	for _, during := range []bool{false, true} {
		name := "gone before the snapshot comes"
		if during {
			name = "gone while it comes"
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "there")
			away := dir + "-away"
			move := func(from, to string) {
				t.Helper()
				if err := os.Rename(from, to); err != nil {
					t.Error(err)
				}
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "state")
			s := script(t, "e")
			tokens := s.revoke(t, "a")
			f := starts(t, s.URL, path)
			mustAsk(t, f)
			last := f.last
			tokens = append(tokens, s.revoke(t, numbered("only in the snapshot", 2*denylist.SectionSize)...)...)
			s.change(func() {
				s.send = func(w http.ResponseWriter, content []byte) {
					if !during {
						move(dir, away)
						_, _ = w.Write(content)
						return
					}
					most := len(content) - 80
					_, _ = w.Write(content[:most])
					_ = http.NewResponseController(w).Flush()
					eventually(t, "the new file is begun", func() bool {
						left, _ := filepath.Glob(path + newState)
						return len(left) > 0
					})
					move(dir, away)
					_, _ = w.Write(content[most:])
				}
			})
			if err := f.load(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.change(func() { s.send = nil })
			if n := revoked(f.list, tokens); n != len(tokens) || !fresh(f.list) {
				t.Errorf("%d of %d revocations, fresh %v", n, len(tokens), fresh(f.list))
			}
			if f.stateErrors != 1 || f.nextState != nil {
				t.Errorf("%d errors", f.stateErrors)
			}
			// Life goes on: messages, heartbeats, answers.
			tokens = append(tokens, s.revoke(t, "later")...)
			s.live(t, f, 3)
			s.beat(f)
			mustAsk(t, f)
			f.save()
			if f.last.AsOf <= last.AsOf || f.position.confirmed.position != 3 {
				t.Fatal("nothing was confirmed: the test is void")
			}
			g, list := restored(t, content(t, filepath.Join(away, "state")), time.Now())
			if g.last != last || g.position.confirmed.position != 1 {
				t.Errorf("the old file says %+v; it was %+v", g.last, last)
			}
			now := time.Now()
			if age, ok := list.Age(now); !ok || age < now.Sub(time.UnixMicro(last.Through)) {
				t.Errorf("%s old, %v", age, ok)
			}
			if revoked(list, tokens[:1]) != 1 || revoked(list, tokens[len(tokens)-1:]) != 1 {
				t.Error("the old file lost what it had, or what came live")
			}

			f.mu.Lock()
			soon := f.lacks(f.cfg.Now())
			later := f.lacks(f.cfg.Now().Add(rewriteRetry))
			f.saveAfter = time.Time{} // half a minute later
			f.mu.Unlock()
			if soon || !later {
				t.Errorf("tried again at once: %v; later: %v", soon, later)
			}
			mustAsk(t, f) // and still not
			if f.stateErrors != 2 || !f.state.behind {
				t.Errorf("%d errors", f.stateErrors)
			}
			move(away, dir)
			f.saveAfter = time.Time{}
			mustAsk(t, f)
			if f.state == nil || f.state.behind || f.state.partial || f.saveFailures != 0 {
				t.Fatalf("%+v", f.state)
			}
			g, list = restored(t, content(t, path), time.Now())
			if n := revoked(list, tokens); n != len(tokens) || !fresh(list) || g.position.confirmed.position != 3 {
				t.Errorf("in the new file: %d of %d revocations, at %d", n, len(tokens), g.position.confirmed.position)
			}
			tokens = append(tokens, s.revoke(t, "in the end")...)
			s.live(t, f, 4)
			s.beat(f)
			if g, list = restored(t, content(t, path), time.Now()); revoked(list, tokens) != len(tokens) || g.position.confirmed.position != 4 {
				t.Error("it is not gone on with")
			}
		})
	}
}

func TestFreshWithoutAPlaceForTheStateFileTheListIsFreshAllTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	path := filepath.Join(dir, "state")
	s := script(t, "e")
	tokens := s.revoke(t, "a", "b")
	f := starts(t, s.URL, path)
	mustAsk(t, f)
	if revoked(f.list, tokens) != 2 || !fresh(f.list) || f.state != nil || f.stateErrors != 1 {
		t.Fatalf("%d of 2 revocations, fresh %v, %d errors", revoked(f.list, tokens), fresh(f.list), f.stateErrors)
	}
	tokens = append(tokens, s.revoke(t, "c")...)
	s.live(t, f, 2)
	s.beat(f)
	tokens = append(tokens, s.revoke(t, "d")...)
	mustAsk(t, f)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.change(func() { s.snapshotAt = 1 }) // older than what is known
	f.saveAfter = time.Time{}
	mustAsk(t, f)
	f.state.frames = 1 << 40
	f.save()
	if g, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) != 4 || !fresh(list) || g.position.confirmed.position != 3 {
		t.Errorf("%d of 4 revocations, at %d, fresh %v", revoked(list, tokens), g.position.confirmed.position, fresh(list))
	}
}

func TestFinalADamagedBaseIsNotTakenOver(t *testing.T) {
	for _, at := range []int64{0, 4, 10, 60, 5000, -40, -10} {
		t.Run(fmt.Sprint("at ", at), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			s := script(t, "e")
			tokens := s.revoke(t, numbered("a", 5000)...)
			f := starts(t, s.URL, path)
			mustAsk(t, f)
			if at < 0 {
				at += f.state.base // in the header, in the checksum
			}
			tokens = append(tokens, s.revoke(t, "in a frame")...)
			s.live(t, f, 2)
			s.beat(f)
			damage(t, path, at)
			bad := content(t, path)
			f.state.frames = 1 << 40
			f.save()
			if f.state != nil || f.stateErrors != 1 || !bytes.Equal(content(t, path), bad) {
				t.Fatalf("%d errors; the damage was taken over", f.stateErrors)
			}
			noneLeft(t, path)
			if _, list := restored(t, content(t, path), time.Now()); list.Stats().Entries > 0 {
				t.Error("a restart took it over")
			}
			if n := revoked(f.list, tokens); n != len(tokens) || !fresh(f.list) {
				t.Errorf("the list has %d of %d revocations", n, len(tokens))
			}
			tokens = append(tokens, s.revoke(t, "without a file")...)
			s.live(t, f, 3)
			s.beat(f)
			f.mu.Lock()
			f.saveAfter = time.Time{} // half a minute later
			f.mu.Unlock()
			if _, due := f.due(f.cfg.Now()); !due {
				t.Error("no snapshot is asked for")
			}
			loads := f.Status().Snapshots
			mustAsk(t, f)
			if f.Status().Snapshots != loads+1 || f.state == nil {
				t.Fatal("no snapshot was loaded")
			}
			f.state.frames = 1 << 40
			f.save()
			if g, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) != len(tokens) || !fresh(list) || g.position.confirmed.position != 3 {
				t.Errorf("in the new file: %d of %d revocations, at %d", revoked(list, tokens), len(tokens), g.position.confirmed.position)
			}
		})
	}
}

func TestFinalWhatOnlyTheOldStateFileHasSurvivesSnapshotsOfNewLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, inBase, inFrames := journaled(t, path)
	kill(f)
	tokens := append(inBase, inFrames...)
	for n, epoch := range []string{"e2", "e3", "e4"} {
		s := script(t, epoch)
		tokens = append(tokens, s.revoke(t, epoch+"a", epoch+"b")...)
		f := starts(t, s.URL, path)
		mustAsk(t, f)
		if f.Status().Alarms["epoch_changed"] != 1 || f.Status().Snapshots != 1 {
			t.Fatalf("%+v", f.Status())
		}
		tokens = append(tokens, s.revoke(t, epoch+"c")...)
		mustAsk(t, f)
		if n == 1 { // and a merge between
			f.state.frames = 1 << 40
			f.save()
		}
		if got := revoked(f.list, tokens); got != len(tokens) {
			t.Errorf("epoch %s: %d of %d revocations in the list", epoch, got, len(tokens))
		}
		kill(f)
		g, list := restored(t, content(t, path), time.Now())
		if got := revoked(list, tokens); got != len(tokens) || g.position.epoch != epoch || g.position.confirmed.position != 2 || !fresh(list) {
			t.Errorf("epoch %s: %d of %d revocations after a restart, of epoch %s at %d", epoch, got, len(tokens), g.position.epoch, g.position.confirmed.position)
		}
	}
}

func TestSignedKeysThatDiscoveryAddsAreInTheStateFile(t *testing.T) {
	for _, c := range []struct {
		name    string
		signers []wire.Signer // that take the place of the test's
		alarm   uint64
	}{
		{"one more", []wire.Signer{stranger(), testSigner()}, 0},
		{"another", []wire.Signer{stranger()}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			s := script(t, "e")
			tokens := s.revoke(t, "a")
			f := starts(t, s.URL, path)
			mustAsk(t, f)
			f.save()
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			s.change(func() { s.signers = c.signers })
			tokens = append(tokens, s.revoke(t, "b")...)
			f.discovered = nil // it is due
			mustAsk(t, f)
			if f.Status().Alarms["key_changed"] != c.alarm {
				t.Errorf("alarms: %v", f.Status().Alarms)
			}
			f.save()
			if after, err := os.Stat(path); err != nil || os.SameFile(before, after) || f.rekeyed {
				t.Errorf("the header was not rewritten: %v", err)
			}
			now := content(t, path)
			f.save()
			if !bytes.Equal(content(t, path), now) {
				t.Error("and rewritten without need")
			}
			kill(f)
			s.Close() // a restart without the authority
			g := starts(t, s.URL, path)
			if len(g.ring) != len(c.signers) {
				t.Fatalf("%d keys are trusted", len(g.ring))
			}
			tokens = append(tokens, s.revoke(t, "c")...)
			s.live(t, g, 3)
			if n := revoked(g.list, tokens); n != len(tokens) || g.position.epoch != "e" {
				t.Errorf("%d of %d revocations", n, len(tokens))
			}
			g.save()
			if !bytes.HasPrefix(content(t, path), now) {
				t.Error("rewritten by the restart")
			}
		})
	}
}

func TestFreshASnapshotThatOnlyTheStateFileNeedsHoldsNothingUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "state")
	s := script(t, "e")
	tokens := s.revoke(t, "a")
	f := starts(t, s.URL, path)
	mustAsk(t, f)
	was := f.last
	tokens = append(tokens, s.revoke(t, "b")...)
	s.change(func() {
		s.send = func(w http.ResponseWriter, _ []byte) { http.Error(w, "not now", http.StatusServiceUnavailable) }
	})
	f.saveAfter = time.Time{} // the file is tried again
	if err := f.ask(t.Context(), 0); err == nil {
		t.Fatal("no snapshot was asked for: the test is void")
	}
	mustAsk(t, f)
	if revoked(f.list, tokens) != 2 || f.last.AsOf <= was.AsOf {
		t.Error("the log was not read, since the snapshot can't be had")
	}

	// The same where the snapshot comes, and the log after it doesn't.
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s.change(func() {
		s.send, s.snapshotAt = nil, 1
		s.page = func(after int) bool { return after != 1 }
	})
	f.saveAfter = time.Time{}
	if err := f.ask(t.Context(), 0); err == nil || f.state == nil {
		t.Fatal("the log was read after the snapshot: the test is void")
	}
	tokens = append(tokens, s.revoke(t, "c")...)
	mustAsk(t, f)
	f.state.frames = 1 << 40
	f.save()
	if g, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) < 3 && (fresh(list) || g.position.confirmed.position > 1) {
		t.Errorf("%d of 3 revocations, at %d, fresh %v", revoked(list, tokens), g.position.confirmed.position, fresh(list))
	}
	s.change(func() { s.page = nil })
	f.saveAfter = time.Time{}
	mustAsk(t, f)
	f.save()
	if g, list := restored(t, content(t, path), time.Now()); revoked(list, tokens) != 3 || !fresh(list) || g.position.confirmed.position != 3 {
		t.Errorf("in the end %d of 3 revocations, at %d, fresh %v", revoked(list, tokens), g.position.confirmed.position, fresh(list))
	}
}
