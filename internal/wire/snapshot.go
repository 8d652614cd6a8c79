package wire

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/pkg/denylist"
)

// Snapshot is a list as it stood at a position of the log, or later.
type Snapshot struct {
	Epoch    string
	Position uint64
	Chain    Chain
	IssuedAt time.Time
	Sections []denylist.Section
}

type snapshotJSON struct {
	Version  int     `json:"v"`
	Epoch    string  `json:"epoch"`
	Position *uint64 `json:"position"` // nil: missing
	Chain    *Chain  `json:"chain"`
	IssuedAt int64   `json:"issued_at"`
}

const (
	snapshotMagic  = "RVCS"
	maxHeader      = 4 << 10
	digestSize     = len(denylist.Digest{})
	cutSize        = 16
	sectionFollows = 1
	sectionsEnd    = 0
	chunk          = 4096 // digests read at a time, so that a count that lies costs nothing

	// MaxSnapshot is the most that a reader takes of a snapshot, in bytes.
	MaxSnapshot = 2 << 30
)

// WriteSections writes sections and the mark of their end. Each is a byte 1, the
// shape (its length as a uint16, then its names joined by NUL), the window (int64),
// the count (uint64), and the digests; in window 0 each digest is followed by its
// cut-off and expiry (int64 each). The end is a byte 0. Integers are big-endian.
func WriteSections(w io.Writer, sections iter.Seq[denylist.Section]) error {
	var b []byte
	for s := range sections {
		b = append(b[:0], sectionFollows)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.Shape)))
		b = append(b, s.Shape...)
		b = binary.BigEndian.AppendUint64(b, uint64(s.Window))
		b = binary.BigEndian.AppendUint64(b, uint64(len(s.Digests)))
		for i, d := range s.Digests {
			b = append(b, d[:]...)
			if s.Window == 0 {
				b = binary.BigEndian.AppendUint64(b, uint64(s.Cuts[i].Cutoff))
				b = binary.BigEndian.AppendUint64(b, uint64(s.Cuts[i].Expires))
			}
			if len(b) > 64<<10 {
				if _, err := w.Write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte{sectionsEnd})
	return err
}

// ReadSections reads what WriteSections writes. Sections must be in ascending
// order of window and shape, and digests in ascending order within them.
func ReadSections(r io.Reader) (sections []denylist.Section, err error) {
	for {
		var b [2]byte
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return nil, truncated(err)
		}
		switch b[0] {
		case sectionsEnd:
			return sections, nil
		case sectionFollows:
		default:
			return nil, fmt.Errorf("%w: section mark %d", ErrFormat, b[0])
		}
		s, err := readSection(r)
		if err != nil {
			return nil, err
		}
		if n := len(sections); n > 0 {
			last := sections[n-1]
			if s.Window < last.Window || s.Window == last.Window && s.Shape <= last.Shape {
				return nil, fmt.Errorf("%w: sections out of order", ErrFormat)
			}
		}
		sections = append(sections, s)
	}
}

func readSection(r io.Reader) (s denylist.Section, err error) {
	var b [digestSize + cutSize]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return s, truncated(err)
	}
	size := int(binary.BigEndian.Uint16(b[:]))
	if size > denylist.MaxPairs*(denylist.MaxNameSize+1) {
		return s, fmt.Errorf("%w: shape of %d bytes", ErrFormat, size)
	}
	name := make([]byte, size)
	if _, err := io.ReadFull(r, name); err != nil {
		return s, truncated(err)
	}
	s.Shape = denylist.Shape(name)
	if canonical, err := denylist.ShapeOf(s.Shape.Names()...); err != nil || canonical != s.Shape {
		return s, fmt.Errorf("%w: shape %q", ErrFormat, name)
	}
	if _, err := io.ReadFull(r, b[:16]); err != nil {
		return s, truncated(err)
	}
	s.Window = int64(binary.BigEndian.Uint64(b[:]))
	count := binary.BigEndian.Uint64(b[8:])
	if s.Window < 0 || s.Window > denylist.WindowEnd(maxUnixMicro/microsPerSecond) || s.Window != denylist.WindowEnd(s.Window) {
		return s, fmt.Errorf("%w: window %d", ErrFormat, s.Window)
	}
	if count == 0 {
		return s, fmt.Errorf("%w: empty section", ErrFormat)
	}
	width := digestSize
	if s.Window == 0 {
		width += cutSize
	}
	s.Digests = make([]denylist.Digest, 0, min(count, chunk))
	for range count {
		if _, err := io.ReadFull(r, b[:width]); err != nil {
			return s, truncated(err)
		}
		d := denylist.Digest(b[:digestSize])
		order := 1
		if n := len(s.Digests); n > 0 {
			order = bytes.Compare(d[:], s.Digests[n-1][:])
		}
		if s.Window == 0 {
			c := denylist.Cut{
				Cutoff:  int64(binary.BigEndian.Uint64(b[digestSize:])),
				Expires: int64(binary.BigEndian.Uint64(b[digestSize+8:])),
			}
			if c.Cutoff <= 0 || c.Expires <= 0 || c.Expires > maxUnixMicro/microsPerSecond {
				return s, fmt.Errorf("%w: cut-off %d, expiry %d", ErrFormat, c.Cutoff, c.Expires)
			}
			if order == 0 && c.Cutoff > s.Cuts[len(s.Cuts)-1].Cutoff {
				order = 1
			}
			s.Cuts = append(s.Cuts, c)
		}
		if order <= 0 {
			return s, fmt.Errorf("%w: digests out of order", ErrFormat)
		}
		s.Digests = append(s.Digests, d)
	}
	return s, nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: truncated", ErrFormat)
	}
	return err
}

// WriteSnapshot writes a signed snapshot: magic, version, the header (its length
// as a uint16, then JSON), the sections, the signer's key id, and the signature
// over SHA-256 of everything before the key id.
func (s Signer) WriteSnapshot(w io.Writer, snap Snapshot, sections iter.Seq[denylist.Section]) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	header, err := json.Marshal(snapshotJSON{Version, snap.Epoch, &snap.Position, &snap.Chain, snap.IssuedAt.UnixMicro()})
	if err != nil {
		return fmt.Errorf("encode the snapshot's header: %w", err)
	}
	head := append([]byte(snapshotMagic), Version)
	head = binary.BigEndian.AppendUint16(head, uint16(len(header)))
	if _, err := out.Write(append(head, header...)); err != nil {
		return fmt.Errorf("write the snapshot's header: %w", err)
	}
	if err := WriteSections(out, sections); err != nil {
		return fmt.Errorf("write the snapshot's sections: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	if _, err := w.Write(append(s.id[:], s.sign(kindSnapshot, sum.Sum(nil))...)); err != nil {
		return fmt.Errorf("write the snapshot's signature: %w", err)
	}
	return nil
}

// ReadSnapshot reads a snapshot to its end and checks its signature.
func (ring Keyring) ReadSnapshot(r io.Reader) (*Snapshot, error) {
	in := &hashing{r: bufio.NewReaderSize(io.LimitReader(r, MaxSnapshot), 64<<10), sum: sha256.New()}
	var head [len(snapshotMagic) + 3]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, truncated(err)
	}
	size := binary.BigEndian.Uint16(head[len(snapshotMagic)+1:])
	if string(head[:len(snapshotMagic)]) != snapshotMagic || head[len(snapshotMagic)] != Version || size > maxHeader {
		return nil, fmt.Errorf("%w: not a snapshot of version %d", ErrFormat, Version)
	}
	header := make([]byte, size)
	if _, err := io.ReadFull(in, header); err != nil {
		return nil, truncated(err)
	}
	var j snapshotJSON
	if err := strict(header, &j); err != nil {
		return nil, fmt.Errorf("%w: snapshot header: %w", ErrFormat, err)
	}
	if err := checkHead(j.Version, j.Epoch, j.IssuedAt); err != nil {
		return nil, fmt.Errorf("%w: snapshot header: %w", ErrFormat, err)
	}
	if j.Position == nil || j.Chain == nil {
		return nil, fmt.Errorf("%w: snapshot header: no position or no chain", ErrFormat)
	}
	sections, err := ReadSections(in)
	if err != nil {
		return nil, err
	}
	sum := in.sum.Sum(nil)
	var tail [keyIDSize + ed25519.SignatureSize + 1]byte
	switch n, err := io.ReadFull(in.r, tail[:]); {
	case n == len(tail):
		return nil, fmt.Errorf("%w: bytes after the snapshot", ErrFormat)
	case n < len(tail)-1:
		return nil, truncated(err)
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	if err := ring.verify(KeyID(tail[:keyIDSize]), kindSnapshot, sum, tail[keyIDSize:len(tail)-1]); err != nil {
		return nil, err
	}
	return &Snapshot{j.Epoch, *j.Position, *j.Chain, time.UnixMicro(j.IssuedAt), sections}, nil
}

type hashing struct {
	r   io.Reader
	sum hash.Hash
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	return n, err
}
