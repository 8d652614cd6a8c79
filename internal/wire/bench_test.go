package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"

	"github.com/revcast/revcast/pkg/denylist"
)

const benchDigests = 1 << 20

// benchSections yields that many digests, spread over a day's windows.
func benchSections(yield func(denylist.Section, error) bool) {
	const windows = 144
	s := denylist.Section{Shape: "jti"}
	number := uint64(0)
	for n := range int64(windows) {
		s.Window = t0/600*600 + 600*n
		for left := benchDigests / windows; left > 0; left -= len(s.Digests) {
			s.Digests = s.Digests[:0]
			for range min(left, denylist.SectionSize) {
				number++
				var d denylist.Digest
				binary.BigEndian.PutUint64(d[:], number*11)
				s.Digests = append(s.Digests, d)
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func report(b *testing.B, bytes int, f func() error) {
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteSnapshot(b *testing.B) {
	var made bytes.Buffer
	if err := testSigner.WriteSnapshot(&made, smallSnapshot, benchSections); err != nil {
		b.Fatal(err)
	}
	var sections []denylist.Section // made beforehand
	for s := range benchSections {
		sections = append(sections, kept(s))
	}
	b.Run("sections", func(b *testing.B) {
		report(b, made.Len(), func() error { return WriteSections(io.Discard, sequence(nil, sections...)) })
	})
	b.Run("signed", func(b *testing.B) {
		report(b, made.Len(), func() error { return testSigner.WriteSnapshot(io.Discard, smallSnapshot, sequence(nil, sections...)) })
	})
	b.Run("reference SHA-256", func(b *testing.B) { reportSum(b, made.Bytes()) })
}

func BenchmarkReadSnapshot(b *testing.B) {
	var made bytes.Buffer
	if err := testSigner.WriteSnapshot(&made, smallSnapshot, benchSections); err != nil {
		b.Fatal(err)
	}
	body := behindHeader(made.Bytes())
	b.Run("sections", func(b *testing.B) {
		report(b, made.Len(), func() (last error) {
			for _, last = range ReadSections(bytes.NewReader(body)) {
			}
			return last
		})
	})
	b.Run("signed", func(b *testing.B) {
		report(b, made.Len(), func() error {
			_, sections, err := testRing.ReadSnapshot(bytes.NewReader(made.Bytes()))
			if err == nil {
				for _, err = range sections {
				}
			}
			return err
		})
	})
	b.Run("reference SHA-256", func(b *testing.B) { reportSum(b, made.Bytes()) })
}

// reportSum is the reference: what a checksum of the same bytes takes.
func reportSum(b *testing.B, content []byte) {
	report(b, len(content), func() error {
		sha256.Sum256(content)
		return nil
	})
}
