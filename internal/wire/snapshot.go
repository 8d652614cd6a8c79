package wire

import (
	"bufio"
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

// Snapshot says where a snapshot stands: its sections hold at least every entry that
// lives of the log up to Position.
type Snapshot struct {
	Epoch    string
	Position uint64
	Chain    Chain
	IssuedAt time.Time
}

type snapshotJSON struct {
	Version  int     `json:"v"`
	Epoch    string  `json:"epoch"`
	Position *uint64 `json:"position"` // nil: missing
	Chain    *Chain  `json:"chain"`
	IssuedAt int64   `json:"issued_at"`
}

const (
	snapshotMagic   = "RVCS"
	snapshotVersion = 2
	maxHeader       = 4 << 10

	// MaxSnapshot is the most that a reader takes of a snapshot, in bytes.
	MaxSnapshot = 2 << 30
)

// WriteSnapshot writes a signed snapshot: magic, version, the header (its length
// as a uint16, then JSON), the sections, the signer's key id, and the signature
// over SHA-256 of everything before the key id. Where it errs, what it wrote has no
// signature.
func (s Signer) WriteSnapshot(w io.Writer, snap Snapshot, sections iter.Seq2[denylist.Section, error]) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	header, err := json.Marshal(snapshotJSON{snapshotVersion, snap.Epoch, &snap.Position, &snap.Chain, snap.IssuedAt.UnixMicro()})
	if err != nil {
		return fmt.Errorf("encode the snapshot's header: %w", err)
	}
	head := append([]byte(snapshotMagic), snapshotVersion)
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

// ReadSnapshot reads a snapshot's header at once, and its sections as they are asked
// for. The signature comes last, so nothing of either counts until the sequence has
// ended without an error: sections are yielded, and may be anybody's, before it is
// known whether the authority signed them. Range over them once, and to the end.
func (ring Keyring) ReadSnapshot(r io.Reader) (Snapshot, iter.Seq2[denylist.Section, error], error) {
	in := &hashing{r: bufio.NewReaderSize(io.LimitReader(r, MaxSnapshot), 64<<10), sum: sha256.New()}
	snap, err := readHeader(in)
	if err != nil {
		return Snapshot{}, nil, err
	}
	return snap, func(yield func(denylist.Section, error) bool) {
		for s, err := range ReadSections(in) {
			if !yield(s, err) || err != nil {
				return
			}
		}
		if err := ring.readSignature(in); err != nil {
			yield(denylist.Section{}, err)
		}
	}, nil
}

func readHeader(r io.Reader) (snap Snapshot, err error) {
	var head [len(snapshotMagic) + 3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return snap, truncated(err)
	}
	size := binary.BigEndian.Uint16(head[len(snapshotMagic)+1:])
	if string(head[:len(snapshotMagic)]) != snapshotMagic || head[len(snapshotMagic)] != snapshotVersion || size > maxHeader {
		return snap, fmt.Errorf("%w: not a snapshot of version %d", ErrFormat, snapshotVersion)
	}
	header := make([]byte, size)
	if _, err := io.ReadFull(r, header); err != nil {
		return snap, truncated(err)
	}
	var j snapshotJSON
	if err := strict(header, &j); err != nil {
		return snap, fmt.Errorf("%w: snapshot header: %w", ErrFormat, err)
	}
	if err := checkHead(j.Version, snapshotVersion, j.Epoch, j.IssuedAt); err != nil {
		return snap, fmt.Errorf("%w: snapshot header: %w", ErrFormat, err)
	}
	if j.Position == nil || j.Chain == nil {
		return snap, fmt.Errorf("%w: snapshot header: no position or no chain", ErrFormat)
	}
	return Snapshot{j.Epoch, *j.Position, *j.Chain, time.UnixMicro(j.IssuedAt)}, nil
}

// readSignature reads what comes after the sections, to the last byte, and checks
// it against what was read before.
func (ring Keyring) readSignature(in *hashing) error {
	sum := in.sum.Sum(nil)
	var tail [keyIDSize + ed25519.SignatureSize + 1]byte
	switch n, err := io.ReadFull(in.r, tail[:]); {
	case n == len(tail):
		return fmt.Errorf("%w: bytes after the snapshot", ErrFormat)
	case n < len(tail)-1:
		return truncated(err)
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return ring.verify(KeyID(tail[:keyIDSize]), kindSnapshot, sum, tail[keyIDSize:len(tail)-1])
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
