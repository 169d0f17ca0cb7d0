package zone_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// The largest topology is served: whole in a transfer, and in an answer as far as
// a message goes.
func TestTenThousandMasters(t *testing.T) {
	top := &topology.Topology{Local: 10, Remote: 20, PuppetDBPort: 8081, CamasterName: "puppet-camaster.example.net.", Camaster: "m0.example.net."}
	const datacenters = 10
	for i := range datacenters {
		name := fmt.Sprintf("dc%d", i)
		top.Datacenters = append(top.Datacenters, topology.Datacenter{Name: name, Domain: name + ".example.net."})
	}
	for i := range topology.MaxMasters {
		dc := datacenters - 1
		if i < 5 { // the first has few of its own
			dc = 0
		}
		top.Masters = append(top.Masters, topology.Master{
			Host: fmt.Sprintf("m%d.example.net.", i), Datacenter: top.Datacenters[dc].Name, Port: 8140, Weight: 10, CA: i == 0,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})},
		})
	}
	static, err := zone.Synthesize("example.net.", []string{"ns1.example.net."}, 5)
	if err != nil {
		t.Fatal(err)
	}
	plan, _, err := zone.NewPlan(top, 5, []zone.Static{static})
	if err != nil {
		t.Fatal(err)
	}
	v := plan.NewView(time.Now())
	v.Masters[1].Verdict = health.Verdict{Down: true, Reason: health.ReasonRefused}
	s := plan.Render(v).Snapshot(map[string]uint32{"example.net.": 1})
	const name = "_x-puppet._tcp.dc0.example.net."
	a := s.Answer(name, dns.TypeSRV)
	if len(a.Answer) != topology.MaxMasters {
		t.Fatalf("%d targets", len(a.Answer))
	}
	for _, size := range []int{512, 1232, dns.MaxMsgSize} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeSRV)
		m.Compress = true
		m.Answer, m.Ns, m.Extra, _ = a.Fit(size)
		wire, err := m.Pack()
		if err != nil || len(wire) > size {
			t.Errorf("%d bytes for %d: %v", len(wire), size, err)
		}
		for i, rr := range m.Answer[:4] {
			if srv := rr.(*dns.SRV); srv.Priority != 10 {
				t.Errorf("target %d in %d bytes is %v: the datacenter's own come first", i, size, srv)
			}
		}
	}
	elem, ok := s.Zones["example.net."].File.Tree.Search(name)
	if !ok || len(elem.Type(dns.TypeSRV)) != topology.MaxMasters {
		t.Error("the transferred zone has not all of them")
	}
}
