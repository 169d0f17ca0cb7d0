package gossip

import "github.com/hashicorp/memberlist"

// leaves spreads farewells. memberlist knows whether a member died or left, and
// tells neither its events nor its Members: Node.State is never set. So a member
// that leaves says so itself, as in Serf, and who hears it passes it on.
type leaves struct {
	queue memberlist.TransmitLimitedQueue
}

func newLeaves(members func() int) *leaves {
	return &leaves{memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmit}}
}

// announce queues the farewell of name.
func (l *leaves) announce(name string) {
	l.queue.QueueBroadcast(farewell{name, frame(frameLeaving, []byte(name))})
}

// next returns what goes into a packet with limit bytes left.
func (l *leaves) next(overhead, limit int) [][]byte { return l.queue.GetBroadcasts(overhead, limit) }

type farewell struct {
	name    string
	message []byte
}

func (f farewell) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(farewell)
	return ok && o.name == f.name
}
func (f farewell) Name() string    { return f.name }
func (f farewell) Message() []byte { return f.message }
func (f farewell) Finished()       {}
