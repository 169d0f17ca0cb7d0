package gossiptest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

var (
	one = netip.MustParseAddrPort("10.0.0.1:7946")
	two = netip.MustParseAddrPort("10.0.0.2:7946")
)

// pair makes a network of two hosts in a bubble.
func pair(t *testing.T, f func(t *testing.T, n *gossiptest.Network, a, b gossip.Transport)) {
	synctest.Test(t, func(t *testing.T) {
		n := gossiptest.NewNetwork(1)
		a, b := n.Transport(one), n.Transport(two)
		defer a.Shutdown()
		defer b.Shutdown()
		f(t, n, a, b)
	})
}

// arrived drains what b has got by now.
func arrived(tr gossip.Transport) (got []*gossip.Packet) {
	for {
		select {
		case p := <-tr.PacketCh():
			got = append(got, p)
		default:
			return got
		}
	}
}

func send(t *testing.T, tr gossip.Transport, to netip.AddrPort, count int) {
	t.Helper()
	for i := range count {
		if _, err := tr.WriteTo([]byte{byte(i >> 8), byte(i)}, to.String()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPacketsMeetTheirFaults(t *testing.T) {
	pair(t, func(t *testing.T, n *gossiptest.Network, a, b gossip.Transport) {
		send(t, a, two, 1000)
		got := arrived(b)
		if len(got) != 1000 || got[0].From.String() != one.String() || !bytes.Equal(got[999].Buf, []byte{999 >> 8, 999 & 255}) {
			t.Fatalf("%d arrived", len(got))
		}
		n.SetFaults(gossiptest.Faults{Loss: 0.3})
		send(t, a, two, 1000)
		if got := len(arrived(b)); got < 620 || got > 780 {
			t.Errorf("%d of 1000 arrived with 30%% lost", got)
		}
		n.SetFaults(gossiptest.Faults{Duplicate: 0.3})
		send(t, a, two, 1000)
		if got := len(arrived(b)); got < 1220 || got > 1380 {
			t.Errorf("%d of 1000 arrived with 30%% doubled", got)
		}
		n.SetFaults(gossiptest.Faults{MinDelay: 10 * time.Millisecond, MaxDelay: 50 * time.Millisecond})
		send(t, a, two, 1000)
		time.Sleep(9 * time.Millisecond)
		if got := len(arrived(b)); got != 0 {
			t.Errorf("%d arrived too early", got)
		}
		time.Sleep(42 * time.Millisecond)
		got = arrived(b)
		if len(got) != 1000 {
			t.Errorf("%d arrived in time", len(got))
		}
		sorted := true
		for i := range got[1:] {
			sorted = sorted && bytes.Compare(got[i].Buf, got[i+1].Buf) < 0
		}
		if sorted {
			t.Error("none overtook another")
		}
		n.SetFaults(gossiptest.Faults{})
		n.Partition([]netip.AddrPort{one})
		send(t, a, two, 10)
		send(t, a, one, 10)
		if len(arrived(b)) != 0 || len(arrived(a)) != 10 {
			t.Error("the cut is in the wrong place")
		}
		n.Partition([]netip.AddrPort{one, two}, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.3:7946")})
		send(t, a, two, 10)
		if len(arrived(b)) != 10 {
			t.Error("cut off from its own group")
		}
	})
}

func connect(t *testing.T, a, b gossip.Transport, to netip.AddrPort) (near, far net.Conn) {
	t.Helper()
	near, err := a.DialTimeout(to.String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return near, <-b.StreamCh()
}

func TestStreamsAreOrderedAndEnd(t *testing.T) {
	pair(t, func(t *testing.T, n *gossiptest.Network, a, b gossip.Transport) {
		n.SetFaults(gossiptest.Faults{MaxDelay: 20 * time.Millisecond})
		near, far := connect(t, a, b, two)
		want := make([]byte, 1<<20)
		for i := range want {
			want[i] = byte(i * 7)
		}
		go func() {
			near.Write(want)
			near.Close()
		}()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes arrived, %v", len(got), err)
		}
		if _, err := far.Write([]byte("x")); err == nil {
			t.Error("written to a closed end")
		}
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
		far.Close()
	})
}

func TestStreamsKeepTheirDeadlines(t *testing.T) {
	pair(t, func(t *testing.T, n *gossiptest.Network, a, b gossip.Transport) {
		near, far := connect(t, a, b, two)
		defer near.Close()
		defer far.Close()
		near.SetDeadline(time.Now().Add(time.Second))
		began := time.Now()
		_, err := near.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		near.SetDeadline(time.Now().Add(time.Second))
		if n, err := near.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("%d bytes written: %v", n, err)
		}
	})
}

func TestStreamsStallOverACutAndGoOn(t *testing.T) {
	pair(t, func(t *testing.T, n *gossiptest.Network, a, b gossip.Transport) {
		near, far := connect(t, a, b, two)
		defer near.Close()
		defer far.Close()
		n.Partition([]netip.AddrPort{one})
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.DialTimeout(two.String(), time.Second); err == nil {
			t.Error("dialled through the cut")
		}
		began := time.Now()
		go func() { time.Sleep(time.Minute); n.Heal() }()
		got := make([]byte, 4)
		if _, err := io.ReadFull(far, got); err != nil || string(got) != "late" || time.Since(began) != time.Minute {
			t.Errorf("%q after %v: %v", got, time.Since(began), err)
		}
		n.SetFaults(gossiptest.Faults{Loss: 1})
		near.Write([]byte("x"))
		if _, err := far.Read(got); err == nil {
			t.Error("nothing is lost")
		}
	})
}

func TestAnAddressIsFreeAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := gossiptest.NewNetwork(1)
		a, b := n.Transport(one), n.Transport(two)
		near, far := connect(t, a, b, two)
		b.Shutdown()
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("a stream outlives its host")
		}
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("the other end was not told")
		}
		if _, err := a.DialTimeout(two.String(), time.Second); err == nil {
			t.Error("dialled a host that is down")
		}
		send(t, a, two, 1)
		b = n.Transport(two)
		if len(arrived(b)) != 0 {
			t.Error("a packet waited for the restart")
		}
		near, far = connect(t, a, b, two)
		near.Close()
		far.Close()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("an address is used twice")
				}
			}()
			n.Transport(two)
		}()
		a.Shutdown()
		b.Shutdown()
		if _, err := a.WriteTo(nil, two.String()); err == nil {
			t.Error("sent after the end")
		}
	})
}
