package feed

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// The state file is a base, then frames. The base is magic, version, the entries in
// sections, a header (its length as a uint16, then JSON), and SHA-256 over all of
// that; it is written to another file and renamed into place. A frame is a kind, a
// length (uint32), a payload, and the first 8 bytes of SHA-256 over these; frames
// are appended as messages arrive, and reading stops at the first that is broken,
// which is where a crash cut the file off.
const (
	stateMagic     = "RVCF"
	stateVersion   = 2
	frameMessage   = 'm' // a position (uint64), then a message of the log
	frameConfirm   = 'c' // a confirmation, in JSON
	frameSum       = 8
	maxStateHeader = 16 << 10
	rewriteRetry   = 30 * time.Second
	newState       = ".new-*" // behind the state file's name, while it is being written

	maxRewriteRetry = 10 * time.Minute

	// Frames are merged into the base when there are more than either, or than a part
	// of the base: a restart has to decode them, and memory holds their entries.
	maxFrames = 8 << 20 // bytes
	maxRecent = 1 << 16 // entries
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
	base   int64         // bytes
	held   int           // entries in the base
	frames int64         // bytes
	broken error
	behind bool // the list has taken in a snapshot that the file lacks
	// partial says that the list may know more of the log than the file, until the log
	// after the file's snapshot has been read: a snapshot may be older than the list.
	partial bool
	count   *uint64
	log     *slog.Logger
}

func (s *stateFile) message(at uint64, message []byte) {
	if s != nil {
		s.append(frameMessage, append(binary.BigEndian.AppendUint64(nil, at), message...))
	}
}

// confirm does nothing while the file lacks something: what it says it is complete
// up to must be in it.
func (s *stateFile) confirm(c confirmation) {
	if s == nil || s.behind || s.partial {
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

// full reports whether the frames are to be merged into the base.
func (s *stateFile) full(recent int) bool {
	return s.frames > max(maxFrames, s.base/16) || recent > max(maxRecent, s.held/64)
}

// lacks reports whether the state file misses what only a snapshot can give it, and
// it is time to try. The caller holds f.mu.
func (f *Feed) lacks(now time.Time) bool {
	return f.cfg.StateFile != "" && (f.state == nil || f.state.behind || f.state.partial) && !now.Before(f.saveAfter)
}

// save merges the frames into a new base where there are many, where the file broke
// or where it names other keys than those trusted now.
func (f *Feed) save() {
	now := f.cfg.Now()
	f.mu.Lock()
	s := f.state
	due := s != nil && !s.behind && !s.partial && (s.broken != nil || f.rekeyed || s.full(len(f.recent))) && !now.Before(f.saveAfter)
	header := f.header()
	header.Last.Position, header.Last.Chain = f.position.confirmed.position, f.position.confirmed.chain
	f.mu.Unlock()
	if due {
		_ = f.rewrite(nil, func() stateHeader { return header })
	}
}

// header says what the state file stands for now. The caller holds f.mu.
func (f *Feed) header() stateHeader {
	h := stateHeader{Version: stateVersion, Epoch: f.position.epoch, Last: f.last}
	for _, k := range f.ring {
		h.Keys = append(h.Keys, base64.RawURLEncoding.EncodeToString(k))
	}
	return h
}

// rewrite makes a state file of what the present one holds, of what came since, and
// of a snapshot where one is given. That is read to its end whatever happens to the
// file, and only what is wrong with the snapshot is an error: the list can do
// without a file.
func (f *Feed) rewrite(snapshot iter.Seq2[denylist.Section, error], header func() stateHeader) error {
	f.mu.Lock()
	old, recent := f.state, slices.Clone(f.recent)
	next := &stateFile{buffer: &bytes.Buffer{}, count: &f.stateErrors, log: f.log}
	next.partial = old == nil || old.behind || old.partial
	f.nextState = next
	f.mu.Unlock()

	var oldErr, snapshotErr error
	floor := f.list.Floor()
	sections := denylist.Sections(recent)
	if old != nil {
		sections = denylist.Merge(old.sections(&oldErr), sections, floor)
	}
	if snapshot != nil {
		sections = denylist.Merge(sections, func(yield func(denylist.Section, error) bool) {
			for s, err := range snapshot {
				snapshotErr = cmp.Or(snapshotErr, err)
				if !yield(s, err) {
					return
				}
			}
		}, floor)
	}
	if snapshot == nil {
		sections = f.progress("writing the state file", sections)
	}
	err := next.write(f.cfg.StateFile, sections, header)
	err = cmp.Or(oldErr, err)

	f.mu.Lock()
	f.nextState = nil
	if err == nil {
		frames := next.buffer.Bytes()
		next.buffer = nil
		if _, err = next.file.Write(frames); err == nil {
			err = os.Rename(next.file.Name(), f.cfg.StateFile)
		}
	}
	unused := next
	if err == nil {
		unused, f.state, f.rekeyed, f.saveFailures = old, next, false, 0
		f.recent = slices.Clone(f.recent[len(recent):])
	} else if snapshotErr == nil {
		f.stateErrors++
		f.saveAfter = f.cfg.Now().Add(min(rewriteRetry<<f.saveFailures, maxRewriteRetry))
		f.saveFailures = min(f.saveFailures+1, 8)
		f.recent = slices.DeleteFunc(f.recent, func(e denylist.Entry) bool { return denylist.WindowEnd(e.Expires) <= floor })
		f.log.Error("the state file was not written", "path", f.cfg.StateFile, "error", err)
		switch {
		case oldErr != nil: // it is of no use any more
			f.state = nil
			defer old.discard()
		case snapshot != nil && old != nil:
			old.behind = true
		}
	}
	f.mu.Unlock()
	if err != nil && next.file != nil {
		_ = os.Remove(next.file.Name())
	}
	unused.discard() // without the lock, since disks take their time
	return snapshotErr
}

// progress logs, once a second, how far a long run of sections has come.
func (f *Feed) progress(doing string, sections iter.Seq2[denylist.Section, error]) iter.Seq2[denylist.Section, error] {
	return wire.Progress(f.log, f.cfg.Now, doing, sections)
}

// sections yields what the base holds, as far as it can be read; err has the reason
// where that is not all.
func (s *stateFile) sections(failed *error) iter.Seq2[denylist.Section, error] {
	return func(yield func(denylist.Section, error) bool) {
		base := newBaseReader(io.NewSectionReader(s.file, 0, s.base))
		*failed = base.magic()
		if *failed != nil {
			return
		}
		for section, err := range wire.ReadSections(base) {
			if *failed = err; err != nil || !yield(section, nil) {
				return
			}
		}
		_, *failed = base.header()
	}
}

// write makes the base in a file beside the one it will replace.
func (s *stateFile) write(path string, sections iter.Seq2[denylist.Section, error], header func() stateHeader) (err error) {
	disk := &sticky{}
	if s.file, disk.err = os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newState); disk.err == nil {
		disk.w = s.file
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(disk, sum), 64<<10)
	_, _ = out.Write(append([]byte(stateMagic), stateVersion)) // the disk's errors are asked for at the end
	err = wire.WriteSections(out, func(yield func(denylist.Section, error) bool) {
		for section, err := range sections {
			if s.held += len(section.Digests); !yield(section, err) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(header())
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	_, _ = out.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
	_ = out.Flush()
	_, _ = disk.Write(sum.Sum(nil))
	if disk.err == nil {
		disk.err = s.file.Sync()
	}
	if disk.err != nil {
		return fmt.Errorf("write the state: %w", disk.err)
	}
	s.base, err = s.file.Seek(0, io.SeekCurrent)
	return err
}

// sticky takes everything, and writes until the first error, which it keeps.
type sticky struct {
	w   io.Writer
	err error
}

func (s *sticky) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}
