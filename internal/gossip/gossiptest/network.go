// Package gossiptest is a network in memory for clusters inside one test. It loses,
// doubles, delays and reorders packets, delays and cuts streams, and can be split
// into parts that do not reach each other.
//
// It has no sockets and no goroutines of its own, so that it works in a bubble of
// testing/synctest, where a cluster lives through hours in seconds. A test in a
// bubble closes its pools and then sleeps for Linger.
package gossiptest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// Linger is how long a probe that memberlist has under way may outlive its pool:
// nothing ends it but time. In a bubble, goroutines must end before the test does.
const Linger = 10 * time.Second

// Bounds of what is under way, as of a host's buffers; what overflows is lost, or
// refused.
const (
	maxPackets = 4096
	maxStreams = 256
)

// Faults are what the network does to what it carries. The zero value carries
// everything at once.
type Faults struct {
	// Loss and Duplicate are chances, 0 to 1. What a stream loses is sent again
	// 200 ms later, then twice as late; three losses in a row cut it.
	Loss, Duplicate float64
	// MinDelay and MaxDelay bound the way of each packet in one direction, each
	// by its own, so that one may overtake another.
	MinDelay, MaxDelay time.Duration
}

// Network connects the transports made of it. All methods may be called
// concurrently.
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[netip.AddrPort]*host
	groups  map[netip.AddrPort]int // of a partition; nil: there is none
	faults  Faults
	changed chan struct{} // closed at the next partition or its end
}

// NewNetwork returns a network without faults, whose chances come from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rng:     rand.New(rand.NewPCG(seed, seed)),
		hosts:   map[netip.AddrPort]*host{},
		changed: make(chan struct{}),
	}
}

// Transport returns a transport that has the address addr until it is shut down;
// then addr may be taken again. It panics where addr is in use.
func (n *Network) Transport(addr netip.AddrPort) gossip.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[addr] != nil {
		panic(fmt.Sprintf("gossiptest: %v is in use", addr))
	}
	h := &host{
		network: n,
		addr:    addr,
		packets: make(chan *gossip.Packet, maxPackets),
		streams: make(chan net.Conn, maxStreams),
		done:    make(chan struct{}),
		open:    map[*conn]struct{}{},
	}
	n.hosts[addr] = h
	return h
}

// Partition splits the network: what goes from one group to another vanishes,
// streams stall. Addresses in no group form one more.
func (n *Network) Partition(groups ...[]netip.AddrPort) {
	m := map[netip.AddrPort]int{}
	for i, g := range groups {
		for _, addr := range g {
			m[addr] = i + 1
		}
	}
	n.split(m)
}

// Heal ends a partition. Streams that have not been given up go on.
func (n *Network) Heal() { n.split(nil) }

func (n *Network) split(groups map[netip.AddrPort]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.groups = groups
	close(n.changed)
	n.changed = make(chan struct{})
}

// SetFaults has f happen to all that is sent from now on.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// cut reports whether a and b are apart, and what is closed when that may change.
func (n *Network) cut(a, b netip.AddrPort) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.groups[a] != n.groups[b], n.changed
}

// delay draws one. The caller holds mu.
func (n *Network) delay() time.Duration {
	d := n.faults.MinDelay
	if more := n.faults.MaxDelay - d; more > 0 {
		d += time.Duration(n.rng.Int64N(int64(more) + 1))
	}
	return d
}

// streamDelay is how long a piece of a stream is under way, or that it never
// arrives.
func (n *Network) streamDelay() (d time.Duration, arrives bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d = n.delay()
	for again := 200 * time.Millisecond; n.rng.Float64() < n.faults.Loss; again *= 2 {
		if again > 400*time.Millisecond {
			return 0, false
		}
		d += again
	}
	return d, true
}

// host is a transport.
type host struct {
	network *Network
	addr    netip.AddrPort
	packets chan *gossip.Packet
	streams chan net.Conn
	done    chan struct{} // closed by Shutdown

	mu   sync.Mutex
	down bool
	open map[*conn]struct{}
}

func (h *host) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}

func (h *host) PacketCh() <-chan *gossip.Packet { return h.packets }
func (h *host) StreamCh() <-chan net.Conn       { return h.streams }

func (h *host) WriteTo(b []byte, addr string) (time.Time, error) {
	return h.WriteToAddress(b, gossip.Address{Addr: addr})
}

func (h *host) WriteToAddress(b []byte, a gossip.Address) (time.Time, error) {
	now := time.Now()
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return now, err
	}
	select {
	case <-h.done:
		return now, net.ErrClosed
	default:
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.groups[h.addr] != n.groups[to] || n.rng.Float64() < n.faults.Loss {
		return now, nil
	}
	copies := 1
	if n.rng.Float64() < n.faults.Duplicate {
		copies = 2
	}
	for range copies {
		p := &gossip.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(h.addr)}
		if d := n.delay(); d > 0 {
			time.AfterFunc(d, func() { n.deliver(p, to) })
			continue
		}
		if there := n.hosts[to]; there != nil {
			there.take(p)
		}
	}
	return now, nil
}

// deliver ends the way of a delayed packet.
func (n *Network) deliver(p *gossip.Packet, to netip.AddrPort) {
	n.mu.Lock()
	there := n.hosts[to]
	n.mu.Unlock()
	if there != nil {
		there.take(p)
	}
}

func (h *host) take(p *gossip.Packet) {
	p.Timestamp = time.Now()
	select {
	case h.packets <- p:
	default:
	}
}

func (h *host) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return h.DialAddressTimeout(gossip.Address{Addr: addr}, timeout)
}

func (h *host) DialAddressTimeout(a gossip.Address, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return nil, err
	}
	c, err := h.dial(to, timeout)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

func (h *host) dial(to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	way, arrives := h.network.streamDelay()
	if !arrives {
		way = timeout
	}
	// Not with a timer that is due at once: of several in a bubble Go 1.26 crashes
	// under -race.
	if way > 0 {
		there := time.NewTimer(way)
		defer there.Stop()
		select {
		case <-there.C:
		case <-deadline.C:
			return nil, os.ErrDeadlineExceeded
		case <-h.done:
			return nil, net.ErrClosed
		}
	}
	for {
		cut, changed := h.network.cut(h.addr, to)
		if !cut {
			break
		}
		select {
		case <-changed:
		case <-deadline.C:
			return nil, os.ErrDeadlineExceeded
		case <-h.done:
			return nil, net.ErrClosed
		}
	}
	h.network.mu.Lock()
	other := h.network.hosts[to]
	h.network.mu.Unlock()
	if other == nil {
		return nil, syscall.ECONNREFUSED
	}
	near, far := newConns(h, other)
	if !h.add(near) {
		return nil, net.ErrClosed
	}
	if !other.add(far) {
		near.Close()
		return nil, syscall.ECONNREFUSED
	}
	select {
	case other.streams <- far:
		return near, nil
	default:
		near.Close()
		far.Close()
		return nil, syscall.ECONNREFUSED
	}
}

func (h *host) add(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down {
		h.open[c] = struct{}{}
	}
	return !h.down
}

func (h *host) remove(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, c)
}

// Shutdown frees the address and ends all dials and streams.
func (h *host) Shutdown() error {
	h.mu.Lock()
	if h.down {
		h.mu.Unlock()
		return errors.New("gossiptest: shut down twice")
	}
	h.down = true
	open := h.open
	h.open = map[*conn]struct{}{}
	h.mu.Unlock()
	close(h.done)
	n := h.network
	n.mu.Lock()
	delete(n.hosts, h.addr)
	n.mu.Unlock()
	for c := range open {
		c.Close()
	}
	return nil
}
