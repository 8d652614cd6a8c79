package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	keysVersion  = 1
	maxKeysFile  = 64 << 20
	newKeys      = ".new-*"    // behind the file's name, while it is being written
	confirmEvery = time.Hour   // how often the file learns that a document is still the same
	saveRetry    = time.Minute // after a failure
)

// Persist keeps the last good key document of each issuer in a file, so that a reader
// that is started while an issuer is away knows the keys of before. Documents come
// back only for the same issuer and JWKSURI, are asked for anew at once, and prove
// nothing about the present: see [ErrUnknownKey]. A file that can't be read is as
// none, and "" is none. Whoever can write it can have tokens of his own accepted.
func Persist(path string) Option {
	return func(r *Reader) {
		if path == "" {
			return
		}
		r.store = &store{path: path, log: r.log.With("path", path), kept: map[string]keptDocument{}}
		for _, i := range r.order {
			if i.JWKSURI != "" {
				r.store.uris = append(r.store.uris, i.keys)
				i.keys.store = r.store
			}
		}
		r.store.restore()
	}
}

// keysFile is what is on disk.
type keysFile struct {
	Version   int            `json:"version"`
	Documents []keptDocument `json:"documents"`
}

type keptDocument struct {
	Issuer   string    `json:"issuer"`
	JWKSURI  string    `json:"jwks_uri"`
	Fetched  time.Time `json:"fetched"`
	SHA256   string    `json:"sha256"` // a flipped bit may make a weak key
	Document []byte    `json:"document"`
}

// store writes the file, and its goroutine alone does: a slow disk holds up no fetch.
type store struct {
	path string
	log  *slog.Logger
	uris []*keySet // the issuers whose documents are kept

	wake chan struct{} // made by [Reader.Run]; says that due holds

	mu   sync.Mutex              // guards the rest
	kept map[string]keptDocument // by issuer
	due  bool
}

// keep takes over a document that was just fetched.
func (s *store) keep(issuer, uri string, document []byte, at time.Time) {
	sum := sha256.Sum256(document)
	next := keptDocument{issuer, uri, at.UTC(), hex.EncodeToString(sum[:]), document}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.kept[issuer]; ok && old.SHA256 == next.SHA256 {
		if age := at.Sub(old.Fetched); age >= 0 && age < confirmEvery {
			return
		}
	}
	s.kept[issuer], s.due = next, true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes the file when there is something new, until done is closed, and once more.
func (s *store) run(done <-chan struct{}) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	var last error
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-s.wake:
		case <-retry.C:
		}
		err := s.save()
		if err != nil {
			retry.Reset(saveRetry)
		}
		switch {
		case err != nil && (last == nil || last.Error() != err.Error()):
			s.log.Warn("the issuers' keys can't be kept on disk; a restart would know older ones, or none", "error", err)
		case err == nil && last != nil:
			s.log.Info("the issuers' keys are kept on disk again")
		}
		last = err
	}
}

func (s *store) save() error {
	s.mu.Lock()
	if !s.due {
		s.mu.Unlock()
		return nil
	}
	f := keysFile{Version: keysVersion}
	for _, k := range s.uris {
		if d, ok := s.kept[k.issuer]; ok {
			f.Documents = append(f.Documents, d)
		}
	}
	s.due = false
	s.mu.Unlock()
	text, err := json.Marshal(f)
	if err != nil {
		err = fmt.Errorf("encode: %w", err)
	} else {
		err = replaceFile(s.path, text)
	}
	if err != nil {
		s.mu.Lock()
		s.due = true
		s.mu.Unlock()
	}
	return err
}

// replaceFile has a file hold b or what it held before, whatever fails and whoever
// else does the same. Only its owner can read it.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newKeys) // mode 0600
	if err != nil {
		return namelessly("make", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return namelessly("write", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return namelessly("replace", err)
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync() // not every file system can; the file is whole either way
		_ = d.Close()
	}
	return nil
}

// namelessly leaves out the name of the file, which is another each time.
func namelessly(act string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		err = link.Err
	}
	return fmt.Errorf("%s it: %w", act, err)
}

// restore gives the documents of the file to their issuers.
func (s *store) restore() {
	s.sweep()
	f, err := s.read()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return
	case err != nil:
		s.log.Warn("the keys kept on disk are of no use; the issuers are asked for theirs", "error", err)
		return
	}
	taken := 0
	for _, k := range s.uris {
		for _, d := range f.Documents {
			if d.Issuer == k.issuer && d.JWKSURI == k.uri && k.restore(d) {
				s.kept[k.issuer] = d
				taken++
				s.log.Info("took up an issuer's keys from disk", "issuer", k.issuer, "fetched", d.Fetched)
			}
		}
	}
	if taken == 0 && len(f.Documents) > 0 {
		s.log.Warn("the keys kept on disk are of no use; the issuers are asked for theirs",
			"error", "they are of other issuers, or from other addresses")
	}
}

// read reads the file, all of which must be right.
func (s *store) read() (keysFile, error) {
	var f keysFile
	file, err := os.Open(s.path)
	if err != nil {
		return f, err
	}
	defer func() { _ = file.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(file, maxKeysFile+1))
	if err != nil {
		return f, fmt.Errorf("read it: %w", err)
	}
	if len(b) > maxKeysFile {
		return f, errors.New("it is larger than 64 MiB")
	}
	// The decoder's own error would quote the file.
	if json.Unmarshal(b, &f, json.RejectUnknownMembers(true)) != nil || f.Version != keysVersion {
		return f, fmt.Errorf("not a file of version %d", keysVersion)
	}
	seen := map[string]bool{}
	for n, d := range f.Documents {
		sum := sha256.Sum256(d.Document)
		switch _, err := parseJWKS(d.Document, nil); {
		case seen[d.Issuer]:
			return f, fmt.Errorf("document %d: its issuer is there twice", n)
		case len(d.Document) > maxDocument || d.SHA256 != hex.EncodeToString(sum[:]):
			return f, fmt.Errorf("document %d: its checksum does not hold, or it is larger than 1 MiB", n)
		case d.Fetched.Unix() <= 0:
			return f, fmt.Errorf("document %d: it has no time", n)
		case err != nil:
			return f, fmt.Errorf("document %d: %w", n, err)
		}
		seen[d.Issuer] = true
	}
	return f, nil
}

// sweep removes what a process left that was killed while it wrote. What another one
// writes now stays.
func (s *store) sweep() {
	left, err := filepath.Glob(s.path + newKeys)
	if err != nil {
		return
	}
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(name)
		}
	}
}

// restore takes a document of an earlier process. Nothing of it counts as fetched by
// this one: lastStart and asOf stay zero.
func (s *keySet) restore(d keptDocument) bool {
	first, err := parseJWKS(d.Document, nil)
	if err != nil {
		return false
	}
	s.document = sha256.Sum256(d.Document)
	s.current.Store(first)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = d.Fetched
	return true
}
