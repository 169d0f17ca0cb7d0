package node

import (
	"fmt"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// rules are the reasons not to make a master the camaster, unless an operator
// insists. Each says what was seen. See DESIGN, "The camaster".
func (n *Node) rules(p *picture, m *topology.Master) (refusals []string) {
	refuse := func(format string, args ...any) { refusals = append(refusals, fmt.Sprintf(format, args...)) }
	t := p.plan.Topology
	if !m.CA {
		refuse("%s is not CA-capable: its `master` line has no `ca`", host(m.Host))
	}
	if e, ok := p.drain(m.Host); ok {
		refuse("%s is drained by %s (%s): `puppetsrvctl undrain %s` ends that", host(m.Host), e.Actor, e.Reason, host(m.Host))
	}
	if n.cfg.Probe == nil {
		return refusals // nobody looks, and nothing is known
	}
	i := p.plan.index[m.Host]
	// What its own datacenter sees: from elsewhere a link may be cut.
	if v := p.view.Masters[i].In(api{n}.datacenter(p, m.Datacenter)); v.Down {
		refuse("%s is down: %s", host(m.Host), v.Detail)
	}
	names := []string{m.Host}
	if t.CATarget == topology.CATargetCamaster {
		names = append(names, t.CamasterName)
	}
	switch c := p.states[i].Certificate; {
	case c == nil:
		refuse("%s has not shown its certificate to this node yet", host(m.Host))
	default:
		for _, name := range names {
			if !c.ValidFor(name, p.time) {
				refuse("%s has no certificate that is valid for %s: agents would not accept it", host(m.Host), host(name))
			}
		}
	}
	return refusals
}
