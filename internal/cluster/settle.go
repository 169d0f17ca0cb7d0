package cluster

import (
	"bytes"
	"slices"
	"time"
)

// settling is how long after its start a member that meets nobody waits before it
// takes itself to be alone.
const settling = 5 * time.Second

// unsettled is how long it will take at most until what this member writes is written
// in the knowledge of what the others hold; 0 if it is so now.
func (c *Cluster) unsettled() time.Duration {
	if c.pool == nil || c.settled.Load() {
		return 0
	}
	own := c.cfg.Gossip.Bind.String()
	others := slices.ContainsFunc(c.policy.Load().Join, func(seed string) bool { return seed != own })
	if !others && len(c.members()) < 2 {
		return 0
	}
	return max(settling-time.Since(c.started), 0)
}

// settle says that everything that a member holds has come, if it was awaited.
func (c *Cluster) settle(member string) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if c.behind[member] {
		delete(c.behind, member)
		c.settled.Store(true)
	}
}

// compare looks at what a member holds. If it is the same, this one has settled; if
// not, it has when that comes.
func (c *Cluster) compare(s *summary) {
	if c.settled.Load() {
		return
	}
	state := c.Registers()
	same := true
	for key, theirs := range s.Registers {
		same = same && bytes.Equal(theirs, digest(state.History(key)))
	}
	if same {
		c.settled.Store(true)
		return
	}
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if len(c.behind) < maxKnown {
		c.behind[s.From] = true
	}
}
