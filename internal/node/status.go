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
	// Durable is nil while what must survive a restart is on disk as configured.
	Durable error
	// Down is how many masters are down in the eyes of each datacenter, by name.
	Down     map[string]int
	Camaster string
	// Cluster is nil for a node that stands alone.
	Cluster *ClusterStatus
}

// ClusterStatus is the state of a node's part in a cluster.
type ClusterStatus struct {
	Members     map[string]int    // by state: alive, dead, left
	Refused     map[string]uint64 // since the start, by what was refused
	Dropped     uint64            // messages, for a full queue
	Queue       int               // messages
	Health      int               // memberlist's (Lifeguard): 0 is well
	Conflicts   uint64            // writes that won over one their writer did not know, since the start
	Disagreeing int               // live nodes whose zones or camaster are others than this one's
	Isolated    bool              // this node reaches no master, and others do
	// ObserverAge is the time since each other node was heard of.
	ObserverAge map[string]time.Duration
	// CRL is when the CRLs are due to be replaced; zero if none is looked at.
	CRL time.Time
}

// MasterStatus is what is believed of one master.
type MasterStatus struct {
	Host, Datacenter string
	// Verdict is this node's own.
	Verdict health.Verdict
	Drained bool
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
	pic := n.picture.Load()
	s.Camaster, s.Down = pic.camaster(), make(map[string]int)
	for dc, d := range pic.plan.Topology.Datacenters {
		s.Down[d.Name] = 0
		for i := range pic.view.Masters {
			if pic.view.Masters[i].In(dc).Down {
				s.Down[d.Name]++
			}
		}
	}
	if n.m != nil {
		s.Cluster = n.clusterStatus(pic, now)
		if _, err := n.m.cluster.Load().Problem(); s.Durable == nil {
			s.Durable = err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.plan.Load()
	for i, m := range p.Topology.Masters {
		var state health.State
		if n.cfg.Probe != nil {
			state = n.states[identityOf(p.targets[i])]
		}
		s.Masters = append(s.Masters, MasterStatus{
			Host: m.Host, Datacenter: m.Datacenter,
			Verdict:     n.opinion(&state, now).Verdict,
			Drained:     drained(pic, m.Host),
			Observed:    state.Observed(),
			Age:         now.Sub(state.Last.Time),
			Certificate: state.Certificate,
		})
	}
	return s
}

func drained(p *picture, host string) bool {
	_, is := p.drain(host)
	return is
}

func (n *Node) clusterStatus(p *picture, now time.Time) *ClusterStatus {
	stats, refused := n.m.cluster.Load().Stats()
	s := &ClusterStatus{
		Members: map[string]int{"alive": max(stats.Alive, 1), "dead": stats.Dead, "left": stats.Left},
		Refused: refused, Dropped: stats.DroppedMessages + stats.DroppedStates, Queue: stats.QueueMessages, Health: stats.Health,
		Conflicts: n.m.conflicts.Load(), Isolated: p.isolated(n.cfg.Cluster.Name), ObserverAge: make(map[string]time.Duration),
	}
	for reason, k := range stats.Refused {
		s.Refused["member_"+reason] = k
	}
	s.Refused["undecipherable"] = stats.Undecipherable
	for _, node := range (api{n}).nodes(p, now) {
		if node.Self {
			continue
		}
		if node.State == "alive" && !node.Agrees {
			s.Disagreeing++
		}
		if node.Release != "" {
			s.ObserverAge[node.Name] = time.Duration(node.Age * float64(time.Second))
		}
	}
	if a := n.cfg.Cluster.Trust.Authority; a != nil {
		s.CRL, _ = a.Revocation()
	}
	return s
}

// Ready reports whether the runtime knows enough to be relied on: every master
// was looked at once, and the state on disk could be read.
func (n *Node) Ready() bool {
	if n.m != nil {
		if damaged, _ := n.m.cluster.Load().Problem(); damaged || n.m.problem() != nil {
			return false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unobserved == 0 && !n.serials.Damaged()
}
