package denylist

// maxRun bounds what a Loader holds back, in digests.
const maxRun = 1 << 20

// Loader makes a list of canonical sections that come one after the other, as a
// snapshot has them. It is several times as quick as adding them to a list, since
// it knows how large each table will be, up to a million entries. Not safe for
// concurrent use.
type Loader struct {
	list *List
	run  Section // of one table
}

// NewLoader returns a Loader that has no sections yet.
func NewLoader() *Loader { return &Loader{list: New()} }

// Add takes a section. It keeps none of its slices.
func (l *Loader) Add(s Section) {
	if l.run.Shape != s.Shape || l.run.Window != s.Window || len(l.run.Digests) >= maxRun {
		l.flush()
		l.run.Shape, l.run.Window = s.Shape, s.Window
	}
	l.run.Digests, l.run.Cuts = append(l.run.Digests, s.Digests...), append(l.run.Cuts, s.Cuts...)
}

// List returns a list with all that was added, for [List.Join].
func (l *Loader) List() *List {
	l.flush()
	l.run = Section{}
	return l.list
}

func (l *Loader) flush() {
	if len(l.run.Digests) == 0 {
		return
	}
	if t := l.list.table(l.run.Shape, l.run.Window); t.entries.Load() == 0 && ascend(l.run.Digests) {
		t.fill(&l.list.scratch, l.run)
	} else {
		l.list.AddSection(l.run)
	}
	l.run.Digests, l.run.Cuts = l.run.Digests[:0], l.run.Cuts[:0]
}

// ascend reports whether each digest comes after the one before, so that none is
// there twice.
func ascend(digests []Digest) bool {
	for i := 1; i < len(digests); i++ {
		if compareDigests(digests[i-1], digests[i]) >= 0 {
			return false
		}
	}
	return true
}
