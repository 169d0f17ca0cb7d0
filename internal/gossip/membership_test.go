package gossip_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// Who leaves has left, in the eyes of all; who dies is dead.
func TestLeavingIsNotDying(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(3)
		var all []member
		for i := range 12 {
			all = append(all, start(onNetwork(network, i, addr(0).String())))
		}
		within(t, 12*time.Second, "all see all", func() bool {
			return !slices.ContainsFunc(all, func(m member) bool { return len(m.alive()) != 12 })
		})
		began := time.Now()
		all[11].Leave(5 * time.Second)
		t.Logf("leaving took %v", time.Since(began))
		all[10].Close()
		within(t, 15*time.Second, "all know", func() bool {
			return !slices.ContainsFunc(all[:10], func(m member) bool { return m.status(name(11)) != "left" || m.status(name(10)) != "dead" })
		})
	})
}

// The dead are remembered, and dialled, for a day and no longer; those that left
// are remembered and not dialled.
func TestTheGoneAreRememberedForADay(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(3)
		var all []member
		for i := range 3 {
			cfg := onNetwork(network, i)
			cfg.Profile = gossip.WAN
			if i > 0 {
				cfg.Join = []string{addr(0).String()}
			}
			all = append(all, start(cfg))
		}
		a := all[0]
		within(t, 20*time.Second, "met", func() bool { return len(a.alive()) == 3 })
		all[1].Leave(5 * time.Second)
		within(t, 5*time.Second, "left", func() bool { return a.Stats().Left == 1 })
		before := a.Stats().RejoinAttempts
		time.Sleep(time.Minute)
		if n := a.Stats().RejoinAttempts - before; n > 0 {
			t.Errorf("%d dials to who left", n)
		}
		all[2].Close()
		within(t, 20*time.Second, "dead", func() bool { return a.Stats().Dead == 1 })
		before = a.Stats().RejoinAttempts
		time.Sleep(23 * time.Hour)
		s := a.Stats()
		if s.Alive != 1 || s.Dead != 1 || s.Left != 1 {
			t.Errorf("after 23 h: %+v", s)
		}
		if n := s.RejoinAttempts - before; n < 38000 || n > 45000 {
			t.Errorf("%d dials in 23 h; one every 2 s is 41400", n)
		}
		time.Sleep(2 * time.Hour)
		if s := a.Stats(); s.Alive != 1 || s.Dead != 0 || s.Left != 0 {
			t.Errorf("after 25 h: %+v", s)
		}
	})
}

// An unknown member is refused by all, also when it comes by way of a member that
// admits everyone; it is counted, and logged once.
func TestAnUnknownMemberIsRefused(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		only := func(names ...string) func(gossip.Member) error {
			return func(m gossip.Member) error {
				if !slices.Contains(names, m.Name) {
					return errors.New("not in the configuration")
				}
				return nil
			}
		}
		cfg := onNetwork(network, 1)
		cfg.Admit = only(name(2)) // its own name need not be there
		a := start(cfg)
		b := start(onNetwork(network, 2, addr(1).String())) // admits all
		x := start(onNetwork(network, 66, addr(1).String(), addr(2).String()))
		within(t, 12*time.Second, "b and x have met, a and b too", func() bool {
			return len(b.alive()) == 3 && len(x.alive()) >= 2 && len(a.alive()) == 2
		})
		time.Sleep(45 * time.Second) // several push/pulls with b
		if got := a.alive(); !slices.Equal(got, []string{name(1), name(2)}) {
			t.Errorf("a has %q", got)
		}
		if n := a.Stats().Refused[gossip.RefusedUnknown]; n < 3 {
			t.Errorf("refused %d times", n)
		}
		if n := a.logged(`refusing member "ns66.example.net" at 10.0.0.66:7946: not in the configuration`); n != 1 {
			t.Errorf("logged %d times in a minute", n)
		}
		if n := a.logged("ignoring alive message"); n != 0 {
			t.Errorf("and %d times by memberlist", n)
		}

		// A reload admits it; another one does no longer, and b neither.
		changes := func() int { a.mu.Lock(); defer a.mu.Unlock(); return a.changes }
		if err := a.Update(nil, only(name(2), name(66))); err != nil {
			t.Fatal(err)
		}
		within(t, 12*time.Second, "admitted", func() bool { return len(a.alive()) == 3 })
		time.Sleep(time.Second)
		was := changes()
		if err := a.Update([]string{"10.0.0.2"}, only(name(66))); err != nil {
			t.Fatal(err)
		}
		if got := a.alive(); !slices.Equal(got, []string{name(1), name(66)}) {
			t.Errorf("a has %q", got)
		}
		if err := a.Send(t.Context(), name(2), nil); err == nil {
			t.Error("sent to a member that is no longer admitted")
		}
		time.Sleep(30 * time.Second)
		if got := a.alive(); !slices.Equal(got, []string{name(1), name(66)}) {
			t.Errorf("a has %q", got)
		}
		if changes() == was {
			t.Error("not told")
		}
		if err := a.Update([]string{"a b"}, nil); err == nil {
			t.Error("a wrong seed")
		}
		if err := a.Update(nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := a.alive(); len(got) != 3 {
			t.Errorf("all admitted, and a has %q", got)
		}
	})
}

// The first one to have a name keeps it.
func TestASecondMemberOfANameIsRefused(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		a := start(onNetwork(network, 1))
		b := start(onNetwork(network, 2, addr(1).String()))
		within(t, 5*time.Second, "met", func() bool { return len(a.alive()) == 2 && len(b.alive()) == 2 })
		cfg := onNetwork(network, 77, addr(1).String(), addr(2).String())
		cfg.Name = name(2)
		start(cfg)
		time.Sleep(50 * time.Second)
		if i := slices.IndexFunc(a.Members(), func(m gossip.Member) bool {
			return m.Name == name(2) && m.Address == addr(2) && m.Status == gossip.Alive
		}); i < 0 {
			t.Errorf("a has %+v", a.Members())
		}
		if a.Stats().Refused[gossip.RefusedConflict] == 0 || b.Stats().Refused[gossip.RefusedConflict] == 0 {
			t.Error("not counted")
		}
		if n := a.logged("10.0.0.77:7946"); n != 1 {
			t.Errorf("a logged it %d times: %q", n, a.lines)
		}
		if n := b.logged(`10.0.0.77:7946 claims this member's name "ns2.example.net", which is at 10.0.0.2:7946`); n != 1 {
			t.Errorf("b logged it %d times: %q", n, b.lines)
		}
	})
}
