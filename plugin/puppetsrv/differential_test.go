package puppetsrv_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var (
	differentialSeed      = flag.Uint64("differential.seed", 0, "seed of the differential test's questions; 0 takes the time")
	differentialQuestions = flag.Int("differential.questions", 2500, "questions that the differential test asks in each setting")
)

// richZone has something of everything that plugin/file serves.
const richZone = `
$TTL 300
@           3600 SOA ns1 HostMaster 7 1800 600 1209600 5
@                NS  NS1
@                NS  ns.other.example.
@                MX  10 Mail
@                TXT "v=spf1 -all" "second \"string\"; with all"
@                CAA 0 issue "ca.example.net"
@                A   192.0.2.100
ns1              A   192.0.2.53
ns1              AAAA 2001:db8::53
m1               A   192.0.2.1
m1               AAAA 2001:db8::1
m2               A   192.0.2.2
m2               A   192.0.2.202
m2               A   192.0.2.203
web              A   192.0.2.80
web              TXT web
mail             AAAA 2001:db8::25
CamelCase        A   192.0.2.81
www              CNAME Web
c1               CNAME c2
c2               CNAME c3
c3               CNAME web
puppet           CNAME puppet-camaster
active           CNAME puppet
outside          CNAME host.outside.example.
other            CNAME www.other.example.
child            CNAME web.datacenter2
childless        CNAME nobody.datacenter2
dangling         CNAME nobody
delegated        CNAME host.sub
intowild         CNAME x.wild
intodname        CNAME a.dn
*.wild           A   192.0.2.82
*.wild           TXT wild
*.wild           MX  5 mail
*.wildcname      CNAME c1
*.wildoutside    CNAME host.outside.example.
*.loop           CNAME a.loop
below.wild       A   192.0.2.83
*.star.wild      TXT nested
a.b.c.ent        A   192.0.2.84
_x.y.ent         SRV 0 1 1 web
sub              NS  ns.sub
sub              NS  ns2.sub
sub              DS  12345 13 2 3131313131313131313131313131313131313131313131313131313131313131
ns.sub           A   192.0.2.90
ns2.sub          A   192.0.2.91
ns2.sub          AAAA 2001:db8::91
faraway          NS  ns.outside.example.
dn               DNAME dntarget
a.dntarget       A   192.0.2.85
b.dntarget       CNAME web
dnother          DNAME other.example.
dnoutside        DNAME outside.example.
_Sip._Tcp        SRV 0 5 5060 WEB
_Sip._Tcp        SRV 0 5 5060 c1
_mixed._tcp      SRV 0 5 1 m1.other.example.
svc              HTTPS 1 web alpn="h2"
svc              SVCB 1 web port=8443
ptr              PTR  web
has\.dot         A   192.0.2.86
has\046dot2      TXT "escaped"
sp\032ace        TXT "a blank"
_x-puppet._tcp.datacenter1 TXT "beside the SRV records"
`

const childZone = `
$TTL 300
@    SOA ns hostmaster.example.net. 9 1800 600 1209600 5
@    NS  ns
@    NS  ns1.example.net.
ns   A   192.0.2.54
web  A   192.0.2.180
m3   A   192.0.2.3
m3   AAAA 2001:db8::3
m4   AAAA 2001:db8::4
*.w  CNAME web.example.net.
`

const otherZone = `
$TTL 300
@    SOA ns hostmaster.example.net. 11 1800 600 1209600 5
@    NS  ns
ns   A   192.0.2.55
www  CNAME web
web  A   192.0.2.181
*    TXT "everything else"
`

// setting is one configuration of the differential test.
type setting struct {
	name       string
	zones      map[string]string // zone file by origin
	properties string
	camaster   string
	hosts      []string
}

// bigHosts makes masters for datacenter3, in other.example, whose tier does not
// fit 512 bytes.
func bigHosts(n int) (lines string, zone string, hosts []string) {
	var l, z strings.Builder
	for i := range n {
		host := fmt.Sprintf("big%02d.other.example", i+1)
		fmt.Fprintf(&l, "master %s datacenter3 weight %d\n", host, i+1)
		fmt.Fprintf(&z, "big%02d A 198.51.100.%d\n", i+1, i+1)
		hosts = append(hosts, host+".")
	}
	return l.String(), z.String(), hosts
}

func differentialSettings() []setting {
	lines, records, hosts := bigHosts(16)
	inChild := strings.NewReplacer("datacenter2 ca", "datacenter2 ca service s3", "datacenter2 port", "datacenter2 service s4 port")
	zones := map[string]string{"example.net.": richZone, "datacenter2.example.net.": childZone, "other.example.": otherZone + records}
	services := slices.Clone(hosts)
	for i, h := range hosts {
		services[i] = strings.Replace(h, ".", ".datacenter3.", 1)
	}
	hosts = append(hosts, "m1.example.net.", "m2.example.net.", "m3.datacenter2.example.net.", "m4.datacenter2.example.net.")
	services = append(services, hosts...)
	common := `
datacenter datacenter1
datacenter datacenter2
datacenter datacenter3 datacenter3.other.example
master m1 datacenter1 ca
master m2 datacenter1 weight 3
master m3.datacenter2.example.net datacenter2 ca
master m4.datacenter2.example.net datacenter2 port 8141
distance datacenter1 datacenter3 2
` + lines
	return []setting{
		{"targets host", zones, common + "camaster puppet-camaster m1\n", "puppet-camaster.example.net.", append(slices.Clone(hosts), "m9.outside.example.")},
		{"targets service, camaster in the child zone", zones, inChild.Replace(common) + "targets service\nca_target camaster\nttl 7\ncamaster puppet-camaster m3.datacenter2.example.net\n", "puppet-camaster.example.net.", append(services,
			"m1.datacenter1.example.net.", "m2.datacenter1.example.net.", "s3.datacenter2.example.net.", "s4.datacenter2.example.net.")},
		{"a camaster with one family", zones, common + "camaster puppet-camaster m1\n" + "master only4 datacenter1 address 192.0.2.14\n" +
			"master m9.outside.example datacenter1\n", "puppet-camaster.example.net.", append(slices.Clone(hosts), "only4.example.net.")},
	}
}

// origins are the zones, the first one first.
func (s setting) origins() []string {
	o := slices.Sorted(maps.Keys(s.zones))
	i := slices.Index(o, "example.net.")
	return append([]string{"example.net."}, slices.Delete(o, i, i+1)...)
}

// start starts puppetsrv with the setting and plugin/file with what it transfers.
func (s setting) start(t *testing.T) (puppetsrv, file *client) {
	t.Helper()
	dir := t.TempDir()
	var properties strings.Builder
	properties.WriteString(s.properties)
	for origin, text := range s.zones {
		path := filepath.Join(dir, "static."+origin+"zone")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&properties, "zonefile %s %s\n", path, origin)
	}
	keys := strings.Join(s.origins(), ":0 ") + ":0"
	puppetsrv = connect(t, fmt.Sprintf("%s {\nbind 127.0.0.1\ntransfer {\nto *\n}\npuppetsrv %s {\nprobe off\n%s}\n}\n",
		keys, strings.Join(s.origins(), " "), properties.String()))

	var corefile strings.Builder
	fmt.Fprintf(&corefile, "%s {\nbind 127.0.0.1\n", keys)
	for _, origin := range s.origins() {
		path := filepath.Join(dir, "rendered."+origin+"zone")
		if err := os.WriteFile(path, []byte(puppetsrv.transfer(t, origin)), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&corefile, "file %s %s\n", path, origin)
	}
	return puppetsrv, connect(t, corefile.String()+"}\n")
}

// client asks one server over UDP and TCP.
type client struct {
	tcpAddr  string
	udp, tcp *dns.Conn
}

func connect(t *testing.T, corefile string) *client {
	t.Helper()
	udpAddr, tcpAddr := serve(t, corefile)
	c := &client{tcpAddr: tcpAddr}
	var err error
	if c.udp, err = dns.Dial("udp", udpAddr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.udp.Close() })
	c.udp.UDPSize = dns.MaxMsgSize
	t.Cleanup(func() {
		if c.tcp != nil {
			c.tcp.Close()
		}
	})
	return c
}

// ask returns the response to q and its length. A connection is asked a number of
// times only: servers close it after 128 questions.
func (c *client) ask(t *testing.T, q *dns.Msg, overTCP bool) (*dns.Msg, int) {
	t.Helper()
	conn := c.udp
	if overTCP {
		if q.Id%64 == 0 && c.tcp != nil {
			c.tcp.Close()
			c.tcp = nil
		}
		if c.tcp == nil {
			var err error
			if c.tcp, err = dns.Dial("tcp", c.tcpAddr); err != nil {
				t.Fatal(err)
			}
		}
		conn = c.tcp
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := conn.WriteMsg(q); err != nil {
		t.Fatalf("%v: %v", q.Question, err)
	}
	wire, err := conn.ReadMsgHeader(nil)
	if err != nil {
		t.Fatalf("%v: %v", q.Question, err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil || m.Id != q.Id {
		t.Fatalf("%v: response %d to %d, error %v", q.Question, m.Id, q.Id, err)
	}
	return m, len(wire)
}

// transfer returns a zone as text.
func (c *client) transfer(t *testing.T, origin string) string {
	t.Helper()
	q := new(dns.Msg)
	q.SetAxfr(origin)
	in, err := new(dns.Transfer).In(q, c.tcpAddr)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	n := 0
	for e := range in {
		if e.Error != nil {
			t.Fatalf("transferring %s: %v", origin, e.Error)
		}
		for _, rr := range e.RR {
			if n++; n > 1 && rr.Header().Rrtype == dns.TypeSOA {
				continue // the last one
			}
			fmt.Fprintln(&b, rr)
		}
	}
	return b.String()
}

// hot are the questions that are answered from prebuilt records.
func (s setting) hot(q dns.Question) bool {
	name := strings.ToLower(q.Name)
	switch q.Qtype {
	case dns.TypeSRV:
		_, domain, _ := strings.Cut(name, "._tcp.")
		return strings.HasPrefix(name, "_x-puppet") && strings.HasPrefix(domain, "datacenter") && strings.Count(name, "_") == 2
	case dns.TypeA, dns.TypeAAAA:
		return name == s.camaster || slices.Contains(s.hosts, name)
	case dns.TypeCNAME:
		return name == s.camaster
	}
	return false
}

// questioner makes questions about a setting.
type questioner struct {
	*rand.Rand
	owners []string
	types  []uint16
}

func (s setting) questioner(rnd *rand.Rand, p *client, t *testing.T) *questioner {
	q := &questioner{Rand: rnd, types: []uint16{
		dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT,
		dns.TypePTR, dns.TypeDS, dns.TypeDNAME, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCAA, dns.TypeANY,
		dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDNSKEY, dns.TypeNone, 65280,
	}}
	owners := map[string]bool{"outside.example.": true, "host.outside.example.": true, "net.": true, ".": true}
	for _, origin := range s.origins() {
		for line := range strings.Lines(p.transfer(t, origin)) {
			for name := strings.Fields(line)[0]; name != "." && dns.IsSubDomain(origin, name); { // and every empty non-terminal
				owners[name] = true
				off, _ := dns.NextLabel(name, 0)
				name = name[off:]
			}
		}
	}
	q.owners = slices.Sorted(maps.Keys(owners))
	return q
}

// every returns each owner with each type, as plain questions.
func (q *questioner) every() []*dns.Msg {
	var out []*dns.Msg
	for _, owner := range q.owners {
		for _, typ := range q.types {
			m := new(dns.Msg)
			m.SetQuestion(owner, typ)
			out = append(out, m)
		}
	}
	return out
}

// random returns a question of any kind.
func (q *questioner) random() *dns.Msg {
	name := q.owners[q.IntN(len(q.owners))]
	switch q.IntN(6) {
	case 0:
		name = q.label() + "." + strings.TrimPrefix(name, ".")
	case 1:
		name = q.label() + "." + q.label() + "." + strings.TrimPrefix(name, ".")
	case 2:
		name = "*." + strings.TrimPrefix(name, ".")
	}
	if strings.HasPrefix(name, "*.") && q.IntN(2) == 0 {
		name = q.label() + name[1:]
	}
	if q.IntN(3) == 0 {
		b := []byte(name)
		for i := range b {
			if b[i] >= 'a' && b[i] <= 'z' && q.IntN(2) == 0 {
				b[i] -= 'a' - 'A'
			}
		}
		name = string(b)
	}
	m := new(dns.Msg)
	m.SetQuestion(name, q.types[q.IntN(len(q.types))])
	m.RecursionDesired = q.IntN(2) == 0
	m.CheckingDisabled = q.IntN(4) == 0
	m.AuthenticatedData = q.IntN(4) == 0
	if q.IntN(3) > 0 {
		sizes := []uint16{0, 100, 512, 513, 600, 800, 1000, 1232, 1400, 4096, 65535}
		m.SetEdns0(sizes[q.IntN(len(sizes))], q.IntN(2) == 0)
		if q.IntN(4) == 0 {
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"},
				&dns.EDNS0_PADDING{Padding: make([]byte, q.IntN(64))})
		}
	}
	return m
}

func (q *questioner) label() string {
	known := []string{"a", "b", "x", "www", "web", "_tcp", "_x-puppet", "*", "ns", "m1", `\000`, `\.`, `a\ b`, "0", strings.Repeat("l", 63)}
	return known[q.IntN(len(known))]
}

// sections of a message as sets: sorted text.
func asSet(rrs []dns.RR) []string {
	out := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		out = append(out, rr.String())
	}
	slices.Sort(out)
	return out
}

// difference says in what a and b differ, "" if in nothing. The ID is none.
func difference(a, b *dns.Msg) string {
	ha, hb := a.MsgHdr, b.MsgHdr
	ha.Id, hb.Id = 0, 0
	if ha != hb {
		return fmt.Sprintf("header %+v, file's %+v", ha, hb)
	}
	if !slices.Equal(a.Question, b.Question) {
		return fmt.Sprintf("question %v, file's %v", a.Question, b.Question)
	}
	for _, s := range []struct {
		name string
		a, b []dns.RR
	}{{"answer", a.Answer, b.Answer}, {"authority", a.Ns, b.Ns}, {"additional", a.Extra, b.Extra}} {
		if sa, sb := asSet(s.a), asSet(s.b); !slices.Equal(sa, sb) {
			return fmt.Sprintf("%s section\n  %s\nfile's\n  %s", s.name, strings.Join(sa, "\n  "), strings.Join(sb, "\n  "))
		}
	}
	return ""
}

// permitted is difference without the documented ones.
func (s setting) permitted(q *dns.Msg, p, f *dns.Msg) string {
	p, f = p.Copy(), f.Copy()
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	switch {
	case question.Qtype == dns.TypeDS && name != s.origins()[0] && s.zones[name] != "":
		// At a cut between two served zones the parent answers; file asks the child.
		// TestDSAtTheCut has it.
		return ""
	case f.Rcode == dns.RcodeServerFailure && len(f.Answer) > 0 && f.Answer[0].Header().Rrtype == dns.TypeCNAME:
		// An alias whose target cannot be resolved: with SERVFAIL an agent would give
		// up DNS, so the alias alone is the answer here.
		f.Rcode = dns.RcodeSuccess
	case name == s.camaster && (question.Qtype == dns.TypeA || question.Qtype == dns.TypeAAAA) && len(p.Answer) == 1 && len(p.Ns) == 1:
		// The camaster lacks the family: SOA here (RFC 2308, section 2.2), NS there.
		if p.Ns[0].Header().Rrtype == dns.TypeSOA {
			p.Ns, f.Ns = nil, nil
		}
	case s.hot(question) && question.Qtype == dns.TypeSRV:
		// Targets in other zones served here bring their addresses along.
		p.Extra = slices.DeleteFunc(p.Extra, func(rr dns.RR) bool {
			return rr.Header().Rrtype != dns.TypeOPT && !slices.Contains(asSet(f.Extra), rr.String()) && s.zoneOf(rr.Header().Name) != s.zoneOf(name)
		})
	}
	return difference(p, f)
}

func (s setting) zoneOf(name string) string {
	best := ""
	for o := range s.zones {
		if dns.IsSubDomain(o, name) && len(o) > len(best) {
			best = o
		}
	}
	return best
}

// fitted says what is wrong with a prebuilt answer in a buffer of the client's,
// given the whole one: it must fit, unless its up-local tier does not, and must not
// give up more than it has to, in the order that is documented.
func fitted(q, p, whole *dns.Msg, length int) string {
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = max(size, int(o.UDPSize()))
	}
	if length > size {
		return fmt.Sprintf("%d bytes for a buffer of %d", length, size)
	}
	least := whole.Copy() // what may not be cut
	least.Compress, least.Ns = true, nil
	least.Extra = slices.DeleteFunc(least.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
	local := func(rr dns.RR) bool {
		srv, ok := rr.(*dns.SRV)
		return !ok || srv.Priority == 10
	}
	floor := len(slices.DeleteFunc(slices.Clone(whole.Answer), func(rr dns.RR) bool { return !local(rr) }))
	least.Answer = least.Answer[:max(floor, min(1, len(whole.Answer)))]
	if p.Truncated {
		if least.Len() > size {
			return ""
		}
		return fmt.Sprintf("TC, although the up-local tier needs %d bytes only and the buffer has %d", least.Len(), size)
	}
	if p.Rcode != whole.Rcode || p.Authoritative != whole.Authoritative {
		return fmt.Sprintf("header %+v, over TCP %+v", p.MsgHdr, whole.MsgHdr)
	}
	bound := whole.Copy()
	bound.Compress = false
	if bound.Len() <= size && difference(p, whole) != "" {
		return "not whole, although it fits: " + difference(p, whole)
	}
	have := make(map[string]bool)
	for _, rr := range p.Answer {
		have[rr.String()] = true
	}
	lastHave, firstMissing := uint16(0), uint16(65535)
	for _, rr := range whole.Answer {
		srv, ok := rr.(*dns.SRV)
		switch {
		case have[rr.String()] && ok:
			lastHave = max(lastHave, srv.Priority)
		case have[rr.String()]:
		case local(rr):
			return fmt.Sprintf("%v is missing", rr)
		default:
			firstMissing = min(firstMissing, srv.Priority)
		}
		delete(have, rr.String())
	}
	if len(have) > 0 {
		return fmt.Sprintf("%v is not in the answer over TCP", slices.Collect(maps.Keys(have)))
	}
	if lastHave > firstMissing {
		return fmt.Sprintf("priority %d is given, but of %d something is missing", lastHave, firstMissing)
	}
	if len(p.Ns) > 0 && !slices.Equal(asSet(p.Ns), asSet(whole.Ns)) {
		return fmt.Sprintf("authority %v, over TCP %v", p.Ns, whole.Ns)
	}
	for _, rr := range p.Extra {
		if rr.Header().Rrtype != dns.TypeOPT && !slices.Contains(asSet(whole.Extra), rr.String()) {
			return fmt.Sprintf("%v is not in the answer over TCP", rr)
		}
		if rr.Header().Rrtype != dns.TypeOPT && len(p.Answer) < len(whole.Answer) {
			return "addresses, but not all targets"
		}
	}
	if (p.IsEdns0() == nil) != (q.IsEdns0() == nil) {
		return "OPT in one of question and answer only"
	}
	return ""
}

// The plugin against plugin/file with the same records, over real sockets. What is
// not among the documented differences is a bug.
func TestDifferential(t *testing.T) {
	seed := *differentialSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with -differential.seed=%d", seed)
	for i, s := range differentialSettings() {
		t.Run(s.name, func(t *testing.T) {
			puppetsrv, file := s.start(t)
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			questions := s.questioner(rnd, puppetsrv, t)
			failures := 0
			check := func(q *dns.Msg) {
				if failures > 10 {
					return
				}
				q.Id = uint16(failures) + q.Id
				fail := func(how, what string) {
					failures++
					t.Errorf("%s, %s (EDNS: %v):\n%s", strings.TrimPrefix(q.Question[0].String(), ";"), how, q.IsEdns0(), what)
				}
				pWhole, _ := puppetsrv.ask(t, q, true)
				fWhole, _ := file.ask(t, q, true)
				if d := s.permitted(q, pWhole, fWhole); d != "" {
					fail("TCP", d)
					return
				}
				p, length := puppetsrv.ask(t, q, false)
				if s.hot(q.Question[0]) {
					if d := fitted(q, p, pWhole, length); d != "" {
						fail("UDP", d)
					}
					return
				}
				f, _ := file.ask(t, q, false)
				if d := s.permitted(q, p, f); d != "" {
					fail("UDP", d)
				}
			}
			every := questions.every()
			for _, j := range rnd.Perm(len(every))[:min(len(every), *differentialQuestions)] {
				check(every[j])
			}
			for range *differentialQuestions {
				check(questions.random())
			}
		})
	}
}

// Resolvers that mix the case of the name they ask (draft-vixie-dnsext-dns0x20)
// get the same targets: the name is longer on the wire then, because labels of
// another case are not compressed together.
func TestMixedCaseIsShortenedNotTruncated(t *testing.T) {
	s := differentialSettings()[0]
	puppetsrv, _ := s.start(t)
	for _, name := range []string{"_x-puppet._tcp.datacenter1.example.net.", "_X-puppet._tCp.DataCenter1.exAMPLE.net."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeSRV)
		m, length := puppetsrv.ask(t, q, false)
		if m.Truncated || len(m.Answer) < 3 {
			t.Errorf("%s: %d targets in %d bytes, TC %v: want targets of the last tier cut instead", name, len(m.Answer), length, m.Truncated)
		}
		if m.Question[0].Name != name {
			t.Errorf("the question comes back as %s, want %s", m.Question[0].Name, name)
		}
	}
}

// The DS record at the cut between two served zones is the parent's (RFC 4035,
// section 3.1.4.1), and so is its absence.
func TestDSAtTheCut(t *testing.T) {
	const parent = "$TTL 60\n@ SOA ns1 hostmaster 7 1800 600 1209600 5\n@ NS ns1\nns1 A 192.0.2.53\nm1 A 192.0.2.1\n"
	for _, tc := range []struct {
		parent string
		answer int
	}{
		{parent, 0},
		{parent + "datacenter1 NS ns.datacenter1\nns.datacenter1 A 192.0.2.54\ndatacenter1 DS 12345 13 2 3131313131313131313131313131313131313131313131313131313131313131\n", 1},
	} {
		s := setting{
			zones: map[string]string{
				"example.net.":             tc.parent,
				"datacenter1.example.net.": "$TTL 60\n@ SOA ns hostmaster 9 1800 600 1209600 5\n@ NS ns\nns A 192.0.2.54\n",
			},
			properties: "datacenter datacenter1\nmaster m1 datacenter1 ca\ncamaster puppet-camaster m1\n",
		}
		puppetsrv, _ := s.start(t)
		q := new(dns.Msg)
		q.SetQuestion("datacenter1.example.net.", dns.TypeDS)
		m, _ := puppetsrv.ask(t, q, false)
		if m.Rcode != dns.RcodeSuccess || !m.Authoritative || len(m.Answer) != tc.answer {
			t.Errorf("%v, want %d DS record", m, tc.answer)
		}
		for _, rr := range m.Ns {
			if rr.Header().Name != "example.net." {
				t.Errorf("authority %v, want the parent's", rr)
			}
		}
	}
}

// The camaster's host need not be written out in the zone: what the CNAME leads to
// is what plugin/file says, for an agent as for a secondary.
func TestCamasterIsFollowedLikeAnyAlias(t *testing.T) {
	for _, tc := range []struct {
		host, records string
	}{
		{"of a wildcard", "*.dyn A 192.0.2.7\n"},
		{"that does not exist", ""},
		{"that is an empty non-terminal", "below.m1.dyn A 192.0.2.8\n"},
		{"with a TXT record alone", "m1.dyn TXT here\n"},
		{"with one family", "m1.dyn A 192.0.2.9\n"},
	} {
		t.Run("a host "+tc.host, func(t *testing.T) {
			s := setting{
				zones:      map[string]string{"example.net.": "$TTL 60\n@ SOA ns1 hostmaster 7 1800 600 1209600 5\n@ NS ns1\nns1 A 192.0.2.53\n" + tc.records},
				properties: "datacenter datacenter1\nmaster m1.dyn.example.net datacenter1 ca\ncamaster puppet-camaster m1.dyn.example.net\n",
				camaster:   "puppet-camaster.example.net.",
				hosts:      []string{"m1.dyn.example.net."},
			}
			puppetsrv, file := s.start(t)
			for _, name := range []string{s.camaster, s.hosts[0]} {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeCNAME} {
					q := new(dns.Msg)
					q.SetQuestion(name, qtype)
					p, _ := puppetsrv.ask(t, q, false)
					f, _ := file.ask(t, q, false)
					if d := s.permitted(q, p, f); d != "" {
						t.Errorf("%s %s: %s", name, dns.TypeToString[qtype], d)
					}
				}
			}
		})
	}
}
