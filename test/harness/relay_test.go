package harness_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

func TestRelay(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	relay := harness.NewRelay(t, echo.Addr().String())
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", relay.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	send := func(c net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(c net.Conn, want string, within time.Duration) error {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(within))
		got := make([]byte, len(want))
		n, err := io.ReadFull(c, got)
		if err == nil && string(got) != want {
			t.Fatalf("got %q, want %q", got[:n], want)
		}
		return err
	}
	const soon = 5 * time.Second

	old := dial()
	send(old, "one")
	if err := receive(old, "one", soon); err != nil {
		t.Fatal(err)
	}

	relay.Blackhole()
	send(old, "two")
	fresh := dial()
	send(fresh, "three")
	for _, c := range []net.Conn{old, fresh} {
		if err := receive(c, "x", 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a byte went through a blackhole, or the connection ended: %v", err)
		}
	}
	relay.Heal()
	if err := errors.Join(receive(old, "two", soon), receive(fresh, "three", soon)); err != nil {
		t.Fatal(err)
	}

	const late = 100 * time.Millisecond
	relay.Delay(late)
	began := time.Now()
	send(old, "four")
	if err := receive(old, "four", soon); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*late {
		t.Errorf("there and back took %v, with %v each way", took, late)
	}

	relay.Reset()
	if err := receive(old, "x", soon); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on after a reset: %v", err)
	}
	if c, err := net.Dial("tcp", relay.Address); err == nil {
		if err := receive(c, "x", soon); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a new connection is not reset: %v", err)
		}
		_ = c.Close()
	}
	relay.Heal()
	again := dial()
	send(again, "five")
	if err := receive(again, "five", soon); err != nil {
		t.Fatal(err)
	}
	if err := again.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := receive(again, "x", soon); !errors.Is(err, io.EOF) {
		t.Errorf("an end is not passed on: %v", err)
	}
}

// TestRelayTakesTurns among its targets, and leaves out those that aren't there.
func TestRelayTakesTurns(t *testing.T) {
	nobody, targets := harness.FreeAddress(t), []string{}
	for _, name := range []string{"a", "b"} {
		ln, err := net.Listen("tcp", harness.FreeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				_ = c.Close()
			}
		}()
		targets = append(targets, nobody, ln.Addr().String())
	}
	relay := harness.NewRelay(t, targets...)
	met := map[string]int{}
	for range 8 {
		c, err := net.Dial("tcp", relay.Address)
		if err != nil {
			t.Fatal(err)
		}
		name, err := io.ReadAll(c)
		_ = c.Close()
		if err != nil {
			t.Fatal(err)
		}
		met[string(name)]++
	}
	if met["a"] != 4 || met["b"] != 4 {
		t.Errorf("met %v", met)
	}
}
