package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// What masters may ask too.
const (
	// opVersion asks for the version of a register, whose key is the argument: that is
	// how a master that has just started learns what it has missed.
	opVersion = "version"
	// opHeld asks which report of the asking member is held.
	opHeld = "held"
)

// forAll reports whether any member may ask for it.
func forAll(op string) bool { return op == opVersion || op == opHeld }

// heldReport is the answer to opHeld.
type heldReport struct {
	Boot uint64 `json:"boot"`
	Seq  uint64 `json:"seq"`
}

// Standing is what one node says of a register.
type Standing struct {
	Name     string // of the node
	Certname string // that sealed the answer
	Version  register.Version
	Err      error // why it is not known
}

// Versions asks every node for the version of a register, now: the answer has the
// number of the question in it, and cannot be a recorded one. It takes three seconds
// at most. Who says in gossip that it is a node is asked, and who proves it is heard.
func (c *Cluster) Versions(ctx context.Context, key string) []Standing {
	var all []Standing
	answers := c.callThese(c.sayNode(), true, opVersion, []byte(key))
	for {
		select {
		case a, ok := <-answers:
			if !ok {
				slices.SortFunc(all, func(a, b Standing) int { return strings.Compare(a.Name, b.Name) })
				return all
			}
			s := Standing{Name: a.Name, Certname: a.who, Err: a.Err}
			if s.Err == nil {
				s.Err = json.Unmarshal(a.body, &s.Version)
			}
			all = append(all, s)
		case <-ctx.Done():
			return all
		}
	}
}

// sayNode are the others that say that they are nodes.
func (c *Cluster) sayNode() []gossip.Member {
	return slices.DeleteFunc(c.members(), func(m gossip.Member) bool {
		return m.Name == c.cfg.Name || m.Status == gossip.Left || decodeMeta(m.Meta) != RoleNode
	})
}

// Delivered says which living nodes do not hold this member's newest report yet. It
// takes three seconds at most.
func (c *Cluster) Delivered(ctx context.Context) (missing []string) {
	c.reports.mu.Lock()
	boot, seq := c.reports.own.Boot, c.reports.own.Seq
	c.reports.mu.Unlock()
	nodes := slices.DeleteFunc(c.sayNode(), func(m gossip.Member) bool { return m.Status != gossip.Alive })
	waiting := make(map[string]bool)
	for _, m := range nodes {
		waiting[m.Name] = true
	}
	answers := c.callThese(nodes, true, opHeld, nil)
	for {
		select {
		case a, ok := <-answers:
			if !ok {
				return slices.Sorted(maps.Keys(waiting))
			}
			var h heldReport
			if a.Err == nil && json.Unmarshal(a.body, &h) == nil && (h.Boot > boot || h.Boot == boot && h.Seq >= seq) {
				delete(waiting, a.Name)
			}
		case <-ctx.Done():
			return slices.Sorted(maps.Keys(waiting))
		}
	}
}

// Ask has one member do something, and returns what it answers. Members take calls of
// nodes alone. It takes three seconds at most; with an error it is not known whether
// it was done, so what is asked for has to be idempotent.
func (c *Cluster) Ask(ctx context.Context, member, op string, arg []byte) (json.RawMessage, error) {
	members := c.members()
	i := slices.IndexFunc(members, func(m gossip.Member) bool { return m.Name == member })
	if i < 0 || member == c.cfg.Name {
		return nil, fmt.Errorf("%.100q is no other member", member)
	}
	select {
	case a := <-c.callThese(members[i:i+1], false, op, arg):
		return a.body, a.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// operate does what a member asked for.
func (c *Cluster) operate(ctx context.Context, from, op string, arg []byte) (any, error) {
	switch op {
	case opVersion:
		return c.Registers().Version(string(arg)), nil
	case opHeld:
		c.reports.mu.Lock()
		defer c.reports.mu.Unlock()
		if h := c.reports.held[from]; h != nil {
			return heldReport{h.report.Boot, h.report.Seq}, nil
		}
		return heldReport{}, nil
	case opListKeys, opAddKey, opUseKey, opRemoveKey:
		return c.operateRing(op, arg)
	}
	if c.cfg.Operate == nil {
		return nil, fmt.Errorf("%.100q is nothing that this member can do", op)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.cfg.Operate(ctx, op, arg)
}

// Boot is the number of this start, as its reports have it.
func (c *Cluster) Boot() uint64 {
	c.reports.mu.Lock()
	defer c.reports.mu.Unlock()
	return c.reports.own.Boot
}
