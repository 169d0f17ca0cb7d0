package cluster_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// bubble runs f with a cluster of n nodes that have met.
func bubble(t *testing.T, n int, f func(t *testing.T, s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newPKI(t), 1)
		defer s.end()
		for i := range n {
			s.start(nodeName(i + 1))
		}
		s.publish()
		s.met()
		f(t, s)
	})
}

func (s *site) write(name string, ch cluster.Change) cluster.Result {
	s.t.Helper()
	r, err := s.nodes[name].Write(s.t.Context(), ch, cluster.WaitAll)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestAWriteIsOnEveryNodeWhenItReturns(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		begin := time.Now()
		r := s.write("ns2.example.net", flip("m3.example.net.", "drill"))
		if !r.Met || len(r.Answers) != 2 || time.Since(begin) > time.Second {
			t.Errorf("met %v after %v with %v", r.Met, time.Since(begin), r.Answers)
		}
		for name, c := range s.nodes {
			if got := camaster(c); got != "m3.example.net. 0.1.ns2.example.net" {
				t.Errorf("%s has %q", name, got)
			}
			if s.disks[name].files["registers.json"] == nil {
				t.Errorf("%s has nothing on disk", name)
			}
		}
	})
}

func TestCompareAndSet(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		s.write("ns1.example.net", flip("m3.example.net.", "drill"))
		stale := flip("m1.example.net.", "drill")
		stale.Expect = &register.Version{}
		_, err := s.nodes["ns2.example.net"].Write(t.Context(), stale, cluster.WaitAll)
		if err == nil || !strings.Contains(err.Error(), "0.1.ns1.example.net") {
			t.Errorf("err %v", err)
		}
		current := s.nodes["ns2.example.net"].Registers().Version("camaster")
		stale.Expect = &current
		s.write("ns2.example.net", stale)
		if got, ok := s.agree(); !ok || got != "m1.example.net. 0.2.ns2.example.net" {
			t.Errorf("%q", got)
		}
	})
}

// All are killed and start again with their disks: the flip is there. One starts
// with an empty disk: it learns, and does not overwrite.
func TestRestarts(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		s.write("ns1.example.net", flip("m3.example.net.", "drill"))
		for i := range 3 {
			s.crash(nodeName(i + 1))
		}
		for i := range 3 {
			if got := camaster(s.start(nodeName(i + 1))); got != "m3.example.net. 0.1.ns1.example.net" {
				t.Errorf("%s begins with %q", nodeName(i+1), got)
			}
		}
		s.publish()
		s.met()
		s.crash("ns2.example.net")
		s.disks["ns2.example.net"] = newDisk()
		s.start("ns2.example.net")
		s.until("ns2 learns", 10*time.Second, func() bool { return camaster(s.nodes["ns2.example.net"]) != "" })
		if got, ok := s.agree(); !ok || got != "m3.example.net. 0.1.ns1.example.net" {
			t.Errorf("%q %v", got, ok)
		}
	})
}

// Ten minutes of partition, a flip on either side, heal: all have the same, and the
// conflict is told.
func TestPartition(t *testing.T) {
	bubble(t, 4, func(t *testing.T, s *site) {
		s.write("ns1.example.net", flip("m1.example.net.", "first"))
		left := []string{"ns1.example.net", "ns2.example.net"}
		s.network.Partition(addrs(s, left...), addrs(s, "ns3.example.net", "ns4.example.net"))
		time.Sleep(5 * time.Minute)
		if r := s.write("ns1.example.net", flip("m2.example.net.", "left")); !r.Met || len(r.Answers) != 3 {
			t.Errorf("left: %+v", r)
		}
		if r := s.write("ns3.example.net", flip("m3.example.net.", "right")); !r.Met {
			t.Errorf("right: %+v", r)
		}
		time.Sleep(5 * time.Minute)
		if _, ok := s.agree(); ok {
			t.Error("they agree through a partition")
		}
		s.network.Heal()
		// The winner's side agrees before it has the loser.
		s.until("all agree", 10*time.Second, func() bool { _, ok := s.agree(); return ok && s.oneHistory() })
		synctest.Wait() // all are told
		if got, _ := s.agree(); got != "m3.example.net. 0.2.ns3.example.net" {
			t.Errorf("%q", got)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for name := range s.nodes {
			if want := []string{"0.2.ns3.example.net over 0.2.ns1.example.net"}; !slices.Equal(s.conflicts[name], want) {
				t.Errorf("%s was told of %v", name, s.conflicts[name])
			}
		}
	})
}

func addrs(s *site, names ...string) (list []netip.AddrPort) {
	for _, n := range names {
		list = append(list, s.addrs[n])
	}
	return list
}

func TestADeadNodeIsNamed(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		time.Sleep(2 * time.Second) // who is there is remembered once a second
		s.crash("ns3.example.net")
		s.until("ns1 knows", 10*time.Second, func() bool {
			for _, p := range s.nodes["ns1.example.net"].Peers() {
				if p.Name == "ns3.example.net" {
					return p.Status == gossip.Dead
				}
			}
			return false
		})
		check := func() {
			t.Helper()
			r := s.write("ns1.example.net", flip("m3.example.net.", "drill"))
			if !r.Met || len(r.Answers) != 2 || r.Answers[0].Err != nil || r.Answers[1].Err == nil || r.Answers[1].Name != "ns3.example.net" {
				t.Errorf("%+v", r.Answers)
			}
		}
		check()
		s.crash("ns1.example.net")
		s.start("ns1.example.net")
		s.publish()
		s.met()
		check() // also by one that has never seen it
	})
}

func TestADiskThatFails(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		s.disks["ns1.example.net"].setFail(errDisk)
		if _, err := s.nodes["ns1.example.net"].Write(t.Context(), flip("m3.example.net.", "drill"), cluster.WaitAll); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("err %v", err)
		}
		if got := camaster(s.nodes["ns1.example.net"]); got != "" {
			t.Errorf("it holds %q all the same", got)
		}
		// A write elsewhere holds here, and is not acknowledged.
		r := s.write("ns2.example.net", flip("m3.example.net.", "drill"))
		if r.Met || r.Answers[0].Err == nil || !strings.Contains(r.Answers[0].Err.Error(), "no space left") {
			t.Errorf("%+v", r)
		}
		if got := camaster(s.nodes["ns1.example.net"]); got != "m3.example.net. 0.1.ns2.example.net" {
			t.Errorf("it holds %q", got)
		}
		if _, err := s.nodes["ns1.example.net"].Problem(); err == nil {
			t.Error("no problem is told")
		}
		s.disks["ns1.example.net"].setFail(nil)
		s.until("the disk has it", 10*time.Second, func() bool { _, err := s.nodes["ns1.example.net"].Problem(); return err == nil })
		s.crash("ns1.example.net")
		if got := camaster(s.start("ns1.example.net")); got != "m3.example.net. 0.1.ns2.example.net" {
			t.Errorf("after a restart it holds %q", got)
		}
	})
}

// The gossip key alone moves nothing: a member whose certificate is none of a node's
// cannot write, and what it sends is refused.
func TestOnlyNodesWrite(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		m := s.start("m1.example.net")
		if _, err := m.Write(t.Context(), flip("m1.example.net.", "mine"), cluster.WaitAll); err == nil || !strings.Contains(err.Error(), "admin_allow sign m1.example.net") {
			t.Errorf("err %v", err)
		}
		m.Close()
		cfg := s.config("m1.example.net")
		cfg.Policy.Signers = func(string) bool { return true } // it has its own opinion
		m, err := cluster.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.nodes["m1.example.net"] = m
		m.Publish(cluster.Report{Release: "test"})
		s.met()
		r, err := m.Write(t.Context(), flip("m1.example.net.", "mine"), cluster.WaitAll)
		if err != nil || r.Met {
			t.Errorf("%+v, %v", r, err)
		}
		for _, a := range r.Answers {
			if a.Err == nil || !strings.Contains(a.Err.Error(), "m1.example.net may not write registers") {
				t.Errorf("%s: %v", a.Name, a.Err)
			}
		}
		time.Sleep(time.Minute)
		for _, name := range []string{"ns1.example.net", "ns2.example.net"} {
			if got := camaster(s.nodes[name]); got != "" {
				t.Errorf("%s holds %q", name, got)
			}
			if _, refused := s.nodes[name].Stats(); refused["entry"] == 0 {
				t.Errorf("%s has not counted it: %v", name, refused)
			}
		}
	})
}

// The node that wrote is gone for good and its certificate revoked: a new node
// learns what it wrote all the same.
func TestARevokedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		s := newSite(t, p, 1)
		defer s.end()
		for i := range 2 {
			s.start(nodeName(i + 1))
		}
		s.publish()
		s.met()
		s.write("ns1.example.net", flip("m3.example.net.", "drill"))
		s.crash("ns1.example.net")
		p.ca.Revoke(s.ids["ns1.example.net"].Leaf.SerialNumber)
		p.writeCRL()
		time.Sleep(2 * time.Minute)
		s.start("ns3.example.net")
		s.until("ns3 learns", time.Minute, func() bool { return camaster(s.nodes["ns3.example.net"]) != "" })
		// And itself cannot come back and write.
		s.start("ns1.example.net")
		time.Sleep(10 * time.Second)
		r, err := s.nodes["ns1.example.net"].Write(t.Context(), flip("m1.example.net.", "drill"), cluster.WaitAll)
		if err == nil && r.Met {
			t.Error("a revoked node has written")
		}
		for _, name := range []string{"ns2.example.net", "ns3.example.net"} {
			if got := camaster(s.nodes[name]); got != "m3.example.net. 0.1.ns1.example.net" {
				t.Errorf("%s holds %q", name, got)
			}
		}
	})
}

func TestReportsTravel(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		s.nodes["ns1.example.net"].Publish(cluster.Report{Release: "test", Datacenter: "datacenter1", Masters: []cluster.Observed{{Host: "m1.example.net.", Down: true, Reason: "refused"}}})
		begin := time.Now()
		see := func(at, of string) *cluster.Report {
			for _, p := range s.nodes[at].Peers() {
				if p.Name == of && p.Fresh {
					return p.Report
				}
			}
			return nil
		}
		s.until("both have it", time.Second, func() bool {
			for _, at := range []string{"ns2.example.net", "ns3.example.net"} {
				if r := see(at, "ns1.example.net"); r == nil || len(r.Masters) != 1 || !r.Masters[0].Down {
					return false
				}
			}
			return true
		})
		if d := time.Since(begin); d > 200*time.Millisecond {
			t.Errorf("after %v", d)
		}
		time.Sleep(time.Minute)
		if see("ns2.example.net", "ns1.example.net") == nil {
			t.Error("a living observer's report has become stale")
		}
		s.crash("ns1.example.net")
		s.until("it counts no more", 20*time.Second, func() bool { return see("ns2.example.net", "ns1.example.net") == nil })
		// It comes back with an empty disk and a clock that has not moved: its new
		// reports count all the same.
		s.disks["ns1.example.net"] = newDisk()
		s.start("ns1.example.net").Publish(cluster.Report{Release: "again"})
		s.until("it is heard again", 20*time.Second, func() bool {
			r := see("ns2.example.net", "ns1.example.net")
			return r != nil && r.Release == "again"
		})
	})
}

func TestKeyRotation(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		one := s.nodes["ns1.example.net"]
		rings := func() (ids []string) {
			t.Helper()
			all, err := s.nodes["ns2.example.net"].Keys(t.Context())
			if err != nil || len(all) != 3 {
				t.Fatalf("%v, %v", all, err)
			}
			for _, r := range all {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				var ring []string
				for _, k := range r.Keys {
					ring = append(ring, k.ID)
				}
				ids = append(ids, strings.Join(ring, " "))
			}
			return ids
		}
		old := rings()[0]
		id, answers, err := one.AddKey(t.Context())
		if err != nil || len(answers) != 2 || answers[0].Err != nil || answers[1].Err != nil {
			t.Fatalf("%v, %v", answers, err)
		}
		for _, r := range rings() {
			if r != old+" "+id {
				t.Errorf("ring %q, want %q", r, old+" "+id)
			}
		}
		if _, err := one.UseKey(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := one.RemoveKey(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		for _, r := range rings() {
			if r != id {
				t.Errorf("ring %q, want %q", r, id)
			}
		}
		time.Sleep(time.Minute)
		s.met()
		if _, err := one.UseKey(t.Context(), "00000000"); err == nil {
			t.Error("a key that nobody has is used")
		}
	})
}

// A master makes itself known, is remembered over a restart of the node, and is
// forgotten when it leaves.
func TestAMasterAnnouncesItself(t *testing.T) {
	bubble(t, 1, func(t *testing.T, s *site) {
		m := s.start("m5.example.net")
		a := cluster.Announcement{Host: "m5.example.net.", Datacenter: "datacenter1", Port: 8140, Weight: 10}
		m.Publish(cluster.Report{Release: "test", Announce: &a})
		knows := func() bool { return len(s.nodes["ns1.example.net"].Masters()) == 1 }
		s.until("it is known", 10*time.Second, knows)
		time.Sleep(2 * time.Second)
		s.crash("ns1.example.net")
		s.start("ns1.example.net")
		if !knows() {
			t.Error("it is forgotten by a restart")
		}
		s.met()
		m.Leave(time.Second)
		s.until("it has left", 10*time.Second, func() bool { return !knows() })
		// Nobody announces another.
		a.Host = "m6.example.net."
		s.start("m5.example.net").Publish(cluster.Report{Release: "test", Announce: &a})
		time.Sleep(30 * time.Second)
		if knows() {
			t.Error("m5 has announced m6")
		}
	})
}
