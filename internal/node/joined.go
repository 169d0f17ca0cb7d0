package node

import (
	"reflect"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// announced are the masters that made themselves known and are not configured.
func (n *Node) announced() []topology.Master {
	if n.m == nil || n.cfg.Watch == nil {
		return nil
	}
	t := n.cfg.Plan.Topology
	var joined []topology.Master
	for _, a := range n.m.cluster.Load().Masters() {
		if t.Master(a.Host) == nil {
			joined = append(joined, topology.Master{Host: a.Host, Datacenter: a.Datacenter, Port: a.Port, Weight: a.Weight, CA: a.CA, Addresses: a.Addresses})
		}
	}
	return joined
}

// adopt has another plan made if other masters have joined.
func (n *Node) adopt() {
	joined := n.announced()
	if slices.EqualFunc(joined, n.joined, func(a, b topology.Master) bool { return reflect.DeepEqual(a, b) }) {
		return
	}
	select {
	case n.extend <- joined:
		n.joined = joined
	default: // one is on its way; the next pulse or change comes
	}
}
