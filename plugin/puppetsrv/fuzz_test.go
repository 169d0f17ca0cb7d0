package puppetsrv_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// configure runs the plugin's setup, as CoreDNS does for a server block.
func configure(input string) (*dnsserver.Config, error) {
	setup, err := caddy.DirectiveAction("dns", "puppetsrv")
	if err != nil {
		return nil, err
	}
	c := caddy.NewTestController("dns", input)
	c.ServerBlockKeys = []string{"example.net."}
	return dnsserver.GetConfig(c), setup(c)
}

// FuzzCorefile: no text in the block makes parsing panic, and what is refused is
// refused with its place.
func FuzzCorefile(f *testing.F) {
	f.Add(right)
	for line := range strings.Lines(right) {
		f.Add(line)
		f.Add(right + line)
	}
	for _, lines := range []string{
		"ttl 5\npriority 0 1\nunhealthy omit\nca_target camaster\ntargets service\npuppetdb_port 1\nlocation datacenter1\nfallthrough a b\n",
		"distance datacenter1 datacenter2 9\n",
		"probe interval 1s timeout 1s fall 2 rise 2 path /x port 1 concurrency 3\n",
		"master m4 datacenter1 port 1 weight 1 ca service x address 192.0.2.1 ::1 ca\n",
		"master \"\" \"\"\n", "ns \"\"\n", "ns .\n", "datacenter \"\"\n", "camaster . .\n", "datacenter a .\n",
		"zonefile \"\"\n", "tls ca.pem\n", "tls a b c\n", "state \"\"\n", "fallthrough .\n", "{ }\n", "}\n", "\"\n", "ttl {\n5\n}\n",
		"master \\000 datacenter1\n", "datacenter x \xff\xfe\n", "master m4. datacenter1\n", "master " + strings.Repeat("a.", 130) + " datacenter1\n",
		"priority 65335 65335\n", "ttl -9223372036854775809\n", "probe interval 9999999999999h\n",
	} {
		f.Add(lines)
		f.Add(strings.Replace(right, "probe off\n", "", 1) + lines)
		f.Add(right + lines)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "example.net.zone"), []byte(rightZone), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Chdir(dir)
	place := regexp.MustCompile(`Testfile:[0-9]+ - `)
	f.Fuzz(func(t *testing.T, properties string) {
		if strings.Contains(properties, "/dev") || strings.Contains(properties, "/proc") {
			t.Skip("files without an end")
		}
		_, err := configure("puppetsrv {\n" + properties + "\n}\n")
		if err != nil && !errors.Is(err, plugin.ErrOnce) && !place.MatchString(err.Error()) {
			t.Errorf("refused without a place: %v", err)
		}
	})
}

// hardZone has what is hard to answer, besides richZone.
const hardZone = richZone + `
wide     TXT   "` + longText + `" "` + longText + `" "` + longText + `" "` + longText + `"
`

const longText = "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

// FuzzServeDNS: whatever arrives, nothing panics; inside the zones a question has
// an answer, which packs, fits the client and is complete: AA or a referral, and
// the SOA where there is nothing.
func FuzzServeDNS(f *testing.F) {
	dir := f.TempDir()
	lines, records, _ := bigHosts(16)
	for name, text := range map[string]string{"net": hardZone, "child": childZone, "other": otherZone + records} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	config, err := configure(`puppetsrv example.net datacenter2.example.net other.example {
zonefile ` + dir + `/net example.net
zonefile ` + dir + `/child datacenter2.example.net
zonefile ` + dir + `/other other.example
datacenter datacenter1
datacenter datacenter2
datacenter datacenter3 datacenter3.other.example
master m1 datacenter1 ca
master m2 datacenter1
master m3.datacenter2.example.net datacenter2
` + lines + `camaster puppet-camaster m1
probe off
}`)
	if err != nil {
		f.Fatal(err)
	}
	// A server that is not listening, for plugin/file to follow aliases with.
	config.Zone, config.Transport, config.Port, config.ListenHosts = ".", "dns", "0", []string{"127.0.0.1"}
	server, err := dnsserver.NewServer("dns://127.0.0.1:0", []*dnsserver.Config{config})
	if err != nil {
		f.Fatal(err)
	}
	handler := config.Plugin[len(config.Plugin)-1](nil)
	ctx := context.WithValue(context.WithValue(context.Background(), dnsserver.Key{}, server), dnsserver.LoopKey{}, 0)
	zones := []string{"example.net.", "other.example."}

	seed := func(m *dns.Msg) {
		wire, err := m.Pack()
		if err != nil {
			f.Fatalf("%v: %v", m.Question, err)
		}
		f.Add(wire, false)
		f.Add(wire, true)
	}
	for _, name := range []string{
		"example.net.", "_x-puppet._tcp.datacenter1.example.net.", "_X-pUPPET._tcp.dATACENTER3.oTHER.example.",
		"_x-puppet-ca._tcp.datacenter2.example.net.", "puppet-camaster.example.net.", "m1.example.net.", "www.example.net.",
		"active.example.net.", "outside.example.net.", "other.example.net.", "child.example.net.", "childless.example.net.",
		"dangling.example.net.", "delegated.example.net.", "intowild.example.net.", "intodname.example.net.", "x.wild.example.net.",
		"x.wildcname.example.net.", "x.wildoutside.example.net.", "x.loop.example.net.", "x.y.star.wild.example.net.", "b.c.ent.example.net.",
		"x.sub.example.net.", "sub.example.net.", "a.dn.example.net.", "b.dnother.example.net.", "c.dnoutside.example.net.",
		"wide.example.net.", "nobody.example.net.",
		"datacenter2.example.net.", "x.datacenter2.example.net.", "x.y.other.example.", `has\.dot.example.net.`, `\000\255\..example.net.`,
		"elsewhere.example.", ".",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT, dns.TypeCNAME, dns.TypeDS, dns.TypeNS, dns.TypeSOA, dns.TypeANY} {
			m := new(dns.Msg)
			m.SetQuestion(name, qtype)
			seed(m)
			if qtype == dns.TypeSRV || qtype == dns.TypeTXT || qtype == dns.TypeA {
				seed(m.SetEdns0(1, true))
				seed(m.SetEdns0(65535, false))
			}
		}
	}
	for _, change := range []func(*dns.Msg){
		func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate },
		func(m *dns.Msg) { m.Opcode = 15 },
		func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR },
		func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		func(m *dns.Msg) { m.Question = nil },
		func(m *dns.Msg) { m.SetEdns0(4096, true); m.IsEdns0().SetVersion(1) },
		func(m *dns.Msg) {
			m.SetEdns0(512, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 2000)}, &dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 500)})
		},
		func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeA, Class: 1}})
		},
	} {
		m := new(dns.Msg)
		m.SetQuestion("_x-puppet._tcp.datacenter1.example.net.", dns.TypeSRV)
		change(m)
		seed(m)
	}
	f.Add([]byte{}, false)

	f.Fuzz(func(t *testing.T, wire []byte, tcp bool) {
		q := new(dns.Msg)
		if q.Unpack(wire) != nil || q.Response {
			return
		}
		out := &written{ResponseWriter: test.ResponseWriter{TCP: tcp}}
		asked := q.Copy() // CoreDNS reuses the question's OPT
		code, _ := handler.ServeDNS(ctx, request.NewScrubWriter(q, out), q)
		if len(out.msgs) > 1 {
			t.Fatalf("%d responses", len(out.msgs))
		}
		inside := len(asked.Question) == 1 && asked.Opcode == dns.OpcodeQuery && asked.Question[0].Qclass == dns.ClassINET &&
			asked.Question[0].Qtype != dns.TypeAXFR && asked.Question[0].Qtype != dns.TypeIXFR &&
			(dns.IsSubDomain(zones[0], dns.CanonicalName(asked.Question[0].Name)) || dns.IsSubDomain(zones[1], dns.CanonicalName(asked.Question[0].Name)))
		if inside && (len(out.msgs) != 1 || code == dns.RcodeServerFailure || code == dns.RcodeRefused) {
			t.Fatalf("%v: %d responses, %s", asked, len(out.msgs), dns.RcodeToString[code])
		}
		if len(out.msgs) == 0 {
			return
		}
		m := out.msgs[0]
		packed, err := m.Pack()
		if err != nil {
			t.Fatalf("%v\nanswered with what does not pack: %v\n%v", asked, err, m)
		}
		if err := new(dns.Msg).Unpack(packed); err != nil {
			t.Fatalf("%v\nanswered with what does not unpack: %v\n%v", asked, err, m)
		}
		size := dns.MaxMsgSize
		if !tcp {
			size = dns.MinMsgSize
			if o := asked.IsEdns0(); o != nil {
				size = max(size, int(o.UDPSize()))
			}
		}
		if len(packed) > size {
			t.Fatalf("%v\nanswered with %d bytes for a buffer of %d", asked, len(packed), size)
		}
		if !inside {
			return
		}
		if m.Id != asked.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != asked.Question[0] {
			t.Fatalf("%v\nanswered with\n%v", asked, m)
		}
		switch {
		case m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused:
			t.Fatalf("%v\nanswered with\n%v", asked, m)
		case m.Truncated:
		case !m.Authoritative:
			if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 || len(m.Ns) == 0 || m.Ns[0].Header().Rrtype != dns.TypeNS {
				t.Fatalf("%v\nnot authoritative, and no referral\n%v", asked, m)
			}
		case len(m.Answer) == 0:
			if len(m.Ns) == 0 || m.Ns[0].Header().Rrtype != dns.TypeSOA {
				t.Fatalf("%v\nnothing, and no SOA\n%v", asked, m)
			}
		}
	})
}

// written keeps what is written.
type written struct {
	test.ResponseWriter
	msgs []*dns.Msg
}

func (w *written) WriteMsg(m *dns.Msg) error {
	w.msgs = append(w.msgs, m)
	return nil
}
