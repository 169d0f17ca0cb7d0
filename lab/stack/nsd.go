//go:build linux

package stack

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Static is a zone of NSD's own with SRV records as people write them by hand.
const Static = "static.example"

// StaticDomain is the srv_domain whose records always name a master of a pair first, m1 and m2
// or m3 and m4, and the other one next.
func StaticDomain(first string) string { return first + "." + Static }

// Secondary configures and starts NSD on ns3 where it does not run yet: it takes the zone of
// the nodes by transfer, and has Static. It returns when it answers for both.
func (s *Stack) Secondary(ctx context.Context) error {
	h := s.Host("ns3")
	if !h.Runs(NSD) {
		if err := h.render("nsd.conf", "/etc/nsd/nsd.conf", 0o644, "root", map[string]any{
			"Addr": h.Addr, "Nodes": s.Hosts(Nodes...), "Static": Static,
		}); err != nil {
			return err
		}
		if err := h.render("static.zone", "/etc/nsd/static.zone", 0o644, "root", map[string]any{
			"Static": Static, "Pairs": [][2]string{{"m1", "m2"}, {"m2", "m1"}, {"m3", "m4"}, {"m4", "m3"}},
			"Services": []string{"_x-puppet", "_x-puppet-report", "_x-puppet-fileserver"},
		}); err != nil {
			return err
		}
		if err := h.Service(ctx, "start", NSD); err != nil {
			return err
		}
	}
	return Until(ctx, "NSD has its zones", func() error {
		for _, zone := range []string{Domain, Static} {
			if _, err := s.Serial(ctx, "ns3", zone); err != nil {
				return fmt.Errorf("%w\n%s", err, tail(h.ServiceLog(NSD)))
			}
		}
		return nil
	})
}

// Serial is that of a zone's SOA, as a host's DNS server answers it.
func (s *Stack) Serial(ctx context.Context, server, zone string) (uint32, error) {
	r, err := s.Ask(ctx, server, zone, dns.TypeSOA)
	if err != nil {
		return 0, err
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("%s answers %s and no SOA for %s", server, dns.RcodeToString[r.Rcode], zone)
}

// Transfer is the nodes' zone as a host's DNS server gives it to ns3 by AXFR: a line for
// each record, sorted, the SOA among them once.
func (s *Stack) Transfer(ctx context.Context, server string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	conn, err := s.Host("ns3").Dial(ctx, "tcp", net.JoinHostPort(s.Host(server).Addr.String(), "53"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetAxfr(dns.Fqdn(Domain))
	envelopes, err := (&dns.Transfer{Conn: &dns.Conn{Conn: conn}}).In(m, "")
	if err != nil {
		return nil, err
	}
	var all []string
	for e := range envelopes {
		if e.Error != nil {
			return nil, fmt.Errorf("transfer from %s: %w", server, e.Error)
		}
		for _, rr := range e.RR {
			all = append(all, strings.ToLower(rr.String()))
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
