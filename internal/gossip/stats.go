package gossip

import "sync/atomic"

// Reasons for which a member is refused.
const (
	RefusedUnknown  = "unknown"  // Config.Admit said no
	RefusedConflict = "conflict" // another address has the name
	RefusedInvalid  = "invalid"  // its name, address or metadata is not what a member's can be
	RefusedTooMany  = "too_many" // MaxMembers are known
)

// Stats are counters since the start, and gauges. Each refusal is counted, also
// the many of one member that keeps trying.
type Stats struct {
	Alive, Dead, Left int // members, this one among the living
	// Health is memberlist's own (Lifeguard): 0 is well, more means that this
	// host is late with answers, or cut off.
	Health int

	Refused map[string]uint64 // by reason

	RejoinAttempts uint64 // dials to who is missing
	RejoinFailures uint64 // those that failed, and names that did not resolve

	Undecipherable uint64 // packets and streams that no key of the ring opens, or that are not encrypted

	QueueMessages    int    // waiting for Delegate.Received and Merge
	QueueBytes       int    // of these
	DroppedMessages  uint64 // for a full queue
	DroppedStates    uint64 // for a full queue
	OversizedMessage uint64 // messages of others over MaxMessage
	OversizedState   uint64 // states over MaxState, own and of others: not sent, not merged

	RefusedStreams uint64 // connections closed at once for too many open ones
}

// counters are the parts of Stats that are counted where they happen.
type counters struct {
	unknown, conflict, invalid, tooMany atomic.Uint64
	rejoinAttempts, rejoinFailures      atomic.Uint64
	undecipherable                      atomic.Uint64
	droppedMessages, droppedStates      atomic.Uint64
	oversizedMessage, oversizedState    atomic.Uint64
	refusedStreams                      atomic.Uint64
}

// Stats returns the counters. It may be called at any time.
func (p *Pool) Stats() Stats {
	c := &p.count
	s := Stats{
		Health: p.list.GetHealthScore(),
		Refused: map[string]uint64{
			RefusedUnknown:  c.unknown.Load(),
			RefusedConflict: c.conflict.Load(),
			RefusedInvalid:  c.invalid.Load(),
			RefusedTooMany:  c.tooMany.Load(),
		},
		RejoinAttempts:   c.rejoinAttempts.Load(),
		RejoinFailures:   c.rejoinFailures.Load(),
		Undecipherable:   c.undecipherable.Load(),
		DroppedMessages:  c.droppedMessages.Load(),
		DroppedStates:    c.droppedStates.Load(),
		OversizedMessage: c.oversizedMessage.Load(),
		OversizedState:   c.oversizedState.Load(),
		RefusedStreams:   c.refusedStreams.Load(),
	}
	s.QueueMessages, s.QueueBytes = p.inbox.size()
	s.Alive, s.Dead, s.Left = p.members.sizes()
	return s
}
