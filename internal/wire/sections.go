package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/revcast/revcast/pkg/denylist"
)

const (
	sectionFollows = 1
	sectionsEnd    = 0
	maxShape       = denylist.MaxPairs * (denylist.MaxNameSize + 1)
	digestSize     = len(denylist.Digest{})
	cutSize        = 8 + 8
)

// WriteSections writes a canonical sequence and the mark of its end. Each section
// is a byte 1, the shape (its length as a uint16, then its names joined by NUL),
// the window (int64), the count (uint16), and the digests; in window 0 each digest
// is followed by its cut-off and expiry (int64 each). The end is a byte 0. Integers
// are big-endian. It ends at the sequence's first error, and at the first section
// that [ReadSections] would refuse.
func WriteSections(w io.Writer, sections iter.Seq2[denylist.Section, error]) error {
	var b []byte
	order := beginning()
	for s, err := range sections {
		if err != nil {
			return fmt.Errorf("get the next section: %w", err)
		}
		if err := order.take(s); err != nil {
			return err
		}
		b = appendSection(b[:0], s)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte{sectionsEnd})
	return err
}

func appendSection(b []byte, s denylist.Section) []byte {
	b = append(b, sectionFollows)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Shape)))
	b = append(b, s.Shape...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Window))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Digests)))
	b = slices.Grow(b, len(s.Digests)*width(s.Window))
	for i := range s.Digests {
		b = append(b, s.Digests[i][:]...)
		if s.Window == 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(s.Cuts[i].Cutoff))
			b = binary.BigEndian.AppendUint64(b, uint64(s.Cuts[i].Expires))
		}
	}
	return b
}

// width is how many bytes each entry of a window takes.
func width(window int64) int {
	if window == 0 {
		return digestSize + cutSize
	}
	return digestSize
}

// ReadSections reads what WriteSections writes, to the mark of its end and no byte
// further. An error is the sequence's last element, and there is no other. A
// section's slices are good until the next is asked for. Range over it once.
func ReadSections(r io.Reader) iter.Seq2[denylist.Section, error] {
	d := sectionReader{r: r, order: beginning()}
	return func(yield func(denylist.Section, error) bool) {
		for {
			more, err := d.next()
			if err != nil {
				yield(denylist.Section{}, err)
				return
			}
			if !more || !yield(d.section, nil) {
				return
			}
		}
	}
}

// sectionReader reads each section into the memory of the one before.
type sectionReader struct {
	r       io.Reader
	b       []byte
	section denylist.Section
	order   order
}

// next reads the next section, and reports whether there was one.
func (d *sectionReader) next() (bool, error) {
	mark, err := d.read(1)
	if err != nil {
		return false, err
	}
	switch mark[0] {
	case sectionsEnd:
		return false, nil
	case sectionFollows:
	default:
		return false, fmt.Errorf("%w: section mark %d", ErrFormat, mark[0])
	}
	count, err := d.readHead()
	if err != nil {
		return false, err
	}
	if err := d.readEntries(count); err != nil {
		return false, err
	}
	return true, d.order.take(d.section)
}

func (d *sectionReader) readHead() (count int, err error) {
	b, err := d.read(2)
	if err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint16(b))
	if size > maxShape {
		return 0, fmt.Errorf("%w: shape of %d bytes", ErrFormat, size)
	}
	if b, err = d.read(size + 8 + 2); err != nil {
		return 0, err
	}
	if shape := b[:size]; string(shape) != string(d.section.Shape) {
		d.section.Shape = denylist.Shape(shape)
	}
	d.section.Window = int64(binary.BigEndian.Uint64(b[size:]))
	count = int(binary.BigEndian.Uint16(b[size+8:]))
	return count, checkCount(count)
}

func (d *sectionReader) readEntries(count int) error {
	s := &d.section
	width := width(s.Window)
	b, err := d.read(count * width)
	if err != nil {
		return err
	}
	s.Digests, s.Cuts = slices.Grow(s.Digests[:0], count), s.Cuts[:0]
	for ; len(b) > 0; b = b[width:] {
		s.Digests = append(s.Digests, denylist.Digest(b[:digestSize]))
		if s.Window == 0 {
			s.Cuts = append(s.Cuts, denylist.Cut{
				Cutoff:  int64(binary.BigEndian.Uint64(b[digestSize:])),
				Expires: int64(binary.BigEndian.Uint64(b[digestSize+8:])),
			})
		}
	}
	return nil
}

// read returns the next n bytes, good until the next read.
func (d *sectionReader) read(n int) ([]byte, error) {
	d.b = slices.Grow(d.b[:0], n)[:n]
	_, err := io.ReadFull(d.r, d.b)
	return d.b, truncated(err)
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: truncated", ErrFormat)
	}
	return err
}

// order is how far a sequence has come. One that it takes to the end is canonical.
type order struct {
	window int64
	shape  denylist.Shape
	last   denylist.Digest
	full   bool // the last section, so that the next may go on with its shape and window
}

func beginning() order { return order{window: -1} }

// take goes on to the next section, or says which rule it breaks.
func (o *order) take(s denylist.Section) error {
	if err := checkCount(len(s.Digests)); err != nil {
		return err
	}
	goesOn := s.Window == o.window && s.Shape == o.shape
	switch {
	case !goesOn:
		if err := checkPlace(s); err != nil {
			return err
		}
		if s.Window < o.window || s.Window == o.window && s.Shape < o.shape {
			return fmt.Errorf("%w: sections out of order", ErrFormat)
		}
	case !o.full:
		return fmt.Errorf("%w: a section goes on that was not full", ErrFormat)
	}
	for i := range s.Digests {
		d := &s.Digests[i]
		if (i > 0 || goesOn) && bytes.Compare(o.last[:], d[:]) >= 0 {
			return fmt.Errorf("%w: digests out of order", ErrFormat)
		}
		o.last = *d
	}
	if s.Window == 0 {
		if err := checkCuts(s); err != nil {
			return err
		}
	}
	o.window, o.shape, o.full = s.Window, s.Shape, len(s.Digests) == denylist.SectionSize
	return nil
}

func checkCount(count int) error {
	if count < 1 || count > denylist.SectionSize {
		return fmt.Errorf("%w: section of %d digests", ErrFormat, count)
	}
	return nil
}

func checkPlace(s denylist.Section) error {
	if canonical, err := denylist.ShapeOf(s.Shape.Names()...); err != nil || canonical != s.Shape {
		return fmt.Errorf("%w: shape %q", ErrFormat, string(s.Shape))
	}
	if s.Window < 0 || s.Window > denylist.WindowEnd(maxUnix) || s.Window != denylist.WindowEnd(s.Window) {
		return fmt.Errorf("%w: window %d", ErrFormat, s.Window)
	}
	return nil
}

func checkCuts(s denylist.Section) error {
	if len(s.Cuts) != len(s.Digests) {
		return fmt.Errorf("%w: %d cut-offs for %d digests", ErrFormat, len(s.Cuts), len(s.Digests))
	}
	for _, c := range s.Cuts {
		if c.Cutoff < 1 || c.Cutoff > maxUnix && c.Cutoff != denylist.NoCutoff || c.Expires < 1 || c.Expires > maxUnix {
			return fmt.Errorf("%w: cut-off %d, expiry %d", ErrFormat, c.Cutoff, c.Expires)
		}
	}
	return nil
}
