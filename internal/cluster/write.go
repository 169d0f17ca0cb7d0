package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Change is what is to be written to a register.
type Change struct {
	Key   string
	Value json.RawMessage // an object
	// Expect is the version to be replaced; nil takes whatever there is.
	Expect  *register.Version
	Actor   string
	Reason  string
	Expires time.Time // zero: never
	Forced  bool
}

// Wait says for whom a write waits.
type Wait int

// What can be waited for, for callTimeout at most.
const (
	WaitAll      Wait = iota // every living node
	WaitMajority             // more than half of the known nodes
	WaitNone
)

// Result is what became of a write. It stands in any case.
type Result struct {
	Entry   register.Entry
	Answers []Answer // of all known nodes but this one, by name; of those not waited for, ErrPending
	Met     bool     // what was to be waited for has come
	// Superseded is the version that stands if another write has won over this one
	// already; else zero.
	Superseded register.Version
}

// ErrPending is the answer of a node that was not waited for.
var ErrPending = errors.New("not waited for")

// VersionError is returned for a write that expected another version.
type VersionError struct{ Expected, Current register.Version }

func (e *VersionError) Error() string {
	return fmt.Sprintf("version %s was expected and the current one is %s: look again what there is before you replace it", e.Expected, e.Current)
}

// NotSettledError is returned for a write on a node that has just started and has not
// heard yet what the others hold. One that is forced is not refused.
type NotSettledError struct{ Wait time.Duration }

func (e *NotSettledError) Error() string {
	return fmt.Sprintf("this node has just started and has not heard yet what the others hold: try again in %v, or write on another node", e.Wait.Round(time.Second))
}

// NotAllowedError is returned for a write that no other node would accept.
type NotAllowedError struct {
	Certname string // this node's
	Reason   error
}

func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("no node would accept what this one, %s, writes: %s", e.Certname, e.Reason)
}

// Write writes a register: checked, sealed, on this node's disk, then in memory
// here, then sent to every living node. With an error nothing has changed; but if
// ctx ended first, the disk may still do it.
func (c *Cluster) Write(ctx context.Context, ch Change, wait Wait) (Result, error) {
	id := c.policy.Load().Identity
	if id == nil {
		return Result{}, errNoIdentity
	}
	// First what no waiting helps against.
	if err := c.Standing(); err != nil {
		return Result{}, &NotAllowedError{id.Name, err}
	}
	if damaged, err := c.registers.problem(); damaged {
		return Result{}, err
	}
	if wait := c.unsettled(); wait > 0 && !ch.Forced {
		return Result{}, &NotSettledError{wait}
	}
	select { // one at a time waits for the disk
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return Result{}, errGaveUp
	}
	type outcome struct {
		before register.State
		e      register.Entry
		err    error
	}
	done := make(chan outcome, 1)
	cs := c.calls
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		<-c.turn
		return Result{}, gossip.ErrClosed
	}
	cs.done.Go(func() {
		defer func() { <-c.turn }()
		before, e, err := c.registers.write(ctx, id.Leaf.Raw, func(s register.State) (register.Entry, error) { return c.propose(s, id, ch) })
		if err == nil {
			c.learned(before, []register.Entry{e})
		}
		done <- outcome{before, e, err}
	})
	cs.mu.Unlock()
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		return Result{}, fmt.Errorf("the disk has not answered in time, and it is not known whether %s was written: %w", ch.Key, ctx.Err())
	}
	if o.err != nil {
		return Result{}, o.err
	}
	r := c.push(ctx, o.e, wait)
	if stands := c.Registers().Version(ch.Key); stands.Compare(o.e.Version) > 0 {
		r.Superseded = stands
	}
	return r, nil
}

// propose makes the entry of a change to what is now.
func (c *Cluster) propose(s register.State, id *trust.Identity, ch Change) (register.Entry, error) {
	parent := s.Version(ch.Key)
	if ch.Expect != nil && *ch.Expect != parent {
		return register.Entry{}, &VersionError{*ch.Expect, parent}
	}
	version, err := parent.Next(c.cfg.Name, ch.Forced)
	if err != nil {
		return register.Entry{}, err
	}
	payload, err := register.Encode(register.Entry{
		Key: ch.Key, Value: ch.Value, Version: version, Parent: parent, Time: time.Now().UTC(), Expires: ch.Expires,
		Actor: ch.Actor, Reason: ch.Reason, Forced: ch.Forced,
	})
	if err != nil {
		return register.Entry{}, err
	}
	seal, err := id.Seal(kindEntry, payload)
	if err != nil {
		return register.Entry{}, err
	}
	if err := c.judgeSeal(seal); err != nil { // as all others will
		return register.Entry{}, &NotAllowedError{id.Name, err}
	}
	return register.Decode(payload, keepSeal(seal))
}

// push sends an entry to all nodes and waits for as many as are to be waited for.
func (c *Cluster) push(ctx context.Context, e register.Entry, wait Wait) Result {
	nodes := c.nodes()
	answers := c.ask(nodes, true, func(id uint64, _ string) (*message, error) {
		m, err := c.registers.newEntries(c.cfg.Name, id, []register.Entry{e})
		return &message{Entries: m}, err
	})
	// Masters hold it too, and are not waited for.
	if m, err := c.registers.newEntries(c.cfg.Name, 0, []register.Entry{e}); err == nil {
		c.post(c.others(RoleMaster), &message{Entries: m})
	}
	r := Result{Entry: e}
	acked := 1 // this one
	met := func() bool { return wait == WaitNone || wait == WaitMajority && 2*acked > len(nodes)+1 }
	pending := nodes
collect:
	for !met() {
		select {
		case a, ok := <-answers:
			if !ok {
				break collect
			}
			if a.Err == nil {
				acked++
			}
			r.Answers = append(r.Answers, a)
			pending = slices.DeleteFunc(slices.Clone(pending), func(m gossip.Member) bool { return m.Name == a.Name })
		case <-ctx.Done():
			break collect
		}
	}
	r.Met = met() || wait == WaitAll && len(pending) == 0 && !slices.ContainsFunc(r.Answers, func(a Answer) bool {
		i := slices.IndexFunc(nodes, func(m gossip.Member) bool { return m.Name == a.Name })
		return a.Err != nil && nodes[i].Status == gossip.Alive
	})
	for _, m := range pending {
		r.Answers = append(r.Answers, Answer{Name: m.Name, Err: ErrPending})
	}
	slices.SortFunc(r.Answers, func(a, b Answer) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// nodes are all known nodes but this one: those that have shown it by their seals, also
// when they are dead, or have not been seen since this one was started.
func (c *Cluster) nodes() []gossip.Member {
	proven := c.reports.proven()
	return slices.DeleteFunc(c.knownMembers(), func(m gossip.Member) bool {
		return proven[m.Name] != RoleNode && !c.known.isNode(m.Name)
	})
}

// knownMembers are all others that are or were members and have not left, as far as
// the configuration knows them.
func (c *Cluster) knownMembers() []gossip.Member {
	members := c.members()
	members = append(members, c.known.absent(members)...)
	return slices.DeleteFunc(members, func(m gossip.Member) bool {
		return m.Name == c.cfg.Name || m.Status == gossip.Left || !c.admitted(m.Name)
	})
}

func (c *Cluster) admitted(name string) bool {
	p := c.policy.Load()
	return p.Admit == nil || p.Admit(name)
}
