package smuggling

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// sendTwo sends one request over HTTP/2 and returns the status of its answer, or "reset".
// A client library would refuse to send most of what is sent here.
func sendTwo(address string, c *testCase) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return "", fmt.Errorf("send the preface: %w", err)
	}
	const stream = 1
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.AllowIllegalWrites = true
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	headers := func(list []field, last bool) error {
		block.Reset()
		for _, f := range list {
			if err := encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}); err != nil {
				return err
			}
		}
		return framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: block.Bytes(), EndStream: last, EndHeaders: true,
		})
	}
	err = errors.Join(framer.WriteSettings(), headers(c.h2, !c.hasData && c.trailers == nil))
	if c.hasData {
		err = errors.Join(err, framer.WriteData(stream, c.trailers == nil, []byte(c.data)))
	}
	if c.trailers != nil {
		err = errors.Join(err, headers(c.trailers, true))
	}
	if err != nil {
		return "", fmt.Errorf("send: %w", err)
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return "", fmt.Errorf("read the answer: %w", err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status[0] != '1' {
				return status, nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset", nil
		}
	}
}
