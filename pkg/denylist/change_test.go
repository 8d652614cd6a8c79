package denylist

import (
	"testing"
	"time"
)

func TestLifetimeCountsFromIssuance(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := Claims{Expires: now.Add(time.Hour)}
	if got := c.Lifetime(now); got != time.Hour {
		t.Errorf("without iat: %s", got)
	}
	c.IssuedAt = now.Add(-time.Hour)
	if got := c.Lifetime(now); got != 2*time.Hour {
		t.Errorf("with iat: %s", got)
	}
	c.IssuedAt, c.Expires = now.Add(1000*time.Hour), now.Add(1001*time.Hour)
	if got := c.Lifetime(now); got != 1001*time.Hour {
		t.Errorf("with an iat to come: %s", got)
	}
}

func TestCheckOfClaimsThatCantBeChecked(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := New()
	l.Advance(now)
	for name, c := range map[string]Claims{
		"nothing": {}, "no issuer": {Expires: now}, "no expiry": {Issuer: "i"},
	} {
		if v := l.Check(c, now); v.Status != Unknown || v.Why != Uncheckable {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := New().Check(Claims{Issuer: "i", Expires: now}, now); v.Status != Unknown || v.Why != Loading {
		t.Errorf("loading: %+v", v)
	}
}

func TestNotifyTellsOfEveryChange(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l, told := New(), make(chan struct{}, 1)
	entry := func(i byte) Entry {
		return Entry{Digest: Digest{i}, Shape: JTI, Cutoff: NoCutoff, Expires: now.Unix() + 60}
	}
	stop := l.Notify(told)
	expect := func(act string, want bool, version uint64) {
		t.Helper()
		select {
		case <-told:
			if !want {
				t.Errorf("%s: told", act)
			}
		default:
			if want {
				t.Errorf("%s: not told", act)
			}
		}
		if l.Version() != version {
			t.Errorf("%s: version %d, want %d", act, l.Version(), version)
		}
	}
	l.Add(entry(1))
	expect("added", true, 1)
	l.Add(entry(1))
	expect("added again", false, 1)
	l.Add(entry(2))
	l.Add(entry(3))
	expect("added two, nobody looking", true, 3)
	expect("looked twice", false, 3)
	l.AddSection(Section{Shape: JTI, Window: WindowEnd(now.Unix()), Digests: []Digest{{4}}})
	expect("added a section", true, 4)
	other := New()
	other.Add(entry(5))
	l.Join(other)
	expect("joined", true, 5)
	l.Join(other)
	expect("joined nothing", false, 5)
	l.Prune(now.Add(time.Hour))
	l.Advance(now)
	expect("pruned and advanced", false, 5)
	stop()
	stop()
	l.Add(Entry{Digest: Digest{9}, Shape: JTI, Cutoff: NoCutoff, Expires: now.Unix() + 7200})
	expect("stopped", false, 6)
}
