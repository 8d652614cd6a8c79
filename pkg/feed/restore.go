package feed

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
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// restore takes up what the state file holds, and goes on with it. A file that
// can't be read is as none: the authority has everything.
func (f *Feed) restore() {
	if f.cfg.StateFile == "" {
		return
	}
	if left, err := filepath.Glob(f.cfg.StateFile + newState); err == nil {
		for _, path := range left { // of a process that was killed while it wrote
			_ = os.Remove(path)
		}
	}
	file, err := os.OpenFile(f.cfg.StateFile, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil { // as on a read-only file system
		file, err = os.Open(f.cfg.StateFile)
	}
	if err == nil {
		if err = f.read(file); err != nil {
			_ = file.Close()
		}
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

func (f *Feed) read(file *os.File) error {
	in := newBaseReader(file)
	if err := in.magic(); err != nil {
		return err
	}
	state := &stateFile{file: file, count: &f.stateErrors, log: f.log}
	staged := denylist.NewLoader() // until the checksum is known to hold
	for s, err := range f.progress("reading the state file", wire.ReadSections(in)) {
		if err != nil {
			return err
		}
		staged.Add(s)
		state.held += len(s.Digests)
	}
	header, err := in.header()
	if err != nil {
		return err
	}
	state.base = in.read
	var keys []ed25519.PublicKey
	for _, k := range header.Keys {
		key, err := wire.ParseKey(k)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	f.list.Join(staged.List())

	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cfg.Keys) == 0 {
		f.ring = wire.NewKeyring(keys...)
	}
	f.rekeyed = len(f.ring) != len(keys) || slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return f.ring[wire.KeyIDOf(k)] == nil })
	f.last = header.Last
	f.position.rebase(header.Epoch, point{f.last.Position, f.last.Chain}, 0)
	for {
		size, err := f.frame(in.r)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		state.frames += size
	}
	// Older heartbeats than the one that was confirmed last are stale here too.
	f.position.asOf = time.UnixMicro(f.last.AsOf)
	// What comes after the last whole frame was torn, and goes.
	end := state.base + state.frames
	if err = file.Truncate(end); err == nil {
		_, err = file.Seek(end, io.SeekStart)
	}
	if err != nil {
		state.fail(err)
	}
	f.state = state
	return nil
}

// baseReader reads a base, and sums it up.
type baseReader struct {
	r    *bufio.Reader
	sum  hash.Hash
	read int64
}

func newBaseReader(r io.Reader) *baseReader {
	return &baseReader{r: bufio.NewReaderSize(r, 256<<10), sum: sha256.New()}
}

func (b *baseReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.sum.Write(p[:n])
	b.read += int64(n)
	return n, err
}

func (b *baseReader) magic() error {
	var head [len(stateMagic) + 1]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return fmt.Errorf("read the state file: %w", err)
	}
	if string(head[:len(stateMagic)]) != stateMagic || head[len(stateMagic)] != stateVersion {
		return fmt.Errorf("not a state file of version %d", stateVersion)
	}
	return nil
}

// header reads what follows the sections, and checks the sum of it all.
func (b *baseReader) header() (h stateHeader, err error) {
	var size [2]byte
	if _, err := io.ReadFull(b, size[:]); err != nil {
		return h, fmt.Errorf("read the header: %w", err)
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxStateHeader {
		return h, errors.New("read the header: too long")
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(b, text); err != nil {
		return h, fmt.Errorf("read the header: %w", err)
	}
	want := b.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(b, got); err != nil {
		return h, fmt.Errorf("read the checksum: %w", err)
	}
	if !bytes.Equal(want, got) {
		return h, errors.New("its checksum does not hold")
	}
	if err := json.Unmarshal(text, &h, json.RejectUnknownMembers(true)); err != nil {
		return h, fmt.Errorf("read the header: %w", err)
	}
	return h, nil
}

// frame takes one frame and returns its size; 0 where there is none, or a torn one.
// Its messages were verified when they were written.
func (f *Feed) frame(r io.Reader) (int64, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, unlessTorn(err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > wire.MaxMessage+8 {
		return 0, nil
	}
	b := make([]byte, len(head)+int(size)+frameSum)
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[len(head):]); err != nil {
		return 0, unlessTorn(err)
	}
	payload, sum := b[len(head):len(b)-frameSum], sha256.Sum256(b[:len(b)-frameSum])
	if !bytes.Equal(sum[:frameSum], b[len(b)-frameSum:]) {
		return 0, nil
	}
	switch {
	case head[0] == frameMessage && len(payload) > 8:
		opened, err := wire.Reopen(payload[8:])
		if err != nil {
			return 0, fmt.Errorf("read a message: %w", err)
		}
		now := f.cfg.Now()
		if f.message(binary.BigEndian.Uint64(payload), payload[8:], opened, now) == foreign {
			f.apply(opened, true, now) // of whatever epoch: the log held it
		}
	case head[0] == frameConfirm:
		var c confirmation
		if err := json.Unmarshal(payload, &c, json.RejectUnknownMembers(true)); err != nil {
			return 0, fmt.Errorf("read a confirmation: %w", err)
		}
		f.last = c
		f.position.rebase(f.position.epoch, point{c.Position, c.Chain}, 0)
	default:
		return 0, fmt.Errorf("a frame of kind %q", head[0])
	}
	return int64(len(b)), nil
}

// unlessTorn is nil where a file simply ends.
func unlessTorn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("read a frame: %w", err)
}
