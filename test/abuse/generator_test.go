//go:build fault

package abuse

import (
	"encoding/gob"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// A flood comes from a process of its own, this test binary started again: the
// scheduler gives it what the authority and its other callers leave of the processors,
// as if it were another machine that can't slow them down but through the authority.
const (
	floodVariable = "REVCAST_TEST_FLOOD"
	niceness      = "15"
)

func TestMain(m *testing.M) {
	if os.Getenv(floodVariable) == "" {
		harness.Main(m)
	}
	if err := generate(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// order says what to send, over and over, until standard input ends: over so many
// connections, and so many in a row on each before their answers are read.
type order struct {
	Address      string
	Conns, InRow int
	Requests     [][]byte
}

// tally is what a flood was answered.
type tally struct {
	Statuses map[int]int
	First    map[int]answer // of each status
	Took     time.Duration
}

func (t *tally) total() (n int) {
	for _, m := range t.Statuses {
		n += m
	}
	return n
}

func (t *tally) add(o tally) {
	if t.Statuses == nil {
		t.Statuses, t.First = map[int]int{}, map[int]answer{}
	}
	for status, n := range o.Statuses {
		t.Statuses[status] += n
		t.First[status] = o.First[status]
	}
	t.Took += o.Took
}

func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f requests a second;", float64(t.total())/t.Took.Seconds())
	for _, status := range slices.Sorted(maps.Keys(t.Statuses)) {
		fmt.Fprintf(&b, " %d: %d", status, t.Statuses[status])
	}
	return b.String()
}

// while runs a flood for as long as f takes.
func (w *world) while(conns, inRow int, requests [][]byte, f func()) (said tally) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "nice", "-n", niceness, os.Args[0])
	cmd.Env = append(os.Environ(), floodVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	answers := gob.NewDecoder(out)
	var started bool
	err = gob.NewEncoder(in).Encode(order{strings.TrimPrefix(w.authority.URL, "http://"), conns, inRow, requests})
	if err == nil {
		err = answers.Decode(&started)
	}
	if err == nil {
		f()
	}
	_ = in.Close()
	if err == nil {
		err = answers.Decode(&said)
	}
	if waited := cmd.Wait(); err != nil || waited != nil {
		w.Fatalf("a flood failed: %v, %v", err, waited)
	}
	return said
}

// generate carries out the order that it reads.
func generate(in io.Reader, out io.Writer) error {
	var o order
	if err := gob.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	conns := make([]raw, o.Conns)
	for i := range conns {
		var err error
		if conns[i], err = dial(o.Address); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	answers := gob.NewEncoder(out)
	if err := answers.Encode(true); err != nil {
		return fmt.Errorf("say that it has begun: %w", err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.Copy(io.Discard, in)
	}()
	began := time.Now()
	each, failed := make([]tally, o.Conns), make([]error, o.Conns)
	var running sync.WaitGroup
	for i, c := range conns {
		running.Go(func() { each[i], failed[i] = o.repeat(c, i*len(o.Requests)/o.Conns, stop) })
	}
	running.Wait()
	var all tally
	for i := range conns {
		if failed[i] != nil {
			return failed[i]
		}
		all.add(each[i])
	}
	all.Took = time.Since(began)
	if err := answers.Encode(all); err != nil {
		return fmt.Errorf("say what was answered: %w", err)
	}
	return nil
}

// repeat sends requests, from the next on, over one connection.
func (o order) repeat(c raw, next int, stop <-chan struct{}) (t tally, err error) {
	t = tally{Statuses: map[int]int{}, First: map[int]answer{}}
	defer func() { _ = c.Close() }()
	var row []byte
	for {
		select {
		case <-stop:
			return t, nil
		default:
		}
		row = row[:0]
		for range o.InRow {
			row = append(row, o.Requests[next%len(o.Requests)]...)
			next++
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		// Nobody waits for the other: a row fits into what the system buffers.
		if _, err := c.Write(row); err != nil {
			return t, fmt.Errorf("send requests: %w", err)
		}
		for range o.InRow {
			a, err := c.next()
			if err != nil {
				return t, fmt.Errorf("read an answer: %w", err)
			}
			if t.Statuses[a.Status]++; t.First[a.Status].Status == 0 {
				t.First[a.Status] = a
			}
		}
	}
}

func dial(address string) (raw, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return raw{}, err
	}
	return newRaw(conn.(*net.TCPConn)), nil
}
