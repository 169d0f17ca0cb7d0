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
	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// drawWorld draws a configuration that is valid.
func drawWorld(t *rapid.T) *world {
	w := newWorld()
	w.Datacenters, w.Masters = nil, nil
	w.ttl = uint32(rapid.IntRange(1, 300).Draw(t, "ttl"))
	w.Local = uint16(rapid.IntRange(0, 1000).Draw(t, "local"))
	w.Remote = w.Local + uint16(rapid.IntRange(1, topology.DownPenalty-1).Draw(t, "remote above local"))
	w.CATarget = rapid.SampledFrom([]topology.CATarget{topology.CATargetHost, topology.CATargetCamaster}).Draw(t, "ca_target")
	w.Unhealthy = rapid.SampledFrom([]topology.Unhealthy{topology.Demote, topology.Omit}).Draw(t, "unhealthy")
	w.Targets = rapid.SampledFrom([]topology.Targets{topology.TargetsHost, topology.TargetsService}).Draw(t, "targets")
	zones := map[string]*strings.Builder{"example.net.": new(strings.Builder), "example.org.": new(strings.Builder)}
	head := "@ 3600 SOA ns1.example.net. hostmaster.example.net. 7 1800 600 1209600 5\n@ 3600 NS ns1.example.net.\n@ 3600 NS ns2.example.org.\n"
	for _, b := range zones {
		b.WriteString(head)
	}

	for i := range rapid.IntRange(1, 4).Draw(t, "datacenters") {
		name := fmt.Sprintf("datacenter%d", i+1)
		d := topology.Datacenter{Name: name, Domain: name + ".example.net."}
		switch rapid.SampledFrom([]string{"a name", "a zone", "a name in another zone"}).Draw(t, name) {
		case "a zone":
			zones[d.Domain] = new(strings.Builder)
			zones[d.Domain].WriteString(head)
		case "a name in another zone":
			d.Domain = name + ".example.org."
		}
		w.Datacenters = append(w.Datacenters, d)
	}
	for i, a := range w.Datacenters {
		for _, b := range w.Datacenters[:i] {
			w.Distances[topology.PairOf(a.Name, b.Name)] = rapid.IntRange(1, w.MaxDistance()).Draw(t, "distance "+a.Name+" "+b.Name)
		}
	}
	for i := range rapid.IntRange(1, 8).Draw(t, "masters") {
		name := fmt.Sprintf("m%d", i+1)
		d := rapid.SampledFrom(w.Datacenters).Draw(t, name+" is in")
		domain := rapid.SampledFrom([]string{"example.net.", "example.net.", "example.org.", d.Domain, "elsewhere.example."}).Draw(t, name+" is named in")
		m := topology.Master{
			Host: name + "." + domain, Datacenter: d.Name,
			Port:    uint16(rapid.IntRange(1, 65535).Draw(t, name+" port")),
			Weight:  uint16(rapid.IntRange(1, 65535).Draw(t, name+" weight")),
			CA:      i == 0 || rapid.Bool().Draw(t, name+" ca"),
			Service: "service-" + name + "." + d.Domain,
		}
		families := rapid.SampledFrom([]string{"4", "6", "46", "644", "none"}).Draw(t, name+" has addresses")
		if families == "none" && w.Targets == topology.TargetsService {
			families = "64"
		}
		var addresses []netip.Addr
		for j, f := range strings.Split(strings.TrimSuffix(families, "none"), "") {
			if f == "4" {
				addresses = append(addresses, netip.AddrFrom4([4]byte{192, 0, byte(i), byte(j)}))
			} else {
				addresses = append(addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(16*i + j)}))
			}
		}
		origin := ""
		for o := range zones {
			if dns.IsSubDomain(o, m.Host) && len(o) > len(origin) {
				origin = o
			}
		}
		if origin == "" || rapid.Bool().Draw(t, name+" has addresses on its line") {
			m.Addresses = addresses
			if len(addresses) == 0 && origin != "" && rapid.Bool().Draw(t, name+" has something else") {
				fmt.Fprintf(zones[origin], "%s 60 TXT something\n", m.Host)
			}
		} else {
			for _, a := range addresses {
				fmt.Fprintf(zones[origin], "%s 3600 %s %s\n", m.Host, map[bool]string{true: "A", false: "AAAA"}[a.Is4()], a)
			}
		}
		w.Masters = append(w.Masters, m)
	}
	w.Camaster = w.Masters[0].Host
	w.CamasterName = "puppet-camaster." + rapid.SampledFrom([]string{"example.net.", "example.org.", w.Datacenters[0].Domain}).Draw(t, "camaster is named in")
	for o, b := range zones {
		w.files[o] = b.String()
	}
	return w
}

// drawPlan draws a world and plans it. With `targets service` a stranger's
// addresses are not in a zone, which is fine only with addresses on its line.
func drawPlan(t *rapid.T) *zone.Plan {
	w := drawWorld(t)
	p, _, err := w.tryPlan()
	if err != nil {
		t.Fatalf("a valid world is refused: %v\n%+v\n%v", err, w.Topology, w.files)
	}
	return p
}

// drawMaster draws what is believed of one master.
func drawMaster(t *rapid.T, p *zone.Plan, label string) zone.MasterView {
	var v zone.MasterView
	if reason := rapid.SampledFrom([]health.Reason{
		health.ReasonOK, health.ReasonOK, health.ReasonRefused, health.ReasonStatus, health.ReasonCertificate,
	}).Draw(t, label+" verdict"); reason != health.ReasonOK {
		v.Verdict = health.Verdict{Down: true, Reason: reason, Detail: "drawn", Since: now}
	}
	v.Drained = rapid.IntRange(0, 3).Draw(t, label+" drained") == 0
	if rapid.Bool().Draw(t, label+" has a certificate") {
		v.Certificate = &health.Certificate{
			Trusted:  rapid.IntRange(0, 4).Draw(t, label+" trusted") > 0,
			NotAfter: now.Add(time.Duration(rapid.IntRange(-1, 4).Draw(t, label+" not after")) * time.Hour),
		}
		for _, m := range p.Topology.Masters {
			if rapid.Bool().Draw(t, label+" covers "+m.Service) {
				v.Certificate.Names = append(v.Certificate.Names, strings.TrimSuffix(m.Service, "."))
			}
		}
	}
	return v
}

func drawView(t *rapid.T, p *zone.Plan, label string) zone.View {
	v := p.NewView(now)
	for i, m := range p.Topology.Masters {
		v.Masters[i] = drawMaster(t, p, label+" "+m.Host)
	}
	if rapid.Bool().Draw(t, label+" moves the camaster") {
		v.Camaster = rapid.SampledFrom(p.Topology.Masters).Draw(t, label+" camaster").Host
	}
	return v
}

// tierNames are the names that list the tiers of datacenter d.
func tierNames(d topology.Datacenter) []string {
	var names []string
	for _, s := range []string{"_x-puppet", "_x-puppet-report", "_x-puppet-fileserver"} {
		names = append(names, s+"._tcp."+d.Domain)
	}
	return names
}

// What holds of every answer in every situation.
func TestPropertyAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		topo := p.Topology
		v := drawView(t, p, "view")
		s := render(p, v)
		ups := func(m *topology.Master) (down, badcert bool) {
			for i := range topo.Masters {
				if topo.Masters[i].Host == m.Host {
					mv := v.Masters[i]
					return mv.Verdict.Down || mv.Drained, mv.Verdict.CertificateFails()
				}
			}
			t.Fatalf("no master %s", m.Host)
			return
		}
		byTarget := make(map[string]*topology.Master)
		anyUp, anyGood := false, false
		for i := range topo.Masters {
			m := &topo.Masters[i]
			byTarget[topo.Target(m)] = m
			down, badcert := ups(m)
			anyUp, anyGood = anyUp || !down, anyGood || !badcert
		}
		for _, d := range topo.Datacenters {
			for _, name := range tierNames(d) {
				a := s.Answer(name, dns.TypeSRV)
				if a == nil || len(a.Answer) == 0 {
					t.Fatalf("%s is empty", name)
				}
				seen := make(map[string]bool)
				lastUp, firstDown, last := -1, 1<<20, -1
				for _, rr := range a.Answer {
					srv := rr.(*dns.SRV)
					m := byTarget[srv.Target]
					if m == nil || seen[srv.Target] {
						t.Fatalf("%s lists %q, which is no target or listed twice", name, srv.Target)
					}
					seen[srv.Target] = true
					if srv.Weight != m.Weight || srv.Port != m.Port || srv.Hdr.Ttl != p.TTL || srv.Hdr.Name != name {
						t.Fatalf("%v is not as configured: %+v", srv, m)
					}
					if int(srv.Priority) < last {
						t.Fatalf("%s is not in the order of its tiers: %v", name, a.Answer)
					}
					last = int(srv.Priority)
					want := topo.Priority(d.Name, m)
					down, badcert := ups(m)
					if down {
						want += topology.DownPenalty
						firstDown = min(firstDown, int(srv.Priority))
					} else {
						lastUp = max(lastUp, int(srv.Priority))
					}
					if srv.Priority != want {
						t.Fatalf("%v: want priority %d (down or drained: %v)", srv, want, down)
					}
					if badcert && anyGood {
						t.Fatalf("%v is listed although its certificate fails", srv)
					}
					if topo.Unhealthy == topology.Omit && down && anyUp {
						t.Fatalf("%v is listed although it is to be omitted", srv)
					}
				}
				if lastUp >= firstDown {
					t.Fatalf("%s: an up master at %d, a down one at %d", name, lastUp, firstDown)
				}
				for i := range topo.Masters {
					m := &topo.Masters[i]
					down, badcert := ups(m)
					mayMiss := badcert || topo.Unhealthy == topology.Omit && down
					if !seen[topo.Target(m)] && !mayMiss {
						t.Fatalf("%s does not list %s", name, m.Host)
					}
				}
			}
			for _, service := range []string{"_x-puppet-ca", "_x-puppet-db"} {
				name := service + "._tcp." + d.Domain
				a := s.Answer(name, dns.TypeSRV)
				if a == nil || len(a.Answer) != 1 {
					t.Fatalf("%s has not one target", name)
				}
				want := s.Camaster
				if topo.CATarget == topology.CATargetCamaster {
					want = topo.CamasterName
				}
				if srv := a.Answer[0].(*dns.SRV); srv.Target != want || srv.Weight == 0 || srv.Port == 0 {
					t.Fatalf("%v: want target %s", srv, want)
				}
			}
		}
		want := topo.Camaster
		if v.Camaster != "" {
			want = v.Camaster
		}
		if got := values(s.Answer(topo.CamasterName, dns.TypeCNAME).Answer); !slices.Equal(got, []string{want}) {
			t.Fatalf("the CNAME is %v, want %s", got, want)
		}
	})
}

// Demote, do not delete: verdicts and drains change priorities only.
func TestPropertyVerdictsChangePrioritiesOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.Unhealthy = topology.Demote
		p, _, err := w.tryPlan()
		if err != nil {
			t.Fatal(err)
		}
		v := drawView(t, p, "view")
		v.Camaster = ""
		for i := range v.Masters {
			if v.Masters[i].Verdict.CertificateFails() {
				v.Masters[i].Verdict.Reason = health.ReasonTimeout
			}
		}
		calm, upset := render(p, p.NewView(now)), render(p, v)
		unordered := func(s *zone.Snapshot, name string) []string {
			var out []string
			for _, rr := range s.Answer(name, dns.TypeSRV).Answer {
				srv := dns.Copy(rr).(*dns.SRV)
				srv.Priority = 0
				out = append(out, srv.String())
			}
			slices.Sort(out)
			return out
		}
		for _, d := range p.Topology.Datacenters {
			for _, name := range append(tierNames(d), "_x-puppet-ca._tcp."+d.Domain, "_x-puppet-db._tcp."+d.Domain) {
				if a, b := unordered(calm, name), unordered(upset, name); !slices.Equal(a, b) {
					t.Fatalf("%s changes more than its priorities:\n%v\n%v", name, a, b)
				}
			}
		}
		for origin, z := range calm.Zones { // nor does anything else change, but service names' addresses
			keep := func(records []string) (kept []string) {
				for _, r := range records {
					if !strings.Contains(r, "\tSRV\t") && !strings.HasPrefix(r, "service-") {
						kept = append(kept, r)
					}
				}
				return kept
			}
			a, b := keep(transfer(testing.TB(&quiet{t: t}), z, true)), keep(transfer(&quiet{t: t}, upset.Zones[origin], true))
			if !slices.Equal(a, b) {
				t.Fatalf("%s changes in\n%v\n%v", origin, a, b)
			}
		}
	})
}

// quiet lets rapid's T stand in for a testing.TB.
type quiet struct {
	testing.TB
	t *rapid.T
}

func (q *quiet) Helper()           { q.t.Helper() }
func (q *quiet) Fatal(args ...any) { q.t.Fatal(args...) }
func (q *quiet) Fatalf(format string, args ...any) {
	q.t.Fatalf(format, args...)
}

// A stand-in is up, undrained and has the name in its certificate; it is of the
// best tier that has one; and only a down master has one.
func TestPropertyStandIns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.Targets = topology.TargetsService
		for i := range w.Masters { // addresses on the lines, one each, to tell them by
			w.Masters[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
		}
		for o, text := range w.files {
			var kept []string
			for line := range strings.Lines(text) {
				if f := strings.Fields(line); f[2] != "A" && f[2] != "AAAA" {
					kept = append(kept, line)
				}
			}
			w.files[o] = strings.Join(kept, "")
		}
		p, _, err := w.tryPlan()
		if err != nil {
			t.Fatal(err)
		}
		v := drawView(t, p, "view")
		s := render(p, v)
		for i := range w.Masters {
			m := &w.Masters[i]
			a := s.Answer(m.Service, dns.TypeA)
			if a == nil || len(a.Answer) != 1 {
				t.Fatalf("%s has not one address: %v", m.Service, a)
			}
			j := int(a.Answer[0].(*dns.A).A.To4()[3]) - 1
			fit := func(k int) bool {
				o := v.Masters[k]
				return k != i && !o.Verdict.Down && !o.Drained && w.Masters[k].Port == m.Port && o.Certificate.ValidFor(m.Service, v.Now)
			}
			best := -1
			for k := range w.Masters {
				if fit(k) && (best < 0 || w.Priority(m.Datacenter, &w.Masters[k]) < w.Priority(m.Datacenter, &w.Masters[best])) {
					best = k
				}
			}
			switch {
			case !v.Masters[i].Verdict.Down || best < 0:
				if j != i {
					t.Fatalf("%s has the addresses of %s, want its own", m.Service, w.Masters[j].Host)
				}
			case !fit(j):
				t.Fatalf("%s has the addresses of %s, which is no stand-in", m.Service, w.Masters[j].Host)
			case w.Priority(m.Datacenter, &w.Masters[j]) != w.Priority(m.Datacenter, &w.Masters[best]):
				t.Fatalf("%s has the addresses of %s, but %s is nearer", m.Service, w.Masters[j].Host, w.Masters[best].Host)
			}
		}
	})
}

// Two views have the same hash of a zone exactly if they say the same there.
func TestPropertyHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		a := drawView(t, p, "a")
		b := zone.View{Masters: slices.Clone(a.Masters), Camaster: a.Camaster, Now: a.Now}
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			if i := rapid.IntRange(-1, len(b.Masters)-1).Draw(t, "change"); i >= 0 {
				b.Masters[i] = drawMaster(t, p, "b")
			} else {
				b.Camaster = rapid.SampledFrom(p.Topology.Masters).Draw(t, "b camaster").Host
			}
		}
		ca, cb := p.Render(a), p.Render(b)
		sa, sb := ca.Snapshot(nil), cb.Snapshot(nil)
		for _, o := range p.Origins() {
			ra, rb := transfer(&quiet{t: t}, sa.Zones[o], false), transfer(&quiet{t: t}, sb.Zones[o], false)
			if same, hash := slices.Equal(ra, rb), ca.Hash(o) == cb.Hash(o); same != hash {
				t.Fatalf("%s: the records are equal: %v, the hashes: %v\n%s\n\n%s", o, same, hash, strings.Join(ra, "\n"), strings.Join(rb, "\n"))
			}
			if sa.Zones[o].Hash != ca.Hash(o) {
				t.Fatalf("%s: the snapshot's hash is not its content's", o)
			}
		}
	})
}

// fingerprint is everything a snapshot says.
func fingerprint(t testing.TB, s *zone.Snapshot, p *zone.Plan) string {
	var b strings.Builder
	for _, o := range p.Origins() {
		fmt.Fprintln(&b, strings.Join(transfer(t, s.Zones[o], true), "\n"))
	}
	for _, q := range hotQuestions(p.Topology) {
		if a := s.Answer(q.Name, q.Qtype); a != nil {
			fmt.Fprintln(&b, q.Name, q.Qtype, a.Answer, a.Ns, a.Extra)
		}
	}
	return b.String()
}

// hotQuestions are all for which an answer may be prebuilt.
func hotQuestions(t *topology.Topology) []dns.Question {
	names := []string{t.CamasterName}
	for _, d := range t.Datacenters {
		names = append(names, tierNames(d)...)
		names = append(names, "_x-puppet-ca._tcp."+d.Domain, "_x-puppet-db._tcp."+d.Domain)
	}
	for _, m := range t.Masters {
		names = append(names, m.Host, m.Service)
	}
	var qs []dns.Question
	for _, n := range names {
		for _, typ := range []uint16{dns.TypeSRV, dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeTXT} {
			qs = append(qs, dns.Question{Name: n, Qtype: typ, Qclass: dns.ClassINET})
		}
	}
	return qs
}

// A snapshot never changes, whatever is built or asked after it: CoreDNS plugins
// append to the sections they are given.
func TestPropertySnapshotIsImmutable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		tb := &quiet{t: t}
		first := render(p, drawView(t, p, "first"))
		before := fingerprint(tb, first, p)
		intruder := &dns.TXT{Hdr: dns.RR_Header{Name: "intruder.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"appended"}}
		for i := range 3 {
			s := p.Render(drawView(t, p, fmt.Sprint("later ", i))).Snapshot(nil)
			for _, q := range hotQuestions(p.Topology) {
				for _, snap := range []*zone.Snapshot{first, s} {
					a := snap.Answer(q.Name, q.Qtype)
					if a == nil {
						continue
					}
					size := rapid.IntRange(0, 1500).Draw(t, "size")
					answer, ns, extra, _ := a.Fit(size)
					for _, section := range [][]dns.RR{answer, ns, extra} {
						_ = append(section, intruder)
					}
				}
			}
		}
		if after := fingerprint(tb, first, p); after != before {
			t.Fatalf("the snapshot has changed from\n%s\nto\n%s", before, after)
		}
	})
}

// A prebuilt answer says what plugin/file would say from the same snapshot, and so
// what a secondary says. There are two differences, both to the better: a camaster
// whose host lacks the asked family has the SOA in the authority section (RFC
// 2308), and targets in another zone served here bring their addresses along.
func TestPropertyPrebuiltAnswersAreFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		s := render(p, drawView(t, p, "view"))
		prebuilt := 0
		for _, q := range hotQuestions(p.Topology) {
			a := s.Answer(q.Name, q.Qtype)
			if a == nil {
				continue
			}
			prebuilt++
			z := s.Match(q.Name)
			r := lookup(s, q.Name, q.Qtype)
			if r.result != file.Success && r.result != file.NoData {
				t.Fatalf("%s %s: plugin/file's result is %v", q.Name, dns.TypeToString[q.Qtype], r.result)
			}
			compare := func(section string, got, want []dns.RR) {
				if g, w := texts(got), texts(want); !slices.Equal(g, w) {
					t.Fatalf("%s %s, %s section: prebuilt\n%s\nplugin/file\n%s", q.Name, dns.TypeToString[q.Qtype], section, strings.Join(g, "\n"), strings.Join(w, "\n"))
				}
			}
			compare("answer", a.Answer, r.answer)
			if q.Name == p.Topology.CamasterName && q.Qtype != dns.TypeCNAME && len(a.Answer) == 1 {
				compare("authority", a.Ns, []dns.RR{z.File.SOA})
			} else {
				compare("authority", a.Ns, r.ns)
			}
			var extra []dns.RR
			for _, rr := range a.Extra {
				if s.Match(rr.Header().Name) == z {
					extra = append(extra, rr)
				} else if got := lookup(s, rr.Header().Name, rr.Header().Rrtype).answer; !slices.Contains(texts(got), rr.String()) {
					t.Fatalf("%s %s has %v, which its own zone has not", q.Name, dns.TypeToString[q.Qtype], rr)
				}
			}
			compare("additional", extra, r.extra)
		}
		if least := len(p.Topology.Datacenters)*5 + 1; prebuilt < least {
			t.Fatalf("%d prebuilt answers, want at least %d", prebuilt, least)
		}
	})
}

// What Fit returns fits, if it may be cut so far, and is never empty where the
// whole answer is not; more space never means less answer.
func TestPropertyFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		s := render(p, drawView(t, p, "view"))
		q := rapid.SampledFrom(hotQuestions(p.Topology)).Draw(t, "question")
		a := s.Answer(q.Name, q.Qtype)
		if a == nil {
			t.Skip("not prebuilt")
		}
		least, _ := reply(q.Name, q.Qtype, a, 0)
		targets, addresses := 0, 0
		for size := 0; size < 2500; size += 3 {
			m, cut := reply(q.Name, q.Qtype, a, size)
			if size >= least.Len() && m.Len() > size {
				t.Fatalf("%s: %d bytes for a buffer of %d", q.Name, m.Len(), size)
			}
			if len(m.Answer) == 0 && len(a.Answer) > 0 || cut != (len(m.Answer) < len(a.Answer)) {
				t.Fatalf("%s in %d bytes: %d of %d records, cut %v", q.Name, size, len(m.Answer), len(a.Answer), cut)
			}
			if len(m.Answer) < targets || len(m.Extra) < addresses {
				t.Fatalf("%s in %d bytes: fewer records than in %d", q.Name, size, size-3)
			}
			targets, addresses = len(m.Answer), len(m.Extra)
		}
	})
}
