package gossip_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// Names are resolved again and again: a seed that moves is found. One that does
// not answer, and one that does not resolve, hold up nobody.
func TestSeedsAreResolvedAnewAndIndependently(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		network.Partition([]netip.AddrPort{addr(100), addr(101), addr(102)}) // black holes
		var mu sync.Mutex
		where, asked := addr(50).Addr(), 0
		cfg := onNetwork(network, 1, "stuck.example.net", "10.0.0.100", "10.0.0.101", "10.0.0.102", "moving.example.net")
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == "stuck.example.net" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			asked++
			return []netip.Addr{where}, nil
		}
		a := start(cfg)
		time.Sleep(time.Minute)
		b := start(onNetwork(network, 2))
		mu.Lock()
		where = addr(2).Addr()
		if asked < 20 {
			t.Errorf("asked %d times in a minute", asked)
		}
		mu.Unlock()
		within(t, 3*time.Second, "found where it is now", func() bool { return len(a.alive()) == 2 && len(b.alive()) == 2 })
		mu.Lock()
		before := asked
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		mu.Lock()
		if n := asked - before; n > 15 {
			t.Errorf("asked %d times in ten minutes for who is there", n)
		}
		mu.Unlock()
		// It goes away and is elsewhere, under the same name.
		b.Close()
		within(t, 10*time.Second, "dead", func() bool { return len(a.alive()) == 1 })
		time.Sleep(time.Minute)
		c := start(onNetwork(network, 3))
		mu.Lock()
		where = addr(3).Addr()
		mu.Unlock()
		within(t, 3*time.Second, "found again", func() bool { return len(c.alive()) == 2 })
		if s := a.Stats(); s.RejoinFailures == 0 || s.RejoinAttempts <= s.RejoinFailures {
			t.Errorf("%+v", s)
		}
	})
}
