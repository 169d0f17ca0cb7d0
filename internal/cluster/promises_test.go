package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// promises is what the cluster is held to, whatever happens to it:
//
//   - a process's registers only ever grow: what it holds, it holds until newer
//     entries have pushed it out of the history;
//   - a process that starts with its own disk has what it acknowledged;
//   - what was acknowledged is there in the end if one of those who acknowledged it
//     still has its disk;
//   - a write that was refused has changed nothing, and one with a good disk is not
//     refused;
//   - a write that expected a version replaced that one, and of two in one process
//     that expected the same, one was refused;
//   - of two writes that did not know of each other, the loser is shown as a
//     conflict, to all nodes.
type promises struct {
	t     testing.TB
	begun time.Time

	mu      sync.Mutex
	writes  []*write
	held    map[string]durable             // by machine: what its disk certainly has
	disk    map[string]int                 // by machine: counts its disks
	watches map[string]*watched            // by machine
	cas     map[string]string              // by process, key and expected version: who replaced it
	tells   map[string]map[string]struct{} // by machine: conflicts that it was told of
	calm    bool                           // no process has ended so far
}

// durable is a set of entries, by their payload.
type durable map[string]register.Entry

// write is one, with what is known of it.
type write struct {
	machine *machine
	change  cluster.Change
	life    int
	disks   map[string]int // all disks as it began
	fails   int            // of the writer's disk, then
	entry   register.Entry // as it was acknowledged
	after   register.State // of its writer, then
}

// watched is a running process.
type watched struct {
	mu   sync.Mutex
	c    *cluster.Cluster // nil while none runs
	last register.State
}

func newPromises(t testing.TB) *promises {
	return &promises{
		t: t, begun: time.Now(), calm: true, held: make(map[string]durable), disk: make(map[string]int), watches: make(map[string]*watched),
		cas: make(map[string]string), tells: make(map[string]map[string]struct{}),
	}
}

// watch returns what looks at a new process of m whenever it says that something
// has changed.
func (p *promises) watch(m *machine) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &watched{}
	p.watches[m.name] = w
	p.tells[m.name] = make(map[string]struct{})
	return func() { p.grows(m.name, w) }
}

// grows holds a process to the first promise.
func (p *promises) grows(name string, w *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.c == nil {
		return
	}
	now := w.c.Registers()
	if !now.Contains(w.last) {
		p.t.Errorf("%s went back from\n%sto\n%s", name, content(w.last), content(now))
	}
	w.last = now
}

// look looks at all processes.
func (p *promises) look() {
	p.mu.Lock()
	watches := maps.Clone(p.watches)
	p.mu.Unlock()
	for name, w := range watches {
		p.grows(name, w)
	}
}

// started holds a process that has just started to the second promise.
func (p *promises) started(m *machine, c *cluster.Cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := c.Registers()
	if damaged, err := c.Problem(); damaged {
		p.t.Errorf("%s starts with a damaged file: %v", m.name, err)
	}
	for _, e := range p.held[m.name] {
		if !keeps(state, &e) {
			p.t.Errorf("%s starts without %s %s, which its disk had:\n%s", m.name, e.Key, e.Version, content(state))
		}
	}
	w := p.watches[m.name]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c, w.last = c, state
}

// ended says that m's process is about to end.
func (p *promises) ended(m *machine) {
	p.mu.Lock()
	w := p.watches[m.name]
	p.calm = false
	p.mu.Unlock()
	p.grows(m.name, w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c = nil
}

// swapped says that m has another disk now, which has held.
func (p *promises) swapped(m *machine, held durable) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk[m.name]++
	p.held[m.name] = maps.Clone(held)
}

// holds is what m's disk certainly has.
func (p *promises) holds(m *machine) durable {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.held[m.name])
}

func (p *promises) hold(name string, e register.Entry) {
	if p.held[name] == nil {
		p.held[name] = make(durable)
	}
	p.held[name][string(e.Payload())] = e
}

func (p *promises) beginWrite(m *machine, ch cluster.Change) *write {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &write{machine: m, change: ch, life: m.life, disks: maps.Clone(p.disk), fails: m.drive.failures()}
}

// endWrite takes what became of a write; after is what its writer holds then.
func (p *promises) endWrite(w *write, r cluster.Result, err error, wait cluster.Wait, after register.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		var version *cluster.VersionError
		var settling *cluster.NotSettledError
		switch {
		case errors.As(err, &settling):
			if w.change.Forced {
				p.t.Errorf("%s refused, though forced: %v", w.machine.name, err)
			}
		case errors.As(err, &version):
			if w.change.Expect == nil || version.Current == *w.change.Expect {
				p.t.Errorf("%s refused: %v", w.machine.name, err)
			}
		case !errors.Is(err, gossip.ErrClosed) && w.fails == w.machine.drive.failures():
			p.t.Errorf("%s refused, with a good disk: %v", w.machine.name, err)
		}
		for _, e := range after.History(w.change.Key) {
			if bytes.Equal(e.Value, w.change.Value) {
				p.t.Errorf("%s refused %s with %v, and holds it", w.machine.name, e.Version, err)
			}
		}
		return
	}
	w.entry, w.after = r.Entry, after
	p.writes = append(p.writes, w)
	if x := w.change.Expect; x != nil {
		if r.Entry.Parent != *x {
			p.t.Errorf("%s expected %s and replaced %s", w.machine.name, x, r.Entry.Parent)
		}
		one := fmt.Sprintf("%s %d %s %s", w.machine.name, w.life, w.change.Key, x)
		if other, ok := p.cas[one]; ok {
			p.t.Errorf("%s replaced %s by %s and by %s, and both expected it", w.machine.name, x, other, r.Entry.Version)
		}
		p.cas[one] = r.Entry.Version.String()
	}
	acked := 1
	if p.disk[w.machine.name] == w.disks[w.machine.name] {
		p.hold(w.machine.name, r.Entry)
	}
	for _, a := range r.Answers {
		if a.Err != nil {
			continue
		}
		acked++
		// Whose disk was changed meanwhile may have acknowledged it with the old one.
		if p.disk[a.Name] == w.disks[a.Name] {
			p.hold(a.Name, r.Entry)
		}
	}
	if wait == cluster.WaitMajority && r.Met && 2*acked <= len(r.Answers)+1 {
		p.t.Errorf("%s has a majority of %d of %d", w.machine.name, acked, len(r.Answers)+1)
	}
}

// told takes a conflict that m's process was told of.
func (p *promises) told(m *machine, w register.Entry, unknown []register.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range unknown {
		p.tells[m.name][pair(&w, &u)] = struct{}{}
	}
}

func pair(winner, unknown *register.Entry) string {
	return string(winner.Payload()) + " over " + string(unknown.Payload())
}

// check holds what all nodes agree on to the promises.
func (p *promises) check(final register.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, held := range p.held {
		for _, e := range held {
			if !keeps(final, &e) {
				p.t.Errorf("%s %s is lost, which the disk of %s had:\n%s", e.Key, e.Version, name, content(final))
			}
		}
	}
	shown := make(map[string]bool) // payloads that lost without being known
	for _, key := range final.Keys() {
		history := final.History(key)
		for i := range history {
			for _, u := range register.Unknown(history, &history[i]) {
				shown[string(u.Payload())] = true
				if !p.calm {
					continue
				}
				for name, tells := range p.tells {
					if _, ok := tells[pair(&history[i], &u)]; !ok && len(history) < register.Kept(key) {
						p.t.Errorf("%s was not told that %s %s won over %s", name, key, history[i].Version, u.Version)
					}
				}
			}
		}
	}
	for _, b := range p.writes {
		for _, a := range p.writes {
			if a.entry.Key == b.entry.Key && a.entry.Compare(&b.entry) < 0 && !b.after.Holds(&a.entry) &&
				final.Holds(&a.entry) && final.Holds(&b.entry) && complete(final, &a.entry, &b.entry) && !shown[string(a.entry.Payload())] {
				p.t.Errorf("%s %s won over %s, which its writer did not know, and that is not shown:\n%s", b.entry.Key, b.entry.Version, a.entry.Version, content(final))
			}
		}
	}
}

// complete reports whether the story of b is there as far back as a: a disk that was
// lost may have had what b replaced, and then nobody can tell.
func complete(s register.State, a, b *register.Entry) bool {
	history := s.History(b.Key)
	for b.Parent.Compare(a.Version) > 0 {
		i := slices.IndexFunc(history, func(e register.Entry) bool { return e.Version == b.Parent })
		if i < 0 {
			return false
		}
		b = &history[i]
	}
	// A node with an old disk may have used a version again.
	return b.Parent != a.Version
}

// conflicts counts those in a state.
func (p *promises) conflicts(s register.State) (n int) {
	for _, key := range s.Keys() {
		history := s.History(key)
		for i := range history {
			n += len(register.Unknown(history, &history[i]))
		}
	}
	return n
}

// keeps reports whether s has e, or has had it: newer ones have pushed it out.
func keeps(s register.State, e *register.Entry) bool {
	history := s.History(e.Key)
	n := register.Kept(e.Key)
	return s.Holds(e) || len(history) == n && e.Compare(&history[n-1]) < 0
}

// content is all of a state but the seals, which may differ.
func content(s register.State) string {
	var b strings.Builder
	for e := range s.All() {
		fmt.Fprintf(&b, "  %s\n", e.Payload())
	}
	return b.String()
}
