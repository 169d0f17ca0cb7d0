package gossip

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// leavingFor is for how long after a member's farewell its death counts as
// leaving, and the other way round: the two travel apart.
const leavingFor = 30 * time.Second

// contestedFor is for how long after the last conflict about its own name a member
// goes on to tell the others where it is.
const contestedFor = 15 * time.Second

// maxGone is how many dead and left members are remembered; the oldest go first.
const maxGone = 1024

// members is the pool's own table. memberlist.Members returns pointers to what
// its other goroutines write (hashicorp/memberlist#250), and forgets the dead
// after GossipToTheDeadTime.
type members struct {
	judgement func(Member) error
	changed   chan struct{} // holds one

	mu         sync.Mutex
	entries    map[string]*entry
	generation uint64    // grows with each change
	contested  time.Time // when another address was last seen with this member's name
	stopped    bool
}

type entry struct {
	Member
	refused bool      // by the latest judgement
	bye     time.Time // when it said that it leaves; zero: it did not
}

func newMembers(judgement func(Member) error) *members {
	return &members{judgement: judgement, changed: make(chan struct{}, 1), entries: map[string]*entry{}}
}

// set takes an event of memberlist, under whose lock it is called.
func (t *members) set(n *memberlist.Node, status Status) {
	// What is wrong with it was said when it came alive.
	m, _ := newMember(n, status)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	e := t.entries[m.Name]
	if e == nil {
		e = &entry{}
		t.entries[m.Name] = e
	}
	switch {
	case status == Alive:
		e.bye, e.refused = time.Time{}, false
	case !e.bye.IsZero() && m.Since.Sub(e.bye) < leavingFor:
		m.Status = Left
	}
	if e.Name != "" && e.Status == m.Status {
		m.Since = e.Since
	}
	e.Member = m
	t.notify()
}

// expire drops those that are gone for long, and the oldest where they are many.
func (t *members) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, before := time.Now(), len(t.entries)
	var gone []*entry
	for name, e := range t.entries {
		switch {
		case e.Status == Alive:
		case now.Sub(e.Since) > Remember:
			delete(t.entries, name)
		default:
			gone = append(gone, e)
		}
	}
	if len(gone) > maxGone {
		slices.SortFunc(gone, func(a, b *entry) int { return a.Since.Compare(b.Since) })
		for _, e := range gone[:len(gone)-maxGone] {
			delete(t.entries, e.Name)
		}
	}
	if len(t.entries) != before {
		t.notify()
	}
}

// leaving notes a member's farewell, and reports whether that is news.
func (t *members) leaving(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[name]
	now := time.Now()
	switch {
	case e == nil, e.Status == Left:
		return false
	case e.Status == Alive:
		if !e.bye.IsZero() && now.Sub(e.bye) < leavingFor {
			return false
		}
		e.bye = now
	default: // the death was faster
		if now.Sub(e.Since) >= leavingFor {
			return false
		}
		e.Status = Left
		t.notify()
	}
	return true
}

// judge asks anew about all members.
func (t *members) judge() {
	t.mu.Lock()
	names := slices.Collect(maps.Keys(t.entries))
	t.mu.Unlock()
	// The judgement is the owner's code: not under the lock, which is also taken
	// under memberlist's.
	for _, name := range names {
		t.mu.Lock()
		e := t.entries[name]
		if e == nil {
			t.mu.Unlock()
			continue
		}
		m := e.copy()
		t.mu.Unlock()
		refused := t.judgement(m) != nil
		t.mu.Lock()
		if e := t.entries[name]; e != nil && e.refused != refused {
			e.refused = refused
			t.notify()
		}
		t.mu.Unlock()
	}
}

// contest notes that others know this member at another address.
func (t *members) contest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.contested = time.Now()
}

// isContested reports whether that was seen a short time ago.
func (t *members) isContested() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.contested.IsZero() && time.Since(t.contested) < contestedFor
}

// notify has Changed called. The caller holds mu.
func (t *members) notify() {
	t.generation++
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// report calls changed after changes, until ctx ends.
func (t *members) report(ctx context.Context, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
			if ctx.Err() == nil {
				changed()
			}
		}
	}
}

// stop freezes the table: a memberlist's timers fire after its end.
func (t *members) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
}

func (e *entry) copy() Member {
	m := e.Member
	m.Meta = bytes.Clone(m.Meta)
	return m
}

func (t *members) get(name string) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[name]
	if e == nil || e.refused {
		return Member{}, false
	}
	return e.copy(), true
}

func (t *members) all() []Member {
	t.mu.Lock()
	list := make([]Member, 0, len(t.entries))
	for _, e := range t.entries {
		if !e.refused {
			list = append(list, e.copy())
		}
	}
	t.mu.Unlock()
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// since returns the count of changes so far.
func (t *members) since() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.generation
}

// room reports whether a member of that name may be kept.
func (t *members) room(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[name] != nil || len(t.entries) < MaxMembers
}

// living returns how many members are alive.
func (t *members) living() int {
	n, _, _ := t.sizes()
	return n
}

func (t *members) sizes() (alive, dead, left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		switch {
		case e.refused:
		case e.Status == Alive:
			alive++
		case e.Status == Dead:
			dead++
		case e.Status == Left:
			left++
		}
	}
	return
}

// atomicBytes holds a slice that is never changed in place.
type atomicBytes struct{ p atomic.Pointer[[]byte] }

func (a *atomicBytes) store(b []byte) { b = bytes.Clone(b); a.p.Store(&b) }
func (a *atomicBytes) load() []byte   { return *a.p.Load() }
