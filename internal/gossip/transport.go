package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// How many connections others may have open to this member.
const (
	maxStreams      = 256
	maxStreamsOfOne = 64 // of one host
)

// hostOf is the host of an address; the zero one where there is none.
func hostOf(a net.Addr) netip.Addr {
	addr, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

// sockets is memberlist's transport over UDP and TCP, with dials that end when it
// is shut down.
type sockets struct {
	*memberlist.NetTransport
	ctx    context.Context
	cancel context.CancelFunc
}

func newSockets(bind netip.AddrPort, logger *log.Logger) (*sockets, error) {
	conf := &memberlist.NetTransportConfig{
		BindAddrs: []string{bind.Addr().Unmap().String()},
		BindPort:  int(bind.Port()),
		Logger:    logger,
	}
	// The TCP port that the system chooses may be taken for UDP.
	tries := 1
	if bind.Port() == 0 {
		tries = 10
	}
	for {
		t, err := memberlist.NewNetTransport(conf)
		if err == nil {
			s := &sockets{NetTransport: t}
			s.ctx, s.cancel = context.WithCancel(context.Background())
			return s, nil
		}
		if tries--; tries == 0 || !inUse(err) {
			return nil, fmt.Errorf("binding %v: %w", bind, err)
		}
	}
}

// inUse also knows memberlist's errors, which wrap nothing.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use")
}

func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	return d.DialContext(s.ctx, "tcp", a.Addr)
}

func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (s *sockets) Shutdown() error {
	s.cancel()
	return s.NetTransport.Shutdown()
}

// guard bounds what memberlist does with a transport: a dial ends after
// streamTimeout; each stream has a deadline from its first byte, which
// memberlist's SendReliable and its label header do not set; nothing is resolved,
// since an address that came in a ping would be; few streams are open at once;
// what is encrypted in an impossible way does not reach it, see cipher.go; and all end
// with the transport.
type guard struct {
	Transport
	encrypted bool
	count     *counters
	streams   chan net.Conn
	packets   chan *memberlist.Packet
	ctx       context.Context
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu      sync.Mutex
	open    map[*stream]struct{}
	inbound int
	from    map[netip.Addr]int // inbound ones, by host
	closed  bool
}

func newGuard(t Transport, encrypted bool, count *counters) *guard {
	g := &guard{
		Transport: t, encrypted: encrypted, count: count, streams: make(chan net.Conn), packets: make(chan *memberlist.Packet),
		open: map[*stream]struct{}{}, from: make(map[netip.Addr]int),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.done.Go(g.accept)
	if encrypted {
		g.done.Go(g.sift)
	}
	return g
}

func (g *guard) StreamCh() <-chan net.Conn { return g.streams }

func (g *guard) accept() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case c := <-g.Transport.StreamCh():
			s, err := g.add(c, true)
			if err != nil {
				continue
			}
			select {
			case g.streams <- s:
			case <-g.ctx.Done():
				s.Close()
				return
			}
		}
	}
}

// add takes c among the open streams, or closes it.
func (g *guard) add(c net.Conn, inbound bool) (*stream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		c.Close()
		return nil, ErrClosed
	}
	s := &stream{Conn: c, guard: g, inbound: inbound}
	if inbound {
		s.from = hostOf(c.RemoteAddr())
		if g.inbound >= maxStreams || g.from[s.from] >= maxStreamsOfOne {
			c.Close()
			g.count.refusedStreams.Add(1)
			return nil, errors.New("too many streams")
		}
		// From now on, not from the first byte: who says nothing takes a place too.
		if err := c.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
			c.Close()
			return nil, err
		}
		g.inbound++
		g.from[s.from]++
	}
	g.open[s] = struct{}{}
	return s, nil
}

func (g *guard) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return nil, err
	}
	// For net.Dialer 0 is for ever.
	if timeout <= 0 {
		return nil, fmt.Errorf("dialling %s: %w", a.Addr, context.DeadlineExceeded)
	}
	c, err := g.Transport.DialAddressTimeout(a, min(timeout, streamTimeout))
	if err != nil {
		return nil, err
	}
	s, err := g.add(c, false)
	if err != nil {
		return nil, err
	}
	if err := s.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (g *guard) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return time.Time{}, err
	}
	return g.Transport.WriteToAddress(b, a)
}

func (g *guard) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// Shutdown ends the transport and all streams. The transport first, while accept
// still takes what its listeners hand over: they wait for that.
func (g *guard) Shutdown() error {
	err := g.Transport.Shutdown()
	g.mu.Lock()
	g.closed = true
	open := make([]*stream, 0, len(g.open))
	for s := range g.open {
		open = append(open, s)
	}
	g.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
	g.cancel()
	g.done.Wait()
	return err
}

// stream is an open connection that its guard knows of.
type stream struct {
	net.Conn
	guard   *guard
	inbound bool
	from    netip.Addr // of an inbound one

	// Of the reading goroutine alone: how much was read, and where the version is.
	read, version int
}

// Read passes on nothing of a stream that is encrypted in an impossible way.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.guard.encrypted && s.read <= s.version {
		if bad := s.inspect(b[:n]); bad != nil {
			s.guard.count.undecipherable.Add(1)
			s.Close()
			return 0, bad
		}
	}
	return n, err
}

// Write ends a stream that fails: where the label cannot be written, memberlist
// does not close it.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		s.Close()
	}
	return n, err
}

// Close may be called more than once.
func (s *stream) Close() error {
	g := s.guard
	g.mu.Lock()
	if _, ok := g.open[s]; ok {
		delete(g.open, s)
		if s.inbound {
			g.inbound--
			if g.from[s.from]--; g.from[s.from] == 0 {
				delete(g.from, s.from)
			}
		}
	}
	g.mu.Unlock()
	return s.Conn.Close()
}
