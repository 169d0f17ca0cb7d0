//go:build linux

package netns_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// wipe empties a node's disk.
func (s *site) wipe(n *node) {
	s.t.Helper()
	if entries, err := os.ReadDir(s.path(n.name, "state")); err != nil || len(entries) == 0 {
		s.t.Fatalf("%s has no state: %v", n.name, err)
	}
	if err := os.RemoveAll(s.path(n.name, "state")); err != nil {
		s.t.Fatal(err)
	}
}

// serves waits until a node answers that host is camaster, and wants that to be the
// first thing that it answers.
func (s *site) serves(n *node, host, version string) {
	s.t.Helper()
	eventually(s.t, n.name+" answers", func() bool {
		_, err := s.ask(n, "puppet-camaster.example.net.", dns.TypeCNAME)
		return err == nil
	})
	if got := s.served(n); got != host {
		s.t.Errorf("%s answers that %s is camaster, want %s", n.name, got, host)
	}
	if c := reads[admin.Camaster](s, n, "camaster"); c.Host != host || c.Version != version {
		s.t.Errorf("%s has the camaster %+v, want %s %s", n.name, c, host, version)
	}
}

// What was written survives the death of all nodes, and a node with an empty disk
// learns it: beside another, and after it was alone with its emptiness.
func TestKilledAndEmpty(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	ns1, ns2 := s.nodes["ns1"], s.nodes["ns2"]
	const host, version = "m3.example.net", "0.1.ns1.example.net"
	s.must(ns2, "drain", "m2", "--reason", "drill")
	drained := map[string][]string{"ns1": {"10 m1", "20 m3", "20 m4", "110 m2"}, "ns2": {"10 m3", "10 m4", "20 m1", "120 m2"}}
	kept := []condition{s.camasterEverywhere(host, version), s.answers(drained), s.met(), s.agreed()}

	// What both have acknowledged is on both disks, whatever happens next.
	a := s.must(ns1, "camaster", "set", host, "--reason", "drill", "--dns-wait", "0s")
	ns1.end(syscall.SIGKILL)
	ns2.end(syscall.SIGKILL)
	if !strings.Contains(a.stdout, "acknowledged by 2 of 2 nodes") {
		t.Errorf("camaster set: %v", a)
	}
	s.start(ns1)
	s.serves(ns1, host, version) // alone, from its own disk
	ns1.end(syscall.SIGKILL)
	s.start(ns2)
	s.serves(ns2, host, version)
	s.start(ns1)
	t.Logf("both are back after %v", last(s.until(kept, patience)).Round(10*time.Millisecond))

	ns2.end(syscall.SIGKILL)
	s.wipe(ns2)
	s.start(ns2)
	t.Logf("an empty disk has learned after %v", last(s.until(kept, patience)).Round(10*time.Millisecond))

	// Alone it knows nothing and answers what is configured; it must not carry that
	// over the link.
	ns2.end(syscall.SIGKILL)
	s.wipe(ns2)
	s.cut()
	s.start(ns2)
	s.serves(ns2, "m1.example.net", "0")
	s.until([]condition{{"its own datacenter", func() bool { return slices.Contains(s.listed(ns2), severed["ns2"][3]) }}}, patience)
	began := time.Now()
	s.net.Heal()
	t.Logf("an empty disk behind a cut has learned %v after it", last(s.since(began, kept, patience)).Round(10*time.Millisecond))

	// And it is on its disk.
	ns1.end(syscall.SIGKILL)
	ns2.end(syscall.SIGKILL)
	s.start(ns2)
	s.serves(ns2, host, version)
}

// A node that comes back at another address is found there: at once, and after it
// was dead.
func TestAnotherAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	ns1, ns2 := s.nodes["ns1"], s.nodes["ns2"]
	first, second := ns2.host, s.net.Host("moved.example.net", "10.2.0.2")
	move := func(to string, dead bool) {
		t.Helper()
		ns2.end(syscall.SIGKILL)
		if dead {
			s.until([]condition{{"dead", func() bool { return state(s.status(ns1), "ns2.example.net") == "dead" }}}, patience)
		}
		if ns2.host = first; to == "10.2.0.2" {
			ns2.host = second
		}
		s.net.Resolve("ns2.example.net", to)
		began := time.Now()
		s.start(ns2)
		after := s.since(began, append(s.well(), condition{"address", func() bool {
			for _, n := range s.status(ns1).Nodes {
				if n.Name == "ns2.example.net" {
					return n.Address == to+":7946"
				}
			}
			return false
		}}), patience)
		t.Logf("dead before: %t; at its new address after %v: %s", dead, last(after).Round(10*time.Millisecond), figures(after))
		if last(after) > 10*time.Second {
			t.Errorf("it took %v", last(after))
		}
	}
	move("10.2.0.2", false)
	s.must(ns1, "camaster", "set", "m3", "--reason", "drill") // acknowledged by both, or it fails
	s.until([]condition{s.camasterEverywhere("m3.example.net", "0.1.ns1.example.net")}, patience)
	move(first.Addr.String(), true)
	s.must(ns2, "camaster", "set", "m1", "--reason", "drill")
	s.until([]condition{s.camasterEverywhere("m1.example.net", "0.2.ns2.example.net")}, patience)
}
