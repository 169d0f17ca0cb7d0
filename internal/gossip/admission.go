package gossip

import (
	"fmt"

	"github.com/hashicorp/memberlist"
)

// callbacks is what memberlist calls. NotifyAlive, NotifyConflict and the three
// events run with its nodeLock held: there, a call of Members, NumMembers,
// UpdateNode or Join would never return. So they work on the pool's own tables
// only, and what goes on to the owner goes through a queue.
type callbacks struct{ p *Pool }

var (
	_ memberlist.Delegate         = callbacks{}
	_ memberlist.EventDelegate    = callbacks{}
	_ memberlist.AliveDelegate    = callbacks{}
	_ memberlist.ConflictDelegate = callbacks{}
)

// NotifyAlive refuses by an error. It sees all news of a living member, by packet
// and by push/pull; memberlist's MergeDelegate would see a join only.
func (c callbacks) NotifyAlive(n *memberlist.Node) error {
	p := c.p
	// Without itself a memberlist ends in a nil pointer, and without news of
	// itself it cannot refute.
	if n.Name == p.name {
		return nil
	}
	m, err := newMember(n, Alive)
	if err != nil {
		p.count.invalid.Add(1)
		p.refused(m, err)
		return err
	}
	if err := p.admitted(m); err != nil {
		p.count.unknown.Add(1)
		p.refused(m, err)
		return err
	}
	if !p.members.room(m.Name) {
		err := fmt.Errorf("%d members are known, which is the limit", MaxMembers)
		p.count.tooMany.Add(1)
		p.refused(m, err)
		return err
	}
	return nil
}

func (p *Pool) refused(m Member, err error) {
	if p.limit.allow("refused " + m.Name) {
		p.log.Warningf("refusing member %.*q at %v: %v", MaxName, m.Name, m.Address, err)
	}
}

// NotifyConflict sees that other claims the name of a living member. memberlist
// keeps the existing one.
func (c callbacks) NotifyConflict(existing, other *memberlist.Node) {
	p := c.p
	p.count.conflict.Add(1)
	if existing.Name == p.name {
		p.members.contest()
	}
	if !p.limit.allow("conflict " + existing.Name) {
		return
	}
	if existing.Name == p.name {
		p.log.Errorf("%s claims this member's name %q, which is at %s: give one of the two another name", other.Address(), existing.Name, existing.Address())
		return
	}
	p.log.Errorf("two members are named %q: keeping %s, refusing %s; give one of them another name", existing.Name, existing.Address(), other.Address())
}

func (c callbacks) NotifyJoin(n *memberlist.Node)   { c.p.members.set(n, Alive) }
func (c callbacks) NotifyUpdate(n *memberlist.Node) { c.p.members.set(n, Alive) }
func (c callbacks) NotifyLeave(n *memberlist.Node)  { c.p.members.set(n, Dead) }

func (c callbacks) NodeMeta(int) []byte               { return c.p.meta.load() }
func (c callbacks) NotifyMsg(b []byte)                { c.p.received(b) }
func (c callbacks) LocalState(bool) []byte            { return c.p.state() }
func (c callbacks) MergeRemoteState(b []byte, _ bool) { c.p.merge(b) }

func (c callbacks) GetBroadcasts(overhead, limit int) [][]byte {
	return c.p.leaves.next(overhead, limit)
}
