//go:build linux

package netns_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// disaster is what may happen to datacenter1.
type disaster struct {
	s      *memberSite
	p      *sampler
	strike func()
	mend   func()
}

// A datacenter vanishes, with the camaster in it. One command in the other one makes m3 the
// camaster there; what comes back is closed, and is a standby when it is told so.
func TestDisaster(t *testing.T) {
	t.Parallel()
	t.Run("the link is cut", func(t *testing.T) {
		t.Parallel()
		s := newMemberSite(t, masters...)
		d := &disaster{s: s, strike: s.cut, mend: s.net.Heal}
		d.run(t, true)
	})
	t.Run("the power is cut", func(t *testing.T) {
		t.Parallel()
		s := newMemberSite(t, masters...)
		lost := []string{"ns1", "m1", "m2"}
		d := &disaster{s: s, strike: func() { s.off(lost...) }, mend: func() { s.boot(lost...) }}
		d.run(t, false)
	})
}

// run goes through all of it. goesOn says that m1 lives and knows of nothing.
func (d *disaster) run(t *testing.T, goesOn bool) {
	s, ns2 := d.s, d.s.nodes["ns2"]
	for i := range 3 {
		s.signs("m1", fmt.Sprintf("before%d.example.net", i))
	}
	s.until([]condition{s.stands("m1"), s.inStep()}, patience)
	replicated := s.greatest("m3")
	if own := s.greatest("m1"); own != replicated {
		t.Errorf("m1 has signed up to %d, and m3 has up to %d", own, replicated)
	}

	d.strike()
	eventually(t, "ns2 lists the others last, and has given ns1 up", func() bool {
		return listsLost(s.listed(ns2)) && state(s.status(ns2), "ns1.example.net") == "dead"
	})
	d.p = s.sample()
	began := time.Now()
	a := s.must(ns2, "failover", "--to", "m3", "--reason", "datacenter1 is gone")
	took := time.Since(began)
	t.Logf("failover took %v:\n%s", took.Round(time.Millisecond), a.stdout)
	if took > 10*time.Second {
		t.Errorf("failover took %v", took)
	}
	eventually(t, "m3 signs", func() bool { n, _ := d.p.since("m3", began); return n > 0 })
	t.Logf("m3 has signed %v after the command was given", d.first("m3").ended.Sub(began).Round(time.Millisecond))
	if got := s.served(ns2); got != "m3.example.net" {
		t.Errorf("ns2 answers that %s is camaster", got)
	}
	if goesOn {
		// Nobody can tell it.
		from := time.Now()
		eventually(t, "m1 signs, as before", func() bool { n, _ := d.p.since("m1", from); return n > 3 })
		if r := s.role("m1"); r.State != evidence.Open {
			t.Errorf("behind the cut m1 is %s: %s", r.State, r.Reason)
		}
	}

	began = time.Now()
	d.mend()
	version := s.status(ns2).Camaster.Version
	eventually(t, "m1 is closed", func() bool { r := s.role("m1"); return r.State == evidence.Closed && r.Former })
	closed := time.Now()
	t.Logf("m1 is closed %v after all is mended", closed.Sub(began).Round(time.Millisecond))
	if goesOn {
		t.Logf("its last signature was %v after that", d.p.last("m1").ended.Sub(began).Round(time.Millisecond))
	}
	if goesOn && closed.Sub(began) > healed {
		t.Errorf("m1 is closed only %v after the link is back, want %v", closed.Sub(began), healed)
	}
	for _, n := range []*node{s.nodes["ns1"], ns2} {
		eventually(t, n.name+" shows that m1 is closed", func() bool {
			return hasLine(s.ctl(n, "masters").stdout, "m1.example.net", "closed: rejoin makes it a standby")
		})
	}
	t.Logf("all is well again: %s", figures(s.since(began, []condition{s.answers(whole), s.met(), s.camasterEverywhere("m3.example.net", version)}, patience)))
	if n, asked := d.p.since("m1", closed); n > 0 || asked == 0 {
		t.Errorf("closed, m1 has signed %d, and refused %d", n, asked)
	}
	if !goesOn {
		if n, asked := d.p.since("m1", began); n > 0 {
			t.Errorf("m1 has signed %d while it came back, and refused %d", n, asked)
		}
	}
	own := s.greatest("m1")
	if first := d.first("m3").serial; first <= own || first <= replicated+gap {
		t.Errorf("the first serial of m3 is %d; m1 had %d replicated, and %d in all", first, replicated, own)
	} else {
		t.Logf("m1 had %d replicated, %d in all; the first serial of m3 is %d", replicated, own, first)
	}

	a = s.must(s.nodes["ns1"], "rejoin", "m1")
	t.Logf("rejoin:\n%s", a.stdout)
	d.p.stop()
	s.until([]condition{s.stands("m3"), s.inStep()}, patience)
	if a, b := readFile(t, s.path("m1", "ca", "inventory.txt")), readFile(t, s.path("m3", "ca", "inventory.txt")); a != b {
		t.Errorf("m1 has another inventory than m3")
	}
	// What m1 had signed, and m3 does not have, is kept.
	kept, _ := filepath.Glob(s.path("m1", "ca.before-*", "inventory.txt"))
	if goesOn && (len(kept) != 1 || !strings.Contains(readFile(t, kept[0]), fmt.Sprintf("0x%04X ", own))) {
		t.Errorf("the CA that m1 had is kept in %q, without its serial %#x", kept, own)
	}
	d.p.verify()

	p := s.sample()
	a = s.must(s.nodes["ns1"], "switchover", "--to", "m1", "--reason", "home again")
	t.Logf("switchover:\n%s", a.stdout)
	s.until(append(s.well(), s.stands("m1"), p.only("m1")), patience)
	p.verify()
	if first, last := p.signed["m1"][0].serial, p.last("m3").serial; first <= last {
		t.Errorf("the first serial of m1 is %d, and the last one of m3 was %d", first, last)
	}
}

// The camaster dies, and then the next one, before the first is back: that has nothing of
// what the second has signed, and must not use its serials again.
func TestTwoFailovers(t *testing.T) {
	t.Parallel()
	s := newMemberSite(t, "m1", "m3")
	failover := func(at, from, to string, more ...string) (serials []int64) {
		t.Helper()
		s.off(from)
		n := s.nodes[at]
		eventually(t, at+" has given "+from+" up", func() bool {
			m := s.master(n, from)
			return m.Member != nil && m.Member.State == "dead" && down(m) == len(m.Verdicts)
		})
		if to == "m1" {
			s.boot(to)
			eventually(t, at+" sees "+to, func() bool {
				return s.told(n, to) != nil && down(s.master(n, to)) == 0
			})
		}
		s.must(n, append([]string{"failover", "--to", to, "--reason", from + " is lost"}, more...)...)
		for i := range 5 {
			serials = append(serials, s.signs(to, fmt.Sprintf("%s-%d.example.net", to, i)))
		}
		return serials
	}
	second := failover("ns2", "m1", "m3")
	third := failover("ns1", "m3", "m1", "--accept-data-loss", "--force", "--yes")
	t.Logf("m3 has signed %d, then m1 %d", second, third)
	s.unique()
}

// down is in how many datacenters a master is.
func down(m admin.Master) (n int) {
	for _, v := range m.Verdicts {
		if v.Down {
			n++
		}
	}
	return n
}

// first is the first signature of a CA.
func (d *disaster) first(name string) signing {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if all := d.p.signed[name]; len(all) > 0 {
		return all[0]
	}
	return signing{}
}

// listsLost reports whether an answer of datacenter2's has the masters of datacenter1 as
// down.
func listsLost(listed []string) bool {
	return strings.Join(listed, " ") == strings.Join(severed["ns2"], " ")
}

// hasLine reports whether some line has all of these words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		if containsAll(line, words) {
			return true
		}
	}
	return false
}
