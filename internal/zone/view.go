package zone

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// DatacenterView is what the agents of one datacenter are told, for people.
type DatacenterView struct {
	Datacenter, Domain, Origin string
	Serial                     uint32
	RRsets                     []RRset
}

// RRset is the records of one name and type.
type RRset struct {
	Name    string // without the final dot
	Type    string
	TTL     uint32
	Records []string // data in the format of RFC 1035, section 5
}

// Views returns what each datacenter's agents are told, in the order of the
// configuration.
func (s *Snapshot) Views() []DatacenterView {
	t := s.plan.Topology
	var views []DatacenterView
	for i, d := range t.Datacenters {
		z := s.zoneOf(d.Domain)
		v := DatacenterView{Datacenter: d.Name, Domain: d.Domain, Origin: z.Origin, Serial: z.Serial}
		add := func(name string, qtype uint16) {
			if a := s.Answer(name, qtype); a != nil && len(a.Answer) > 0 {
				v.RRsets = append(v.RRsets, rrset(a.Answer))
			}
		}
		for _, service := range slices.Concat(tierServices, camasterServices) {
			add(serviceOwner(service, d.Domain), dns.TypeSRV)
		}
		add(t.CamasterName, dns.TypeCNAME)
		for _, j := range s.plan.order {
			if m := &t.Masters[j]; m.Service != "" && m.Datacenter == t.Datacenters[i].Name {
				add(m.Service, dns.TypeA)
				add(m.Service, dns.TypeAAAA)
			}
		}
		views = append(views, v)
	}
	return views
}

func rrset(rrs []dns.RR) RRset {
	h := rrs[0].Header()
	set := RRset{Name: strings.TrimSuffix(h.Name, "."), Type: dns.TypeToString[h.Rrtype], TTL: h.Ttl}
	for _, rr := range rrs {
		set.Records = append(set.Records, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return set
}
