package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// Profile is a set of time constants.
type Profile int

const (
	LAN   Profile = iota // the default: a dead member is known within about 5 s
	WAN                  // between datacenters far apart: about 12 s
	Local                // one machine, and tests: about 1 s
)

// ParseProfile reads a profile's name: lan, wan or local.
func ParseProfile(name string) (Profile, error) {
	for p := range profiles {
		if p.String() == name {
			return p, nil
		}
	}
	return LAN, fmt.Errorf("unknown profile %q: lan, wan or local", name)
}

func (p Profile) String() string {
	switch p {
	case LAN:
		return "lan"
	case WAN:
		return "wan"
	case Local:
		return "local"
	}
	return fmt.Sprintf("profile %d", int(p))
}

const (
	// streamTimeout bounds a dial, which to a black hole would take minutes, and
	// then what is sent and received over the connection.
	streamTimeout = 2 * time.Second
	// retransmit, times ceil(log10(n+1)), is how often each member passes news on.
	retransmit = 6
	// reclaimAfter is for how long a member must be dead before its name may
	// come back at another address. memberlist's default is never: a host that
	// crashed and got another address stays out until it is reaped everywhere.
	reclaimAfter = time.Second
)

// times are the constants of a profile. A member that dies is known to be dead
// after at most
//
//	2 * interval                              until somebody probes it
//	+ interval                                a probe, with its indirect and TCP attempts
//	+ suspicion * max(1, log10(n)) * interval
//
// and up to twice the last, where n > 2 and no second member sees it too. The first
// line is 2 and not 1 because of two nodes: where memberlist's list wraps around,
// it counts itself and the wrap as tries and probes nobody in that interval.
type times struct {
	interval, timeout time.Duration // of probes
	suspicion         int           // memberlist's SuspicionMult
	gossip            time.Duration
	fanout            int
	pushPull          time.Duration
	gossipToDead      time.Duration
}

var profiles = map[Profile]times{
	LAN:   {800 * time.Millisecond, 300 * time.Millisecond, 3, 100 * time.Millisecond, 3, 10 * time.Second, 30 * time.Second},
	WAN:   {2 * time.Second, 1500 * time.Millisecond, 3, 250 * time.Millisecond, 4, 20 * time.Second, time.Minute},
	Local: {200 * time.Millisecond, 100 * time.Millisecond, 3, 50 * time.Millisecond, 3, 2 * time.Second, 15 * time.Second},
}

// memberlist returns its configuration for a profile, all but the names, the
// delegates and the transport.
func (p Profile) memberlist() *memberlist.Config {
	t := profiles[p]
	c := memberlist.DefaultLANConfig()
	c.TCPTimeout = streamTimeout
	c.ProbeInterval, c.ProbeTimeout = t.interval, t.timeout
	c.SuspicionMult = t.suspicion
	// Without confirmations a suspicion waits this many times longer, which is
	// meant for thousands of nodes; the default 6 would be half a minute here.
	c.SuspicionMaxTimeoutMult = 2
	// Of two nodes, each counts a failed probe of the other against its own health
	// and then probes up to this many times slower. With the default 8, after a few
	// cuts, a probe takes 6.4 s on a LAN and a death 10 s to be seen.
	c.AwarenessMaxMultiplier = 3
	// With the default 4, news of a few members that start together miss somebody
	// once in a hundred times, until the next push/pull.
	c.RetransmitMult = retransmit
	c.GossipInterval, c.GossipNodes = t.gossip, t.fanout
	c.GossipToTheDeadTime = t.gossipToDead
	c.PushPullInterval = t.pushPull
	c.DeadNodeReclaimTime = reclaimAfter
	c.Label = label
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.RequireNodeNames = true
	// What is sent is small or already dense, and LZW is slow. What a peer sends
	// compressed is still read; memberlist bounds it to 40 MiB.
	c.EnableCompression = false
	return c
}
