package zone_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// checkRefusal checks that err is there and has each part: what is wrong, where,
// and what would be right.
func checkRefusal(t *testing.T, err error, parts []string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want a refusal with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
}

func TestZoneFileRefusals(t *testing.T) {
	chain := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "c%d 60 CNAME c%d\n", i, i+1)
		}
		fmt.Fprintf(&b, "c%d 60 A 192.0.2.1\n", n)
		return apex + b.String()
	}
	for _, tc := range []struct {
		mistake string
		file    string
		want    []string
	}{
		{"no SOA", "@ 60 NS ns1\n", []string{"no SOA", "example.net.", "add one", "SOA ns1 hostmaster"}},
		{"an empty file", "", []string{"no SOA"}},
		{"two SOAs", apex + "@ 60 SOA ns2 hostmaster 8 1800 600 1209600 5\n", []string{"2 SOA records", "a zone has one"}},
		{"the SOA of another name", "www 60 SOA ns1 hostmaster 8 1800 600 1209600 5\n@ 60 NS ns1\n", []string{"www.example.net.", "is not the zone"}},
		{"no name server", "@ 60 SOA ns1 hostmaster 7 1800 600 1209600 5\nsub NS ns1\n", []string{"no NS record at its apex", "add one"}},
		{"CNAME and other data", apex + "www 60 CNAME ns1\nwww 60 A 192.0.2.1\n", []string{"www.example.net.", "CNAME and other records"}},
		{"other data and CNAME", apex + "www 60 A 192.0.2.1\nWWW 60 CNAME ns1\n", []string{"www.example.net.", "CNAME and other records"}},
		{"a CNAME at the apex", apex + "@ 60 CNAME www\n", []string{"example.net.", "CNAME and other records"}},
		{"two CNAMEs", apex + "www 60 CNAME ns1\nwww 60 CNAME ns2\n", []string{"www.example.net.", "two CNAME"}},
		{"a CNAME to itself", apex + "www 60 CNAME www\n", []string{"www.example.net.", "itself"}},
		{"CNAMEs in a circle", apex + "a 60 CNAME b\nb 60 CNAME C\nc 60 CNAME a\n", []string{"CNAME that leads back to itself"}},
		{"a way into a circle", apex + "way 60 CNAME a\na 60 CNAME b\nb 60 CNAME a\n", []string{"CNAME that leads back to itself"}},
		{"a chain that is not followed", chain(9), []string{"chain of more than 8 CNAMEs"}},
		{"a DNAME to itself, for which there is only SERVFAIL", apex + "here 60 DNAME here\n", []string{"here.example.net.", "DNAME"}},
		{"two DNAMEs (RFC 6672, section 2.4)", apex + "here 60 DNAME a.example.\nhere 60 DNAME b.example.\n", []string{"here.example.net.", "DNAME"}},
		{"a signature", apex + "www 60 RRSIG A 13 3 60 20300101000000 20200101000000 1 example.net. AAAA\n", []string{"signed", "remove the signatures", "dnssec plugin"}},
		{"a denial", apex + "www 60 NSEC a.example.net. A\n", []string{"signed", "dnssec plugin"}},
		{"a hashed denial", apex + "www 60 NSEC3 1 0 0 - 2vptu5timamqttgl4luu9kg21e0aor3s A\n", []string{"signed", "dnssec plugin"}},
		{"its parameters", apex + "@ 60 NSEC3PARAM 1 0 0 -\n", []string{"signed", "dnssec plugin"}},
		{"out of zone", apex + "www.example.org. 60 A 192.0.2.1\n", []string{"www.example.org. A", "outside of zone example.net."}},
		{"out of zone, SRV", apex + "_x._tcp.EXAMPLE.org. 60 SRV 0 1 1 a.example.net.\n", []string{"outside of zone example.net."}},
		{"a name that only ends the same", apex + "badexample.net. 60 A 192.0.2.1\n", []string{"outside of zone example.net."}},
		{"another class", apex + "www 60 CH TXT here\n", []string{"class CH", "only IN"}},
		{"no zone file at all", apex + "this is no record\n", []string{"parsing zone file", "db.test", "line: 5"}},
		{"a bad address", apex + "www 60 A 192.0.2.256\n", []string{"parsing zone file", "192.0.2.256", "line: 5"}},
		{"an address without address, where the file ends", apex + "www 60 A ", []string{"www.example.net.", "A"}},
		{"a TTL is missing", "@ SOA ns1 hostmaster 7 1800 600 1209600 5\n", []string{"TTL", "line: 1"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			_, err := zone.Read(strings.NewReader(tc.file), "example.net.", "db.test")
			checkRefusal(t, err, append(tc.want, `"db.test"`))
		})
	}
	t.Run("the longest chain that is followed", func(t *testing.T) {
		w := newWorld()
		w.files["example.net."] += strings.TrimPrefix(chain(8), apex)
		if got := typesOf(lookup(w.snapshot(t, nil), "c0.example.net.", dns.TypeA).answer); got != "A"+strings.Repeat(" CNAME", 8) {
			t.Errorf("the answer has %q, want eight CNAMEs and the address", got)
		}
	})
	t.Run("the longest chain that ends in the camaster", func(t *testing.T) {
		w := newWorld()
		w.files["example.net."] += strings.Replace(strings.TrimPrefix(chain(8), apex), "c8 60 A 192.0.2.1", "", 1)
		w.files["example.net."] = strings.ReplaceAll(w.files["example.net."], "CNAME c8", "CNAME puppet-camaster")
		if got := typesOf(lookup(w.snapshot(t, nil), "c0.example.net.", dns.TypeA).answer); got != "A"+strings.Repeat(" CNAME", 9) {
			t.Errorf("the answer has %q, want nine CNAMEs and the address", got)
		}
	})
}

// A zone file is read as it is meant: names in any case, escapes in any form,
// lines twice.
func TestZoneFileIsCanonicalised(t *testing.T) {
	s, err := zone.Read(strings.NewReader(`
$ORIGIN Example.NET.
$TTL 60
@        SOA   NS1 HostMaster 7 1800 600 1209600 5
@        NS    NS1
NS1      A     192.0.2.53
ns1      A     192.0.2.53
WWW      CNAME Ns1
_SIP._Tcp SRV  0 1 5060 NS1
has\046dot A   192.0.2.1
`), "example.net.", "db.test")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range s.Records {
		got = append(got, rr.Header().Name+" "+dns.TypeToString[rr.Header().Rrtype])
	}
	slices.Sort(got)
	want := []string{
		"_sip._tcp.example.net. SRV", "example.net. NS", "example.net. SOA",
		`has\.dot.example.net. A`, "ns1.example.net. A", "www.example.net. CNAME",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An SRV owner is no exception, although file.Zone.Insert makes one: written with
// an escape it would be answered by nobody.
func TestEscapedSRVOwnerIsServed(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += `\095sip._tcp 60 SRV 0 1 5060 ns1` + "\n"
	if r := lookup(w.snapshot(t, nil), "_sip._tcp.example.net.", dns.TypeSRV); len(r.answer) != 1 {
		t.Errorf(`\095sip._tcp is not served as _sip._tcp: %v`, texts(r.answer))
	}
}

// Nor is a written name that stands in the zone file in another spelling.
func TestEscapedWrittenNameIsRefused(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += `\095x-puppet._tcp.datacenter1 60 SRV 0 1 8140 m1` + "\n"
	_, _, err := w.tryPlan()
	checkRefusal(t, err, []string{tiers1, "SRV", "remove it from the zone file"})
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("$INCLUDE, relative to the file", func(t *testing.T) {
		write("hosts", "www 60 A 192.0.2.80\n")
		s, err := zone.ReadFile(write("db", apex+"$INCLUDE hosts\n"), "example.net.")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(s.Records, func(rr dns.RR) bool { return rr.Header().Name == "www.example.net." }) {
			t.Errorf("the included record is missing: %v", s.Records)
		}
	})
	t.Run("a file that is not there", func(t *testing.T) {
		_, err := zone.ReadFile(filepath.Join(dir, "none"), "example.net.")
		checkRefusal(t, err, []string{"opening zone file", "none", "no such file"})
	})
	t.Run("an include that is not there", func(t *testing.T) {
		_, err := zone.ReadFile(write("db2", apex+"$INCLUDE nothing\n"), "example.net.")
		checkRefusal(t, err, []string{"db2", "nothing"})
	})
	t.Run("a directory", func(t *testing.T) {
		_, err := zone.ReadFile(dir, "example.net.")
		checkRefusal(t, err, []string{dir, "directory"})
	})
	t.Run("a file beyond all measure", func(t *testing.T) {
		path := write("huge", "")
		if err := os.Truncate(path, zone.MaxFileSize+1); err != nil {
			t.Fatal(err)
		}
		_, err := zone.ReadFile(path, "example.net.")
		checkRefusal(t, err, []string{"huge", "at most"})
	})
}

// A zone without a file has an apex from `ns`.
func TestSynthesize(t *testing.T) {
	s, err := zone.Synthesize("example.net.", []string{"ns1.example.net.", "ns.example.org."}, 5)
	if err != nil {
		t.Fatal(err)
	}
	types := make(map[uint16]int)
	for _, rr := range s.Records {
		types[rr.Header().Rrtype]++
		if soa, ok := rr.(*dns.SOA); ok && (soa.Ns != "ns1.example.net." || soa.Minttl > 5 || soa.Mbox != "hostmaster.example.net.") {
			t.Errorf("SOA %v", soa)
		}
	}
	if types[dns.TypeSOA] != 1 || types[dns.TypeNS] != 2 || len(s.Records) != 3 {
		t.Errorf("records %v, want an SOA and two NS", s.Records)
	}
	_, err = zone.Synthesize("example.net.", nil, 5)
	checkRefusal(t, err, []string{"example.net.", "no zone file and no name server", "zonefile FILE example.net.", "ns NAME"})
}

// What the zone files and the topology cannot both mean.
func TestPlanRefusals(t *testing.T) {
	add := func(lines string) func(*world) {
		return func(w *world) { w.files["example.net."] += lines }
	}
	service := func(lines string) func(*world) {
		return func(w *world) { w.Targets = topology.TargetsService; w.files["example.net."] += lines }
	}
	for _, tc := range []struct {
		mistake string
		change  func(*world)
		want    []string
	}{
		{"a written SRV name is in the zone file", add("_x-puppet._tcp.datacenter1 60 SRV 0 1 8140 m1\n"),
			[]string{"datacenter datacenter1", tiers1, "SRV", "remove it from the zone file"}},
		{"in any case", add("_X-Puppet-CA._tcp.Datacenter2 60 SRV 0 1 8140 m1\n"),
			[]string{"datacenter datacenter2", ca2, "SRV", "remove it from the zone file"}},
		{"a written SRV name is an alias in the zone file", add("_x-puppet-db._tcp.datacenter1 60 CNAME m1\n"),
			[]string{"_x-puppet-db._tcp.datacenter1.example.net.", "CNAME", "remove it from the zone file"}},
		{"the camaster is in the zone file", add("puppet-camaster 60 CNAME m1\n"),
			[]string{"camaster puppet-camaster.example.net.", "CNAME", "remove it from the zone file"}},
		{"the camaster has an address", add("puppet-camaster 60 A 192.0.2.1\n"),
			[]string{"camaster puppet-camaster.example.net.", "A there", "remove it from the zone file"}},
		{"the camaster is the zone", func(w *world) { w.CamasterName = "example.net." },
			[]string{"camaster example.net."}},
		{"the camaster is one of the written SRV names", func(w *world) { w.CamasterName = tiers1 },
			[]string{"camaster " + tiers1}},
		{"a service name has an address", service("m1.datacenter1 60 A 192.0.2.1\n"),
			[]string{"service name m1.datacenter1.example.net.", "A there", "remove it from the zone file"}},
		{"a service name is an alias", service("m1.datacenter1 60 CNAME m1\n"),
			[]string{"service name m1.datacenter1.example.net.", "CNAME there", "remove it from the zone file"}},
		{"a service name is the camaster", func(w *world) { service("")(w); w.Masters[3].Service = w.CamasterName },
			[]string{"master m4.example.net.", "camaster", "service NAME"}},
		{"a service name is a host name", func(w *world) { service("")(w); w.Masters[3].Service = "m1.example.net." },
			[]string{"master m4.example.net.", "m1.example.net.", "service NAME"}},
		{"two with one service name", func(w *world) { service("")(w); w.Masters[3].Service = w.Masters[2].Service },
			[]string{"m3.example.net.", "m4.example.net.", "same service name", "service NAME"}},
		{"a service name outside of the zones", func(w *world) { service("")(w); w.Masters[3].Service = "m4.example.org." },
			[]string{"service name m4.example.org.", "in no served zone", "example.net."}},
		{"a service name of a master without address", func(w *world) { service("")(w); w.Masters[3].Host = "m4.example.org." },
			[]string{"master m4.example.org.", "no address", "targets service", "address IP"}},
		{"a delegation above the written names", add("datacenter2 60 NS ns.elsewhere.example.\n"),
			[]string{"datacenter datacenter2", "datacenter2.example.net.", "NS record", "remove that", "zone of its own"}},
		{"a delegation far above them", func(w *world) {
			w.Datacenters[1].Domain = "datacenter2.far.away.example.net."
			add("away 60 NS ns.elsewhere.example.\n")(w)
		}, []string{"away.example.net.", "NS record"}},
		{"a DNAME above them", add("datacenter2 60 DNAME elsewhere.example.\n"),
			[]string{"datacenter2.example.net.", "DNAME record", "remove that"}},
		{"a DNAME at the apex is above everything", add("@ 60 DNAME elsewhere.example.\n"),
			[]string{"example.net.", "DNAME"}},
		{"a delegation above the camaster", func(w *world) {
			w.CamasterName = "camaster.sub.example.net."
			add("sub 60 NS ns.elsewhere.example.\n")(w)
		}, []string{"camaster.sub.example.net.", "sub.example.net.", "NS record"}},
		{"a delegation at a service name", service("m1.datacenter1 60 NS ns.elsewhere.example.\n"),
			[]string{"m1.datacenter1.example.net.", "NS record"}},
		{"a datacenter outside of the zones", func(w *world) { w.Datacenters[1].Domain = "datacenter2.example.org." },
			[]string{"datacenter datacenter2", "in no served zone", "example.net."}},
		{"the camaster outside of the zones", func(w *world) { w.CamasterName = "puppet-camaster.example.org." },
			[]string{"camaster puppet-camaster.example.org.", "in no served zone", "example.net."}},
		{"an SRV target that is an alias", func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "m2   3600 A    192.0.2.2", "m2 3600 CNAME m1", 1)
		}, []string{"master m2.example.net.", "alias of m1.example.net.", "host name", "name the host itself"}},
		{"an SRV target that is an alias, in the child zone", func(w *world) {
			ownZone(w)
			w.Masters[3].Host = "m4.datacenter2.example.net."
			w.files["datacenter2.example.net."] += "m4 60 CNAME m3.example.net.\n"
		}, []string{"master m4.datacenter2.example.net.", "alias of m3.example.net.", "name the host itself"}},
		{"addresses on the line and in the file", func(w *world) { w.Masters[1].Addresses = addrs("192.0.2.22") },
			[]string{"master m2.example.net.", "both", "keep one of the two"}},
		{"addresses on the line of an alias", func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "m2   3600 A    192.0.2.2", "m2 3600 CNAME m1", 1)
			w.Masters[1].Addresses = addrs("192.0.2.22")
		}, []string{"master m2.example.net.", "alias", "name the host itself"}},
		{"no datacenter", func(w *world) { w.Datacenters = nil }, []string{"no datacenter", "add `datacenter NAME`"}},
		{"no master", func(w *world) { w.Masters = nil }, []string{"no master", "add `master HOST DATACENTER`"}},
		{"a datacenter twice", func(w *world) { w.Datacenters[1].Name = "datacenter1" }, []string{"datacenter datacenter1 is given twice"}},
		{"a domain twice", func(w *world) { w.Datacenters[1].Domain = w.Datacenters[0].Domain }, []string{"datacenter1", "datacenter2", "same domain"}},
		{"a master twice", func(w *world) { w.Masters[1].Host = w.Masters[0].Host }, []string{"master m1.example.net. is given twice"}},
		{"an unknown datacenter", func(w *world) { w.Masters[1].Datacenter = "nowhere" }, []string{"m2.example.net.", `"nowhere"`, "datacenter1, datacenter2"}},
		{"port 0", func(w *world) { w.Masters[1].Port = 0 }, []string{"m2.example.net.", "port 0", "8140"}},
		{"weight 0", func(w *world) { w.Masters[1].Weight = 0 }, []string{"m2.example.net.", "weight 0", "1 to 65535"}},
		{"the camaster is no master", func(w *world) { w.Camaster = "m9.example.net." }, []string{"m9.example.net.", "no master", "m1.example.net., m3.example.net."}},
		{"the camaster is not CA-capable", func(w *world) { w.Camaster = "m2.example.net." }, []string{"m2.example.net.", "CA-capable", "add `ca`", "m1.example.net., m3.example.net."}},
		{"no camaster", func(w *world) { w.Camaster = "" }, []string{"no camaster", "add `camaster NAME HOST`"}},
		{"the camaster's CNAME is a host", func(w *world) { w.CamasterName = "m1.example.net." }, []string{"camaster", "m1.example.net.", "host name"}},
		{"local not before remote", func(w *world) { w.Local = 20 }, []string{"priority 20 20", "lower", "`priority 10 20`"}},
		{"remote behind the down ones", func(w *world) { w.Remote = 110 }, []string{"priority 10 110", "less than 100 above"}},
		{"remote too high", func(w *world) { w.Local, w.Remote = 65500, 65510 }, []string{"65510", "at most 65335"}},
		{"a distance that ends behind the down ones", func(w *world) { w.Distances[topology.PairOf("datacenter2", "datacenter1")] = 10 },
			[]string{"distance datacenter1 datacenter2 10", "from 1 to 9"}},
		{"a distance to nowhere", func(w *world) { w.Distances[topology.PairOf("datacenter1", "nowhere")] = 1 },
			[]string{`"nowhere"`, "datacenter1, datacenter2"}},
		{"a distance to itself", func(w *world) { w.Distances[topology.PairOf("datacenter1", "datacenter1")] = 1 },
			[]string{"datacenter1", "itself"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			w := newWorld()
			tc.change(w)
			_, _, err := w.tryPlan()
			checkRefusal(t, err, tc.want)
		})
	}
	t.Run("a zone twice", func(t *testing.T) {
		w := newWorld()
		a, errA := w.statics()
		b, errB := w.statics()
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		_, _, err := zone.NewPlan(&w.Topology, 5, append(a, b...))
		checkRefusal(t, err, []string{"zone example.net.", "twice"})
	})
}

// What works, but hardly as meant, is a warning; what is right is none.
func TestPlanWarnings(t *testing.T) {
	for _, tc := range []struct {
		what   string
		change func(*world)
		want   []string // a part of each
	}{
		{"all is well", func(*world) {}, nil},
		{"services, all is well", func(w *world) { w.Targets = topology.TargetsService }, nil},
		{"a target without address in its zone", func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "m2   3600 A    192.0.2.2\n", "", 1)
		}, []string{"m2.example.net. has no address in zone example.net."}},
		{"a target of another zone", func(w *world) { w.Masters[1].Host = "m2.example.org." }, []string{"m2.example.org. has no address in the zones"}},
		{"a wildcard is an address", func(w *world) {
			w.files["example.net."] = strings.Replace(exampleNet, "m2   3600 A    192.0.2.2\n", "* 3600 A 192.0.2.2\n", 1)
		}, nil},
		{"other records at a written name are none of ours", func(w *world) {
			w.files["example.net."] += "_x-puppet._tcp.datacenter1 60 TXT here\n"
		}, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := newWorld()
			tc.change(w)
			_, warnings, err := w.tryPlan()
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) != len(tc.want) {
				t.Fatalf("warnings %q, want %q", warnings, tc.want)
			}
			for i, want := range tc.want {
				if !strings.Contains(warnings[i], want) {
					t.Errorf("warning %q, want %q", warnings[i], want)
				}
			}
		})
	}
}

// A record that stands beside a written one is served beside it.
func TestStaticBesideWritten(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += "_x-puppet._tcp.datacenter1 60 TXT here\n"
	s := w.snapshot(t, nil)
	if r := lookup(s, tiers1, dns.TypeTXT); typesOf(r.answer) != "TXT" {
		t.Errorf("TXT: %v", texts(r.answer))
	}
	if got := tiers(srvs(t, s, tiers1)); got != "10 m1 m2, 20 m3 m4" {
		t.Errorf("SRV: %s", got)
	}
}
