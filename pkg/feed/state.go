package feed

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// The state file is a base, then frames. The base is magic, version, a header (its
// length as a uint16, then JSON), the list's sections, and SHA-256 over all of
// that; it is written to another file and renamed into place. A frame is a kind, a
// length (uint32), a payload, and the first 8 bytes of SHA-256 over these; frames
// are appended as messages arrive, and reading stops at the first that is broken,
// which is where a crash cut the file off.
const (
	stateMagic     = "RVCF"
	frameMessage   = 'm' // a position (uint64), then a message of the log
	frameConfirm   = 'c' // a confirmation, in JSON
	frameSum       = 8
	maxStateHeader = 16 << 10
	rewriteAfter   = 8 << 20 // bytes of frames, or the base's size if that is more
	rewriteRetry   = 30 * time.Second
	newState       = ".new-*" // behind the state file's name, while it is being written
)

// confirmation says that the list was complete, and when.
type confirmation struct {
	Position uint64     `json:"position"`
	Chain    wire.Chain `json:"chain"`
	AsOf     int64      `json:"as_of"`   // authority time, microseconds since 1970
	Through  int64      `json:"through"` // the same instant or earlier, by the local wall clock
}

type stateHeader struct {
	Version int          `json:"v"`
	Epoch   string       `json:"epoch"`
	Keys    []string     `json:"keys"` // the signing keys trusted, base64url
	Last    confirmation `json:"last"`
}

// stateFile appends frames. Its methods do nothing on nil. Feed.mu guards it.
type stateFile struct {
	file   *os.File
	buffer *bytes.Buffer // frames that come while the base is being written
	base   int64
	frames int64
	broken error
	behind bool // the list has taken in a snapshot that the file lacks
	count  *uint64
	log    *slog.Logger
}

func (s *stateFile) message(at uint64, message []byte) {
	if s != nil {
		s.append(frameMessage, append(binary.BigEndian.AppendUint64(nil, at), message...))
	}
}

// confirm does nothing once the file is behind: what it says it is complete up to
// must be in it.
func (s *stateFile) confirm(c confirmation) {
	if s == nil || s.behind {
		return
	}
	payload, err := json.Marshal(c)
	if err != nil {
		s.fail(err)
		return
	}
	s.append(frameConfirm, payload)
}

func (s *stateFile) append(kind byte, payload []byte) {
	if s.broken != nil {
		return // what comes after a torn frame would never be read
	}
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	b = append(b, payload...)
	sum := sha256.Sum256(b)
	b = append(b, sum[:frameSum]...)
	s.frames += int64(len(b))
	if s.buffer != nil {
		s.buffer.Write(b)
		return
	}
	if _, err := s.file.Write(b); err != nil {
		s.fail(err)
	}
}

func (s *stateFile) fail(err error) {
	s.broken = err
	*s.count++
	s.log.Error("the state file can't be written; a restart would be as old as it is now", "error", err)
}

func (s *stateFile) close() {
	if s != nil && s.file != nil {
		if err := errors.Join(s.file.Sync(), s.file.Close()); err != nil && s.broken == nil {
			s.fail(err)
		}
	}
}

// discard closes a file that has no name any more.
func (s *stateFile) discard() {
	if s != nil && s.file != nil {
		_ = s.file.Close()
	}
}

// save writes a new base where there is none yet, where the frames have grown
// longer than it, or where the file broke or is behind.
func (f *Feed) save() {
	now := f.cfg.Now()
	f.mu.Lock()
	s := f.state
	due := s == nil || s.broken != nil || s.behind || f.rekeyed || s.frames > max(rewriteAfter, s.base)
	if f.cfg.StateFile == "" || !f.position.based() || !due || now.Before(f.saveAfter) {
		f.mu.Unlock()
		return
	}
	header := stateHeader{Version: wire.Version, Epoch: f.position.epoch, Last: f.last}
	for _, k := range f.ring {
		header.Keys = append(header.Keys, base64.RawURLEncoding.EncodeToString(k))
	}
	header.Last.Position, header.Last.Chain = f.position.confirmed.position, f.position.confirmed.chain
	next := &stateFile{buffer: &bytes.Buffer{}, count: &f.stateErrors, log: f.log}
	f.nextState = next
	f.mu.Unlock()

	err := next.write(f.cfg.StateFile, header, f.list)

	f.mu.Lock()
	f.nextState = nil
	if err == nil {
		frames := next.buffer.Bytes()
		next.buffer = nil
		if _, err = next.file.Write(frames); err == nil {
			err = os.Rename(next.file.Name(), f.cfg.StateFile)
		}
	}
	old := f.state
	if err == nil {
		f.state, f.rekeyed = next, false
	} else {
		f.stateErrors++
		f.saveAfter = now.Add(rewriteRetry)
		old = nil
	}
	f.mu.Unlock()
	old.discard() // without the lock, since disks take their time
	if err != nil {
		f.log.Error("the state file was not written", "path", f.cfg.StateFile, "error", err)
		if next.file != nil {
			_ = os.Remove(next.file.Name())
			next.discard()
		}
	}
}

// write makes the base in a file beside the one it will replace.
func (s *stateFile) write(path string, header stateHeader, list *denylist.List) (err error) {
	if s.file, err = os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newState); err != nil {
		return fmt.Errorf("make a new state file: %w", err)
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(s.file, sum), 64<<10)
	text, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	head := append([]byte(stateMagic), wire.Version)
	head = binary.BigEndian.AppendUint16(head, uint16(len(text)))
	_, err = out.Write(append(head, text...))
	if err == nil {
		err = wire.WriteSections(out, list.Sections())
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = s.file.Write(sum.Sum(nil))
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	s.base, err = s.file.Seek(0, io.SeekCurrent)
	return err
}

// restore takes up what the state file holds. A file that can't be read is as
// none: the authority has everything.
func (f *Feed) restore() {
	if f.cfg.StateFile == "" {
		return
	}
	if left, err := filepath.Glob(f.cfg.StateFile + newState); err == nil {
		for _, path := range left { // of a process that was killed while it wrote
			_ = os.Remove(path)
		}
	}
	file, err := os.Open(f.cfg.StateFile)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		defer func() { _ = file.Close() }()
		err = f.read(bufio.NewReaderSize(file, 64<<10))
	}
	if err != nil {
		f.log.Warn("the state file is of no use; starting from the authority's snapshot", "path", f.cfg.StateFile, "error", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	through := time.UnixMicro(f.last.Through)
	if f.last.Through == 0 || through.After(now) {
		f.log.Warn("the state file does not tell how old it is: the clock may have been set back", "path", f.cfg.StateFile)
	} else {
		f.list.Advance(now.Add(-now.Sub(through))) // with now's monotonic reading: the wall clock may be set later
	}
	f.log.Info("took up the state file", "path", f.cfg.StateFile, "entries", f.list.Stats().Entries,
		"epoch", f.position.epoch, "position", f.position.confirmed.position, "age", now.Sub(through).Round(time.Millisecond))
}

func (f *Feed) read(r io.Reader) error {
	in := &hashingReader{r: r, sum: sha256.New()}
	var head [len(stateMagic) + 3]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint16(head[len(stateMagic)+1:])
	if string(head[:len(stateMagic)]) != stateMagic || head[len(stateMagic)] != wire.Version || size > maxStateHeader {
		return fmt.Errorf("not a state file of version %d", wire.Version)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil {
		return err
	}
	var header stateHeader
	if err := json.Unmarshal(text, &header, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("read the header: %w", err)
	}
	sections, err := wire.ReadSections(in)
	if err != nil {
		return err
	}
	want := in.sum.Sum(nil)
	var sum [sha256.Size]byte
	if _, err := io.ReadFull(in.r, sum[:]); err != nil {
		return err
	}
	if !bytes.Equal(want, sum[:]) {
		return errors.New("its checksum does not hold")
	}
	var keys []ed25519.PublicKey
	for _, k := range header.Keys {
		key, err := wire.ParseKey(k)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	for _, s := range sections {
		f.list.AddSection(s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cfg.Keys) == 0 {
		f.ring = wire.NewKeyring(keys...)
	}
	f.last = header.Last
	f.position.rebase(header.Epoch, point{f.last.Position, f.last.Chain}, 0)
	// Frames were verified when they were written, with the keys that were trusted then.
	for ring := wire.NewKeyring(append(keys, slices.Collect(maps.Values(f.ring))...)...); f.frame(in.r, ring); {
	}
	// Older heartbeats than the one that was confirmed last are stale here too.
	f.position.asOf = time.UnixMicro(f.last.AsOf)
	return nil
}

// frame takes one frame, and reports whether there may be another.
func (f *Feed) frame(r io.Reader, ring wire.Keyring) bool {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return false
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > wire.MaxMessage+8 {
		return false
	}
	b := make([]byte, len(head)+int(size)+frameSum)
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[len(head):]); err != nil {
		return false
	}
	payload, sum := b[len(head):len(b)-frameSum], sha256.Sum256(b[:len(b)-frameSum])
	if !bytes.Equal(sum[:frameSum], b[len(b)-frameSum:]) {
		return false
	}
	switch {
	case head[0] == frameMessage && len(payload) > 8:
		opened, err := ring.Open(payload[8:])
		if err != nil {
			return false // what comes after it builds on it
		}
		f.apply(opened) // of whatever epoch: the log held it
		f.message(binary.BigEndian.Uint64(payload), payload[8:], opened, f.cfg.Now())
		return true
	case head[0] == frameConfirm:
		var c confirmation
		if err := json.Unmarshal(payload, &c, json.RejectUnknownMembers(true)); err != nil {
			return false
		}
		f.last = c
		f.position.rebase(f.position.epoch, point{c.Position, c.Chain}, 0)
		return true
	}
	return false
}

type hashingReader struct {
	r   io.Reader
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (h *hashingReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	_, _ = h.sum.Write(p[:n])
	return n, err
}
