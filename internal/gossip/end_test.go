package gossip_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// Every order of ends, and all at once.
func TestEveryEndIsClean(t *testing.T) {
	for name, ends := range map[string][]func(member){
		"leave, leave": {leave, leave},
		"leave, close": {leave, end},
		"close, leave": {end, leave},
		"close, close": {end, end},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, local(1))
			b := start(t, local(2, at(a)))
			together(t, a, b)
			for _, f := range ends {
				f(b)
			}
			if b.Self().Name == "" || len(b.Members()) == 0 || b.Stats().Refused == nil {
				t.Error("no answers after the end")
			}
		})
	}
	t.Run("at once", func(t *testing.T) {
		a := start(t, local(1))
		b := start(t, local(2, at(a)))
		together(t, a, b)
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				if i%2 == 0 {
					leave(b)
				} else {
					end(b)
				}
			})
			all.Go(func() { b.Send(context.Background(), a.Self().Name, []byte("x")) })
			all.Go(func() { b.SetMeta(fmt.Append(nil, i)) })
			all.Go(func() { b.Update([]string{at(a)}, nil) })
		}
		all.Wait()
	})
}

func leave(m member) { m.Leave(time.Second) }

func end(m member) { m.Close() }

// After the end nobody is called.
func TestAfterTheEndTheOwnerIsLeftAlone(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		a := start(onNetwork(network, 1))
		b := start(onNetwork(network, 2, addr(1).String()))
		c := start(onNetwork(network, 3, addr(1).String()))
		within(t, 12*time.Second, "met", func() bool { return len(a.alive()) == 3 && len(b.alive()) == 3 && len(c.alive()) == 3 })
		c.Close()
		time.Sleep(1500 * time.Millisecond) // a suspicion's timer is running
		a.Close()
		a.mu.Lock()
		changes, received := a.changes, len(a.received)
		a.mu.Unlock()
		members := fmt.Sprint(a.Members())
		time.Sleep(time.Minute)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.changes != changes || len(a.received) != received || fmt.Sprint(a.Members()) != members {
			t.Error("something came after the end")
		}
	})
}

// All methods at once, while members come and die.
func TestEverythingAtOnce(t *testing.T) {
	a := start(t, local(0))
	var work sync.WaitGroup
	stop := make(chan struct{})
	for i := range 8 {
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				for _, m := range a.Members() {
					if n%4 == 0 {
						ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
						a.Send(ctx, m.Name, []byte(m.Name))
						cancel()
					}
				}
				a.Stats()
				a.Self()
				if n%16 == 0 {
					a.SetMeta(fmt.Append(nil, i, n))
					a.Update([]string{"127.0.0.1:1"}, func(gossip.Member) error { return nil })
				}
			}
		})
	}
	for round := range 2 {
		var others []member
		for i := range 4 {
			others = append(others, start(t, local(i+1, at(a))))
		}
		eventually(t, "all there", a.owner, func() bool { return len(a.alive()) == 5 })
		for i, m := range others {
			if (i+round)%2 == 0 {
				m.Close()
			} else {
				m.Leave(time.Second)
			}
		}
		eventually(t, "all gone", a.owner, func() bool { return len(a.alive()) == 1 })
	}
	close(stop)
	work.Wait()
}
