//go:build cost

package cost

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	phase       = flag.Duration("phase", 12*time.Second, "how long each phase lasts in which a good client is measured; slow connections last 10 s")
	garbageRate = flag.Int("garbage", 1000, "tokens of garbage a second")
)

const (
	slowConns     = 1000
	garbageLength = 8 << 10
	goodRate      = 200 // a second
	niceness      = "15"
	p99Limit      = 2.0 // times the quiet p99
)

// flooded is a door, and how long a good client waited there.
type flooded struct {
	name, address, path string
	quiet, loaded       []time.Duration
	ratios              []float64 // of each round's p99
}

// What strangers send does not make a good client wait: 1,000 connections on which a
// header arrives byte by byte, and a stream of tokens that are none.
func TestGoodClientUnderFlood(t *testing.T) {
	w := newWorld(t)
	doors := []*flooded{{name: "proxy", address: host(w.sidecar.URL), path: "/"}}
	if w.hasCheck() {
		doors = append(doors, &flooded{name: "check", address: host(w.sidecar.OpsURL), path: "/check"})
	}
	for _, d := range doors {
		good := func() []time.Duration {
			return w.send("good", d.address, d.path, "-conns", "8", "-rate", strconv.Itoa(goodRate), "-for", phase.String()).Latency
		}
		w.send("load", d.address, d.path, "-requests", strconv.Itoa(distinct)) // warms all tokens
		for round := range *rounds {
			quiet := good()
			slow := w.flood("slow", d.address, d.path, "-conns", strconv.Itoa(slowConns))
			garbage := w.flood("garbage", d.address, d.path, "-rate", strconv.Itoa(*garbageRate),
				"-length", strconv.Itoa(garbageLength), "-conns", "16")
			time.Sleep(2 * time.Second) // all are connected, and the stream flows
			loaded := good()
			bad, held := garbage.end(), slow.end()
			if bad.Statuses[http.StatusOK] > 0 || bad.Statuses[http.StatusUnauthorized] == 0 {
				t.Errorf("garbage was answered %v", bad.Statuses)
			}
			if held.Opened < slowConns {
				t.Errorf("%d slow connections", held.Opened)
			}
			d.ratios = append(d.ratios, float64(p99(loaded))/float64(p99(quiet)))
			d.quiet, d.loaded = append(d.quiet, quiet...), append(d.loaded, loaded...)
			sent := 0
			for _, n := range bad.Statuses {
				sent += n
			}
			t.Logf("%s, round %d: p99 %s quiet, %s beside %d slow connections (%d opened) and %.0f tokens of garbage a second",
				d.name, round+1, p99(quiet), p99(loaded), slowConns, held.Opened, float64(sent)/bad.Took.Seconds())
		}
	}
	var b strings.Builder
	for _, d := range doors {
		r := spreadOf(d.ratios)
		fmt.Fprintf(&b, "%s: p50 %s, p99 %s quiet; p50 %s, p99 %s under the flood\n", d.name,
			p50(d.quiet), p99(d.quiet), p50(d.loaded), p99(d.loaded))
		fmt.Fprintf(&b, "ratio of p99, %s: %.2f, of each round %.2f (%.2f to %.2f), at most %.2f: %s\n", d.name,
			float64(p99(d.loaded))/float64(p99(d.quiet)), r.median, r.least, r.most, p99Limit, verdict(r.median <= p99Limit))
	}
	t.Log("\n" + b.String())
}

func p50(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// flood is a sender that goes on until it is ended.
type flood struct {
	w   *world
	cmd *exec.Cmd
	in  io.Closer
	out io.Reader
}

// flood starts one. The scheduler gives it what others leave of the processors, as if it
// were another machine, that can slow them down only through the sidecar.
func (w *world) flood(role, address, path string, args ...string) flood {
	w.Helper()
	cmd := w.sender(role, address, path, append(args, "-for", "10m")...)
	cmd.Args = append([]string{"nice", "-n", niceness}, cmd.Args...)
	nice, err := exec.LookPath("nice")
	if err != nil {
		w.Fatal(err)
	}
	cmd.Path = nice
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatalf("start a flood: %v", err)
	}
	return flood{w, cmd, in, out}
}

// end ends it, and returns what it was answered.
func (f flood) end() (t tally) {
	f.w.Helper()
	_ = f.in.Close() // which ends it
	err := json.NewDecoder(f.out).Decode(&t)
	if waited := f.cmd.Wait(); err != nil || waited != nil {
		f.w.Fatalf("a flood failed: %v, %v", err, waited)
	}
	return t
}
