package zone

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// The services of a datacenter's domain. The first three list the tiers, the
// last two the camaster.
var (
	tierServices     = []string{"_x-puppet", "_x-puppet-report", "_x-puppet-fileserver"}
	camasterServices = []string{"_x-puppet-ca", "_x-puppet-db"}
)

// Plan is everything about the served zones that does not change with health:
// the static records, checked against the topology. It is immutable.
type Plan struct {
	Topology *topology.Topology
	TTL      uint32 // of every record written here, and the negative TTL; seconds

	zones     []*planZone // longest origin first
	addresses map[string][]dns.RR
	masters   map[string]int // host -> index in Topology.Masters
	// Indices by name, so that an answer and a hash do not depend on the order in
	// which a Corefile was written.
	order       []int // of Topology.Masters
	datacenters []int // of Topology.Datacenters
}

type planZone struct {
	origin string
	soa    *dns.SOA
	ns     []dns.RR
	owners []owner // everything but SOA and apex NS
	hash   [sha256.Size]byte
}

// owner is the static records of one name.
type owner struct {
	name string
	rrs  []dns.RR
}

// NewPlan checks statics against t. Warnings are for the log: what works, but
// hardly as meant. The statics' records belong to the plan afterwards.
func NewPlan(t *topology.Topology, ttl uint32, statics []Static) (p *Plan, warnings []string, err error) {
	if err := t.Validate(); err != nil {
		return nil, nil, err
	}
	p = &Plan{Topology: t, TTL: ttl, addresses: make(map[string][]dns.RR), masters: make(map[string]int)}
	for i, m := range t.Masters {
		p.masters[m.Host] = i
		p.order = append(p.order, i)
	}
	slices.SortFunc(p.order, func(a, b int) int { return strings.Compare(t.Masters[a].Host, t.Masters[b].Host) })
	for i := range t.Datacenters {
		p.datacenters = append(p.datacenters, i)
	}
	slices.SortFunc(p.datacenters, func(a, b int) int {
		return strings.Compare(t.Datacenters[a].Domain, t.Datacenters[b].Domain)
	})
	byOrigin := make(map[string]map[string][]dns.RR, len(statics))
	for _, s := range statics {
		if byOrigin[s.Origin] != nil {
			return nil, nil, fmt.Errorf("zone %s is given twice", s.Origin)
		}
		names := make(map[string][]dns.RR)
		for _, rr := range s.Records {
			names[rr.Header().Name] = append(names[rr.Header().Name], rr)
		}
		byOrigin[s.Origin] = names
		p.zones = append(p.zones, &planZone{origin: s.Origin})
	}
	slices.SortFunc(p.zones, func(a, b *planZone) int {
		if n := len(b.origin) - len(a.origin); n != 0 {
			return n
		}
		return strings.Compare(a.origin, b.origin)
	})
	if err := p.addAddresses(byOrigin); err != nil {
		return nil, nil, err
	}
	p.delegate(byOrigin)
	for _, z := range p.zones {
		z.fill(byOrigin[z.origin], ttl)
	}
	if err := p.checkWritten(byOrigin); err != nil {
		return nil, nil, err
	}
	p.indexAddresses(byOrigin)
	warnings, err = p.checkTargets(byOrigin)
	return p, warnings, err
}

// Origins returns the served zones, the most specific first.
func (p *Plan) Origins() []string {
	origins := make([]string, len(p.zones))
	for i, z := range p.zones {
		origins[i] = z.origin
	}
	return origins
}

// FileSerial returns the serial in the zone's static SOA.
func (p *Plan) FileSerial(origin string) uint32 {
	for _, z := range p.zones {
		if z.origin == origin {
			return z.soa.Serial
		}
	}
	return 0
}

// Addresses returns where to find a master: as configured, else as the served
// zones say, else nothing.
func (p *Plan) Addresses(m *topology.Master) []netip.Addr {
	if len(m.Addresses) > 0 {
		return m.Addresses
	}
	var addrs []netip.Addr
	for _, rr := range p.addresses[m.Host] {
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				addrs = append(addrs, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// zoneOf returns the most specific served zone that name is in, or nil.
func (p *Plan) zoneOf(name string) *planZone {
	for _, z := range p.zones {
		if dns.IsSubDomain(z.origin, name) {
			return z
		}
	}
	return nil
}

// delegate makes the parent of a served zone point at it, where the parent is
// served too and its zone file does not already: without the NS records there,
// a secondary of the parent would deny the child's names.
func (p *Plan) delegate(byOrigin map[string]map[string][]dns.RR) {
	for i, child := range p.zones {
		for _, parent := range p.zones[i+1:] {
			if !dns.IsSubDomain(parent.origin, child.origin) {
				continue
			}
			names := byOrigin[parent.origin]
			if slices.ContainsFunc(names[child.origin], func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }) {
				break
			}
			for _, rr := range byOrigin[child.origin][child.origin] {
				ns, ok := rr.(*dns.NS)
				if !ok {
					continue
				}
				names[child.origin] = append(names[child.origin], dns.Copy(ns))
				if len(names[ns.Ns]) > 0 || !dns.IsSubDomain(child.origin, ns.Ns) {
					continue
				}
				for _, glue := range byOrigin[child.origin][ns.Ns] {
					if isAddress(glue) {
						names[ns.Ns] = append(names[ns.Ns], dns.Copy(glue))
					}
				}
			}
			break
		}
	}
}

// addAddresses writes the `address` settings of masters into their zones.
func (p *Plan) addAddresses(byOrigin map[string]map[string][]dns.RR) error {
	for _, m := range p.Topology.Masters {
		if len(m.Addresses) == 0 {
			continue
		}
		z := p.zoneOf(m.Host)
		if z == nil {
			continue // for probing only
		}
		names := byOrigin[z.origin]
		if slices.ContainsFunc(names[m.Host], isAddress) {
			return topology.Errorf("master", m.Host, "master %s has addresses both on its `master` line and in the zone file of %s: keep one of the two", m.Host, z.origin)
		}
		for _, a := range m.Addresses {
			names[m.Host] = append(names[m.Host], addressRR(m.Host, p.TTL, a))
		}
	}
	return nil
}

func addressRR(name string, ttl uint32, a netip.Addr) dns.RR {
	if a.Is4() || a.Is4In6() {
		return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: a.Unmap().AsSlice()}
	}
	return &dns.AAAA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: ttl}, AAAA: a.AsSlice()}
}

func isAddress(rr dns.RR) bool {
	t := rr.Header().Rrtype
	return t == dns.TypeA || t == dns.TypeAAAA
}

// fill splits names into apex and the rest, in a fixed order, and hashes them.
// The negative TTL is the lesser of the SOA's own TTL and its MINIMUM
// (RFC 2308, section 5); both are held down to ttl, because a cached "no such
// record" for _x-puppet-ca sends CSRs to masters that are no CA.
func (z *planZone) fill(names map[string][]dns.RR, ttl uint32) {
	for name, rrs := range names {
		o := owner{name: name}
		for _, rr := range rrs {
			switch rr := rr.(type) {
			case *dns.SOA:
				z.soa = dns.Copy(rr).(*dns.SOA)
				z.soa.Minttl = min(rr.Minttl, ttl)
				z.soa.Hdr.Ttl = min(rr.Hdr.Ttl, ttl)
				continue
			case *dns.NS:
				if name == z.origin {
					z.ns = append(z.ns, rr)
					continue
				}
			}
			o.rrs = append(o.rrs, rr)
		}
		if len(o.rrs) > 0 {
			z.owners = append(z.owners, o)
		}
	}
	slices.SortFunc(z.owners, func(a, b owner) int { return strings.Compare(a.name, b.name) })

	// The serial is no content: it says when content changed.
	h := sha256.New()
	soa := *z.soa
	soa.Serial = 0
	fmt.Fprintln(h, soa.String())
	for _, rr := range z.ns {
		fmt.Fprintln(h, rr.String())
	}
	for _, o := range z.owners {
		for _, rr := range o.rrs {
			fmt.Fprintln(h, rr.String())
		}
	}
	h.Sum(z.hash[:0])
}

// indexAddresses collects the static addresses of every name, as its most
// specific zone has them.
func (p *Plan) indexAddresses(byOrigin map[string]map[string][]dns.RR) {
	for _, z := range p.zones {
		for name, rrs := range byOrigin[z.origin] {
			if p.zoneOf(name) != z {
				continue // glue in the parent of a served zone
			}
			var a, aaaa []dns.RR
			for _, rr := range rrs {
				switch rr.Header().Rrtype {
				case dns.TypeA:
					a = append(a, rr)
				case dns.TypeAAAA:
					aaaa = append(aaaa, rr)
				}
			}
			if len(a)+len(aaaa) > 0 {
				p.addresses[name] = slices.Concat(a, aaaa)
			}
		}
	}
}

func serviceOwner(service, domain string) string { return service + "._tcp." + domain }
