package zone_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/file"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Answers 1: every in-zone name has a correct authoritative answer.
func TestEveryNameHasAnAnswer(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += `
www             CNAME web
web       3600  A     192.0.2.80
dangling        CNAME nothing.here
active          CNAME puppet-camaster
*.wild    3600  TXT   "from the wildcard"
a.b.c.ent 3600  A     192.0.2.90
sub       3600  NS    ns.sub
ns.sub    3600  A     192.0.2.99
`
	s := w.snapshot(t, nil)
	const (
		soa = "SOA" // what the authority section has
		ns  = "NS"
	)
	for _, tc := range []struct {
		rule   string
		name   string
		qtype  uint16
		result file.Result
		answer string // types in the answer section
		auth   string
	}{
		{"the apex", "example.net.", dns.TypeSOA, file.Success, "SOA", ns},
		{"its name servers", "example.net.", dns.TypeNS, file.Success, "NS", ""},
		{"an address", "web.example.net.", dns.TypeA, file.Success, "A", ns},
		{"no data: SOA", "web.example.net.", dns.TypeAAAA, file.NoData, "", soa},
		{"no such name: SOA", "nobody.example.net.", dns.TypeA, file.NameError, "", soa},
		{"no such name below a name", "nobody.web.example.net.", dns.TypeA, file.NameError, "", soa},
		{"an empty non-terminal of the zone file is no data", "c.ent.example.net.", dns.TypeA, file.Success, "", soa},
		{"and one written here", "_tcp.datacenter1.example.net.", dns.TypeSRV, file.Success, "", soa},
		{"and the datacenter's domain", "datacenter1.example.net.", dns.TypeA, file.Success, "", soa},
		{"an alias in the zone is chased", "www.example.net.", dns.TypeA, file.Success, "A CNAME", ns},
		{"an alias to nothing is no such name", "dangling.example.net.", dns.TypeA, file.Success, "CNAME", ns},
		{"an alias of the camaster is chased", "active.example.net.", dns.TypeA, file.Success, "A CNAME CNAME", ns},
		{"a wildcard", "x.y.wild.example.net.", dns.TypeTXT, file.Success, "TXT", ns},
		{"a wildcard without the type", "x.wild.example.net.", dns.TypeA, file.NoData, "", soa},
		{"a delegation", "x.sub.example.net.", dns.TypeA, file.Delegation, "", ns},
		{"another type at a service name", tiers1, dns.TypeTXT, file.NoData, "", soa},
		{"a service that is not written", "_x-puppet._udp.datacenter1.example.net.", dns.TypeSRV, file.NameError, "", soa},
		{"another type at the camaster is chased", "puppet-camaster.example.net.", dns.TypeAAAA, file.Success, "AAAA CNAME", ns},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			r := lookup(s, tc.name, tc.qtype)
			if r.result != tc.result {
				t.Errorf("result %v, want %v", r.result, tc.result)
			}
			if got := typesOf(r.answer); got != tc.answer {
				t.Errorf("answer section has %q, want %q", got, tc.answer)
			}
			if got := typesOf(r.ns); got != tc.auth {
				t.Errorf("authority section has %q, want %q", got, tc.auth)
			}
		})
	}
}

func typesOf(rrs []dns.RR) string {
	types := make([]string, len(rrs))
	for i, rr := range rrs {
		types[i] = dns.TypeToString[rr.Header().Rrtype]
	}
	slices.Sort(types)
	return strings.Join(types, " ")
}

// Answers 2: demote, do not delete.
func TestTiers(t *testing.T) {
	omit := func(w *world) { w.Unhealthy = topology.Omit }
	far := func(w *world) { w.third(1, 3) }
	for _, tc := range []struct {
		rule   string
		change func(*world)
		b      beliefs
		want   map[string]string
	}{
		{"up-local 10, up-remote 20", nil, nil,
			map[string]string{tiers1: "10 m1 m2, 20 m3 m4", tiers2: "10 m3 m4, 20 m1 m2"}},
		{"ten more for every further step of distance, in both directions", far, nil,
			map[string]string{tiers1: "10 m1 m2, 20 m3 m4 m5", tiers2: "10 m3 m4, 20 m1 m2, 40 m5", tiers3: "10 m5, 20 m1 m2, 40 m3 m4"}},
		{"other priorities", func(w *world) { w.third(2, 3); w.Local, w.Remote = 0, 5 }, beliefs{"m4": "down"},
			map[string]string{tiers1: "0 m1 m2, 5 m3, 15 m5, 105 m4", tiers2: "0 m3, 5 m1 m2, 25 m5, 100 m4"}},
		{"a down master is listed 100 higher", nil, beliefs{"m1": "down"},
			map[string]string{tiers1: "10 m2, 20 m3 m4, 110 m1", tiers2: "10 m3 m4, 20 m2, 120 m1"}},
		{"a drained master is listed 100 higher", nil, beliefs{"m4": "drained"},
			map[string]string{tiers1: "10 m1 m2, 20 m3, 120 m4", tiers2: "10 m3, 20 m1 m2, 110 m4"}},
		{"down and drained is no worse than either", nil, beliefs{"m1": "down drained"},
			map[string]string{tiers1: "10 m2, 20 m3 m4, 110 m1"}},
		{"down ones keep the order of their tiers", far, beliefs{"m1": "down", "m3": "down", "m5": "down"},
			map[string]string{tiers2: "10 m4, 20 m2, 110 m3, 120 m1, 140 m5"}},
		{"a datacenter lost: the others take over", nil, beliefs{"m1": "down", "m2": "down"},
			map[string]string{tiers1: "20 m3 m4, 110 m1 m2", tiers2: "10 m3 m4, 120 m1 m2"}},
		{"everything down: everything is listed, in the usual order", nil, beliefs{"m1": "down", "m2": "down", "m3": "down", "m4": "down"},
			map[string]string{tiers1: "110 m1 m2, 120 m3 m4", tiers2: "110 m3 m4, 120 m1 m2"}},
		{"everything drained", nil, beliefs{"m1": "drained", "m2": "drained", "m3": "drained", "m4": "drained"},
			map[string]string{tiers1: "110 m1 m2, 120 m3 m4"}},
		{"a failing certificate is left out", nil, beliefs{"m1": "badcert"},
			map[string]string{tiers1: "10 m2, 20 m3 m4", tiers2: "10 m3 m4, 20 m2"}},
		{"also where only down ones are left", nil, beliefs{"m1": "badcert", "m2": "down", "m3": "down", "m4": "down"},
			map[string]string{tiers1: "110 m2, 120 m3 m4"}},
		{"unless that would leave nothing", nil, beliefs{"m1": "badcert", "m2": "badcert", "m3": "badcert", "m4": "badcert"},
			map[string]string{tiers1: "110 m1 m2, 120 m3 m4"}},
		{"unhealthy omit: down ones are left out", omit, beliefs{"m1": "down"},
			map[string]string{tiers1: "10 m2, 20 m3 m4", tiers2: "10 m3 m4, 20 m2"}},
		{"unhealthy omit: drained ones too", omit, beliefs{"m3": "drained"},
			map[string]string{tiers1: "10 m1 m2, 20 m4", tiers2: "10 m4, 20 m1 m2"}},
		{"unhealthy omit: unless that would leave nothing", omit, beliefs{"m1": "down", "m2": "drained", "m3": "down", "m4": "drained"},
			map[string]string{tiers1: "110 m1 m2, 120 m3 m4"}},
		{"unhealthy omit: then failing certificates alone stay out", omit, beliefs{"m1": "badcert", "m2": "down", "m3": "down", "m4": "drained"},
			map[string]string{tiers1: "110 m2, 120 m3 m4"}},
		{"unhealthy omit: one left is enough", omit, beliefs{"m1": "down", "m2": "down", "m3": "badcert"},
			map[string]string{tiers1: "20 m4", tiers2: "10 m4"}},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld()
			if tc.change != nil {
				tc.change(w)
			}
			s := w.snapshot(t, tc.b)
			for name, want := range tc.want {
				for _, service := range []string{"_x-puppet", "_x-puppet-report", "_x-puppet-fileserver"} {
					name := strings.Replace(name, "_x-puppet", service, 1)
					if got := tiers(srvs(t, s, name)); got != want {
						t.Errorf("%s: %s, want %s", name, got, want)
					}
				}
			}
		})
	}
}

// A datacenter without masters of its own lists the others.
func TestDatacenterWithoutMasters(t *testing.T) {
	w := newWorld()
	w.Datacenters = append(w.Datacenters, topology.Datacenter{Name: "datacenter3", Domain: "datacenter3.example.net."})
	if got, want := tiers(srvs(t, w.snapshot(t, nil), tiers3)), "20 m1 m2 m3 m4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Answers 3: weights, and what no answer may hold.
func TestRecordsAreSound(t *testing.T) {
	w := newWorld()
	w.Masters[1].Weight, w.Masters[1].Port = 65535, 8141
	w.Masters[3].Weight = 1
	p := w.plan(t)
	for _, b := range []beliefs{
		nil,
		{"m1": "down", "m3": "drained"},
		{"m1": "down", "m2": "down", "m3": "down", "m4": "down"},
		{"m1": "badcert", "m2": "badcert", "m3": "badcert", "m4": "badcert"},
	} {
		s := render(p, b.view(t, p, nil))
		weights := map[string]uint16{"m1.example.net.": 10, "m2.example.net.": 65535, "m3.example.net.": 10, "m4.example.net.": 1}
		ports := map[string]uint16{"m1.example.net.": 8140, "m2.example.net.": 8141, "m3.example.net.": 8140, "m4.example.net.": 8140}
		for _, name := range []string{tiers1, tiers2} {
			seen := make(map[string]bool)
			for _, rr := range srvs(t, s, name) {
				if rr.Weight == 0 || rr.Weight != weights[rr.Target] {
					t.Errorf("%v: weight %d of %s, want the configured %d, never 0", b, rr.Weight, rr.Target, weights[rr.Target])
				}
				if rr.Port == 0 || rr.Port != ports[rr.Target] {
					t.Errorf("%v: port %d of %s, want the configured %d, never 0", b, rr.Port, rr.Target, ports[rr.Target])
				}
				if rr.Target == "." || seen[rr.Target] {
					t.Errorf("%v: target %q, want host names, each once", b, rr.Target)
				}
				seen[rr.Target] = true
			}
		}
	}
}

// Answers 4: the names of a datacenter's domain.
func TestNamesOfADomain(t *testing.T) {
	w := newWorld()
	w.Masters[0].Port = 8141
	w.PuppetDBPort = 8085
	s := w.snapshot(t, nil)
	for _, dc := range []string{"datacenter1", "datacenter2"} {
		local := map[string]string{"datacenter1": "10 m1 m2, 20 m3 m4", "datacenter2": "10 m3 m4, 20 m1 m2"}[dc]
		ca := map[string]string{"datacenter1": "10 m1", "datacenter2": "20 m1"}[dc]
		for service, want := range map[string]string{
			"_x-puppet": local, "_x-puppet-report": local, "_x-puppet-fileserver": local,
			"_x-puppet-ca": ca, "_x-puppet-db": ca,
		} {
			name := service + "._tcp." + dc + ".example.net."
			rrs := srvs(t, s, name)
			if got := tiers(rrs); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			port := map[string]uint16{"_x-puppet-ca": 8141, "_x-puppet-db": 8085}[service]
			if port != 0 && rrs[0].Port != port {
				t.Errorf("%s: port %d, want %d", name, rrs[0].Port, port)
			}
		}
	}
}

// Answers 4: where the CA's records and the CNAME point.
func TestCamaster(t *testing.T) {
	alias := func(w *world) { w.CATarget = topology.CATargetCamaster }
	service := func(w *world) { w.Targets = topology.TargetsService }
	all := func(what string) beliefs { return beliefs{"m1": what, "m2": what, "m3": what, "m4": what} }
	for _, tc := range []struct {
		rule     string
		change   func(*world)
		b        beliefs
		camaster string // of the view; "" is the configured one
		ca       string // _x-puppet-ca of datacenter1
		cname    string
	}{
		{"the configured camaster's own host name", nil, nil, "", "10 m1", "m1"},
		{"moved: everywhere, at the priority of its distance", nil, nil, "m3.example.net.", "20 m3", "m3"},
		{"the CNAME as target", alias, nil, "", "10 puppet-camaster", "m1"},
		{"the CNAME as target, moved", alias, nil, "m3.example.net.", "20 puppet-camaster", "m3"},
		{"down: it does not move by itself, and is still listed", nil, beliefs{"m1": "down"}, "", "110 m1", "m1"},
		{"drained: still listed", nil, beliefs{"m1": "drained"}, "", "110 m1", "m1"},
		{"its certificate fails: never empty", nil, beliefs{"m1": "badcert"}, "", "110 m1", "m1"},
		{"everything down: never empty", nil, all("down"), "", "110 m1", "m1"},
		{"every certificate fails: never empty", nil, all("badcert"), "", "110 m1", "m1"},
		{"unhealthy omit does not omit the camaster", func(w *world) { w.Unhealthy = topology.Omit }, beliefs{"m1": "down"}, "", "110 m1", "m1"},
		{"service names are not for the CA: no stand-in", service, beliefs{"m1": "down"}, "", "110 m1", "m1"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld()
			if tc.change != nil {
				tc.change(w)
			}
			p := w.plan(t)
			v := tc.b.view(t, p, nil)
			v.Camaster = tc.camaster
			s := render(p, v)
			for _, name := range []string{ca1, strings.Replace(ca1, "-ca", "-db", 1)} {
				rrs := srvs(t, s, name)
				if got := tiers(rrs); got != tc.ca {
					t.Errorf("%s: %s, want %s", name, got, tc.ca)
				}
				for _, rr := range rrs {
					if strings.Contains(rr.Target, "datacenter") {
						t.Errorf("%s has target %s: a service name", name, rr.Target)
					}
				}
			}
			want := []string{tc.cname + ".example.net."}
			if a := s.Answer(w.CamasterName, dns.TypeCNAME); a == nil || !slices.Equal(values(a.Answer), want) {
				t.Errorf("%s CNAME: %v, want %v", w.CamasterName, a, want)
			}
			if s.Camaster != want[0] {
				t.Errorf("Snapshot.Camaster is %s, want %s", s.Camaster, want[0])
			}
			r := lookup(s, w.CamasterName, dns.TypeA)
			if got := typesOf(r.answer); got != "A CNAME" {
				t.Errorf("%s A has %q, want the CNAME and the address", w.CamasterName, got)
			}
		})
	}
}

// Answers 4: what the CNAME's addresses are says the zone, wherever its host is.
// A secondary of the zone, which has no prebuilt answers, says the same.
func TestCamasterAddresses(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		file   string
		result file.Result
		answer string
	}{
		{"its host's address", exampleNet, file.Success, "A CNAME"},
		{"its host is there without address: no data", apex + "m1 TXT here\n", file.Success, "CNAME"},
		{"its host is known through a wildcard", apex + "* 3600 A 192.0.2.200\n", file.Success, "CNAME"},
		{"its host is not there at all", apex, file.Success, "CNAME"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld()
			w.files["example.net."] = tc.file
			s := w.snapshot(t, nil)
			r := lookup(s, w.CamasterName, dns.TypeA)
			if r.result != tc.result || typesOf(r.answer) != tc.answer {
				t.Fatalf("plugin/file: %v %q, want %v %q", r.result, typesOf(r.answer), tc.result, tc.answer)
			}
			a := s.Answer(w.CamasterName, dns.TypeA)
			exists := tc.file != apex && !strings.Contains(tc.file, "*")
			if !exists && a != nil {
				// The chase ends at a name that the zone does not hold as such: a
				// wildcard's data, or NXDOMAIN (RFC 6604), which no prebuilt answer
				// can say.
				t.Errorf("prebuilt answer %v with authority %v: want none, so that plugin/file follows the alias", values(a.Answer), typesOf(a.Ns))
			}
			if exists && (a == nil || !slices.Equal(texts(a.Answer), texts(r.answer))) {
				t.Errorf("prebuilt answer %v, want %v", a, texts(r.answer))
			}
		})
	}
}

// reply is the message that goes out with an answer fitted to size: compressed, as
// the server does when it is tight.
func reply(qname string, qtype uint16, a *zone.Answer, size int) (m *dns.Msg, cut bool) {
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	m = new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	m.Answer, m.Ns, m.Extra, cut = a.Fit(size)
	return m, cut
}

// packed is the length of m on the wire.
func packed(t testing.TB, m *dns.Msg) int {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

// crowd is a world with local masters in datacenter1 and remote ones in
// datacenter2, each with an address.
func crowd(local, remote int) *world {
	w := newWorld()
	w.Masters = nil
	var b strings.Builder
	b.WriteString(apex)
	for i := range local + remote {
		dc := "datacenter1"
		if i >= local {
			dc = "datacenter2"
		}
		m := master(fmt.Sprintf("master%03d", i+1), dc)
		m.CA = true
		w.Masters = append(w.Masters, m)
		fmt.Fprintf(&b, "master%03d 3600 A 192.0.%d.%d\n", i+1, 2+i/250, i%250+1)
	}
	w.Camaster = w.Masters[0].Host
	w.files["example.net."] = b.String()
	return w
}

// Answers 5: what is given up, in which order, to fit the client's buffer.
func TestAnswersFit(t *testing.T) {
	names := func(rrs []dns.RR) (local, remote int) {
		for _, rr := range rrs {
			if rr.(*dns.SRV).Priority == 10 {
				local++
			} else {
				remote++
			}
		}
		return local, remote
	}
	for _, tc := range []struct {
		rule          string
		local, remote int
		size          int
		wantLocal     int
		cutRemote     bool // some of the remote tier is gone
		addresses     string
		fits          bool
	}{
		{"a small answer is whole", 2, 2, dns.MinMsgSize, 2, false, "all", true},
		{"addresses are dropped before any target", 5, 4, dns.MinMsgSize, 5, false, "some", true},
		{"then targets of the last tier", 4, 12, dns.MinMsgSize, 4, true, "none", true},
		{"a large buffer takes everything", 4, 12, 4096, 4, false, "all", true},
		{"never within the up-local tier: that is for TC", 20, 5, dns.MinMsgSize, 20, true, "none", false},
		{"the up-local tier alone", 20, 0, dns.MinMsgSize, 20, false, "none", false},
		{"only remote masters: at least one", 0, 40, dns.MinMsgSize, 0, true, "none", true},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := crowd(tc.local, tc.remote)
			s := w.snapshot(t, nil)
			m, cut := reply(tiers1, dns.TypeSRV, s.Answer(tiers1, dns.TypeSRV), tc.size)
			local, remote := names(m.Answer)
			if local != tc.wantLocal {
				t.Errorf("%d of the up-local tier, want all %d", local, tc.wantLocal)
			}
			if got := remote < tc.remote; got != tc.cutRemote || got != cut {
				t.Errorf("%d of %d remote ones and cut %v, want some missing: %v", remote, tc.remote, cut, tc.cutRemote)
			}
			if local+remote == 0 {
				t.Error("the answer is empty")
			}
			have := "some"
			switch len(m.Extra) {
			case 0:
				have = "none"
			case tc.local + tc.remote:
				have = "all"
			}
			if have != tc.addresses {
				t.Errorf("%s of the addresses, want %s", have, tc.addresses)
			}
			if got := packed(t, m) <= tc.size; got != tc.fits {
				t.Errorf("%d bytes for a buffer of %d", packed(t, m), tc.size)
			}
		})
	}
}

// Answers 5: the last tier goes first. Each tier is whole before the next begins.
func TestTheLastTierIsCutFirst(t *testing.T) {
	w := crowd(2, 30).third(1, 1)
	for i := range w.Masters { // tiers of datacenter1: 2 at 10, 10 at 20, 10 at 30, rest at 110 and 120
		if i >= 12 && i < 22 {
			w.Masters[i].Datacenter = "datacenter3"
		}
	}
	w.Distances = map[topology.Pair]int{topology.PairOf("datacenter1", "datacenter3"): 2}
	p := w.plan(t)
	b := beliefs{"master002": "down"}
	for i := 22; i < 32; i++ {
		b[fmt.Sprintf("master%03d", i+1)] = "down"
	}
	s := render(p, b.view(t, p, nil))
	for _, name := range []string{tiers1, tiers2, tiers3} {
		a := s.Answer(name, dns.TypeSRV)
		whole := make(map[uint16]int)
		for _, rr := range a.Answer {
			whole[rr.(*dns.SRV).Priority]++
		}
		for size := 40; size < 3000; size += 7 {
			m, _ := reply(name, dns.TypeSRV, a, size)
			got := make(map[uint16]int)
			var last uint16
			for _, rr := range m.Answer {
				got[rr.(*dns.SRV).Priority]++
				last = max(last, rr.(*dns.SRV).Priority)
			}
			for prio, n := range whole {
				if prio < last && got[prio] < n {
					t.Fatalf("%s in %d bytes: %d of %d at priority %d, but %d at %d", name, size, got[prio], n, prio, got[last], last)
				}
			}
		}
	}
}

// Answers 5: where not all the last tier fits, datacenters leave out different
// masters, so that none is left out everywhere.
func TestDatacentersCutDifferently(t *testing.T) {
	w := crowd(2, 40)
	for i := range 6 {
		name := fmt.Sprintf("place%d", i)
		w.Datacenters = append(w.Datacenters, topology.Datacenter{Name: name, Domain: name + ".example.net."})
	}
	s := w.snapshot(t, nil)
	seen := make(map[string]bool)
	for i := range 6 {
		name := fmt.Sprintf("_x-puppet._tcp.place%d.example.net.", i)
		m, _ := reply(name, dns.TypeSRV, s.Answer(name, dns.TypeSRV), dns.MinMsgSize)
		seen[tiers([]*dns.SRV{m.Answer[0].(*dns.SRV)})] = true
	}
	if len(seen) < 2 {
		t.Errorf("six datacenters all begin with %v", seen)
	}
}

// Answers 5: what Fit believes of a length is never too little, and right to the
// byte for what matters: an answer is cut neither too late nor too early.
func TestFitKnowsTheLength(t *testing.T) {
	worlds := map[string]*world{
		"standard": newWorld(),
		"crowd":    crowd(5, 20),
		"services": func() *world { w := newWorld(); w.Targets = topology.TargetsService; return w }(),
		"outside": func() *world {
			w := newWorld()
			w.Masters[1].Host, w.Masters[3].Host = "puppet.other.example.", "m4.deep.down.in.the.other.example."
			return w
		}(),
		"own zone": func() *world { return ownZone(newWorld()) }(),
	}
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			s := w.snapshot(t, beliefs{})
			for _, d := range w.Datacenters {
				for _, service := range []string{"_x-puppet", "_x-puppet-fileserver", "_x-puppet-ca"} {
					qname := service + "._tcp." + d.Domain
					fitsExactly(t, qname, s.Answer(qname, dns.TypeSRV))
				}
			}
			for _, name := range []string{w.CamasterName, w.Masters[0].Host} {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
					if a := s.Answer(name, qtype); a != nil {
						neverTooLong(t, name, qtype, a)
					}
				}
			}
		})
	}
}

func neverTooLong(t *testing.T, qname string, qtype uint16, a *zone.Answer) {
	t.Helper()
	least, _ := reply(qname, qtype, a, 0)
	for size := least.Len(); size < 5000; size++ {
		m, _ := reply(qname, qtype, a, size)
		if n := packed(t, m); n > size {
			t.Fatalf("%s: %d bytes for a buffer of %d", qname, n, size)
		}
	}
}

// fitsExactly checks each step on which Fit gives more, at the very size from
// which it is possible.
func fitsExactly(t *testing.T, qname string, a *zone.Answer) {
	t.Helper()
	neverTooLong(t, qname, dns.TypeSRV, a)
	targets, sets := 0, 0
	for size := 0; size < 5000; size++ {
		m, _ := reply(qname, dns.TypeSRV, a, size)
		if len(m.Ns) > 0 {
			break // only a bound
		}
		if n := len(m.Answer); n > targets && targets > 0 && m.Len() != size {
			t.Errorf("%s: target %d is given from %d bytes, but needs %d", qname, n, size, m.Len())
		}
		if n := len(m.Extra); n > sets && m.Len() != size {
			t.Errorf("%s: address %d is given from %d bytes, but needs %d", qname, n, size, m.Len())
		}
		targets, sets = len(m.Answer), len(m.Extra)
	}
	if targets != len(a.Answer) || sets != len(a.Extra) {
		t.Errorf("%s: %d targets and %d addresses before the authority section, want all %d and %d", qname, targets, sets, len(a.Answer), len(a.Extra))
	}
}

// Beyond 16 KiB names cannot be pointed at; the bound still holds.
func TestFitKnowsTheLengthOfHugeAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("large")
	}
	w := crowd(100, 500)
	s := w.snapshot(t, nil)
	for qname, local := range map[string]int{tiers1: 100, tiers2: 500} {
		a := s.Answer(qname, dns.TypeSRV)
		for _, size := range []int{512, 1232, 4096, 16000, 16384, 16500, 20000, 30000, 40000, 45000, 46000, 47000, 48000, 60000, dns.MaxMsgSize} {
			m, _ := reply(qname, dns.TypeSRV, a, size)
			if len(m.Answer) == local {
				continue // the up-local tier, which is not cut
			}
			if n := packed(t, m); n > size {
				t.Errorf("%s: %d bytes for a buffer of %d", qname, n, size)
			}
		}
	}
}

// Addresses of a target come whole or not at all: half a set would be cached as
// the set.
func TestAddressSetsAreWhole(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += "m2 3600 AAAA 2001:db8::2\nm3 3600 AAAA 2001:db8::3\nm3 3600 A 192.0.2.33\n"
	s := w.snapshot(t, nil)
	a := s.Answer(tiers1, dns.TypeSRV)
	want := make(map[string]int)
	for _, rr := range a.Extra {
		want[rr.Header().Name]++
	}
	if want["m1.example.net."] != 2 || want["m3.example.net."] != 3 {
		t.Fatalf("additional section %v: want every address of every target", texts(a.Extra))
	}
	for size := 0; size < 1000; size++ {
		m, _ := reply(tiers1, dns.TypeSRV, a, size)
		got := make(map[string]int)
		for _, rr := range m.Extra {
			got[rr.Header().Name]++
		}
		for name, n := range got {
			if n != want[name] {
				t.Fatalf("in %d bytes %d addresses of %s, want all %d or none", size, n, name, want[name])
			}
		}
		if len(m.Extra) > 0 && len(m.Answer) < len(a.Answer) {
			t.Fatalf("in %d bytes addresses, but not all targets", size)
		}
	}
}

// Answers 7: TTLs.
func TestTTL(t *testing.T) {
	for _, tc := range []struct {
		rule     string
		ttl      uint32
		soa      string // TTL and MINIMUM in the zone file
		negative uint32 // the wanted negative TTL, RFC 2308
		wantTTL  uint32
		wantMin  uint32
	}{
		{"small ones are kept", 60, "30 15", 15, 30, 15},
		{"large ones are held down to the TTL", 5, "3600 86400", 5, 5, 5},
		{"one of them large", 5, "1 86400", 1, 1, 5},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld()
			w.ttl = tc.ttl
			ttl, minimum, _ := strings.Cut(tc.soa, " ")
			w.files["example.net."] = strings.Replace(exampleNet, "3600 SOA ns1 hostmaster 7 1800 600 1209600 5",
				ttl+" SOA ns1 hostmaster 7 1800 600 1209600 "+minimum, 1)
			s := w.snapshot(t, nil)
			for _, name := range []string{tiers1, ca2, "_x-puppet-db._tcp.datacenter2.example.net."} {
				for _, rr := range srvs(t, s, name) {
					if rr.Hdr.Ttl != tc.ttl {
						t.Errorf("TTL %d: %v", tc.ttl, rr)
					}
				}
			}
			if a := s.Answer(w.CamasterName, dns.TypeCNAME); a.Answer[0].Header().Ttl != tc.ttl {
				t.Errorf("want TTL %d: %v", tc.ttl, a.Answer[0])
			}
			for _, name := range []string{"nobody.example.net.", "m2.example.net.", "_tcp.datacenter1.example.net."} {
				for _, rr := range lookup(s, name, dns.TypeAAAA).ns {
					soa := rr.(*dns.SOA)
					if got := min(soa.Hdr.Ttl, soa.Minttl); got != tc.negative || got > tc.ttl {
						t.Errorf("%s: negative TTL %d, want %d: %v", name, got, tc.negative, soa)
					}
					if soa.Hdr.Ttl != tc.wantTTL || soa.Minttl != tc.wantMin { // there are resolvers for either
						t.Errorf("%s: TTL %d and MINIMUM %d, want %d and %d", name, soa.Hdr.Ttl, soa.Minttl, tc.wantTTL, tc.wantMin)
					}
				}
			}
			if a := s.Answer("m2.example.net.", dns.TypeAAAA); min(a.Ns[0].Header().Ttl, a.Ns[0].(*dns.SOA).Minttl) != tc.negative {
				t.Errorf("prebuilt negative answer with %v, want a negative TTL of %d", a.Ns[0], tc.negative)
			}
			if a := s.Answer("m2.example.net.", dns.TypeA); a.Answer[0].Header().Ttl != 3600 {
				t.Errorf("the zone file's TTLs are its own: %v", a.Answer[0])
			}
		})
	}
}

// Answers 7: the serial is the one given, in every place that shows it.
func TestSerial(t *testing.T) {
	p := newWorld().plan(t)
	if got := p.FileSerial("example.net."); got != 7 {
		t.Errorf("the zone file's serial is %d, want 7", got)
	}
	s := p.Render(p.NewView(now)).Snapshot(map[string]uint32{"example.net.": 4294967295})
	if got := s.Zones["example.net."].Serial; got != 4294967295 {
		t.Errorf("serial %d", got)
	}
	for _, rr := range append(lookup(s, "example.net.", dns.TypeSOA).answer, lookup(s, "nobody.example.net.", dns.TypeA).ns...) {
		if rr.(*dns.SOA).Serial != 4294967295 {
			t.Errorf("%v", rr)
		}
	}
}

// Answers 7: content is equal exactly if its hash is; the serial is no content.
func TestHashFollowsContent(t *testing.T) {
	w := ownZone(newWorld())
	p := w.plan(t)
	base := p.Render(p.NewView(now))
	const parent, child = "example.net.", "datacenter2.example.net."
	for _, tc := range []struct {
		what                        string
		view                        func(*zone.View)
		parentChanges, childChanges bool
	}{
		{"nothing", func(*zone.View) {}, false, false},
		{"another time", func(v *zone.View) { v.Now = now.Add(time.Hour) }, false, false},
		{"another reason of being up", func(v *zone.View) { v.Masters[0].Verdict.Since = now }, false, false},
		{"a certificate seen", func(v *zone.View) { v.Masters[0].Certificate = &health.Certificate{Trusted: true} }, false, false},
		{"a master down: in every datacenter", func(v *zone.View) { v.Masters[3].Verdict.Down = true }, true, true},
		{"the camaster moved", func(v *zone.View) { v.Camaster = "m3.example.net." }, true, true},
		{"a camaster nobody knows", func(v *zone.View) { v.Camaster = "m9.example.net." }, true, true},
		{"down in the eyes of datacenter2 alone", func(v *zone.View) {
			v.Masters[3].Verdicts = []health.Verdict{{}, {Down: true}}
		}, false, true},
	} {
		t.Run(tc.what, func(t *testing.T) {
			v := p.NewView(now)
			tc.view(&v)
			c := p.Render(v)
			for origin, want := range map[string]bool{parent: tc.parentChanges, child: tc.childChanges} {
				if got := c.Hash(origin) != base.Hash(origin); got != want {
					t.Errorf("hash of %s changes: %v, want %v", origin, got, want)
				}
			}
		})
	}
}

// What is configured is content too: a node that restarts with another
// configuration needs another serial, or its secondaries keep the old records.
func TestHashFollowsConfiguration(t *testing.T) {
	services := func() *world { // the service names stand in a zone without anything else written
		w := newWorld()
		w.Targets = topology.TargetsService
		for i, name := range []string{"s1", "s2", "s3", "s4"} {
			w.Masters[i].Service = name + ".svc.example."
		}
		w.files["svc.example."] = "@ 1 SOA ns1.example.net. hostmaster 7 1800 600 1209600 1\n@ 3600 NS ns1.example.net.\n"
		return w
	}
	for _, tc := range []struct {
		what   string
		base   func() *world
		change func(*world)
		origin string
	}{
		{"the TTL", newWorld, func(w *world) { w.ttl = 6 }, "example.net."},
		{"the TTL of service names", services, func(w *world) { w.ttl = 6 }, "svc.example."},
		{"a service name's address", services, func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "192.0.2.4", "192.0.2.44", 1)
		}, "svc.example."},
		{"a weight", newWorld, func(w *world) { w.Masters[2].Weight = 11 }, "example.net."},
		{"a port", newWorld, func(w *world) { w.Masters[2].Port = 8141 }, "example.net."},
		{"PuppetDB's port", newWorld, func(w *world) { w.PuppetDBPort = 8085 }, "example.net."},
		{"the CA's target", newWorld, func(w *world) { w.CATarget = topology.CATargetCamaster }, "example.net."},
		{"a priority", newWorld, func(w *world) { w.Remote = 30 }, "example.net."},
		{"a static record", newWorld, func(w *world) { w.files["example.net."] += "new TXT new\n" }, "example.net."},
		{"a name server", newWorld, func(w *world) { w.files["example.net."] += "@ NS ns2.example.com.\n" }, "example.net."},
		{"the SOA's timers", newWorld, func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "1800", "1801", 1)
		}, "example.net."},
	} {
		t.Run(tc.what, func(t *testing.T) {
			old, changed := tc.base(), tc.base()
			tc.change(changed)
			hash := func(w *world) string { p := w.plan(t); return p.Render(p.NewView(now)).Hash(tc.origin) }
			if hash(old) == hash(changed) {
				t.Errorf("another configuration has the same hash, and would be published under the same serial:\n%s\n%s",
					strings.Join(transfer(t, old.snapshot(t, nil).Zones[tc.origin], false), "\n"),
					strings.Join(transfer(t, changed.snapshot(t, nil).Zones[tc.origin], false), "\n"))
			}
			if hash(old) != hash(tc.base()) {
				t.Error("the same configuration has two hashes")
			}
		})
	}
	t.Run("the serial is no content", func(t *testing.T) {
		w := newWorld()
		w.files["example.net."] = strings.Replace(exampleNet, "hostmaster 7", "hostmaster 8", 1)
		a, b := newWorld().plan(t), w.plan(t)
		if a.Render(a.NewView(now)).Hash("example.net.") != b.Render(b.NewView(now)).Hash("example.net.") {
			t.Error("a zone file with another serial alone has another hash")
		}
	})
}

// serviceCerts are certificates that cover every service name.
func serviceCerts(hosts ...string) map[string][]string {
	certs := make(map[string][]string)
	for _, h := range hosts {
		certs[h] = []string{"*.datacenter1.example.net", "*.datacenter2.example.net", "*.datacenter3.example.net"}
	}
	return certs
}

// Answers 8: service names bring back the run that was already under way.
func TestStandIns(t *testing.T) {
	everyone := serviceCerts("m1", "m2", "m3", "m4", "m5")
	only := func(host string, names ...string) map[string][]string {
		return map[string][]string{host: names}
	}
	for _, tc := range []struct {
		rule  string
		b     beliefs
		certs map[string][]string
		want  map[string]string // whose addresses the service name has
	}{
		{"its own while it is up", nil, everyone, map[string]string{"m1": "m1", "m2": "m2", "m3": "m3", "m4": "m4", "m5": "m5"}},
		{"while it is down, an up master's of its own datacenter", beliefs{"m1": "down"}, everyone, map[string]string{"m1": "m2", "m2": "m2"}},
		{"else of the nearest tier", beliefs{"m1": "down", "m2": "down"}, everyone, map[string]string{"m1": "m5", "m2": "m5"}},
		{"else of the next", beliefs{"m3": "down", "m4": "down", "m1": "down", "m2": "down"}, everyone, map[string]string{"m3": "m5", "m4": "m5"}},
		{"a failing certificate is down", beliefs{"m1": "badcert"}, everyone, map[string]string{"m1": "m2"}},
		{"a drained master keeps its runs", beliefs{"m1": "drained"}, everyone, map[string]string{"m1": "m1"}},
		{"a drained master is no stand-in", beliefs{"m1": "down", "m2": "drained"}, everyone, map[string]string{"m1": "m5"}},
		{"a down one is none", beliefs{"m1": "down", "m2": "down", "m5": "down"}, serviceCerts("m2", "m3", "m5"), map[string]string{"m1": "m3"}},
		{"a master whose certificate lacks the name is none", beliefs{"m1": "down"}, serviceCerts("m3"), map[string]string{"m1": "m3"}},
		{"nor one whose certificate was never seen", beliefs{"m1": "down"}, nil, map[string]string{"m1": "m1"}},
		{"the name itself is enough", beliefs{"m1": "down", "m2": "down"}, only("m3", "m3.example.net", "m1.datacenter1.example.net"), map[string]string{"m1": "m3", "m2": "m2"}},
		{"a wildcard covers one label, not the domain", beliefs{"m1": "down"}, only("m2", "*.example.net"), map[string]string{"m1": "m1"}},
		{"without any, its own", beliefs{"m1": "down", "m2": "down", "m3": "down", "m4": "down", "m5": "down"}, everyone, map[string]string{"m1": "m1", "m5": "m5"}},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld().third(1, 1) // from datacenter1: datacenter3 at 20, datacenter2 at 40
			w.Distances[topology.PairOf("datacenter1", "datacenter2")] = 3
			w.Targets = topology.TargetsService
			p := w.plan(t)
			s := render(p, tc.b.view(t, p, tc.certs))
			for short, whose := range tc.want {
				m := w.Master(short + ".example.net.")
				own := w.Master(whose + ".example.net.")
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
					want := values(lookup(s, own.Host, qtype).answer)
					got := s.Answer(m.Service, qtype)
					if got == nil || !slices.Equal(values(got.Answer), want) || !slices.Equal(texts(got.Answer), texts(lookup(s, m.Service, qtype).answer)) {
						t.Errorf("%s: %v, want the addresses of %s: %v", m.Service, got, whose, want)
					}
					for _, rr := range got.Answer {
						if rr.Header().Ttl != w.ttl || rr.Header().Name != m.Service {
							t.Errorf("%v: want owner %s and TTL %d", rr, m.Service, w.ttl)
						}
					}
				}
				if got := values(s.Answer(m.Host, dns.TypeA).Answer); !slices.Equal(got, values(lookup(s, m.Host, dns.TypeA).answer)) {
					t.Errorf("%s itself has moved to %v", m.Host, got)
				}
			}
		})
	}
}

// Answers 8: a certificate counts only while it is trusted and not expired.
func TestStandInsCertificateMustBeGood(t *testing.T) {
	w := newWorld()
	w.Targets = topology.TargetsService
	p := w.plan(t)
	names := []string{"m1.datacenter1.example.net"}
	for _, tc := range []struct {
		rule string
		cert health.Certificate
		want string
	}{
		{"good", health.Certificate{Names: names, Trusted: true, NotAfter: now.Add(time.Minute)}, "192.0.2.2"},
		{"expired", health.Certificate{Names: names, Trusted: true, NotAfter: now.Add(-time.Minute)}, "192.0.2.1"},
		{"of another CA", health.Certificate{Names: names, NotAfter: now.Add(time.Minute)}, "192.0.2.1"},
		{"of another name", health.Certificate{Names: []string{"m2.datacenter1.example.net"}, Trusted: true, NotAfter: now.Add(time.Minute)}, "192.0.2.1"},
	} {
		v := beliefs{"m1": "down"}.view(t, p, nil)
		v.Masters[1].Certificate = &tc.cert
		s := render(p, v)
		if got := values(s.Answer("m1.datacenter1.example.net.", dns.TypeA).Answer); !slices.Equal(got, []string{tc.want}) {
			t.Errorf("%s: %v, want %s", tc.rule, got, tc.want)
		}
	}
}

// Answers 8: with service names the tiers list those, with their addresses; the
// CA has the host's own name and the host's own addresses, stand-in or not.
func TestServiceTargets(t *testing.T) {
	w := newWorld()
	w.Targets = topology.TargetsService
	p := w.plan(t)
	s := render(p, beliefs{"m1": "down"}.view(t, p, serviceCerts("m2")))
	var targets []string
	for _, rr := range srvs(t, s, tiers1) {
		targets = append(targets, fmt.Sprint(rr.Priority, " ", rr.Target))
	}
	want := []string{
		"10 m2.datacenter1.example.net.", "20 m3.datacenter2.example.net.", "20 m4.datacenter2.example.net.", "110 m1.datacenter1.example.net.",
	}
	if !slices.Equal(targets, want) {
		t.Errorf("targets %v, want %v", targets, want)
	}
	extra := texts(s.Answer(tiers1, dns.TypeSRV).Extra)
	if !slices.Contains(extra, "m1.datacenter1.example.net.\t5\tIN\tA\t192.0.2.2") {
		t.Errorf("the additional section has not the stand-in's address: %v", extra)
	}
	if ca := srvs(t, s, ca1); tiers(ca) != "110 m1" || ca[0].Target != "m1.example.net." {
		t.Errorf("_x-puppet-ca is %v, want the host's own name", ca)
	}
	if got := values(s.Answer(ca1, dns.TypeSRV).Extra); !slices.Equal(got, []string{"192.0.2.1", "2001:db8::1"}) {
		t.Errorf("_x-puppet-ca comes with %v, want the host's own addresses", got)
	}
}

// Answers 8: two dead masters' runs do not both fall on the same stand-in, if
// there is a choice. That is a spread, not a promise for every two.
func TestStandInsAreSpread(t *testing.T) {
	w := crowd(20, 0)
	w.Targets = topology.TargetsService
	certs := make(map[string][]string)
	b := make(beliefs)
	for i, m := range w.Masters {
		short, _, _ := strings.Cut(m.Host, ".")
		if i < 10 {
			b[short] = "down"
		} else {
			certs[short] = []string{"*.datacenter1.example.net"}
		}
	}
	p := w.plan(t)
	s := render(p, b.view(t, p, certs))
	used := make(map[string]bool)
	for _, m := range w.Masters[:10] {
		used[fmt.Sprint(values(s.Answer(m.Service, dns.TypeA).Answer))] = true
	}
	if len(used) < 4 {
		t.Errorf("ten dead masters have only %d stand-ins of ten", len(used))
	}
}

// ownZone serves datacenter2's domain as a zone of its own.
func ownZone(w *world) *world {
	w.files["datacenter2.example.net."] = `
@    3600 SOA ns hostmaster 9 1800 600 1209600 5
@    3600 NS  ns
@    3600 NS  ns1.example.net.
ns   3600 A   192.0.2.54
ns   3600 AAAA 2001:db8::54
`
	return w
}

// Answers 9: a datacenter's domain is a name in a zone, or a zone of its own,
// with the zone above served here as well or not.
func TestDatacenterDomains(t *testing.T) {
	const child = "datacenter2.example.net."
	t.Run("a name in a zone", func(t *testing.T) {
		s := newWorld().snapshot(t, nil)
		if z := s.Match(tiers2); z == nil || z.Origin != "example.net." {
			t.Errorf("%s is in %v", tiers2, z)
		}
		if got := s.Datacenter(tiers2); got != "datacenter2" {
			t.Errorf("%s is of datacenter %q", tiers2, got)
		}
	})
	t.Run("a zone of its own, its parent served too", func(t *testing.T) {
		s := ownZone(newWorld()).snapshot(t, nil)
		if z := s.Match(tiers2); z == nil || z.Origin != child || z.Parent != s.Zones["example.net."] {
			t.Fatalf("%s is in %+v", tiers2, z)
		}
		if got := tiers(srvs(t, s, tiers2)); got != "10 m3 m4, 20 m1 m2" {
			t.Errorf("datacenter2: %s", got)
		}
		if got := tiers(srvs(t, s, tiers1)); got != "10 m1 m2, 20 m3 m4" {
			t.Errorf("datacenter1: %s", got)
		}
		// The authority section names the zone that answers.
		for _, rr := range s.Answer(tiers2, dns.TypeSRV).Ns {
			if rr.Header().Name != child {
				t.Errorf("authority %v", rr)
			}
		}
		// The parent points at the child, with glue, and has none of its names:
		// what a secondary of the parent gets.
		records := transfer(t, s.Zones["example.net."], true)
		for _, want := range []string{
			child + "\t3600\tIN\tNS\tns." + child,
			child + "\t3600\tIN\tNS\tns1.example.net.",
			"ns." + child + "\t3600\tIN\tA\t192.0.2.54",
			"ns." + child + "\t3600\tIN\tAAAA\t2001:db8::54",
		} {
			if !slices.Contains(records, want) {
				t.Errorf("the parent lacks %q:\n%s", want, strings.Join(records, "\n"))
			}
		}
		for _, rr := range records {
			if strings.Contains(rr, "SRV") && strings.Contains(strings.Fields(rr)[0], child) {
				t.Errorf("the parent has the child's %s", rr)
			}
		}
		// All targets' addresses, also those of the zone above.
		if got := values(s.Answer(tiers2, dns.TypeSRV).Extra); !slices.Contains(got, "192.0.2.3") || !slices.Contains(got, "2001:db8::1") {
			t.Errorf("additional section %v", got)
		}
	})
	t.Run("a zone of its own, alone", func(t *testing.T) {
		w := newWorld()
		w.Datacenters = w.Datacenters[1:]
		w.Masters = w.Masters[2:]
		w.Camaster, w.CamasterName = "m3.example.net.", "puppet-camaster."+child
		ownZone(w)
		delete(w.files, "example.net.")
		p, warnings, err := w.tryPlan()
		if err != nil {
			t.Fatal(err)
		}
		if len(warnings) != 2 || !strings.Contains(warnings[0], "m3.example.net.") {
			t.Errorf("warnings %q, want one for each master without an address here", warnings)
		}
		s := render(p, p.NewView(now))
		if got := tiers(srvs(t, s, tiers2)); got != "10 m3 m4" {
			t.Errorf("datacenter2: %s", got)
		}
		if s.Match("m3.example.net.") != nil {
			t.Error("example.net is not served, but matches")
		}
		if s.Zones[child].Parent != nil {
			t.Error("a zone without a served parent has one")
		}
	})
	t.Run("the parent's own delegation is kept", func(t *testing.T) {
		w := ownZone(newWorld())
		w.files["example.net."] += "datacenter2 7200 NS ns.datacenter2\nns.datacenter2 7200 A 192.0.2.55\n"
		records := transfer(t, w.snapshot(t, nil).Zones["example.net."], true)
		var cut []string
		for _, rr := range records {
			if strings.HasPrefix(rr, child) || strings.HasPrefix(rr, "ns."+child) {
				cut = append(cut, rr)
			}
		}
		want := []string{child + "\t7200\tIN\tNS\tns." + child, "ns." + child + "\t7200\tIN\tA\t192.0.2.55"}
		if !slices.Equal(cut, want) {
			t.Errorf("the parent has %q, want its zone file's %q", cut, want)
		}
	})
	t.Run("the parent holds something else at the cut", func(t *testing.T) {
		w := ownZone(newWorld())
		w.files["example.net."] += "datacenter2 DS 12345 13 2 ABCDEF\n"
		s := w.snapshot(t, nil)
		if r := lookup(&zone.Snapshot{Zones: map[string]*zone.Zone{".": s.Zones["example.net."]}}, tiers2, dns.TypeSRV); r.result != file.Delegation {
			t.Errorf("a secondary of the parent says %v of %s, want a delegation: the names would not exist for it", r.result, tiers2)
		}
	})
	t.Run("the DS record at the cut is the parent's", func(t *testing.T) {
		w := ownZone(newWorld())
		w.files["example.net."] += "datacenter2 NS ns.datacenter2\ndatacenter2 DS 12345 13 2 ABCDEF\n"
		s := w.snapshot(t, nil)
		r := lookup(&zone.Snapshot{Zones: map[string]*zone.Zone{".": s.Match(child).Parent}}, child, dns.TypeDS)
		if r.result != file.Success || typesOf(r.answer) != "DS" {
			t.Errorf("%v %v, want the DS record", r.result, texts(r.answer))
		}
	})
	t.Run("the name server of the child is a master with addresses on its line", func(t *testing.T) {
		w := ownZone(newWorld())
		w.Masters[2].Host, w.Masters[2].Addresses = "m3."+child, []netip.Addr{netip.MustParseAddr("192.0.2.33")}
		w.files[child] = strings.ReplaceAll(w.files[child], "NS  ns\n", "NS m3\n")
		s := w.snapshot(t, nil)
		if r := lookup(&zone.Snapshot{Zones: map[string]*zone.Zone{".": s.Zones["example.net."]}}, tiers2, dns.TypeSRV); r.result != file.Delegation || typesOf(r.extra) != "A" {
			t.Errorf("the parent's delegation is %v with %v, want glue for m3", r.result, texts(r.extra))
		}
	})
	t.Run("three zones, one below the other", func(t *testing.T) {
		w := ownZone(newWorld())
		w.Datacenters[0].Domain = "a.datacenter2.example.net."
		w.files["a.datacenter2.example.net."] = "@ 3600 SOA ns hostmaster 9 1800 600 1209600 5\n@ NS ns\nns A 192.0.2.56\n"
		s := w.snapshot(t, nil)
		top, mid, low := s.Zones["example.net."], s.Zones[child], s.Zones["a."+child]
		if top.Parent != nil || mid.Parent != top || low.Parent != mid {
			t.Error("the parents are not the next zones above")
		}
		if r := lookup(&zone.Snapshot{Zones: map[string]*zone.Zone{".": mid}}, "x.a."+child, dns.TypeA); r.result != file.Delegation {
			t.Errorf("the middle zone says %v of the lowest", r.result)
		}
	})
}

// A master's addresses come from its line or from the zone file.
func TestAddressesOnTheMasterLine(t *testing.T) {
	w := newWorld()
	w.Masters[0].Addresses = addrs("2001:db8::11", "192.0.2.11", "192.0.2.12")
	w.Masters[2].Host, w.Masters[2].Addresses = "m3.example.com.", addrs("192.0.2.13")
	w.files["example.net."] = apex + "m2 A 192.0.2.2\n"
	p, warnings, err := w.tryPlan()
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "m3.example.com.") || !strings.Contains(warnings[1], "m4.example.net.") {
		t.Errorf("warnings %q, want one for m3 and m4, whose addresses are not in a zone here", warnings)
	}
	s := render(p, p.NewView(now))
	a := s.Answer("m1.example.net.", dns.TypeA)
	if want := []string{"192.0.2.11", "192.0.2.12"}; a == nil || !slices.Equal(values(a.Answer), want) || a.Answer[0].Header().Ttl != w.ttl {
		t.Errorf("m1 A is %v, want %v with the configured TTL", a, want)
	}
	if got := values(s.Answer("m1.example.net.", dns.TypeAAAA).Answer); !slices.Equal(got, []string{"2001:db8::11"}) {
		t.Errorf("m1 AAAA is %v", got)
	}
	for short, want := range map[int][]netip.Addr{0: w.Masters[0].Addresses, 1: addrs("192.0.2.2"), 2: addrs("192.0.2.13"), 3: nil} {
		if got := p.Addresses(&w.Masters[short]); !slices.Equal(got, want) {
			t.Errorf("%s is probed at %v, want %v", w.Masters[short].Host, got, want)
		}
	}
}

// A name that has an address of one family only has an answer for the other, too:
// resolvers ask for both.
func TestTheOtherFamilyIsNoData(t *testing.T) {
	s := newWorld().snapshot(t, nil)
	for _, name := range []string{"m2.example.net."} {
		a := s.Answer(name, dns.TypeAAAA)
		if a == nil || len(a.Answer) != 0 || typesOf(a.Ns) != "SOA" {
			t.Errorf("%s AAAA: %+v, want no data with the SOA", name, a)
		}
	}
}

// A host that is delegated away or not known is not answered from here.
func TestHostsElsewhere(t *testing.T) {
	w := newWorld()
	w.Masters[1].Host = "m2.sub.example.net."
	w.files["example.net."] += "sub NS ns.sub\nns.sub A 192.0.2.99\nm2.sub A 192.0.2.22\n"
	s := w.snapshot(t, nil)
	if a := s.Answer("m2.sub.example.net.", dns.TypeA); a != nil {
		t.Errorf("a name below a delegation is answered: %v", a.Answer)
	}
	if r := lookup(s, "m2.sub.example.net.", dns.TypeA); r.result != file.Delegation {
		t.Errorf("%v, want a referral", r.result)
	}
}
