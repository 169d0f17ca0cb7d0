package gossip_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

// An owner that takes for ever over a message is still a living member; what it
// cannot take is counted.
func TestASlowOwnerStaysAlive(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		a := start(onNetwork(network, 1))
		slow := newOwner()
		slow.hold = make(chan struct{})
		release := sync.OnceFunc(func() { close(slow.hold) })
		defer release()
		cfg := onNetwork(network, 2, addr(1).String())
		cfg.Delegate = slow
		b := start(cfg)
		within(t, 5*time.Second, "met", func() bool { return len(a.alive()) == 2 && len(b.alive()) == 2 })
		const sent = 1500
		for i := range sent {
			if err := a.Send(t.Context(), name(2), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // in order, and no more streams at once than are taken
		}
		for range 120 {
			time.Sleep(time.Second)
			if a.status(name(2)) != "alive" {
				t.Fatalf("b is %s", a.status(name(2)))
			}
		}
		s := b.Stats()
		if s.QueueMessages != 1024 || s.DroppedMessages != sent-1025 || s.QueueBytes == 0 {
			t.Errorf("%+v", s)
		}
		release()
		within(t, time.Second, "taken", func() bool { return len(b.got()) == 1025 })
		for i, got := range b.got() {
			if got != fmt.Sprint(i) {
				t.Fatalf("message %d is %q: out of order, or not copied", i, got)
			}
		}
		if s := b.Stats(); s.QueueMessages != 0 || s.QueueBytes != 0 {
			t.Errorf("left in the queue: %+v", s)
		}
	})
}

// A state over the limit is not sent, and the members stay.
func TestATooLargeStateIsNotSent(t *testing.T) {
	a := start(t, local(1))
	b := start(t, local(2, at(a)))
	together(t, a, b)
	a.note(func() { a.state = make([]byte, gossip.MaxState+1) })
	eventually(t, "counted", a.owner, func() bool { return a.Stats().OversizedState >= 2 })
	if a.logged("the state has 8388609 bytes, the limit is 8388608") != 1 {
		t.Errorf("logged %q", a.lines)
	}
	a.note(func() { a.state = bytes.Repeat([]byte("m"), gossip.MaxState) })
	eventually(t, "the most is merged", b.owner, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.ContainsFunc(b.merged, func(s string) bool { return len(s) == gossip.MaxState })
	})
	together(t, a, b)
}

// Garbage on the port is survived, with a key and without.
func TestGarbageIsSurvived(t *testing.T) {
	for _, keys := range [][]string{nil, {"k"}} {
		t.Run(fmt.Sprint(len(keys), " keys"), func(t *testing.T) {
			cfg := local(1)
			cfg.KeyRing = ring(t, keys...)
			a := start(t, cfg)
			cfg = local(2, at(a))
			cfg.KeyRing = ring(t, keys...)
			b := start(t, cfg)
			together(t, a, b)
			udp, err := net.Dial("udp", at(a))
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			labelled := append([]byte{244, 9}, "puppetsrv"...)
			rng := rand.New(rand.NewPCG(1, 1))
			junk := func() []byte {
				b := make([]byte, rng.IntN(1400))
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				if len(b) > 0 && rng.IntN(2) == 0 {
					b[0] = byte(rng.IntN(16)) // a type of message, or a version of encryption
				}
				if rng.IntN(4) != 0 {
					b = append(slices.Clip(labelled), b...)
				}
				return b
			}
			for i := range 3000 {
				udp.Write(junk())
				if i%10 != 0 {
					continue
				}
				tcp, err := net.DialTimeout("tcp", at(a), time.Second)
				if err != nil {
					t.Fatal(err)
				}
				tcp.Write(junk())
				if i%50 != 0 { // the rest stays open, silent
					tcp.Close()
				} else {
					defer tcp.Close()
				}
			}
			// More connections than it keeps.
			for range 300 {
				tcp, err := net.DialTimeout("tcp", at(a), time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer tcp.Close()
			}
			eventually(t, "too many streams are refused", a.owner, func() bool { return a.Stats().RefusedStreams > 0 })
			if len(keys) > 0 && a.Stats().Undecipherable == 0 {
				t.Error("not counted")
			}
			eventually(t, "and it still talks", b.owner, func() bool {
				return b.Send(t.Context(), name(1), []byte("hello")) == nil && slices.Contains(a.got(), "hello")
			})
			together(t, a, b)
			a.mu.Lock()
			defer a.mu.Unlock()
			if len(a.lines) > 100 {
				t.Errorf("%d lines logged", len(a.lines))
			}
		})
	}
}

// Another key, or none, keeps out, on both sides and without harm.
func TestAWrongKeyKeepsOut(t *testing.T) {
	for _, c := range []struct{ name, key string }{{"another", "b"}, {"none", ""}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := local(1)
			cfg.KeyRing = ring(t, "a")
			a := start(t, cfg)
			cfg = local(2, at(a))
			if c.key != "" {
				cfg.KeyRing = ring(t, c.key)
			}
			b := start(t, cfg)
			eventually(t, "tried several times", b.owner, func() bool { return b.Stats().RejoinFailures >= 5 })
			if n := a.Stats().Undecipherable; n < 4 {
				t.Errorf("a counts %d", n)
			}
			if len(a.alive()) != 1 || len(b.alive()) != 1 {
				t.Errorf("a has %q, b has %q", a.alive(), b.alive())
			}
			if n := b.logged("trying again for ever"); n != 1 {
				t.Errorf("b logged it %d times: %q", n, b.lines)
			}
			// A way to fail is logged once. Here are two: a stream is cut off before or
			// after its label has been read.
			label := a.logged("memberlist: failed to receive and remove the stream label")
			other := a.logged("memberlist: failed to receive") - label
			if label > 1 || other > 1 || label+other == 0 {
				t.Errorf("a logged it %d and %d times: %q", label, other, a.lines)
			}
		})
	}
}
