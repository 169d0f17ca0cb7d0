package zone_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// now is the time of every view here.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	tiers1 = "_x-puppet._tcp.datacenter1.example.net."
	tiers2 = "_x-puppet._tcp.datacenter2.example.net."
	tiers3 = "_x-puppet._tcp.datacenter3.example.net."
	ca1    = "_x-puppet-ca._tcp.datacenter1.example.net."
	ca2    = "_x-puppet-ca._tcp.datacenter2.example.net."
)

// apex begins the zone files of these tests.
const apex = `
@    3600 SOA ns1 hostmaster 7 1800 600 1209600 5
@    3600 NS  ns1
ns1  3600 A   192.0.2.53
`

const exampleNet = apex + `
m1   3600 A    192.0.2.1
m1   3600 AAAA 2001:db8::1
m2   3600 A    192.0.2.2
m3   3600 A    192.0.2.3
m4   3600 A    192.0.2.4
`

// world is what a node is configured with. The zero world of newWorld has m1 and
// m2 in datacenter1, m3 and m4 in datacenter2; m1 and m3 are CA-capable, and m1 is
// the camaster.
type world struct {
	topology.Topology
	ttl   uint32
	files map[string]string // zone file by origin
}

func newWorld() *world {
	return &world{
		Topology: topology.Topology{
			Datacenters: []topology.Datacenter{
				{Name: "datacenter1", Domain: "datacenter1.example.net."},
				{Name: "datacenter2", Domain: "datacenter2.example.net."},
			},
			Masters: []topology.Master{
				master("m1", "datacenter1"), master("m2", "datacenter1"),
				master("m3", "datacenter2"), master("m4", "datacenter2"),
			},
			Local: 10, Remote: 20, PuppetDBPort: 8081,
			Distances:    map[topology.Pair]int{},
			CamasterName: "puppet-camaster.example.net.",
			Camaster:     "m1.example.net.",
		},
		ttl:   5,
		files: map[string]string{"example.net.": exampleNet},
	}
}

// master is NAME.example.net; the odd ones are CA-capable.
func master(name, dc string) topology.Master {
	return topology.Master{
		Host: name + ".example.net.", Datacenter: dc, Port: 8140, Weight: 10,
		CA: name == "m1" || name == "m3", Service: name + "." + dc + ".example.net.",
	}
}

// third adds datacenter3 with m5, at the given distances from the other two.
func (w *world) third(d1, d2 int) *world {
	w.Datacenters = append(w.Datacenters, topology.Datacenter{Name: "datacenter3", Domain: "datacenter3.example.net."})
	w.Masters = append(w.Masters, master("m5", "datacenter3"))
	w.Distances[topology.PairOf("datacenter1", "datacenter3")] = d1
	w.Distances[topology.PairOf("datacenter3", "datacenter2")] = d2
	w.files["example.net."] += "m5 3600 A 192.0.2.5\n"
	return w
}

// statics reads the world's zone files.
func (w *world) statics() ([]zone.Static, error) {
	var statics []zone.Static
	for origin, text := range w.files {
		s, err := zone.Read(strings.NewReader(text), origin, "db."+origin)
		if err != nil {
			return nil, err
		}
		statics = append(statics, s)
	}
	slices.SortFunc(statics, func(a, b zone.Static) int { return strings.Compare(a.Origin, b.Origin) })
	return statics, nil
}

func (w *world) tryPlan() (*zone.Plan, []string, error) {
	statics, err := w.statics()
	if err != nil {
		return nil, nil, err
	}
	return zone.NewPlan(&w.Topology, w.ttl, statics)
}

func (w *world) plan(t testing.TB) *zone.Plan {
	t.Helper()
	p, _, err := w.tryPlan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// beliefs are what is believed of masters by short name: any of "down",
// "drained" and "badcert" in one string.
type beliefs map[string]string

// view is the view of p under b. A master in certs presents a certificate with
// those names.
func (b beliefs) view(t testing.TB, p *zone.Plan, certs map[string][]string) zone.View {
	t.Helper()
	v := p.NewView(now)
	known := make(map[string]bool)
	for i, m := range p.Topology.Masters {
		short, _, _ := strings.Cut(m.Host, ".")
		known[short] = true
		for _, word := range strings.Fields(b[short]) {
			switch word {
			case "down":
				v.Masters[i].Verdict = health.Verdict{Down: true, Reason: health.ReasonRefused, Since: now}
			case "badcert":
				v.Masters[i].Verdict = health.Verdict{Down: true, Reason: health.ReasonCertificate, Since: now}
			case "drained":
				v.Masters[i].Drained = true
			default:
				t.Fatalf("unknown belief %q", word)
			}
		}
		if names, ok := certs[short]; ok {
			v.Masters[i].Certificate = &health.Certificate{Names: names, NotAfter: now.Add(time.Hour), Trusted: true}
		}
	}
	for short := range b {
		if !known[short] {
			t.Fatalf("belief about the unknown master %s", short)
		}
	}
	return v
}

// render lays out p under v with serial 42 everywhere.
func render(p *zone.Plan, v zone.View) *zone.Snapshot {
	serials := make(map[string]uint32)
	for _, o := range p.Origins() {
		serials[o] = 42
	}
	return p.Render(v).Snapshot(serials)
}

// snapshot is the world's content under b.
func (w *world) snapshot(t testing.TB, b beliefs) *zone.Snapshot {
	t.Helper()
	p := w.plan(t)
	return render(p, b.view(t, p, nil))
}

// response is a looked-up answer.
type response struct {
	answer, ns, extra []dns.RR
	result            file.Result
}

// lookup asks plugin/file's zone, as for any name without a prebuilt answer.
func lookup(s *zone.Snapshot, name string, qtype uint16) response {
	z := s.Match(name)
	req := new(dns.Msg)
	req.SetQuestion(name, qtype)
	var r response
	r.answer, r.ns, r.extra, r.result = z.File.Lookup(context.Background(), request.Request{W: &test.ResponseWriter{}, Req: req}, name)
	return r
}

// srvs returns the SRV records that agents see at name: prebuilt, and checked to
// be those that plugin/file has and that a secondary would get.
func srvs(t testing.TB, s *zone.Snapshot, name string) []*dns.SRV {
	t.Helper()
	a := s.Answer(name, dns.TypeSRV)
	if a == nil {
		t.Fatalf("no prebuilt answer for %s SRV", name)
	}
	if got, want := texts(a.Answer), texts(lookup(s, name, dns.TypeSRV).answer); !slices.Equal(got, want) {
		t.Errorf("%s: the prebuilt answer is\n%s\nbut the zone has\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	out := make([]*dns.SRV, len(a.Answer))
	for i, rr := range a.Answer {
		out[i] = rr.(*dns.SRV)
	}
	return out
}

// tiers shows an SRV RRset by priority: "10 m1 m2, 20 m3". Targets below
// example.net are given by their first label.
func tiers(rrs []*dns.SRV) string {
	var b strings.Builder
	for i, rr := range rrs {
		if i == 0 || rr.Priority != rrs[i-1].Priority {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprint(&b, rr.Priority)
		}
		short, rest, _ := strings.Cut(rr.Target, ".")
		if !strings.HasSuffix("."+rest, ".example.net.") {
			short = rr.Target
		}
		b.WriteString(" " + short)
	}
	return b.String()
}

// texts returns records as sorted text.
func texts(rrs []dns.RR) []string {
	out := make([]string, len(rrs))
	for i, rr := range rrs {
		out[i] = rr.String()
	}
	slices.Sort(out)
	return out
}

// values returns what records say, without owner, TTL and class, sorted.
func values(rrs []dns.RR) []string {
	out := make([]string, len(rrs))
	for i, rr := range rrs {
		out[i] = strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	slices.Sort(out)
	return out
}

// transfer returns a zone's records as AXFR sends them, as sorted text; the SOA
// without its serial if asked.
func transfer(t testing.TB, z *zone.Zone, serial bool) []string {
	t.Helper()
	ch, err := z.File.Transfer(0)
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for part := range ch {
		rrs = append(rrs, part...)
	}
	if len(rrs) < 2 || rrs[0].Header().Rrtype != dns.TypeSOA || rrs[len(rrs)-1].Header().Rrtype != dns.TypeSOA {
		t.Fatalf("a transfer of %s begins or ends without SOA", z.Origin)
	}
	rrs = rrs[:len(rrs)-1]
	if !serial {
		soa := dns.Copy(rrs[0]).(*dns.SOA)
		soa.Serial = 0
		rrs[0] = soa
	}
	return texts(rrs)
}

func addrs(ss ...string) []netip.Addr {
	out := make([]netip.Addr, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}
