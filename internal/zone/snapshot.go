// Package zone makes DNS content of what is believed: static records, topology
// and a view of the masters' health become an immutable [Snapshot] with every
// answer in it.
//
// Data flows ReadFile -> [NewPlan] -> [Plan.Render] -> [Content.Snapshot]. All of
// it is pure but ReadFile. The zone semantics (wildcards, delegations, empty
// non-terminals, aliases, transfer) are plugin/file's; this package only adds
// prebuilt answers for the names that agents ask all day. A snapshot is never
// changed once made: file.Zone of CoreDNS v1.15.0 races when it is.
package zone

import (
	"context"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/upstream"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// Snapshot is one immutable zone content with its answers. All methods are safe
// for concurrent use.
type Snapshot struct {
	// Zones are the rendered zones by origin.
	Zones map[string]*Zone
	// Camaster is the host that the CNAME points at.
	Camaster string

	plan    *Plan
	answers map[question]*Answer
	domains map[string]string // datacenter domain -> name
}

// Zone is one rendered zone.
type Zone struct {
	Origin string
	Serial uint32
	Hash   string
	File   *file.Zone
	Parent *Zone // the served zone above, nil if there is none
}

type question struct {
	name  string
	qtype uint16
}

// Snapshot lays content out under the given serials, by origin.
func (c *Content) Snapshot(serials map[string]uint32) *Snapshot {
	p, t := c.plan, c.plan.Topology
	s := &Snapshot{
		Zones:    make(map[string]*Zone, len(p.zones)),
		Camaster: c.camaster.Host,
		plan:     p,
		answers:  make(map[question]*Answer, len(t.Datacenters)*5+len(t.Masters)*4+3),
		domains:  make(map[string]string, len(t.Datacenters)),
	}
	for _, pz := range p.zones {
		s.Zones[pz.origin] = pz.render(serials[pz.origin], c.hashes[pz.origin])
	}
	for i, pz := range p.zones {
		for _, above := range p.zones[i+1:] {
			if dns.IsSubDomain(above.origin, pz.origin) {
				s.Zones[pz.origin].Parent = s.Zones[above.origin]
				break
			}
		}
	}
	for _, d := range t.Datacenters {
		s.domains[d.Domain] = d.Name
	}
	serviceAddresses := s.addServices(c)
	s.addTiers(c, serviceAddresses)
	s.addCamaster(c)
	for i := range t.Masters {
		s.addHost(&t.Masters[i])
	}
	return s
}

// Answer returns the prebuilt answer for a lower-case name, or nil.
func (s *Snapshot) Answer(name string, qtype uint16) *Answer {
	return s.answers[question{name, qtype}]
}

// Match returns the most specific served zone that a lower-case name is in, or
// nil.
func (s *Snapshot) Match(name string) *Zone {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if z, ok := s.Zones[name[off:]]; ok {
			return z
		}
	}
	return s.Zones["."]
}

// Datacenter returns the datacenter whose domain a lower-case name is in, or "".
func (s *Snapshot) Datacenter(name string) string {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if d, ok := s.domains[name[off:]]; ok {
			return d
		}
	}
	return ""
}

// render makes the static part of a zone. The records are shared between
// snapshots; they were canonicalised once and are only read from here on.
func (pz *planZone) render(serial uint32, hash string) *Zone {
	f := file.NewZone(pz.origin, "")
	f.Upstream = lookup{upstream.New()}
	soa := *pz.soa
	soa.Serial = serial
	f.SOA = &soa
	f.NS = pz.ns[:len(pz.ns):len(pz.ns)]
	z := &Zone{Origin: pz.origin, Serial: serial, Hash: hash, File: f}
	for _, o := range pz.owners {
		z.insert(o.rrs)
	}
	return z
}

// insert adds an RRset or several of one owner. It walks the tree once, where
// file.Zone.Insert does for every record.
func (z *Zone) insert(rrs []dns.RR) {
	if len(rrs) == 0 {
		return
	}
	z.File.Tree.Insert(rrs[0])
	if len(rrs) == 1 {
		return
	}
	elem, _ := z.File.Tree.Search(rrs[0].Header().Name)
	for _, rr := range rrs[1:] {
		elem.Insert(rr)
	}
}

// lookup resolves what a CNAME points at outside of the zone by asking this
// server, as file does; but where that fails the CNAME alone is the answer. With
// file's SERVFAIL an agent would give up DNS altogether.
type lookup struct{ *upstream.Upstream }

func (l lookup) Lookup(ctx context.Context, state request.Request, name string, typ uint16) (*dns.Msg, error) {
	m, err := l.Upstream.Lookup(ctx, state, name, typ)
	if err != nil || m == nil || m.Rcode == dns.RcodeServerFailure {
		return nil, nil
	}
	return m, nil
}

// addServices writes the service names and returns their addresses by name.
func (s *Snapshot) addServices(c *Content) map[string][]dns.RR {
	addresses := make(map[string][]dns.RR, len(c.services))
	for i, addrs := range c.services {
		name := s.plan.Topology.Masters[i].Service
		var rrs []dns.RR
		for _, v4 := range []bool{true, false} { // A before AAAA, as elsewhere
			for _, a := range addrs {
				if a.Unmap().Is4() == v4 {
					rrs = append(rrs, addressRR(name, s.plan.TTL, a))
				}
			}
		}
		z := s.zoneOf(name)
		z.insert(rrs)
		addresses[name] = rrs
		s.addAddresses(name, z, rrs)
	}
	return addresses
}

// addTiers writes the SRV RRsets of every datacenter.
func (s *Snapshot) addTiers(c *Content, serviceAddresses map[string][]dns.RR) {
	t := s.plan.Topology
	targets := make([]string, len(t.Masters))
	addresses := make([][]dns.RR, len(t.Masters))
	for i := range t.Masters {
		targets[i] = t.Target(&t.Masters[i])
		addresses[i] = s.plan.addresses[targets[i]]
		if t.Targets == topology.TargetsService {
			addresses[i] = serviceAddresses[targets[i]]
		}
	}
	for i, d := range t.Datacenters {
		z := s.zoneOf(d.Domain)
		local := 0
		var extra []dns.RR
		for _, e := range c.tiers[i] {
			if e.priority == t.Local {
				local++
			}
			extra = append(extra, addresses[e.master]...)
		}
		turn := score(d.Domain, "")
		for _, service := range tierServices {
			owner := serviceOwner(service, d.Domain)
			srvs := make([]dns.SRV, len(c.tiers[i]))
			rrs := make([]dns.RR, len(srvs))
			for j, e := range c.tiers[i] {
				m := &t.Masters[e.master]
				srvs[j] = s.srv(owner, e.priority, m.Weight, m.Port, targets[e.master])
				rrs[j] = &srvs[j]
			}
			z.insert(rrs)
			s.answers[question{owner, dns.TypeSRV}] = newTiers(owner, rrs, local, turn, z.File.NS, extra)
		}
		e, m := c.cas[i], c.camaster
		for j, port := range []uint16{m.Port, t.PuppetDBPort} {
			owner := serviceOwner(camasterServices[j], d.Domain)
			srv := s.srv(owner, e.priority, m.Weight, port, c.caTarget())
			z.insert([]dns.RR{&srv})
			s.answers[question{owner, dns.TypeSRV}] = newAnswer(KindCA, owner, []dns.RR{&srv}, z.File.NS, s.plan.addresses[srv.Target])
		}
	}
}

func (s *Snapshot) srv(owner string, priority, weight, port uint16, target string) dns.SRV {
	return dns.SRV{
		Hdr:      dns.RR_Header{Name: owner, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: s.plan.TTL},
		Priority: priority, Weight: weight, Port: port, Target: target,
	}
}

// addCamaster writes the CNAME. Its addresses are prebuilt where the host is in
// the same zone; elsewhere the chase is plugin/file's.
func (s *Snapshot) addCamaster(c *Content) {
	name, host := s.plan.Topology.CamasterName, c.camaster.Host
	z := s.zoneOf(name)
	cname := &dns.CNAME{
		Hdr:    dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: s.plan.TTL},
		Target: host,
	}
	z.insert([]dns.RR{cname})
	s.answers[question{name, dns.TypeCNAME}] = newAnswer(KindCamaster, name, []dns.RR{cname}, z.File.NS, nil)
	if s.zoneOf(host) != z || !s.authoritative(z, host) {
		return
	}
	if _, ok := z.File.Tree.Search(host); !ok {
		return // a wildcard, an empty non-terminal or NXDOMAIN: plugin/file knows
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rrs := ofType(s.plan.addresses[host], qtype)
		ns := z.File.NS
		if len(rrs) == 0 {
			ns = []dns.RR{z.File.SOA} // no data: RFC 2308, section 2.2
		}
		s.answers[question{name, qtype}] = newAnswer(KindCamaster, name, append([]dns.RR{cname}, rrs...), ns, nil)
	}
}

// addHost prebuilds the addresses of a master's own name.
func (s *Snapshot) addHost(m *topology.Master) {
	rrs := s.plan.addresses[m.Host]
	if z := s.zoneOf(m.Host); len(rrs) > 0 && s.authoritative(z, m.Host) {
		s.addAddresses(m.Host, z, rrs)
	}
}

// addAddresses prebuilds the answers for an existing name's addresses, also for
// the family it has none of: resolvers ask for both.
func (s *Snapshot) addAddresses(name string, z *Zone, rrs []dns.RR) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		of, ns := ofType(rrs, qtype), z.File.NS
		if len(of) == 0 {
			ns = []dns.RR{z.File.SOA}
		}
		s.answers[question{name, qtype}] = newAnswer(KindAddress, name, of, ns, nil)
	}
}

func ofType(rrs []dns.RR, qtype uint16) []dns.RR {
	var of []dns.RR
	for _, rr := range rrs {
		if rr.Header().Rrtype == qtype {
			of = append(of, rr)
		}
	}
	return of
}

// zoneOf returns the zone that name is in, or nil.
func (s *Snapshot) zoneOf(name string) *Zone {
	if pz := s.plan.zoneOf(name); pz != nil {
		return s.Zones[pz.origin]
	}
	return nil
}

// authoritative reports whether z answers for name itself: no delegation and no
// DNAME takes it away.
func (s *Snapshot) authoritative(z *Zone, name string) bool {
	if apex, ok := z.File.Tree.Search(z.Origin); ok && name != z.Origin && len(apex.Type(dns.TypeDNAME)) > 0 {
		return false
	}
	for n := name; n != z.Origin; {
		if elem, ok := z.File.Tree.Search(n); ok {
			if len(elem.Type(dns.TypeNS)) > 0 || n != name && len(elem.Type(dns.TypeDNAME)) > 0 {
				return false
			}
		}
		off, end := dns.NextLabel(n, 0)
		if end {
			return false
		}
		n = n[off:]
	}
	return true
}
