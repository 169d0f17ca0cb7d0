package puppetsrv

import "github.com/coredns/coredns/plugin/ready"

var _ ready.Readiness = (*Puppetsrv)(nil)

// Ready implements ready.Readiness: every master was probed once, and the state
// on disk is sound. Answers do not wait for it.
func (p *Puppetsrv) Ready() bool {
	n := p.node.Load()
	return n != nil && n.Ready()
}
