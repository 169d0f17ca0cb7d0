package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

func ring(t *testing.T, keys ...string) *gossip.KeyRing {
	t.Helper()
	var raw [][]byte
	for _, k := range keys {
		raw = append(raw, []byte(strings.Repeat(k, 32)))
	}
	r, err := gossip.NewKeyRing(raw...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func at(m member) string { return m.Self().Address.String() }

func TestAWrongConfigurationIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*gossip.Config)
		want   string
	}{
		{"no name", func(c *gossip.Config) { c.Name = "" }, "empty"},
		{"long name", func(c *gossip.Config) { c.Name = strings.Repeat("a", 254) }, "254 bytes"},
		{"upper case", func(c *gossip.Config) { c.Name = "NS1" }, "lower case"},
		{"trailing dot", func(c *gossip.Config) { c.Name = "ns1.example.net." }, "ends in a dot"},
		{"space", func(c *gossip.Config) { c.Name = "ns 1" }, "no host name"},
		{"metadata", func(c *gossip.Config) { c.Meta = make([]byte, 513) }, "513 bytes, the limit is 512"},
		{"no delegate", func(c *gossip.Config) { c.Delegate = nil }, "no delegate"},
		{"no bind", func(c *gossip.Config) { c.Bind = netip.AddrPort{} }, "no address to bind"},
		{"seed", func(c *gossip.Config) { c.Join = []string{"ns1:0"} }, "HOST or HOST:PORT"},
		{"profile", func(c *gossip.Config) { c.Profile = 9 }, "unknown profile"},
		{"everyone without a key", func(c *gossip.Config) { c.Bind = netip.MustParseAddrPort("0.0.0.0:0") }, "name a key file, or bind a loopback address"},
		{"a network without a key", func(c *gossip.Config) { c.Bind = netip.MustParseAddrPort("192.0.2.1:7946") }, "name a key file"},
		{"a network with an empty ring", func(c *gossip.Config) {
			c.Bind, c.KeyRing = netip.MustParseAddrPort("192.0.2.1:7946"), ring(t)
		}, "name a key file"},
		{"IPv6 wildcard without an address to advertise", func(c *gossip.Config) {
			c.Bind, c.KeyRing = netip.MustParseAddrPort("[::]:0"), ring(t, "a")
		}, "needs an address to advertise"},
		{"advertising the wildcard", func(c *gossip.Config) {
			c.Bind, c.KeyRing = netip.MustParseAddrPort("0.0.0.0:0"), ring(t, "a")
			c.Advertise = netip.MustParseAddrPort("0.0.0.0:7946")
		}, "cannot be advertised"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := local(1)
			cfg.Bind, cfg.Delegate = netip.MustParseAddrPort("127.0.0.1:0"), newOwner()
			c.change(&cfg)
			p, err := gossip.Start(cfg)
			if err == nil {
				p.Close()
				t.Fatal("taken")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	for _, s := range []string{"lan", "wan", "local"} {
		if p, err := gossip.ParseProfile(s); err != nil || p.String() != s {
			t.Errorf("%s: %v, %v", s, p, err)
		}
	}
	if _, err := gossip.ParseProfile("moon"); err == nil {
		t.Error("profile moon")
	}
}

// An address that is taken is an error with the address in it, and nothing is
// left behind.
func TestATakenAddressIsAnError(t *testing.T) {
	a := start(t, local(1))
	cfg := local(2)
	cfg.Bind, cfg.Delegate = a.Self().Address, newOwner()
	if _, err := gossip.Start(cfg); err == nil || !strings.Contains(err.Error(), at(a)) {
		t.Errorf("%v", err)
	}
}

// What is advertised is what the others are told, with the port that was bound.
func TestTheAdvertisedAddressIsTold(t *testing.T) {
	for _, c := range []struct{ bind, advertise, want string }{
		{"0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"},
		{"127.0.0.1:0", "", "127.0.0.1"},
		{"[::1]:0", "", "::1"},
	} {
		cfg := local(1)
		cfg.KeyRing, cfg.Bind = ring(t, "a"), netip.MustParseAddrPort(c.bind)
		if c.advertise != "" {
			cfg.Advertise = netip.MustParseAddrPort(c.advertise)
		}
		if l, err := net.Listen("tcp", c.bind); err != nil {
			t.Logf("%s: %v", c.bind, err) // a host without IPv6
			continue
		} else {
			l.Close()
		}
		a := start(t, cfg)
		if got := a.Self().Address; got.Addr().String() != c.want || got.Port() == 0 {
			t.Errorf("%+v: advertised as %v", c, got)
		}
		cfg = local(2, at(a))
		cfg.KeyRing = ring(t, "a")
		together(t, a, start(t, cfg))
		a.Close()
	}
}

func TestMembersMeetAndTalk(t *testing.T) {
	cfg := local(1)
	cfg.KeyRing, cfg.Meta = ring(t, "a"), []byte("one")
	a := start(t, cfg)
	a.note(func() { a.state = []byte("state of a") })
	cfg = local(2, at(a))
	cfg.KeyRing = ring(t, "a")
	b := start(t, cfg)
	together(t, a, b)
	if m := b.Members()[0]; m.Name != name(1) || string(m.Meta) != "one" || m.Address != a.Self().Address || m.Since.IsZero() {
		t.Errorf("b knows a as %+v", m)
	}
	eventually(t, "b merges the state of a", b.owner, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Contains(b.merged, "state of a")
	})
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("%d %s", i, strings.Repeat("x", i*1000)))
		if err := a.Send(t.Context(), name(2), []byte(want[i])); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "b gets all", b.owner, func() bool { return len(b.got()) == len(want) })
	got := b.got()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got other messages than were sent")
	}
	if err := a.Send(t.Context(), name(1), []byte("me")); err != nil {
		t.Error(err)
	}
	eventually(t, "a gets its own", a.owner, func() bool { return slices.Equal(a.got(), []string{"me"}) })

	if err := a.SetMeta([]byte("new")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b learns the metadata", b.owner, func() bool { return string(b.Members()[0].Meta) == "new" })
	if got := a.Self().Meta; string(got) != "new" {
		t.Errorf("a has %q of itself", got)
	}
	if err := a.SetMeta(make([]byte, gossip.MaxMeta+1)); err == nil || string(a.Self().Meta) != "new" {
		t.Errorf("513 bytes: %v", err)
	}
	if err := a.SetMeta(make([]byte, gossip.MaxMeta)); err != nil {
		t.Error(err)
	}
	eventually(t, "b learns 512 bytes", b.owner, func() bool { return len(b.Members()[0].Meta) == gossip.MaxMeta })

	if err := a.Send(t.Context(), "ns9.example.net", nil); err == nil || !strings.Contains(err.Error(), "no such member") {
		t.Errorf("to nobody: %v", err)
	}
	if err := a.Send(t.Context(), name(2), make([]byte, gossip.MaxMessage+1)); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("too much: %v", err)
	}
	big := make([]byte, gossip.MaxMessage)
	if err := a.Send(t.Context(), name(2), big); err != nil {
		t.Errorf("the most: %v", err)
	}
	eventually(t, "b gets the most", b.owner, func() bool { return len(b.got()) == len(want)+1 })

	// What a caller does with a Member is its own business.
	a.Members()[1].Meta = nil
	clear(b.Members()[0].Meta)
	copy(a.Self().Meta, "spoilt")
	if !bytes.Equal(a.Self().Meta, make([]byte, gossip.MaxMeta)) {
		t.Error("a Member is no copy")
	}

	b.Leave(5 * time.Second)
	eventually(t, "a sees b leave", a.owner, func() bool { return a.status(name(2)) == "left" })
	if err := a.Send(t.Context(), name(2), nil); err == nil || !strings.Contains(err.Error(), "it is left") {
		t.Errorf("to who left: %v", err)
	}
	if err := b.Send(t.Context(), name(1), nil); !errors.Is(err, gossip.ErrClosed) {
		t.Errorf("from the grave: %v", err)
	}
	if err := b.SetMeta([]byte("x")); !errors.Is(err, gossip.ErrClosed) {
		t.Errorf("from the grave: %v", err)
	}
}

// A message to a member that has vanished ends by the caller's context, or by the
// time a connection may take.
func TestASendIsBounded(t *testing.T) {
	in(t, func(t *testing.T, start func(gossip.Config) member) {
		network := gossiptest.NewNetwork(1)
		a := start(onNetwork(network, 1))
		b := start(onNetwork(network, 2, addr(1).String()))
		within(t, 5*time.Second, "met", func() bool { return len(a.alive()) == 2 && len(b.alive()) == 2 })
		network.Partition([]netip.AddrPort{addr(1)})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := a.Send(ctx, name(2), nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := a.Send(t.Context(), name(2), nil); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		network.Heal()
		// One that accepts and then stalls, with more on its way than fits a
		// buffer.
		began = time.Now()
		sent := make(chan error, 1)
		network.SetFaults(gossiptest.Faults{MinDelay: 50 * time.Millisecond, MaxDelay: 50 * time.Millisecond})
		go func() { sent <- a.Send(context.Background(), name(2), make([]byte, gossip.MaxMessage)) }()
		time.Sleep(60 * time.Millisecond)
		network.Partition([]netip.AddrPort{addr(1)})
		if err := <-sent; err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		network.Heal()
	})
}
