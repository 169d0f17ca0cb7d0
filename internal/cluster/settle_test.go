package cluster_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
)

// A node that starts with an empty disk does not write before it has learned what
// stands: nothing that it then acknowledged would hold.
func TestANodeLearnsBeforeItWrites(t *testing.T) {
	for range 20 {
		bubble(t, 3, func(t *testing.T, s *site) {
			for _, to := range []string{"m1", "m2", "m3"} {
				s.write("ns2.example.net", flip(to+".example.net.", "drill"))
			}
			s.crash("ns1.example.net")
			s.disks["ns1.example.net"] = newDisk()
			c := s.start("ns1.example.net")
			for {
				r, err := c.Write(t.Context(), flip("m9.example.net.", "hasty"), cluster.WaitAll)
				var early *cluster.NotSettledError
				if errors.As(err, &early) {
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil || !r.Superseded.IsZero() || r.Entry.Version.Counter != 4 {
					t.Errorf("%+v, %v", r, err)
				}
				break
			}
			if got, ok := s.agree(); !ok || got != "m9.example.net. 0.4.ns1.example.net" {
				t.Errorf("%q, %v", got, ok)
			}
		})
	}
}

// Forced, it writes at once; and is told by the others that theirs stands, if it does.
func TestAHastyForcedWriteIsTold(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		forced := flip("m3.example.net.", "drill")
		forced.Forced = true
		for range 2 {
			s.write("ns2.example.net", forced)
		}
		s.network.Partition(addrs(s, "ns1.example.net"))
		s.crash("ns1.example.net")
		s.disks["ns1.example.net"] = newDisk()
		c := s.start("ns1.example.net")
		r, err := c.Write(t.Context(), forced, cluster.WaitNone)
		if err != nil || r.Entry.Version.String() != "1.1.ns1.example.net" {
			t.Fatalf("%+v, %v", r, err)
		}
		s.network.Heal()
		s.until("the newer stands everywhere", 10*time.Second, func() bool {
			got, ok := s.agree()
			return ok && got == "m3.example.net. 2.2.ns2.example.net"
		})
	})
}

// One that meets nobody writes after a few seconds.
func TestANodeAloneWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newPKI(t), 1)
		defer s.end()
		s.seeds = []string{"192.0.2.99:7946"}
		c := s.start("ns1.example.net")
		begin := time.Now()
		for {
			_, err := c.Write(t.Context(), flip("m3.example.net.", "alone"), cluster.WaitAll)
			if err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(begin); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("after %v", d)
		}
	})
}
