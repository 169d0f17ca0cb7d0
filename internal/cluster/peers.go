package cluster

import (
	"maps"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// Peer is a member with its newest report.
type Peer struct {
	gossip.Member
	Role   Role // "" if it has not shown by a seal what it is
	Self   bool
	Report *Report // nil if it has sent none that counts; it must not be changed
	// Heard is when it last gave a sign of life, by this host's clock.
	Heard time.Time
	// Reported is when its newest report came, by this host's clock.
	Reported time.Time
	// Fresh: it lives, and its report counts.
	Fresh bool
}

// keep drops the reports of those who are no longer members. Who has left is shown for
// a while, and announces nothing any more.
func (rs *reports) keep(members []gossip.Member) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, m := range members {
		if h := rs.held[m.Name]; h != nil && m.Status == gossip.Left && h.report.Announce != nil {
			r := *h.report
			r.Announce = nil
			h.report = &r
		}
	}
	maps.DeleteFunc(rs.held, func(name string, h *held) bool {
		return h.stale && !slices.ContainsFunc(members, func(m gossip.Member) bool { return m.Name == name })
	})
}

// Peers returns all members, this one among them, by name.
func (c *Cluster) Peers() []Peer {
	now := time.Now()
	members := c.members()
	rs := c.reports
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var peers []Peer
	for _, m := range members {
		p := Peer{Member: m, Self: m.Name == c.cfg.Name}
		switch h := rs.held[m.Name]; {
		case p.Self:
			own := rs.own
			p.Role, p.Report, p.Heard, p.Fresh = c.cfg.Role, &own, now, true
		case h != nil:
			p.Report, p.Heard, p.Reported, p.Role = h.report, h.heard, h.came, h.report.Role
			p.Fresh = m.Status == gossip.Alive && now.Sub(h.heard) <= c.fresh()
		}
		peers = append(peers, p)
	}
	return peers
}

// members are those of the pool; in a cluster of one this member alone.
func (c *Cluster) members() []gossip.Member {
	if c.pool == nil {
		return []gossip.Member{{Name: c.cfg.Name, Meta: encodeMeta(c.cfg.Role), Status: gossip.Alive, Since: c.started}}
	}
	return c.pool.Members()
}

// others are the living members of a role, without this one.
func (c *Cluster) others(role Role) []gossip.Member {
	return slices.DeleteFunc(c.members(), func(m gossip.Member) bool {
		return m.Name == c.cfg.Name || m.Status != gossip.Alive || decodeMeta(m.Meta) != role
	})
}

// proven are the others that have shown by a seal who they are, and whether they are
// nodes. What a member says of itself in gossip proves nothing.
func (rs *reports) proven() map[string]Role {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	proven := make(map[string]Role)
	for name, h := range rs.held {
		proven[name] = h.report.Role
	}
	return proven
}
