package node

import (
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
)

// Status is what a runtime believes, for metrics and people.
type Status struct {
	Name    string
	Masters []MasterStatus
	Serials map[string]uint32 // by origin
	// Durable is nil while serials are kept on disk as configured.
	Durable error
}

// MasterStatus is what is believed of one master.
type MasterStatus struct {
	Host, Datacenter string
	Verdict          health.Verdict
	// Observed is false before the first observation.
	Observed bool
	// Age is the time since the newest observation.
	Age time.Duration
	// Certificate is nil until one was presented.
	Certificate *health.Certificate
}

// Status returns what is believed now.
func (n *Node) Status() Status {
	now := time.Now()
	s := Status{Name: n.cfg.Name, Serials: make(map[string]uint32), Durable: n.serials.Err()}
	for origin, z := range n.Snapshot().Zones {
		s.Serials[origin] = z.Serial
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, m := range n.cfg.Plan.Topology.Masters {
		state := n.states[i]
		s.Masters = append(s.Masters, MasterStatus{
			Host: m.Host, Datacenter: m.Datacenter,
			Verdict:     n.verdictAt(state, now),
			Observed:    state.Observed(),
			Age:         now.Sub(state.Last.Time),
			Certificate: state.Certificate,
		})
	}
	return s
}

// Ready reports whether the runtime knows enough to be relied on: every master
// was looked at once, and the state on disk could be read.
func (n *Node) Ready() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unobserved == 0 && !n.serials.Damaged()
}
