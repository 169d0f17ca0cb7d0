package zone_test

import (
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// The link between the datacenters is cut: each sees the other's masters down, and
// its agents get their own first.
func TestEachDatacenterHasItsOwnVerdicts(t *testing.T) {
	w := newWorld()
	p := w.plan(t)
	v := p.NewView(now)
	up, down := health.Verdict{}, health.Verdict{Down: true, Reason: health.ReasonTimeout}
	for i := range v.Masters {
		v.Masters[i].Verdicts = []health.Verdict{up, down}
		if i >= 2 {
			v.Masters[i].Verdicts = []health.Verdict{down, up}
		}
	}
	s := render(p, v)
	for name, want := range map[string]string{
		tiers1: "10 m1 m2, 120 m3 m4",
		tiers2: "10 m3 m4, 120 m1 m2",
		ca1:    "10 m1",
		ca2:    "120 m1",
	} {
		if got := tiers(srvs(t, s, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A certificate that fails in the eyes of one datacenter is left out there alone.
func TestEachDatacenterLeavesOutItsOwn(t *testing.T) {
	w := newWorld()
	p := w.plan(t)
	v := p.NewView(now)
	v.Masters[1].Verdicts = []health.Verdict{{Down: true, Reason: health.ReasonCertificate}, {}}
	s := render(p, v)
	if got, want := tiers(srvs(t, s, tiers1)), "10 m1, 20 m3 m4"; got != want {
		t.Errorf("datacenter1: %s, want %s", got, want)
	}
	if got, want := tiers(srvs(t, s, tiers2)), "10 m3 m4, 20 m1 m2"; got != want {
		t.Errorf("datacenter2: %s, want %s", got, want)
	}
}

// A service name is in its datacenter's domain, and moves when that one says so.
func TestServiceNamesFollowTheirOwnDatacenter(t *testing.T) {
	w := newWorld()
	w.Targets = topology.TargetsService
	p := w.plan(t)
	for dc, moved := range map[int]bool{0: true, 1: false} {
		v := p.NewView(now)
		for i := range v.Masters {
			v.Masters[i].Certificate = &health.Certificate{Names: []string{"*.datacenter1.example.net"}, NotAfter: now, Trusted: true}
			v.Masters[i].Verdicts = make([]health.Verdict, 2)
		}
		v.Masters[1].Verdicts[dc] = health.Verdict{Down: true, Reason: health.ReasonRefused}
		got := values(lookup(render(p, v), "m2.datacenter1.example.net.", dns.TypeA).answer)
		if want := []string{"192.0.2.2"}; slices.Equal(got, want) == moved {
			t.Errorf("down in the eyes of datacenter%d: m2's service name is at %v", dc+1, got)
		}
	}
}

// The register names a master that this Corefile does not: that is what is served.
func TestACamasterThatThisConfigurationDoesNotKnow(t *testing.T) {
	p := newWorld().plan(t)
	v := p.NewView(now)
	v.Camaster = "m9.example.net."
	s := render(p, v)
	if got, want := tiers(srvs(t, s, ca1)), "10 m9"; got != want {
		t.Errorf("%s: %s, want %s", ca1, got, want)
	}
	if a := s.Answer("puppet-camaster.example.net.", dns.TypeCNAME); a == nil || !slices.Equal(values(a.Answer), []string{"m9.example.net."}) {
		t.Errorf("CNAME: %v", a)
	}
	if s.Camaster != "m9.example.net." {
		t.Errorf("Snapshot.Camaster is %s", s.Camaster)
	}
}

// Two nodes whose Corefiles list the same in another order have equal content, so
// that they can have equal serials.
func TestTheOrderOfTheCorefileIsNoContent(t *testing.T) {
	for _, targets := range []topology.Targets{topology.TargetsHost, topology.TargetsService} {
		hashes := make(map[string]bool)
		answers := make(map[string]bool)
		for _, reverse := range []bool{false, true} {
			w := newWorld()
			w.Targets = targets
			if reverse {
				slices.Reverse(w.Masters)
				slices.Reverse(w.Datacenters)
			}
			p := w.plan(t)
			v := p.NewView(now)
			i := slices.IndexFunc(w.Masters, func(m topology.Master) bool { return m.Host == "m2.example.net." })
			v.Masters[i].Verdict.Down = true
			c := p.Render(v)
			hashes[c.Hash("example.net.")] = true
			answers[tiers(srvs(t, render(p, v), tiers2))] = true
		}
		if len(hashes) != 1 || len(answers) != 1 {
			t.Errorf("targets %v: hashes %v, answers %v", targets, hashes, answers)
		}
	}
}
