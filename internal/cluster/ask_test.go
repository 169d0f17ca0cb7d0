package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// A master that has just started asks every node what stands, and can tell who has
// answered by what certificate.
func TestAMasterAsksForVersions(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		s.write("ns1.example.net", flip("m1.example.net.", "drill"))
		m := s.start("m1.example.net")
		s.until("both nodes answer", 10*time.Second, func() bool {
			heard := 0
			for _, v := range m.Versions(t.Context(), "camaster") {
				if v.Err == nil && v.Version.String() == "0.1.ns1.example.net" && v.Certname == v.Name {
					heard++
				}
			}
			return heard == 2
		})
		s.crash("ns2.example.net")
		s.until("one does not answer", 30*time.Second, func() bool {
			all := m.Versions(t.Context(), "camaster")
			return len(all) == 2 && all[0].Err == nil && all[1].Err != nil
		})
	})
}

// A node has one master do something; a master can have nobody do anything.
func TestANodeAsksAMaster(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		cfg := s.config("m1.example.net")
		var asked []string
		cfg.Operate = func(_ context.Context, op string, arg []byte) (any, error) {
			asked = append(asked, op+" "+string(arg))
			if op != "rejoin" {
				return nil, errors.New("no such thing")
			}
			return map[string]string{"id": string(arg)}, nil
		}
		m, err := cluster.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.nodes["m1.example.net"] = m
		s.publish()
		s.knownToAll("m1.example.net")
		node := s.nodes["ns1.example.net"]
		body, err := node.Ask(t.Context(), "m1.example.net", "rejoin", []byte("7"))
		var answer map[string]string
		if err != nil || json.Unmarshal(body, &answer) != nil || answer["id"] != "7" {
			t.Errorf("%s, %v", body, err)
		}
		if _, err := node.Ask(t.Context(), "m1.example.net", "dance", nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("%v", err)
		}
		if _, err := node.Ask(t.Context(), "m9.example.net", "rejoin", nil); err == nil {
			t.Error("asked nobody")
		}
		if _, err := m.Ask(t.Context(), "ns1.example.net", "rejoin", nil); err == nil {
			t.Error("a master's call is answered")
		}
		if _, err := m.Ask(t.Context(), "ns1.example.net", "list-keys", nil); err == nil {
			t.Error("a master may see the keys")
		}
		if len(asked) != 2 {
			t.Errorf("asked %q", asked)
		}
	})
}

// knownToAll waits until every other node has a fresh report of a member.
func (s *site) knownToAll(name string) {
	s.t.Helper()
	s.until("the nodes know "+name, 30*time.Second, func() bool {
		for at, c := range s.nodes {
			if at == name {
				continue
			}
			known := false
			for _, p := range c.Peers() {
				known = known || p.Name == name && p.Fresh
			}
			if !known {
				return false
			}
		}
		return true
	})
}

// What a member says of its host reaches the nodes, by its own seal alone, and bounded.
func TestEvidenceTravels(t *testing.T) {
	bubble(t, 1, func(t *testing.T, s *site) {
		m := s.start("m1.example.net")
		of := func() *evidence.Evidence {
			for _, p := range s.nodes["ns1.example.net"].Peers() {
				if p.Name == "m1.example.net" && p.Report != nil {
					return p.Report.Member
				}
			}
			return nil
		}
		m.Publish(cluster.Report{Member: &evidence.Evidence{Puppetserver: evidence.Puppetserver{State: "running"}, PostgreSQL: &evidence.PostgreSQL{Role: "standby", Received: 7}}})
		s.until("it is there", 10*time.Second, func() bool {
			e := of()
			return e != nil && e.Puppetserver.State == "running" && e.PostgreSQL.Received == 7
		})
		m.Publish(cluster.Report{Member: &evidence.Evidence{Puppetserver: evidence.Puppetserver{State: strings.Repeat("x", 70<<10)}}})
		time.Sleep(5 * time.Second)
		if e := of(); e == nil || e.Puppetserver.State != "running" {
			t.Error("something of any size is taken")
		}
	})
}

// A master can wait until every living node has what it said last.
func TestDelivered(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		m := s.start("m1.example.net")
		s.knownToAll("m1.example.net")
		m.Publish(cluster.Report{Member: &evidence.Evidence{Drain: &evidence.Drain{Reason: "restart"}}})
		s.until("both have it", 10*time.Second, func() bool { return len(m.Delivered(t.Context())) == 0 })
		for _, name := range []string{"ns1.example.net", "ns2.example.net"} {
			for _, p := range s.nodes[name].Peers() {
				if p.Name == "m1.example.net" && p.Report.Member.Drain == nil {
					t.Errorf("%s does not have it", name)
				}
			}
		}
		s.network.Partition(addrs(s, "ns2.example.net"))
		m.Publish(cluster.Report{Member: &evidence.Evidence{}})
		s.until("one of them has it", 10*time.Second, func() bool {
			missing := m.Delivered(t.Context())
			return len(missing) == 1 && missing[0] == "ns2.example.net"
		})
	})
}
