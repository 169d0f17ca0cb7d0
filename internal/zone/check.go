package zone

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// checkWritten makes sure that every name written by this package has a zone to
// stand in and nothing static in its way.
func (p *Plan) checkWritten(byOrigin map[string]map[string][]dns.RR) error {
	t := p.Topology
	check := func(part, subject, what, name string, clash func(dns.RR) bool) error {
		refuse := func(format string, args ...any) error {
			return topology.Errorf(part, subject, "%s %s "+format, append([]any{what, name}, args...)...)
		}
		z := p.zoneOf(name)
		if z == nil {
			return refuse("is in no served zone: the zones are %s", strings.Join(p.Origins(), ", "))
		}
		names := byOrigin[z.origin]
		if cut, typ := cutAbove(names, z.origin, name); cut != "" {
			return refuse("lies below %s, which zone %s hands on by its %s record: remove that, or serve %s as a zone of its own", cut, z.origin, typ, cut)
		}
		for _, rr := range names[name] {
			if clash(rr) {
				return refuse("is written by puppetsrv, and zone %s already has %s there: remove it from the zone file", z.origin, dns.TypeToString[rr.Header().Rrtype])
			}
		}
		return nil
	}
	srvClash := func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeSRV || rr.Header().Rrtype == dns.TypeCNAME
	}
	for _, d := range t.Datacenters {
		for _, s := range slices.Concat(tierServices, camasterServices) {
			if serviceOwner(s, d.Domain) == t.CamasterName {
				return topology.Errorf("camaster", "", "camaster %s is a name that is written for datacenter %s: give the CNAME another", t.CamasterName, d.Name)
			}
			if err := check("datacenter", d.Name, "datacenter "+d.Name+":", serviceOwner(s, d.Domain), srvClash); err != nil {
				return err
			}
		}
	}
	for _, z := range p.zones {
		for _, rr := range z.ns {
			ns := rr.(*dns.NS).Ns
			alias := ns == t.CamasterName
			if nz := p.zoneOf(ns); nz != nil {
				alias = alias || slices.ContainsFunc(byOrigin[nz.origin][ns], func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeCNAME })
			}
			if alias {
				return fmt.Errorf("name server %s of zone %s is an alias (RFC 2181, section 10.3): name the host itself", ns, z.origin)
			}
		}
	}
	if err := check("camaster", "", "camaster", t.CamasterName, func(dns.RR) bool { return true }); err != nil {
		return err
	}
	if t.Targets != topology.TargetsService {
		return nil
	}
	for _, m := range t.Masters {
		if m.Service == t.CamasterName {
			return topology.Errorf("master", m.Host, "master %s: service name %s is the camaster's CNAME; give another with `service NAME`", m.Host, m.Service)
		}
		clash := func(rr dns.RR) bool { return isAddress(rr) || rr.Header().Rrtype == dns.TypeCNAME }
		if err := check("master", m.Host, "service name", m.Service, clash); err != nil {
			return err
		}
	}
	return nil
}

// cutAbove returns the name at or above name, below the apex, whose records take
// name out of the zone: NS, or a DNAME strictly above.
func cutAbove(names map[string][]dns.RR, origin, name string) (cut, typ string) {
	for n := name; n != origin; {
		for _, rr := range names[n] {
			switch rr.Header().Rrtype {
			case dns.TypeNS:
				return n, "NS"
			case dns.TypeDNAME:
				if n != name {
					return n, "DNAME"
				}
			}
		}
		off, end := dns.NextLabel(n, 0)
		if end {
			break
		}
		n = n[off:]
	}
	for _, rr := range names[origin] {
		if rr.Header().Rrtype == dns.TypeDNAME && name != origin {
			return origin, "DNAME"
		}
	}
	return "", ""
}

// checkTargets refuses targets that are aliases, of which an agent's resolver
// need make nothing (RFC 2782, "Target"), and warns of targets without address.
func (p *Plan) checkTargets(byOrigin map[string]map[string][]dns.RR) (warnings []string, err error) {
	for _, m := range p.Topology.Masters {
		z := p.zoneOf(m.Host)
		if z != nil {
			for _, rr := range byOrigin[z.origin][m.Host] {
				if c, ok := rr.(*dns.CNAME); ok {
					return nil, topology.Errorf("master", m.Host, "master %s is an alias of %s in zone %s: an SRV target must be a host name (RFC 2782); name the host itself", m.Host, c.Target, z.origin)
				}
			}
		}
		if len(p.addresses[m.Host]) > 0 {
			continue
		}
		if z != nil && p.Topology.Targets == topology.TargetsHost && wildcardAddress(byOrigin[z.origin], z.origin, m.Host) {
			continue // found by agents, and by a probe's lookup
		}
		switch {
		case p.Topology.Targets == topology.TargetsService && len(m.Addresses) == 0:
			return nil, topology.Errorf("master", m.Host, "master %s has no address: `targets service` needs one, in the zone file or as `address IP` on its line", m.Host)
		case z != nil:
			warnings = append(warnings, fmt.Sprintf("master %s has no address in zone %s: agents will not find it; add an A or AAAA record, or `address IP` on its line", m.Host, z.origin))
		default:
			warnings = append(warnings, fmt.Sprintf("master %s has no address in the zones served here: agents have to find it elsewhere", m.Host))
		}
	}
	return warnings, nil
}

// wildcardAddress reports whether the closest wildcard above a name that does not
// exist has addresses (RFC 4592, section 3.3.1).
func wildcardAddress(names map[string][]dns.RR, origin, name string) bool {
	if len(names[name]) > 0 {
		return false
	}
	for n := name; n != origin; {
		off, end := dns.NextLabel(n, 0)
		if end {
			return false
		}
		n = n[off:]
		if rrs := names["*."+n]; len(rrs) > 0 {
			return slices.ContainsFunc(rrs, isAddress)
		}
	}
	return false
}
