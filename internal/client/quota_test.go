package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// one returns a registry's client as a request gets it.
func one(t testing.TB, r *Registry, id string) *Client {
	t.Helper()
	c, err := r.Authenticate(t.Context(), byName(SecretPost, id, "x"), now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func web(rate float64, entries int64) Config {
	return Config{ID: "web", SecretSHA256: hash("x"), Auth: []string{SecretPost, None}, Rate: rate, MaxEntries: entries}
}

func TestAdmitKeepsToTheRate(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		burst int
		wait  time.Duration // once the burst is used up
	}{{0, 2000, time.Second}, {10, 20, time.Second}, {0.7, 2, 2 * time.Second}, {0.1, 1, 10 * time.Second}, {1e-300, 1, time.Hour}} {
		who := one(t, registry(t, Options{}, web(c.rate, 0)), "web")
		for range c.burst {
			if _, ok := who.Admit(now); !ok {
				t.Fatalf("rate %v: refused within the burst", c.rate)
			}
		}
		for range 3 { // being refused costs nothing
			if wait, ok := who.Admit(now); ok || wait != c.wait {
				t.Errorf("rate %v: %v, %v after the burst, want %v", c.rate, wait, ok, c.wait)
			}
		}
		if _, ok := who.Admit(now.Add(c.wait)); !ok && c.wait < time.Hour {
			t.Errorf("rate %v: refused after %v", c.rate, c.wait)
		}
	}
}

// Requests that overtake each other on their way here don't make a rate higher.
func TestAdmitCountsNoTimeTwice(t *testing.T) {
	who := one(t, registry(t, Options{}, web(1000, 0)), "web")
	admitted := 0
	for i := range 100_000 {
		at := now.Add(time.Duration(i) * time.Microsecond)
		if i%2 == 0 {
			at = at.Add(-10 * time.Millisecond)
		}
		if _, ok := who.Admit(at); ok {
			admitted++
		}
	}
	if admitted > 2000+101 {
		t.Errorf("%d admitted in a tenth of a second", admitted)
	}
	// A clock that was wrong by an hour doesn't shut anyone out.
	if _, ok := who.Admit(now.Add(time.Hour)); !ok {
		t.Error("refused an hour later")
	}
	for range 5000 {
		who.Admit(now)
	}
	if _, ok := who.Admit(now.Add(time.Second)); !ok {
		t.Error("refused a second after the clock was set back")
	}
}

// Callers that are refused together take no token from those to come.
func TestAdmitLosesNoTokensUnderLoad(t *testing.T) {
	who := one(t, registry(t, Options{}, web(10, 0)), "web")
	for range 20 {
		who.Admit(now)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				if _, ok := who.Admit(now); ok {
					t.Error("admitted beyond the burst")
				}
			}
		})
	}
	all.Wait()
	for i := range 10 {
		if _, ok := who.Admit(now.Add(time.Second)); !ok {
			t.Fatalf("the %dth of ten is refused after a second", i+1)
		}
	}
}

// A client's rate and count are its own, and those of its id: by whatever method it
// comes.
func TestQuotasAreOfTheID(t *testing.T) {
	b := web(1, 1)
	b.ID = "b"
	r := registry(t, Options{}, web(1, 1), b)
	public, err := r.Authenticate(t.Context(), byName(None, "web", ""), now)
	if err != nil {
		t.Fatal(err)
	}
	soon := []time.Time{now.Add(time.Hour)}
	who := one(t, r, "web")
	for range 2 {
		who.Admit(now)
	}
	if _, ok := public.Admit(now); ok {
		t.Error("another rate without a secret")
	}
	if _, _, ok := who.Reserve(soon, now); !ok {
		t.Error("refused")
	}
	if _, _, ok := public.Reserve(soon, now); ok {
		t.Error("another count without a secret")
	}
	if _, ok := one(t, r, "b").Admit(now); !ok {
		t.Error("one client's rate is used up by another")
	}
	if _, _, ok := one(t, r, "b").Reserve(soon, now); !ok {
		t.Error("one client's count is used up by another")
	}
}

func TestReserveCountsUntilBucketsEnd(t *testing.T) {
	who := one(t, registry(t, Options{}, web(0, 3)), "web") // now is 12:00:00.3
	at := func(m, s int) time.Time { return time.Date(2026, 9, 1, 12, m, s, 0, time.UTC) }
	if _, _, ok := who.Reserve([]time.Time{at(5, 0), at(25, 0)}, now); !ok {
		t.Fatal("refused")
	}
	if _, wait, ok := who.Reserve([]time.Time{at(30, 0), at(30, 0)}, now); ok || wait != 10*time.Minute {
		t.Errorf("%v, %v beyond the quota", wait, ok)
	}
	release, _, ok := who.Reserve([]time.Time{at(30, 0)}, now) // nothing was taken by what was refused
	if !ok {
		t.Error("refused within the quota")
	}
	if _, wait, ok := who.Reserve([]time.Time{at(50, 0)}, at(9, 59)); ok || wait != time.Second {
		t.Errorf("%v, %v a second before the first bucket ends", wait, ok)
	}
	if _, _, ok := who.Reserve([]time.Time{at(50, 0)}, at(10, 0)); !ok {
		t.Error("refused when the first bucket has ended")
	}
	if _, wait, ok := who.Reserve([]time.Time{at(50, 0)}, at(10, 0)); ok || wait != 20*time.Minute {
		t.Errorf("%v, %v beyond the quota", wait, ok)
	}
	release()
	release() // gives nothing back the second time
	if _, _, ok := who.Reserve([]time.Time{at(50, 0)}, at(10, 0)); !ok {
		t.Error("refused after a release")
	}
	if _, _, ok := who.Reserve([]time.Time{at(50, 0)}, at(10, 0)); ok {
		t.Error("a release gave back two")
	}
	if _, wait, ok := who.Reserve(make([]time.Time, 0), at(10, 0)); !ok || wait != 0 {
		t.Error("nothing is refused")
	}
	if _, wait, ok := one(t, registry(t, Options{}, web(0, 1)), "web").Reserve([]time.Time{at(30, 0), at(30, 0)}, now); ok || wait != 10*time.Minute {
		t.Errorf("%v, %v where waiting won't help", wait, ok)
	}
}

// Reserve agrees with a model that keeps every single entry.
func TestReserveAgreesWithAModel(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const quota = 60
		r := registry(t, Options{}, web(0, quota))
		who := one(t, r, "web")
		clock := now
		live := map[int]int64{} // entry: Unix time at which its bucket ends
		next := 0
		type held struct {
			release func()
			entries []int
		}
		var releases []held
		for step := range 2000 {
			switch rng.IntN(10) {
			case 0:
				clock = clock.Add(time.Duration(rng.Int64N(int64(12 * time.Minute))))
			case 1:
				if len(releases) > 0 { // perhaps one that was released before
					h := releases[rng.IntN(len(releases))]
					h.release()
					for _, e := range h.entries {
						delete(live, e)
					}
				}
			case 2: // through a restart
				var file bytes.Buffer
				again := registry(t, Options{Now: func() time.Time { return clock }}, web(0, quota))
				r.now = again.now
				if err := errors.Join(r.SaveOutstanding(&file), again.LoadOutstanding(&file)); err != nil {
					t.Fatal(err)
				}
				r, who, releases = again, one(t, again, "web"), nil
			default:
				expires := make([]time.Time, rng.IntN(5))
				for i := range expires {
					expires[i] = clock.Add(time.Duration(rng.Int64N(int64(3*time.Hour))) - 30*time.Minute)
				}
				for e, end := range live {
					if end <= clock.Unix() {
						delete(live, e)
					}
				}
				var ends []int64
				for _, e := range expires {
					if end := (e.Unix()/600 + 1) * 600; end > clock.Unix() {
						ends = append(ends, end)
					}
				}
				release, wait, ok := who.Reserve(expires, clock)
				if want := len(live)+len(ends) <= quota; ok != want {
					t.Fatalf("seed %d, step %d: %v with %d live and %d more", seed, step, ok, len(live), len(ends))
				}
				if !ok {
					first := int64(1 << 62)
					for _, end := range live {
						first = min(first, end)
					}
					if want := (time.Unix(first, 0).Sub(clock) + time.Second - 1).Truncate(time.Second); wait != want {
						t.Fatalf("seed %d, step %d: wait %v, want %v", seed, step, wait, want)
					}
					continue
				}
				var entries []int
				for _, end := range ends {
					live[next] = end
					entries = append(entries, next)
					next++
				}
				releases = append(releases, held{release, entries})
			}
			// Both forget by the same clock.
			n := int64(0)
			for _, end := range live {
				if end > clock.Unix() {
					n++
				}
			}
			if got := who.account.outstanding(clock); got != n {
				t.Fatalf("seed %d, step %d: %d outstanding, want %d", seed, step, got, n)
			}
		}
	}
}

func TestReserveIsBounded(t *testing.T) {
	who := one(t, registry(t, Options{}, web(0, 1<<40)), "web")
	a := who.account
	release, _, ok := who.Reserve([]time.Time{time.Unix(1<<60, 0), {}, time.Unix(-1<<60, 0), now.Add(time.Hour), now}, now)
	if !ok || a.total != 3 { // what expired long ago isn't counted
		t.Errorf("%v, %d counted", ok, a.total)
	}
	if end := bucketEnd(a.buckets[len(a.buckets)-1].bucket); end.After(now.AddDate(12, 0, 0)) {
		t.Errorf("counted until %v", end)
	}
	release()
	if a.total != 0 || len(a.buckets) != 0 {
		t.Errorf("%d left in %d buckets", a.total, len(a.buckets))
	}
	// A year of one each second, and what is held stays small.
	for i := range 365 * 24 * 6 {
		at := now.Add(time.Duration(i) * 10 * time.Minute)
		who.Reserve([]time.Time{at.Add(24 * time.Hour)}, at)
		if len(a.buckets) > 145 || cap(a.buckets) > 1000 {
			t.Fatalf("%d buckets in %d", len(a.buckets), cap(a.buckets))
		}
	}
	if n := testing.AllocsPerRun(100, func() { who.Admit(now) }); n > 0 {
		t.Errorf("Admit allocates %v times", n)
	}
	expires := []time.Time{now.Add(365 * 24 * time.Hour)}
	if n := testing.AllocsPerRun(100, func() { who.Reserve(expires, now) }); n > 2 {
		t.Errorf("Reserve allocates %v times", n)
	}
}

func TestReserveFromManySides(t *testing.T) {
	const quota = 500
	r := registry(t, Options{}, web(0, quota))
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for i := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			who, err := r.Authenticate(t.Context(), byName(SecretPost, "web", "x"), now)
			if err != nil {
				t.Error(err)
				return
			}
			for range 500 {
				expires := []time.Time{now.Add(time.Duration(rng.Int64N(int64(time.Hour)))), now.Add(time.Hour)}
				release, _, ok := who.Reserve(expires, now)
				switch {
				case ok && rng.IntN(2) == 0:
					release()
				case ok:
					mu.Lock()
					taken += 2
					mu.Unlock()
				}
				r.Outstanding(func(string, int64) bool { return true })
				if err := r.SaveOutstanding(io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for id, n := range r.Outstanding {
		if id != "web" || n != int64(taken) || n > quota || n < quota-1 {
			t.Errorf("%d outstanding of %q, taken %d of %d", n, id, taken, quota)
		}
	}
}

func TestOutstandingSurvivesARestart(t *testing.T) {
	gone := web(0, 5)
	gone.ID = "gone"
	first := registry(t, Options{}, web(0, 5), gone)
	for _, id := range []string{"web", "gone"} {
		if _, _, ok := one(t, first, id).Reserve([]time.Time{now.Add(time.Minute), now.Add(time.Hour), now.Add(time.Hour)}, now); !ok {
			t.Fatal("refused")
		}
	}
	var file bytes.Buffer
	if err := first.SaveOutstanding(&file); err != nil {
		t.Fatal(err)
	}
	const want = `{"version":1,"clients":[{"id":"gone","buckets":[[1788264600,1],[1788268200,2]]},{"id":"web","buckets":[[1788264600,1],[1788268200,2]]}]}` + "\n"
	if file.String() != want {
		t.Errorf("%s\nwant %s", &file, want)
	}
	later := now.Add(20 * time.Minute) // the first bucket has ended meanwhile
	second := registry(t, Options{Now: func() time.Time { return later }}, web(0, 5))
	if err := second.LoadOutstanding(strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	for id, n := range second.Outstanding { // of clients alone, though more is known
		if id != "web" || n != 2 {
			t.Errorf("%q has %d", id, n)
		}
	}
	var again bytes.Buffer
	if err := second.SaveOutstanding(&again); err != nil {
		t.Fatal(err)
	}
	if want := `{"version":1,"clients":[{"id":"gone","buckets":[[1788268200,2]]},{"id":"web","buckets":[[1788268200,2]]}]}` + "\n"; again.String() != want {
		t.Errorf("%s\nwant %s", &again, want)
	}
	// Who comes back is not rid of it.
	if err := second.Replace([]Config{web(0, 5), gone}); err != nil {
		t.Fatal(err)
	}
	c, err := second.Authenticate(t.Context(), byName(SecretPost, "gone", "x"), later)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.account.outstanding(later); got != 2 {
		t.Errorf("%d outstanding of who came back", got)
	}
}

func TestOutstandingIsReadStrictly(t *testing.T) {
	r := registry(t, Options{}, web(0, 0))
	for name, file := range map[string]string{
		"nothing":            ``,
		"no object":          `null`,
		"another version":    `{"version":2,"clients":[]}`,
		"no version":         `{"clients":[]}`,
		"an unknown member":  `{"version":1,"clients":[],"x":1}`,
		"another case":       `{"Version":1,"clients":[]}`,
		"a member twice":     `{"version":1,"version":1,"clients":[]}`,
		"something behind":   `{"version":1,"clients":[]}{}`,
		"no id":              `{"version":1,"clients":[{"buckets":[[1788268200,1]]}]}`,
		"a long id":          `{"version":1,"clients":[{"id":"` + strings.Repeat("x", 257) + `","buckets":[[1788268200,1]]}]}`,
		"an id twice":        `{"version":1,"clients":[{"id":"a","buckets":[[1788268200,1]]},{"id":"a","buckets":[[1788268200,1]]}]}`,
		"ids in disorder":    `{"version":1,"clients":[{"id":"b","buckets":[[1788268200,1]]},{"id":"a","buckets":[[1788268200,1]]}]}`,
		"no buckets":         `{"version":1,"clients":[{"id":"web"}]}`,
		"empty buckets":      `{"version":1,"clients":[{"id":"web","buckets":[]}]}`,
		"half a pair":        `{"version":1,"clients":[{"id":"web","buckets":[[1788268200]]}]}`,
		"three of a pair":    `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1,1]]}]}`,
		"null":               `{"version":1,"clients":[{"id":"web","buckets":[null]}]}`,
		"an empty bucket":    `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,0]]}]}`,
		"less than nothing":  `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,-1]]}]}`,
		"too many":           `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1099511627777]]}]}`,
		"too many in all":    `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1099511627776],[1788268800,1]]}]}`,
		"half a bucket":      `{"version":1,"clients":[{"id":"web","buckets":[[1788268201,1]]}]}`,
		"a fraction":         `{"version":1,"clients":[{"id":"web","buckets":[[1788268200.5,1]]}]}`,
		"a year of 12000":    `{"version":1,"clients":[{"id":"web","buckets":[[316516464000,1]]}]}`,
		"disorder":           `{"version":1,"clients":[{"id":"web","buckets":[[1788268800,1],[1788268200,1]]}]}`,
		"a bucket twice":     `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1],[1788268200,1]]}]}`,
		"good before bad":    `{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1]]},{"id":"x","buckets":[[1,1]]}]}`,
		"more than it holds": `{"version":1,"clients":[]}` + strings.Repeat(" ", maxOutstandingFile),
	} {
		if err := r.LoadOutstanding(strings.NewReader(file)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.accounts) != 1 || r.accounts["web"].total != 0 {
		t.Error("something was taken of what was refused")
	}
	broken := errors.New("broken")
	if err := r.LoadOutstanding(brokenFile{broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
	one(t, r, "web").Reserve([]time.Time{now.Add(time.Hour)}, now)
	if err := r.SaveOutstanding(brokenFile{broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type brokenFile struct{ error }

func (e brokenFile) Read([]byte) (int, error)  { return 0, e.error }
func (e brokenFile) Write([]byte) (int, error) { return 0, e.error }

// Ids that no client has are kept, and not without end.
func TestStrangersAreBounded(t *testing.T) {
	var file strings.Builder
	file.WriteString(`{"version":1,"clients":[`)
	for i := range 2 * maxStrangers {
		fmt.Fprintf(&file, `{"id":"a%06d","buckets":[[1788268200,1]]},`, i)
	}
	file.WriteString(`{"id":"web","buckets":[[1788268200,1]]}]}`)
	clock := now
	r := registry(t, Options{Now: func() time.Time { return clock }}, web(0, 0))
	if err := r.LoadOutstanding(strings.NewReader(file.String())); err != nil {
		t.Fatal(err)
	}
	if len(r.accounts) != maxStrangers+1 || r.accounts["web"].total != 1 {
		t.Errorf("%d accounts", len(r.accounts))
	}
	// The same of clients that were there.
	var many []Config
	for i := range 2 * maxStrangers {
		c := web(0, 0)
		c.ID = fmt.Sprint("b", i)
		many = append(many, c)
	}
	if err := r.Replace(many); err != nil {
		t.Fatal(err)
	}
	for _, c := range many {
		one(t, r, c.ID).Reserve([]time.Time{now.Add(time.Hour)}, now)
	}
	if err := r.Replace([]Config{web(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.accounts); n > maxStrangers+1 {
		t.Errorf("%d accounts", n)
	}
	clock = now.Add(2 * time.Hour)
	if err := r.Replace([]Config{web(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if len(r.accounts) != 1 {
		t.Errorf("%d accounts when all has expired", len(r.accounts))
	}
}

// FuzzLoadOutstanding: what is taken is written the same again, but for what has
// expired and what ids there are no accounts for.
func FuzzLoadOutstanding(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"clients":[]}`,
		`{"version":1,"clients":[{"id":"web","buckets":[[1788268200,1],[1788268800,7]]},{"id":"x","buckets":[[1788268200,1099511627776]]}]}`,
		`{"version":1,"clients":[{"id":"web","buckets":[[600,1]]}]}`,
		`{"version":1,"clients":[{"id":"","buckets":[[253402300200,1]]}]}`,
		`{"version":1,"clients":null}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r := registry(t, Options{}, web(0, 0))
		decoded, decodeErr := decodeOutstanding(file)
		if err := r.LoadOutstanding(bytes.NewReader(file)); (err == nil) != (decodeErr == nil) {
			t.Fatal(err, decodeErr)
		} else if err != nil {
			return
		}
		want := int64(0)
		for _, c := range decoded.Clients {
			for _, b := range c.Buckets {
				if b[0] > now.Unix() {
					want += b[1]
				}
			}
		}
		total := func(r *Registry) (n int64) {
			for _, a := range r.accounts {
				n += a.outstanding(now)
			}
			return n
		}
		if got := total(r); got != want && len(decoded.Clients) <= maxStrangers {
			t.Fatalf("%d counted of %d", got, want)
		}
		var first, second bytes.Buffer
		again := registry(t, Options{}, web(0, 0))
		if err := errors.Join(r.SaveOutstanding(&first), again.LoadOutstanding(bytes.NewReader(first.Bytes())), again.SaveOutstanding(&second)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("%s is written again as %s", &first, &second)
		}
	})
}
