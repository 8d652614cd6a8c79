package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Record is a message of the log with its position.
type Record struct {
	Position uint64
	Message  []byte
}

const (
	recordHead = 8 + 4

	// MaxPage is how much an authority puts into a log page, in bytes, before it
	// leaves the rest for the next one.
	MaxPage = 4 << 20
)

// AppendRecord writes one record of a log page: its position (uint64), its length
// (uint32), its message.
func AppendRecord(b []byte, r Record) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Position)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Message)))
	return append(b, r.Message...)
}

// ReadRecord reads one record. It returns io.EOF where there is none any more.
func ReadRecord(r io.Reader) (Record, error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return Record{}, io.EOF
		}
		return Record{}, truncated(err)
	}
	size := binary.BigEndian.Uint32(head[8:])
	if size > MaxMessage {
		return Record{}, fmt.Errorf("%w: record of %d bytes", ErrFormat, size)
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(r, message); err != nil {
		return Record{}, truncated(err)
	}
	return Record{binary.BigEndian.Uint64(head[:]), message}, nil
}

// AppendPage ends a page of records with a heartbeat: a record of position 0.
func AppendPage(records, heartbeat []byte) []byte {
	return AppendRecord(records, Record{Message: heartbeat})
}

// Page is a run of the log after a position, and where the log stood then. There
// is more to fetch while the last record lies before Heartbeat.Position.
type Page struct {
	Records   []Record
	Heartbeat Heartbeat
}

// ReadPage reads a log page after a position: contiguous records, then a signed
// heartbeat that repeats the nonce, then nothing. The records' own signatures are
// the reader's to check.
func (ring Keyring) ReadPage(r io.Reader, after uint64, nonce string) (*Page, error) {
	r = io.LimitReader(r, 2*MaxPage)
	var p Page
	for {
		record, err := ReadRecord(r)
		if err == io.EOF {
			err = fmt.Errorf("%w: truncated", ErrFormat)
		}
		if err != nil {
			return nil, err
		}
		if record.Position != 0 {
			if after++; record.Position != after {
				return nil, fmt.Errorf("%w: record %d where %d was due", ErrFormat, record.Position, after)
			}
			p.Records = append(p.Records, record)
			continue
		}
		opened, err := ring.Open(record.Message)
		if err != nil {
			return nil, fmt.Errorf("the page's heartbeat: %w", err)
		}
		if opened.Heartbeat == nil || opened.Heartbeat.Nonce != nonce {
			return nil, fmt.Errorf("%w: the page's heartbeat answers another question", ErrSignature)
		}
		p.Heartbeat = *opened.Heartbeat
		if _, err := ReadRecord(r); err != io.EOF {
			return nil, fmt.Errorf("%w: bytes after the page", ErrFormat)
		}
		return &p, nil
	}
}

// ErrGone says that a log page was asked for after a position whose successor the
// log has dropped for its age: a snapshot is the way on.
var ErrGone = errors.New("the log no longer reaches back that far")
