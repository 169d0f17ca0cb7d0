//go:build linux

package stack

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// askTime is how long one question may take.
const askTime = 500 * time.Millisecond

// SRV is a record of an answer, without trailing dots.
type SRV struct {
	Target           string
	Port             uint16
	Priority, Weight uint16
}

// Ask asks a host's DNS server over UDP, from the host itself.
func (s *Stack) Ask(ctx context.Context, server, name string, qtype uint16) (*dns.Msg, error) {
	h := s.Host(server)
	conn, err := h.Dial(ctx, "udp", net.JoinHostPort(h.Addr.String(), "53"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(4096, false)
	c := dns.Client{Timeout: askTime}
	r, _, err := c.ExchangeWithConnContext(ctx, m, &dns.Conn{Conn: conn})
	return r, err
}

// Targets are the SRV records that a server answers, by priority, and sorted within one.
func (s *Stack) Targets(ctx context.Context, server, name string) ([]SRV, error) {
	r, err := s.Ask(ctx, server, name, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("%s answers %s for %s", server, dns.RcodeToString[r.Rcode], name)
	}
	var all []SRV
	for _, rr := range r.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			all = append(all, SRV{strings.TrimSuffix(srv.Target, "."), srv.Port, srv.Priority, srv.Weight})
		}
	}
	slices.SortFunc(all, func(a, b SRV) int {
		if a.Priority != b.Priority {
			return int(a.Priority) - int(b.Priority)
		}
		return strings.Compare(a.Target, b.Target)
	})
	return all, nil
}

// CNAME is the target that a server answers for a name; "" where it answers none.
func (s *Stack) CNAME(ctx context.Context, server, name string) string {
	r, err := s.Ask(ctx, server, name, dns.TypeCNAME)
	if err != nil {
		return ""
	}
	for _, rr := range r.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			return strings.TrimSuffix(c.Target, ".")
		}
	}
	return ""
}
