package gossip_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// A large cluster lives through ten minutes, with a bad network in the middle.
func TestALargeClusterForTenMinutes(t *testing.T) {
	const size = large
	real := realClock()
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		var all []member
		for i := range size {
			all = append(all, start(onNetwork(network, i, addr(0).String(), addr(1).String())))
		}
		complete := func() bool {
			return !slices.ContainsFunc(all, func(m member) bool { return len(m.alive()) != size })
		}
		t.Logf("complete after %v", within(t, 12*time.Second, "all see all", complete))
		network.SetFaults(gossiptest.Faults{MaxDelay: 5 * time.Millisecond})
		time.Sleep(5 * time.Minute)
		var half []netip.AddrPort
		for i := range size / 2 {
			half = append(half, addr(i))
		}
		network.Partition(half)
		time.Sleep(3 * time.Minute)
		for _, m := range all {
			if n := len(m.alive()); n != size/2 {
				t.Errorf("%s sees %d alive, its side has %d", m.Self().Name, n, size/2)
			}
		}
		network.Heal()
		t.Logf("healed after %v", within(t, 10*time.Second, "all see all again", complete))
		time.Sleep(2 * time.Minute)
		if !complete() {
			t.Error("somebody was lost without a reason")
		}
	})
	t.Logf("took %v", real())
}

// A bad network costs nobody's life: a tenth of all packets lost, some doubled,
// all of them late and out of order.
func TestABadNetworkKillsNobody(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(7)
		var all []member
		for i := range 6 {
			all = append(all, start(onNetwork(network, i, addr(0).String())))
		}
		complete := func() bool {
			return !slices.ContainsFunc(all, func(m member) bool { return len(m.alive()) != 6 })
		}
		within(t, 12*time.Second, "all see all", complete)
		network.SetFaults(gossiptest.Faults{Loss: 0.1, Duplicate: 0.1, MinDelay: 5 * time.Millisecond, MaxDelay: 80 * time.Millisecond})
		deaths := 0
		for range 600 {
			time.Sleep(time.Second)
			if !complete() {
				deaths++
			}
		}
		if deaths > 0 {
			t.Errorf("somebody was taken for dead in %d of 600 seconds", deaths)
		}
		network.SetFaults(gossiptest.Faults{})
		within(t, 10*time.Second, "all see all in the end", complete)
	})
}

// All members are killed and start again at once with an incarnation of 1: those
// that have kept an older, higher one of the others take them back
// (hashicorp/memberlist#311).
func TestMembersComeBackFromAMassRestart(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		var all []member
		for i := range 5 {
			all = append(all, start(onNetwork(network, i, addr(0).String())))
		}
		complete := func() bool {
			return !slices.ContainsFunc(all, func(m member) bool { return len(m.alive()) != 5 })
		}
		within(t, 12*time.Second, "all see all", complete)
		// A high incarnation: each new metadata is one more.
		for i := range 20 {
			for _, m := range all[1:] {
				if err := m.SetMeta([]byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		for _, pause := range []time.Duration{0, 3 * time.Second, 12 * time.Second, 2 * time.Minute} {
			for i := range all[1:] {
				all[i+1].Close()
			}
			time.Sleep(pause)
			for i := range all[1:] {
				cfg := onNetwork(network, i+1, addr(0).String())
				cfg.Meta = fmt.Appendf(nil, "after %v", pause)
				all[i+1] = start(cfg)
			}
			told := func() bool {
				for _, m := range all {
					for _, x := range m.Members() {
						if x.Name != name(0) && (x.Status != gossip.Alive || string(x.Meta) != fmt.Sprintf("after %v", pause)) {
							return false
						}
					}
				}
				return complete()
			}
			t.Logf("restarted after %v: back after %v", pause, within(t, 12*time.Second, fmt.Sprintf("all see all as they are now, after %v", pause), told))
			time.Sleep(10 * time.Second)
			if !told() {
				t.Errorf("after %v: not lasting", pause)
			}
		}
	})
}

// A member that died comes back at another address (hashicorp/memberlist#157),
// though nobody has its new address as a seed.
func TestAMemberComesBackAtAnotherAddress(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		a := start(onNetwork(network, 0))
		b := start(onNetwork(network, 1, addr(0).String()))
		c := start(onNetwork(network, 2, addr(0).String()))
		within(t, 5*time.Second, "met", func() bool { return len(a.alive()) == 3 && len(b.alive()) == 3 && len(c.alive()) == 3 })
		c.Close()
		cfg := onNetwork(network, 77, addr(0).String())
		cfg.Name = name(2)
		c = start(cfg)
		took := within(t, 9*time.Second, "known at its new address", func() bool {
			for _, m := range []member{a, b} {
				if !slices.ContainsFunc(m.Members(), func(x gossip.Member) bool {
					return x.Name == name(2) && x.Address == addr(77) && x.Status == gossip.Alive
				}) {
					return false
				}
			}
			return len(c.alive()) == 3
		})
		t.Logf("after %v", took)
	})
}
