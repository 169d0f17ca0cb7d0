package gossip_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// tap is a transport that keeps what is sent, as somebody on the wire could.
type tap struct {
	gossip.Transport
	mu      sync.Mutex
	packets [][]byte
	streams []*[]byte
}

func (t *tap) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.mu.Lock()
	t.packets = append(t.packets, slices.Clone(b))
	t.mu.Unlock()
	return t.Transport.WriteToAddress(b, a)
}

func (t *tap) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	c, err := t.Transport.DialAddressTimeout(a, d)
	if err != nil {
		return nil, err
	}
	sent := new([]byte)
	t.mu.Lock()
	t.streams = append(t.streams, sent)
	t.mu.Unlock()
	return &tapped{Conn: c, tap: t, sent: sent}, nil
}

type tapped struct {
	net.Conn
	tap  *tap
	sent *[]byte
}

func (c *tapped) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	*c.sent = append(*c.sent, b...)
	c.tap.mu.Unlock()
	return c.Conn.Write(b)
}

type idle struct{}

func (idle) Received([]byte) {}
func (idle) State() []byte   { return []byte("state") }
func (idle) Merge([]byte)    {}
func (idle) Changed()        {}

// Who has recorded genuine packets and streams, and has no key, sends them again with
// another version in front: memberlist would take off a padding that is not there,
// and panic.
func TestAnOldFormatOfTheCipherIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := gossiptest.NewNetwork(1)
		addr := func(i byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 7946) }
		var pools []*gossip.Pool
		wire := &tap{Transport: network.Transport(addr(1))}
		for i, transport := range []gossip.Transport{wire, network.Transport(addr(2))} {
			ring, err := gossip.NewKeyRing([]byte("0123456789abcdef"))
			if err != nil {
				t.Fatal(err)
			}
			p, err := gossip.Start(gossip.Config{
				Name: []string{"ns1.example.net", "ns2.example.net"}[i], Bind: addr(byte(i + 1)), Join: []string{addr(1).String()},
				Profile: gossip.Local, KeyRing: ring, Delegate: idle{}, Transport: transport,
			})
			if err != nil {
				t.Fatal(err)
			}
			pools = append(pools, p)
		}
		defer func() {
			for _, p := range pools {
				p.Close()
			}
			time.Sleep(gossiptest.Linger)
		}()
		for range 20 {
			time.Sleep(time.Second)
			_ = pools[0].Send(context.Background(), "ns2.example.net", []byte("a message of some length, to be recorded"))
		}
		wire.mu.Lock()
		packets, streams := slices.Clone(wire.packets), slices.Clone(wire.streams)
		wire.mu.Unlock()
		if len(packets) < 20 || len(streams) < 20 {
			t.Fatalf("only %d packets and %d streams were recorded", len(packets), len(streams))
		}
		to := memberlist.Address{Addr: addr(2).String(), Name: "ns2.example.net"}
		const header = 2 + len("puppetsrv")
		for _, p := range packets {
			for _, old := range [][]byte{{0}, {2}, {255}} {
				if p[header] != 1 {
					t.Fatalf("the version of a packet is %d: it begins with %x", p[header], p[:header+4])
				}
				bad := slices.Clone(p)
				copy(bad[header:], old)
				if _, err := wire.Transport.WriteToAddress(bad, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, s := range streams {
			wire.mu.Lock()
			bad := slices.Clone(*s)
			wire.mu.Unlock()
			if len(bad) < header+6 || bad[header+5] != 1 {
				t.Fatalf("a stream begins with %x", bad[:min(len(bad), header+8)])
			}
			bad[header+5] = 0
			c, err := wire.Transport.DialAddressTimeout(to, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(bad)
			time.Sleep(100 * time.Millisecond)
			c.Close()
		}
		time.Sleep(time.Second)
		if got, want := pools[1].Stats().Undecipherable, uint64(3*len(packets)+len(streams)); got != want {
			t.Errorf("%d were counted, sent were %d", got, want)
		}
		for _, m := range pools[1].Members() {
			if m.Status != gossip.Alive {
				t.Errorf("%s is %s", m.Name, m.Status)
			}
		}
	})
}
