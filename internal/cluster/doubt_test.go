package cluster_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// The node that wrote is revoked, and the others' certificates are younger than what it
// wrote: a new node learns it all the same.
func TestSealsOfARenewedCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		s := newSite(t, p, 1)
		defer s.end()
		s.start("ns1.example.net")
		s.start("ns2.example.net")
		s.publish()
		s.met()
		s.write("ns1.example.net", flip("m3.example.net.", "drill"))
		time.Sleep(3 * time.Hour)
		s.crash("ns2.example.net")
		s.ids["ns2.example.net"] = p.identity("ns2.example.net") // renewed
		s.start("ns2.example.net")
		s.publish()
		s.met()
		s.crash("ns1.example.net")
		p.ca.Revoke(s.ids["ns1.example.net"].Leaf.SerialNumber)
		p.writeCRL()
		time.Sleep(5 * time.Minute)
		s.start("ns3.example.net")
		s.until("ns3 learns", 10*time.Minute, func() bool { return camaster(s.nodes["ns3.example.net"]) != "" })
	})
}

// A node whose certificate has expired writes nothing: not even for itself.
func TestANodeThatNobodyBelievesWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		s := newSite(t, p, 1)
		defer s.end()
		id, err := p.ca.Issue(stub.IssueOptions{CommonName: "ns1.example.net", NotAfter: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if s.ids["ns1.example.net"], err = trust.NewIdentity(id.Certificate); err != nil {
			t.Fatal(err)
		}
		s.start("ns1.example.net")
		s.start("ns2.example.net")
		s.publish()
		s.met()
		s.write("ns1.example.net", flip("m1.example.net.", "drill"))
		time.Sleep(2 * time.Hour)
		if _, err := s.nodes["ns1.example.net"].Write(t.Context(), flip("m3.example.net.", "drill"), cluster.WaitAll); err == nil || !strings.Contains(err.Error(), "has expired at") {
			t.Errorf("err %v", err)
		}
		// It gets a new certificate.
		s.crash("ns1.example.net")
		s.ids["ns1.example.net"] = p.identity("ns1.example.net")
		s.start("ns1.example.net")
		s.publish()
		s.met()
		time.Sleep(10 * time.Minute)
		if _, ok := s.agree(); !ok {
			t.Errorf("with a new certificate, after ten minutes: ns1 %q, ns2 %q", camaster(s.nodes["ns1.example.net"]), camaster(s.nodes["ns2.example.net"]))
		}
	})
}

func TestARevokedNodeRefusesItsOwnWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPKI(t)
		s := newSite(t, p, 1)
		defer s.end()
		s.start("ns1.example.net")
		s.start("ns2.example.net")
		s.publish()
		s.met()
		p.ca.Revoke(s.ids["ns1.example.net"].Leaf.SerialNumber)
		p.writeCRL()
		time.Sleep(2 * time.Minute)
		if _, err := s.nodes["ns1.example.net"].Write(t.Context(), flip("m1.example.net.", "drill"), cluster.WaitAll); err == nil || !strings.Contains(err.Error(), "is revoked") || camaster(s.nodes["ns1.example.net"]) != "" {
			t.Errorf("err %v, and it holds %q", err, camaster(s.nodes["ns1.example.net"]))
		}
	})
}

// A node that the configuration no longer knows does not keep keys from being used.
func TestAForgottenNodeKeepsNoKey(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		time.Sleep(5 * time.Second)
		s.crash("ns3.example.net")
		time.Sleep(time.Minute)
		for _, c := range s.nodes {
			no3 := func(n string) bool { return n != "ns3.example.net" && isNode(n) }
			if err := c.Update(cluster.Policy{Join: s.seeds, Admit: no3, Signers: no3}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		id, _, err := s.nodes["ns1.example.net"].AddKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.nodes["ns1.example.net"].UseKey(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
}

type mute struct{ got chan []byte }

func (m mute) Received(b []byte) {
	select {
	case m.got <- b:
	default:
	}
}
func (mute) State() []byte { return nil }
func (mute) Merge([]byte)  {}
func (mute) Changed()      {}

func (s *site) stranger(name string, meta string) (*gossip.Pool, mute) {
	cfg := s.config(name)
	d := mute{make(chan []byte, 10000)}
	g := *cfg.Gossip
	g.Name, g.Join, g.Delegate, g.Meta = name, s.seeds, d, []byte(meta)
	p, err := gossip.Start(g)
	if err != nil {
		s.t.Fatal(err)
	}
	return p, d
}

// Who has stolen the gossip key keeps it from being exchanged.
func TestAThiefKeepsNoKey(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		p, _ := s.stranger("m3.example.net", `{"role":"master"}`)
		defer p.Close()
		time.Sleep(10 * time.Second)
		id, _, err := s.nodes["ns1.example.net"].AddKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.nodes["ns1.example.net"].UseKey(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
}

// Two operators look at the keys at the same node at once.
func TestCallsAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *site) {
		bad := 0
		for range 20 {
			var g sync.WaitGroup
			var mu sync.Mutex
			for range 3 {
				g.Go(func() {
					rings, _ := s.nodes["ns1.example.net"].Keys(t.Context())
					for _, r := range rings {
						if r.Err != nil {
							mu.Lock()
							bad++
							mu.Unlock()
						}
					}
				})
			}
			g.Wait()
		}
		if bad > 0 {
			t.Errorf("%d of 120 answers did not come", bad)
		}
	})
}

// A dead observer's report of before, sent again to a node that has just started.
func TestADeadObserverDoesNotVote(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		thief, d := s.stranger("m3.example.net", `{"role":"node"}`)
		time.Sleep(10 * time.Second)
		s.nodes["ns2.example.net"].Publish(cluster.Report{Release: "old", Datacenter: "datacenter1", Masters: []cluster.Observed{{Host: "m1.example.net.", Down: true, Reason: "refused"}}})
		time.Sleep(30 * time.Second)
		thief.Close()
		s.crash("ns2.example.net")
		time.Sleep(10 * time.Minute)
		s.crash("ns1.example.net")
		s.start("ns1.example.net")
		s.publish()
		delete(s.addrs, "ns2.example.net")
		thief, _ = s.stranger("ns2.example.net", `{"role":"node"}`)
		defer thief.Close()
		time.Sleep(10 * time.Second)
		for len(d.got) > 0 {
			b := <-d.got
			var m struct{ Report *struct{} }
			if json.Unmarshal(b, &m) == nil && m.Report != nil {
				if err := thief.Send(t.Context(), "ns1.example.net", b); err != nil {
					t.Log(err)
				}
			}
		}
		time.Sleep(3 * time.Second)
		for _, p := range s.nodes["ns1.example.net"].Peers() {
			if p.Name == "ns2.example.net" && p.Fresh {
				t.Errorf("the dead ns2 votes again: %+v", p.Report)
			}
		}
	})
}
