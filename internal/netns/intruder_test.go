//go:build linux

package netns_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// untouched wants both nodes to answer what is configured, and to know of no write.
func (s *site) untouched() {
	s.t.Helper()
	for _, name := range []string{"ns1", "ns2"} {
		n := s.nodes[name]
		if got := s.served(n); got != "m1.example.net" {
			s.t.Errorf("%s answers that %s is camaster", n.name, got)
		}
		if got := listed(s.asked(n, mastersOf(n), dns.TypeSRV)); !slices.Equal(got, whole[n.name]) {
			s.t.Errorf("%s lists %q, want %q", n.name, got, whole[n.name])
		}
		if h := reads[admin.History](s, n, "history"); len(h.Writes) > 0 {
			s.t.Errorf("%s has taken a write: %+v", n.name, h.Writes)
		}
	}
}

// Neither the gossip key, nor a name, nor a certificate of the CA is enough to move
// anything.
func TestIntruders(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	end := s.watch(20)
	ns1, ns2 := s.nodes["ns1"], s.nodes["ns2"]
	s.strangers = []string{"m3.example.net", "m4.example.net"}
	const refused = "coredns_puppetsrv_refused_total"

	// A program that has the key and m4's certificate, and allows itself everything.
	t.Run("stolen key", func(t *testing.T) {
		h := s.addHost("thief", "10.9.0.1")
		cmd := h.Command(os.Args[0], "-name", "m4.example.net", "-bind", "10.9.0.1:7946", "-join", "ns1.example.net",
			"-cert", s.path("m4.pem"), "-key", s.path("m4.key"), "-ca", s.path("ca.pem"), "-ring", s.path("gossip.key"), "-state", s.path("thief"))
		cmd.Env = append(environ(), roleVariable+"=thief")
		p := s.run("thief.log", cmd)
		p.says(`"camaster"`)
		var answers map[string][]string
		for line := range strings.Lines(p.logged()) {
			if strings.HasPrefix(line, "{") {
				if err := json.Unmarshal([]byte(line), &answers); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, key := range []string{"camaster", "drain/m1.example.net."} {
			got := answers[key]
			if len(got) != 2 {
				t.Errorf("%s was answered by %q, want both nodes", key, got)
			}
			for _, a := range got {
				if !containsAll(a, []string{"refused", "m4.example.net may not write"}) {
					t.Errorf("%s: %s", key, a)
				}
			}
		}
		for _, n := range []*node{ns1, ns2} {
			n.says("Registers", "refused", "m4.example.net may not write registers")
			if v := s.metric(n, refused, `kind="entry"`); v < 2 {
				t.Errorf("%s has counted %g refused entries", n.name, v)
			}
			n.says("a report is refused", "m4.example.net")
		}
		s.untouched()
		p.end(syscall.SIGKILL)
	})

	// The real program, with m3's certificate and a Corefile that lets it sign.
	t.Run("a master as a node", func(t *testing.T) {
		h := s.addHost("false", "10.9.0.2")
		n := s.addNode("false", h, "datacenter1", corefile{node: "m3.example.net", cert: "m3", ring: "gossip.key", sign: "admin_allow sign m3.example.net"})
		s.start(n)
		eventually(t, "it is a member", func() bool {
			return state(s.status(n), "ns1.example.net") == "alive" && state(s.status(n), "ns2.example.net") == "alive"
		})
		eventually(t, "ns1 tells of it", func() bool {
			return slices.ContainsFunc(s.status(ns1).Problems, func(p admin.Problem) bool {
				return p.Subject == "m3.example.net" && strings.Contains(p.Text, "nothing that it says counts")
			})
		})
		eventually(t, "it may choose m2", func() bool { // once it has seen its certificate
			a := s.ctl(n, "camaster", "set", "m2", "--reason", "theft", "--dns-wait", "0s")
			if a.code == 4 && !containsAll(a.stdout, []string{"acknowledged by 1 of", "m3.example.net may not write"}) {
				t.Errorf("it was acknowledged: %v", a)
			}
			return a.code == 4
		})
		if a := s.ctl(n, "drain", "m1", "--reason", "theft"); a.code != 4 {
			t.Errorf("its drain: %v", a)
		}
		s.untouched()
		n.end(syscall.SIGKILL)
		s.untouched()
	})

	// A client with a certificate of the CA that is not allowed to write.
	t.Run("a certificate that may not", func(t *testing.T) {
		server := "https://ns1.example.net:8153"
		stranger := []string{"--cert", s.path("m2.pem"), "--key", s.path("m2.key"), "--ca", s.path("ca.pem"), "--crl", s.path("crl.pem")}
		for _, args := range [][]string{
			{"camaster", "set", "m3", "--reason", "theft"},
			{"drain", "m1", "--reason", "theft"},
			{"camaster", "set", "m3", "--reason", "theft", "--force"},
		} {
			if a := s.ctlFrom(s.hosts["m2"], server, append(stranger, args...)...); a.code != 6 || !strings.Contains(a.stderr, "m2.example.net") {
				t.Errorf("%v: %v", args, a)
			}
		}
		ns1.says("403", "m2.example.net", "/v1/camaster", "10.1.0.12")
		ns1.says("403", "m2.example.net", "/v1/drains/m1.example.net")
		if a := s.ctlFrom(s.hosts["m2"], server, append(stranger, "status")...); a.code != 0 {
			t.Errorf("it may not read: %v", a)
		}
		s.untouched()
	})

	// A second node with the name and the certificate of one that lives.
	t.Run("a second ns2", func(t *testing.T) {
		h := s.addHost("second", "10.9.0.3")
		n := s.addNode("second", h, "datacenter2", corefile{node: "ns2.example.net", cert: "ns2", ring: "gossip.key"})
		s.start(n)
		eventually(t, "ns1 has refused it", func() bool { return s.metric(ns1, refused, `kind="member_conflict"`) > 0 })
		ns1.says("two members are named", "ns2.example.net", "10.2.0.1", "10.9.0.3")
		for _, m := range s.status(ns1).Nodes {
			if m.Name == "ns2.example.net" && (m.Address != "10.2.0.1:7946" || m.State != "alive") {
				t.Errorf("ns1 has ns2 at %s, %s", m.Address, m.State)
			}
		}
		n.end(syscall.SIGKILL)
		s.until(s.well(), patience)
		s.untouched()
	})

	// A node that is known, with another key.
	t.Run("wrong key", func(t *testing.T) {
		s.write("other.key", newKey(t))
		before := s.metric(ns1, refused, `kind="undecipherable"`)
		h := s.addHost("ns3", "10.2.0.3")
		n := s.addNode("ns3", h, "datacenter2", corefile{node: "ns3.example.net", cert: "ns3", ring: "other.key"})
		s.start(n)
		eventually(t, "ns1 has counted it", func() bool { return s.metric(ns1, refused, `kind="undecipherable"`) > before })
		n.says("joining ns1.example.net")
		for _, n := range []*node{ns1, ns2} {
			if got := state(s.status(n), "ns3.example.net"); got != "unknown" {
				t.Errorf("ns3 is %s for %s", got, n.name)
			}
		}
		if got := len(s.status(n).Nodes); got != 1 {
			t.Errorf("ns3 knows %d nodes, want itself", got)
		}
		n.end(syscall.SIGKILL)
	})
	end()
	s.until(s.well(), patience)

	// Who may, can.
	operator := []string{"--cert", s.path("operator.pem"), "--key", s.path("operator.key"), "--ca", s.path("ca.pem"), "--crl", s.path("crl.pem")}
	if a := s.ctlFrom(s.hosts["m2"], "https://ns2.example.net:8153", append(operator, "camaster", "set", "m3", "--reason", "drill")...); a.code != 0 {
		t.Errorf("the operator: %v", a)
	}
	s.until([]condition{s.camasterEverywhere("m3.example.net", "0.1.ns2.example.net")}, patience)
}
