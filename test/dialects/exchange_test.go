package dialects

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// noNewline ends a body in a case file that has no newline at its end.
const noNewline = "\\ no newline at the end\n"

// send writes a request to an address as it is written down, and returns the answer
// as one is written down.
func send(address, request string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	method, _, _ := strings.Cut(request, " ")
	wrote := make(chan error, 1)
	go func() { // the answer to a request that is too large comes before its end
		_, err := io.WriteString(conn, onWire(request, address))
		wrote <- err
	}()
	answer, err := receive(conn, method)
	if err != nil {
		_ = conn.Close()
		return "", errors.Join(fmt.Errorf("read the answer: %w", err), <-wrote)
	}
	return answer, nil
}

// onWire gives a request the line ends of HTTP, and the headers that a case leaves
// out.
func onWire(request, address string) string {
	head, body, _ := strings.Cut(request, "\n\n")
	body = strings.TrimSuffix(body, "\n")
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	has := func(name string) bool {
		return slices.ContainsFunc(lines[1:], func(l string) bool {
			got, _, _ := strings.Cut(l, ":")
			return strings.EqualFold(got, name)
		})
	}
	if !has("Host") && !strings.HasSuffix(lines[0], " HTTP/1.0") {
		lines = append(lines, "Host: "+address)
	}
	if !has("Content-Length") && (body != "" || strings.HasPrefix(lines[0], "POST ")) {
		lines = append(lines, "Content-Length: "+strconv.Itoa(len(body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// receive reads an answer. net/http would make one header of two, and hide some.
func receive(conn io.Reader, method string) (string, error) {
	in := bufio.NewReader(conn)
	line := func() (string, error) {
		s, err := in.ReadString('\n')
		return strings.TrimSuffix(s, "\r\n"), err
	}
	status, err := line()
	if err != nil {
		return "", err
	}
	length := int64(-1)
	var headers []string
	for {
		h, err := line()
		if err != nil {
			return "", err
		}
		if h == "" {
			break
		}
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "Date":
		case "Content-Length":
			if length, err = strconv.ParseInt(value, 10, 64); err != nil {
				return "", fmt.Errorf("Content-Length: %w", err)
			}
		default:
			// The files spell this one as RFC 9110 does.
			headers = append(headers, strings.ReplaceAll(h, "Www-Authenticate", "WWW-Authenticate"))
		}
	}
	slices.Sort(headers)
	var body []byte
	switch noBody := method == "HEAD" || strings.Contains(status, " 204 "); {
	case noBody:
	case length >= 0:
		body, err = io.ReadAll(io.LimitReader(in, length))
		if int64(len(body)) != length {
			err = errors.Join(err, io.ErrUnexpectedEOF)
		}
	default:
		body, err = io.ReadAll(in)
	}
	if err != nil {
		return "", err
	}
	return written(status, headers, string(body)), nil
}

func written(status string, headers []string, body string) string {
	text := strings.Join(append([]string{status}, headers...), "\n") + "\n"
	if body == "" {
		return text
	}
	if !strings.HasSuffix(body, "\n") {
		body += "\n" + noNewline
	}
	return text + "\n" + body
}
