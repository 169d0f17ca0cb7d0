package puppetsrv

import (
	"context"
	"os"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
)

// roomless fails for a section that another plugin could append to in place.
type roomless struct {
	test.ResponseWriter
	t    *testing.T
	seen int
}

func (w *roomless) WriteMsg(m *dns.Msg) error {
	for name, rrs := range map[string][]dns.RR{"answer": m.Answer, "authority": m.Ns, "additional": m.Extra} {
		w.seen += len(rrs)
		if cap(rrs) > len(rrs) {
			w.t.Errorf("%s %s: the %s section has room for %d more: an appended record would be written into the zone",
				m.Question[0].Name, dns.TypeToString[m.Question[0].Qtype], name, cap(rrs)-len(rrs))
		}
	}
	return nil
}

// dnssec appends its signatures to the sections that it is given, which are the
// zone's own slices.
func TestSectionsHaveNoRoomToGrow(t *testing.T) {
	t.Chdir(t.TempDir())
	zone := `$TTL 60
@ SOA ns1 hostmaster 1 1800 600 1209600 5
@ NS ns1
@ NS ns2
@ NS ns3
three A 192.0.2.1
three A 192.0.2.2
three A 192.0.2.3
alias CNAME three
m1 A 192.0.2.1
m1 A 192.0.2.2
m1 A 192.0.2.3
`
	if err := os.WriteFile("zone", []byte(zone), 0o600); err != nil {
		t.Fatal(err)
	}
	c := caddy.NewTestController("dns", `puppetsrv example.net {
		zonefile   zone
		datacenter dc1
		master     m1 dc1 ca
		camaster   puppet-camaster m1
		probe      off
	}`)
	cfg, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	p := newPuppetsrv(cfg)
	for _, name := range []string{"example.net.", "three.example.net.", "alias.example.net.", "m1.example.net.", "puppet-camaster.example.net.",
		"_x-puppet._tcp.dc1.example.net.", "_x-puppet-ca._tcp.dc1.example.net.", "none.example.net."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME} {
			m := new(dns.Msg)
			m.SetQuestion(name, qtype)
			w := &roomless{t: t}
			if _, err := p.ServeDNS(context.Background(), w, m); err != nil {
				t.Fatal(err)
			}
			if w.seen == 0 {
				t.Errorf("%s %s: nothing was written", name, dns.TypeToString[qtype])
			}
		}
	}
}
