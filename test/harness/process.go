package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ReadyTimeout is how long a process may take to become ready.
const ReadyTimeout = 20 * time.Second

// shown is how much of a process's output a failed test shows.
const shown = 32 << 10

// Process is an authority, a sidecar or another program. It keeps its ports, its
// directory and its output over restarts.
type Process struct {
	Name    string
	URL     string // of the authority, or of the sidecar's proxy
	OpsURL  string // where /readyz and /metrics are: URL, or the sidecar's check listener; empty for another program
	NATSURL string // of the authority's embedded server; empty for a sidecar
	// ExtAuthz is the address of a sidecar's gRPC listener; empty for an authority.
	ExtAuthz string
	Dir      string // data directory and state file, below it
	Config   string // the configuration file

	t    testing.TB
	args []string
	out  *output

	mu   sync.Mutex
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
}

// Exit is how a process ended.
type Exit struct {
	Code int // -1 where a signal ended it
	Took time.Duration
}

func newProcess(t testing.TB, name, dir string) *Process {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	config := filepath.Join(dir, name+".yaml")
	p := &Process{
		Name: name, Dir: dir, Config: config, t: t, out: &output{},
		args: []string{filepath.Join(Build(t), name), "serve", "--config", config},
	}
	p.endWithTest()
	return p
}

func (p *Process) endWithTest() {
	p.t.Cleanup(func() {
		p.Kill()
		if p.t.Failed() {
			p.t.Logf("output of %s at %s:\n%s", p.Name, p.URL, p.out.tail(shown))
		}
	})
}

// Start starts a process that doesn't run, with the configuration file as it is
// now. It doesn't wait for it to be ready.
func (p *Process) Start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		p.t.Fatalf("%s already runs", p.Name)
	}
	cmd := exec.CommandContext(context.Background(), p.args[0], p.args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, p.out, p.out
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState says it
		close(gone)
	}()
	p.cmd, p.gone = cmd, gone
}

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// Running says whether the process runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// PID is the process's number; 0 where it doesn't run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// WaitReady waits until /readyz answers 200.
func (p *Process) WaitReady() {
	p.t.Helper()
	began := time.Now()
	for !p.Ready() {
		if !p.Running() {
			p.t.Fatalf("%s ended before it was ready", p.Name)
		}
		if time.Since(began) > ReadyTimeout {
			p.t.Fatalf("%s is not ready after %v", p.Name, ReadyTimeout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var client = &http.Client{
	Timeout:   2 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true}, // none is left over when a test ends
}

// Ready says whether /readyz answers 200 now, or, for another program, whether it
// takes connections.
func (p *Process) Ready() bool {
	if p.OpsURL == "" {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	resp, err := client.Get(p.OpsURL + "/readyz")
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// scraper has more patience: a process that is busy may take its time.
var scraper = &http.Client{Timeout: ReadyTimeout, Transport: client.Transport}

// Metrics reads those without labels from /metrics.
func (p *Process) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	resp, err := scraper.Get(p.OpsURL + "/metrics")
	if err != nil {
		t.Fatalf("/metrics of %s: %v", p.Name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics of %s: %d, %v", p.Name, resp.StatusCode, err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if strings.ContainsAny(line, "#{") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if all[name], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatalf("%s of %s: %v", name, p.Name, err)
		}
	}
	return all
}

// Metric is one of the Metrics, which must be there.
func (p *Process) Metric(t testing.TB, name string) float64 {
	t.Helper()
	v, ok := p.Metrics(t)[name]
	if !ok {
		t.Fatalf("%s has no metric %s", p.Name, name)
	}
	return v
}

// Signal sends a signal, if the process runs.
func (p *Process) Signal(sig os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		_ = p.cmd.Process.Signal(sig) // it may end right now
	}
}

// Kill kills the process (SIGKILL), if it runs, and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	p.mu.Lock()
	gone := p.gone
	p.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// Terminate sends SIGTERM and waits for the end, at most limit.
func (p *Process) Terminate(limit time.Duration) Exit {
	p.t.Helper()
	p.mu.Lock()
	cmd, gone, running := p.cmd, p.gone, p.running()
	p.mu.Unlock()
	if !running {
		p.t.Fatalf("%s doesn't run", p.Name)
	}
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	select {
	case <-gone:
	case <-time.After(limit):
		p.t.Fatalf("%s still runs %v after SIGTERM", p.Name, limit)
	}
	return Exit{cmd.ProcessState.ExitCode(), time.Since(began)}
}

// Restart kills the process, starts it again and waits until it is ready.
func (p *Process) Restart() {
	p.t.Helper()
	p.Kill()
	p.Start()
	p.WaitReady()
}

// Output is what the process has written to standard output and standard error so
// far, over all of its runs.
func (p *Process) Output() string { return p.out.tail(-1) }

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// tail returns the last n bytes; all where n is negative.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.buf.Bytes(); n >= 0 && len(b) > n {
		return "[...]" + string(b[len(b)-n:])
	}
	return o.buf.String()
}

// ports hands out those of a block that no other process of tests has: one that is free
// now, and soon to be listened at, would be free for them, too. They lie below the
// ephemeral range: an outgoing connection of anybody's could otherwise hold one while its
// process restarts.
var ports struct {
	sync.Mutex
	block *os.File // locked until this process ends
	first int
	next  int
	taken map[string]bool // by tests that run
}

const (
	firstPort  = 20000
	portBlocks = 24
	blockSize  = 500
)

// claimPorts takes a block, when the first port is asked for.
func claimPorts() error {
	if ports.block != nil {
		return nil
	}
	for i := range portBlocks {
		name := "revcast-test-ports-" + strconv.Itoa(os.Getuid()) + "-" + strconv.Itoa(i)
		f, err := os.OpenFile(filepath.Join(os.TempDir(), name), os.O_CREATE|os.O_RDONLY, 0o600)
		if err != nil {
			return err
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			ports.block, ports.first, ports.taken = f, firstPort+i*blockSize, map[string]bool{}
			return nil
		}
		_ = f.Close()
	}
	return errors.New("all blocks of ports are taken")
}

// FreeAddress returns an address on loopback that nothing listens at.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if err := claimPorts(); err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	for range blockSize {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.first+ports.next))
		ports.next = (ports.next + 1) % blockSize
		if ports.taken[address] {
			continue // it may be one that nobody is to listen at
		}
		ln, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		_ = ln.Close()
		ports.taken[address] = true
		t.Cleanup(func() {
			ports.Lock()
			defer ports.Unlock()
			delete(ports.taken, address)
		})
		return address
	}
	t.Fatal("find a free port: none")
	return ""
}
