package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Tally is what senders were answered.
type Tally struct {
	Statuses map[int]int
	Took     time.Duration
	Latency  []time.Duration `json:",omitempty"` // of each request; good
	Opened   int             `json:",omitempty"` // connections; slow
}

func (t *Tally) add(statuses map[int]int) {
	if t.Statuses == nil {
		t.Statuses = map[int]int{}
	}
	for status, n := range statuses {
		t.Statuses[status] += n
	}
}

// conn is a kept connection on which requests are sent as they lie there, so that
// sending costs little beside answering.
type conn struct {
	net.Conn
	answers *bufio.Reader
}

func dial() (conn, error) {
	c, err := net.Dial("tcp", *address)
	if err != nil {
		return conn{}, fmt.Errorf("connect: %w", err)
	}
	return conn{c, bufio.NewReader(c)}, nil
}

// ask sends a request and reads the answer, which must have a Content-Length.
func (c conn) ask(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, fmt.Errorf("send a request: %w", err)
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("read an answer: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && len(line) >= 12 {
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, fmt.Errorf("read a status: %w", err)
			}
		}
		if len(line) == 0 {
			break
		}
		const name = "content-length: "
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(string(line[len(name):])); err != nil {
				return 0, fmt.Errorf("read a length: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("an answer %d without Content-Length", status)
	}
	if _, err := c.answers.Discard(length); err != nil {
		return 0, fmt.Errorf("read a body: %w", err)
	}
	return status, nil
}

func request(token string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: api.example\r\nUser-Agent: cost/1\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", *path, token)
}

// readRequests makes a request of each token.
func readRequests() (all [][]byte, err error) {
	text, err := os.ReadFile(*tokens)
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	for token := range strings.FieldsSeq(string(text)) {
		all = append(all, request(token))
	}
	return all, nil
}

// load sends a number of requests as fast as they are answered, each with the next
// token.
func load() (Tally, error) {
	all, err := readRequests()
	if err != nil {
		return Tally{}, err
	}
	var next atomic.Int64
	return together(func(c conn, statuses map[int]int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= *requests {
				return nil
			}
			status, err := c.ask(all[i%len(all)])
			if err != nil {
				return err
			}
			statuses[status]++
		}
	})
}

// together runs f on all connections.
func together(f func(c conn, statuses map[int]int) error) (t Tally, err error) {
	each, failed := make([]map[int]int, *conns), make([]error, *conns)
	var running sync.WaitGroup
	began := time.Now()
	for i := range *conns {
		each[i] = map[int]int{}
		c, err := dial()
		if err != nil {
			return t, err
		}
		running.Go(func() {
			defer func() { _ = c.Close() }()
			failed[i] = f(c, each[i])
		})
	}
	running.Wait()
	t.Took = time.Since(began)
	for i, err := range failed {
		if err != nil {
			return t, err
		}
		t.add(each[i])
	}
	return t, nil
}

// good sends requests at a rate, each when it is due whatever the one before took, and
// says how long after that each was answered.
func good() (Tally, error) {
	all, err := readRequests()
	if err != nil {
		return Tally{}, err
	}
	every := time.Second / time.Duration(*rate)
	n := int(*during / every)
	due, latency := make(chan time.Time, n), make([]time.Duration, n)
	go func() {
		defer close(due)
		began := time.Now()
		for i := range n {
			at := began.Add(time.Duration(i) * every)
			time.Sleep(time.Until(at))
			due <- at
		}
	}()
	var next atomic.Int64
	t, err := together(func(c conn, statuses map[int]int) error {
		for at := range due {
			i := int(next.Add(1)) - 1
			status, err := c.ask(all[i%len(all)])
			if err != nil {
				return err
			}
			statuses[status]++
			latency[i] = time.Since(at)
		}
		return nil
	})
	t.Latency = latency
	return t, err
}

// rubbish is what is no good token: characters at random; a header that reads well over
// a payload that doesn't; and all but a good signature, which costs the most.
func rubbish() (all [][]byte) {
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[rand.IntN(64)]
		}
		return string(b)
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := encode([]byte(`{"alg":"RS256","typ":"at+jwt","kid":"k1"}`))
	const signature = 342
	for i := range 300 {
		var token string
		switch i % 3 {
		case 0:
			token = letters(*length)
		case 1:
			token = head + "." + letters(*length-len(head)-signature-2) + "." + letters(signature)
		case 2:
			claims := fmt.Sprintf(`{"iss":%q,"jti":"x","iat":%d,"exp":%d,"pad":"`, *issuer, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
			claims += letters((*length-len(head)-signature-2)*3/4-len(claims)-2) + `"}`
			token = head + "." + encode([]byte(claims)) + "." + letters(signature-1) + "A"
		}
		all = append(all, request(token))
	}
	return all
}

// until is closed when standard input ends or the time is over.
func until() <-chan struct{} {
	over := make(chan struct{})
	input := make(chan struct{})
	go func() {
		defer close(input)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	go func() {
		defer close(over)
		select {
		case <-input:
		case <-time.After(*during):
		}
	}()
	return over
}

// garbage sends bad tokens at a rate, until its input ends.
func garbage() (Tally, error) {
	all, over := rubbish(), until()
	turn := make(chan int, *conns)
	go func() {
		defer close(turn)
		// In groups of some, as a timer for each would cost as much as the request.
		const group = 10
		ticker := time.NewTicker(group * time.Second / time.Duration(*rate))
		defer ticker.Stop()
		for i := 0; ; {
			select {
			case <-over:
				return
			case <-ticker.C:
			}
			for range group {
				turn <- i
				i++
			}
		}
	}()
	return together(func(c conn, statuses map[int]int) error {
		for i := range turn {
			status, err := c.ask(all[i%len(all)])
			if err != nil {
				return err
			}
			statuses[status]++
		}
		return nil
	})
}

// slow holds connections on each of which a byte of a header comes each second, and
// opens another where one is closed, until its input ends.
func slow() (t Tally, err error) {
	over := until()
	var opened atomic.Int64
	began := time.Now()
	var running sync.WaitGroup
	for i := range *conns {
		running.Go(func() {
			const head = "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
			time.Sleep(time.Duration(i) * time.Second / time.Duration(*conns)) // not all at once
			for {
				c, err := net.Dial("tcp", *address)
				if err != nil {
					return
				}
				opened.Add(1)
				_, err = io.WriteString(c, head[:10])
				for sent := 10; err == nil; sent++ {
					select {
					case <-over:
						_ = c.Close()
						return
					case <-time.After(time.Second):
					}
					next := byte('x')
					if sent < len(head) {
						next = head[sent]
					}
					_, err = c.Write([]byte{next})
				}
				_ = c.Close()
			}
		})
	}
	running.Wait()
	return Tally{Took: time.Since(began), Opened: int(opened.Load())}, nil
}
