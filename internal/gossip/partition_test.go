package gossip_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// within runs f each 100 ms of simulated time until it is true.
func within(t *testing.T, limit time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(start)
}

// in runs a test in a bubble, and then waits for what outlives the pools.
func in(t *testing.T, f func(t *testing.T, start func(gossip.Config) member)) {
	synctest.Test(t, func(t *testing.T) {
		var pools []*gossip.Pool
		defer func() {
			for _, p := range pools {
				p.Close()
			}
			time.Sleep(gossiptest.Linger)
		}()
		f(t, func(cfg gossip.Config) member {
			m := start(t, cfg)
			pools = append(pools, m.Pool)
			return m
		})
	})
}

// A partition of ten minutes, long after memberlist has forgotten the other side,
// heals by itself: with seeds, and also where only one side has one, and where the
// members know each other from having met only.
func TestAPartitionOfTenMinutesHeals(t *testing.T) {
	for _, profile := range []gossip.Profile{gossip.LAN, gossip.WAN, gossip.Local} {
		t.Run(profile.String(), func(t *testing.T) {
			in(t, func(t *testing.T, start func(gossip.Config) member) {
				network := gossiptest.NewNetwork(1)
				var all []member
				for i := range 4 {
					cfg := onNetwork(network, i)
					cfg.Profile = profile
					if i > 0 {
						cfg.Join = []string{addr(0).String()}
					}
					all = append(all, start(cfg))
				}
				see := func(n int) func() bool {
					return func() bool {
						for _, m := range all {
							if len(m.alive()) != n {
								return false
							}
						}
						return true
					}
				}
				within(t, 5*time.Second, "all see all", see(4))
				network.Partition([]netip.AddrPort{addr(0), addr(1)})
				t.Logf("apart after %v", within(t, 25*time.Second, "both sides see themselves only", see(2)))
				time.Sleep(10 * time.Minute)
				if !see(2)() {
					t.Fatal("the sides see each other through the cut")
				}
				network.Heal()
				t.Logf("healed after %v", within(t, 5*time.Second, "all see all again", see(4)))
			})
		})
	}
}

// Two nodes, one of which dies: the other says so within five seconds, and not much
// later where short cuts have made it doubt its own health.
func TestOfTwoTheDeathOfOneIsSeenInTime(t *testing.T) {
	for cuts, limit := range map[int]time.Duration{0: 5 * time.Second, 8: 7500 * time.Millisecond} {
		in(t, func(t *testing.T, start func(gossip.Config) member) {
			network := gossiptest.NewNetwork(1)
			a := start(onNetwork(network, 0, addr(1).String()))
			b := start(onNetwork(network, 1))
			within(t, 4*time.Second, "met", func() bool { return a.status(name(1)) == "alive" && len(b.alive()) == 2 })
			time.Sleep(5 * time.Second)
			for range cuts {
				network.Partition([]netip.AddrPort{addr(0)})
				time.Sleep(6 * time.Second)
				network.Heal()
				within(t, 5*time.Second, "met again", func() bool { return a.status(name(1)) == "alive" && len(b.alive()) == 2 })
			}
			health := a.Stats().Health
			if health > 2 {
				t.Errorf("after %d cuts a probe takes %d intervals", cuts, health+1)
			}
			b.Close()
			t.Logf("after %d cuts, health %d: dead after %v", cuts, health, within(t, limit, "seen", func() bool { return a.status(name(1)) == "dead" }))
		})
	}
}
