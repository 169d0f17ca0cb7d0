package zone_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// FuzzRender takes any zone file and any beliefs. A zone file is refused or
// served; then nothing panics, no tier is empty, and what is transferred is again
// a zone file that is accepted.
func FuzzRender(f *testing.F) {
	for _, lines := range []string{
		"",
		"www 60 CNAME web\nweb 60 A 192.0.2.80\n",
		"* 60 CNAME m1\n*.a.b 60 TXT x\n",
		"sub 60 NS ns.sub\nns.sub 60 A 192.0.2.9\nsub DS 1 13 2 AB\n",
		"datacenter2 60 NS ns.sub\n",
		"m1.datacenter1 60 A 192.0.2.9\n",
		"a 60 CNAME b\nb 60 CNAME a\n",
		"d 60 DNAME d.d\n",
		"has\\046dot\\000 60 TXT \"\\\"quoted\\\"\" \\;\n",
		"$GENERATE 1-5 host-$ 60 A 192.0.2.$\n",
		"$ORIGIN x.example.net.\n$TTL 5\n@ MX 10 mail\n",
		"_x-puppet._tcp.datacenter1 60 SRV 1 1 1 .\n",
		"PUPPET-camaster 60 TXT x\n",
		"m5 60 A 192.0.2.5\nm5 60 AAAA ::1\n",
		"m5 60 A ",
	} {
		for _, beliefs := range []string{"", "\x01\x02\x04\x08\x0f", "\xff\xff\xff\xff\xff", "\x12\x34\x56\x78\x9a"} {
			f.Add(lines, beliefs)
		}
	}
	f.Fuzz(func(t *testing.T, lines, beliefs string) {
		if strings.Contains(strings.ToUpper(lines), "$INCLUDE") {
			t.Skip("reads other files")
		}
		w := newWorld()
		var bits byte
		if beliefs != "" {
			bits = beliefs[len(beliefs)-1]
		}
		w.Unhealthy = topology.Unhealthy(bits & 1)
		w.Targets = topology.Targets(bits >> 1 & 1)
		w.CATarget = topology.CATarget(bits >> 2 & 1)
		w.files["example.net."] += lines
		if bits>>3&1 == 1 {
			ownZone(w)
		}
		p, _, err := w.tryPlan()
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("refused without a word")
			}
			return
		}
		v := p.NewView(now)
		for i := range v.Masters {
			if i >= len(beliefs) {
				break
			}
			b := beliefs[i]
			m := &v.Masters[i]
			m.Verdict.Down, m.Drained = b&1 == 1, b&2 == 2
			if b&4 == 4 {
				m.Verdict.Reason = health.ReasonCertificate
			}
			if b&8 == 8 {
				m.Certificate = &health.Certificate{Trusted: b&16 == 0, NotAfter: now, Names: []string{"*.datacenter1.example.net"}}
			}
			if b&32 == 32 {
				v.Camaster = w.Masters[i].Host
			}
		}
		s := render(p, v)
		for _, name := range []string{tiers1, tiers2, ca1, ca2} {
			if a := s.Answer(name, dns.TypeSRV); a == nil || len(a.Answer) == 0 {
				t.Errorf("%s is empty", name)
			}
		}
		for _, q := range hotQuestions(p.Topology) {
			a := s.Answer(q.Name, q.Qtype)
			if a == nil {
				continue
			}
			m, _ := reply(q.Name, q.Qtype, a, dns.MaxMsgSize)
			if _, err := m.Pack(); err != nil {
				t.Errorf("%s %s does not pack: %v", q.Name, dns.TypeToString[q.Qtype], err)
			}
		}
		for origin, z := range s.Zones {
			text := strings.Join(transfer(t, z, true), "\n")
			again, err := zone.Read(strings.NewReader(text), origin, "transferred")
			if err != nil {
				t.Errorf("what is transferred of %s is refused as a zone file: %v\n%s", origin, err, text)
				continue
			}
			if got := strings.Join(texts(again.Records), "\n"); got != text {
				t.Errorf("%s read again is\n%s\nwant\n%s", origin, got, text)
			}
		}
		if fmt.Sprint(s.Camaster) == "" {
			t.Error("no camaster")
		}
	})
}
