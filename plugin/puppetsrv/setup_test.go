package puppetsrv_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

// check reads a Corefile as a server does before it starts anything.
func check(corefile string) error {
	return caddy.ValidateAndExecuteDirectives(caddy.CaddyfileInput{
		Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns",
	}, nil, true)
}

// block is a Corefile that is right, one property a line. Line 1 is the server
// block, line 2 the plugin.
func block(properties string) string {
	return "example.net:0 {\n    puppetsrv {\n" + properties + "    }\n}\n"
}

// right is a configuration to be spoilt; each property begins at the line that
// lineOf gives.
const right = `zonefile example.net.zone
datacenter datacenter1
datacenter datacenter2
master m1 datacenter1 ca
master m2 datacenter1
master m3 datacenter2 ca
camaster puppet-camaster m1
probe off
`

const rightZone = `$TTL 60
@ SOA ns1 hostmaster 1 1800 600 1209600 5
@ NS ns1
ns1 A 192.0.2.53
m1 A 192.0.2.1
m2 A 192.0.2.2
m3 A 192.0.2.3
`

// lineOf is the line of the Corefile on which the n-th line with this beginning is.
func lineOf(t *testing.T, corefile, beginning string, n int) int {
	t.Helper()
	i := 0
	for line := range strings.Lines(corefile) {
		i++
		if strings.HasPrefix(strings.TrimSpace(line), beginning) {
			if n--; n == 0 {
				return i
			}
		}
	}
	t.Fatalf("no line begins with %q in\n%s", beginning, corefile)
	return 0
}

// zoneDir makes the working directory one with the zone file.
func zoneDir(t *testing.T, zone string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("example.net.zone", []byte(zone), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A mistake is refused with the line it is on, and with what would be right.
func TestMistakesAreRefused(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("nothing to replace: %q", old)
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	add := func(line string) func(string) string { return func(s string) string { return s + line + "\n" } }
	for _, tc := range []struct {
		mistake string
		spoil   func(string) string
		line    string // beginning of the line at fault
		nth     int    // which of these lines; 0 is the first
		want    []string
	}{
		{"unknown property", add("datacentre datacenter3"), "datacentre", 1, []string{"unknown property 'datacentre'", "did you mean `datacenter NAME [DOMAIN]`"}},
		{"unknown property, unlike any", add("colour green"), "colour", 1, []string{"unknown property 'colour'", "the properties are", "zonefile"}},
		{"unknown property, cut off", add("prob off"), "prob off", 1, []string{"did you mean `probe"}},
		{"a property twice", add("ttl 5\nttl 6"), "ttl 6", 1, []string{"ttl is given twice", "first on line"}},
		{"probe twice", add("probe off"), "probe", 2, []string{"probe is given twice", "keep one"}},

		{"datacenter without name", add("datacenter"), "datacenter", 3, []string{"write `datacenter NAME [DOMAIN]`"}},
		{"datacenter with too much", add("datacenter a b c"), "datacenter a b c", 1, []string{"write `datacenter NAME [DOMAIN]`"}},
		{"duplicate datacenter", add("datacenter datacenter1 other.example.net"), "datacenter datacenter1", 2, []string{"datacenter1 is given twice"}},
		{"duplicate domain", add("datacenter datacenter3 datacenter1"), "datacenter datacenter3", 1, []string{"datacenter1.example.net.", "already datacenter datacenter1's"}},
		{"a datacenter's domain is no name", add("datacenter datacenter3 bad..name"), "datacenter datacenter3", 1, []string{"no domain name"}},
		{"a datacenter's domain has blanks", add(`datacenter datacenter3 "a b"`), "datacenter datacenter3", 1, []string{"no domain name", "letters, digits"}},

		{"duplicate master", add("master M1.example.net. datacenter2"), "master M1", 1, []string{"master m1.example.net. is given twice"}},
		{"unknown datacenter", add("master m4 datacenter9"), "master m4", 1, []string{`unknown datacenter "datacenter9"`, "add `datacenter datacenter9`", "datacenter1, datacenter2"}},
		{"master without datacenter", add("master m4"), "master m4", 1, []string{"write `master HOST DATACENTER"}},
		{"port 0", add("master m4 datacenter1 port 0"), "master m4", 1, []string{`port "0"`, "from 1 to 65535"}},
		{"port too high", add("master m4 datacenter1 port 65536"), "master m4", 1, []string{"from 1 to 65535"}},
		{"port is no number", add("master m4 datacenter1 port https"), "master m4", 1, []string{"whole number", "from 1 to 65535"}},
		{"weight 0", add("master m4 datacenter1 weight 0"), "master m4", 1, []string{`weight "0"`, "from 1 to 65535"}},
		{"negative weight", add("master m4 datacenter1 weight -1"), "master m4", 1, []string{"from 1 to 65535"}},
		{"nothing behind a word", add("master m4 datacenter1 weight"), "master m4", 1, []string{`nothing behind "weight"`, "write `master"}},
		{"unknown word", add("master m4 datacenter1 wieght 5"), "master m4", 1, []string{`unknown word "wieght"`, "write `master"}},
		{"a word twice", add("master m4 datacenter1 port 8140 port 8141"), "master m4", 1, []string{"port", "twice"}},
		{"no address behind address", add("master m4 datacenter1 address ca"), "master m4", 1, []string{"address", "IP address"}},
		{"address is no host's", add("master m4 datacenter1 address 0.0.0.0"), "master m4", 1, []string{"0.0.0.0", "no address of a host"}},
		{"address is multicast", add("master m4 datacenter1 address ff02::1"), "master m4", 1, []string{"no address of a host"}},
		{"address has a zone", add("master m4 datacenter1 address fe80::1%eth0"), "master m4", 1, []string{"no address of a host"}},
		{"address twice", add("master m4 datacenter1 address 192.0.2.4 ::ffff:192.0.2.4"), "master m4", 1, []string{"given twice"}},
		{"address also in the zone file", replace("master m2 datacenter1", "master m2 datacenter1 address 192.0.2.9"), "master m2", 1, []string{"m2.example.net.", "both", "keep one of the two"}},
		{"host is no name", add("master m_*4 datacenter1"), "master m_", 1, []string{"no domain name", "'*' is not allowed"}},
		{"host is an address", add("master 192.0.2.4 datacenter1"), "master 192", 1, []string{"192.0.2.4", "name"}},

		{"distance with too little", add("distance datacenter1 datacenter2"), "distance", 1, []string{"write `distance DATACENTER DATACENTER N`"}},
		{"distance to an unknown datacenter", add("distance datacenter1 datacenter9 2"), "distance", 1, []string{`"datacenter9"`, "datacenter1, datacenter2"}},
		{"distance 0", add("distance datacenter1 datacenter2 0"), "distance", 1, []string{"from 1 to 9"}},
		{"distance too far", add("distance datacenter1 datacenter2 10"), "distance", 1, []string{"from 1 to 9"}},
		{"distance twice", add("distance datacenter1 datacenter2 2\ndistance datacenter2 datacenter1 3"), "distance", 2, []string{"twice", "both directions"}},
		{"distance to itself", add("distance datacenter1 datacenter1 2"), "distance", 1, []string{"itself"}},

		{"one priority", add("priority 10"), "priority", 1, []string{"write `priority LOCAL REMOTE`"}},
		{"priorities in reverse", add("priority 20 10"), "priority", 1, []string{"lower", "`priority 10 20`"}},
		{"remote behind the down ones", add("priority 10 110"), "priority", 1, []string{"less than 100 above"}},
		{"priority too high", add("priority 65400 65500"), "priority", 1, []string{"from 0 to 65335"}},

		{"camaster is no master", replace("puppet-camaster m1", "puppet-camaster m9"), "camaster", 1, []string{"m9.example.net. is no master", "m1.example.net., m3.example.net."}},
		{"camaster is not CA-capable", replace("puppet-camaster m1", "puppet-camaster m2"), "camaster", 1, []string{"m2.example.net. is not CA-capable", "add `ca`", "m1.example.net., m3.example.net."}},
		{"camaster is a host's own name", replace("puppet-camaster m1", "m3 m1"), "camaster", 1, []string{"m3.example.net.", "own host name"}},
		{"camaster with one argument", replace("puppet-camaster m1", "m1"), "camaster", 1, []string{"write `camaster NAME HOST`"}},
		{"camaster outside of the zones", replace("puppet-camaster m1", "puppet-camaster.example.org m1"), "camaster", 1, []string{"puppet-camaster.example.org.", "in no served zone", "example.net."}},
		{"camaster twice", add("camaster puppet-camaster m3"), "camaster", 2, []string{"camaster is given twice"}},
		{"no camaster", replace("camaster puppet-camaster m1\n", ""), "puppetsrv", 1, []string{"no camaster", "add `camaster NAME HOST`"}},
		{"no master", func(string) string {
			return "zonefile example.net.zone\ndatacenter datacenter1\nprobe off\n"
		}, "puppetsrv", 1, []string{"no master", "add `master HOST DATACENTER`"}},
		{"no datacenter", func(string) string { return "zonefile example.net.zone\nprobe off\n" }, "puppetsrv", 1, []string{"no datacenter", "add `datacenter NAME`"}},
		{"nothing at all", func(string) string { return "" }, "puppetsrv", 1, []string{"tls", "probe off"}},

		{"ca_target is none", add("ca_target alias"), "ca_target", 1, []string{`"alias"`, "host, camaster"}},
		{"ca_target is empty", add("ca_target"), "ca_target", 1, []string{"write `ca_target host|camaster`"}},
		{"unhealthy is none", add("unhealthy remove"), "unhealthy", 1, []string{`"remove"`, "demote, omit"}},
		{"targets is none", add("targets names"), "targets", 1, []string{`"names"`, "host, service"}},
		{"targets with two", add("targets host service"), "targets", 1, []string{"write `targets host|service`"}},
		{"ttl 0", add("ttl 0"), "ttl", 1, []string{"from 1 to 3600"}},
		{"ttl is no number", add("ttl 5s"), "ttl", 1, []string{"whole number", "from 1 to 3600"}},
		{"ttl is too large", add("ttl 86400"), "ttl", 1, []string{"from 1 to 3600"}},
		{"ttl is empty", add("ttl"), "ttl", 1, []string{"write `ttl SECONDS`"}},
		{"puppetdb_port 0", add("puppetdb_port 0"), "puppetdb_port", 1, []string{"from 1 to 65535"}},
		{"location is unknown", add("location datacenter9"), "location", 1, []string{`"datacenter9"`, "datacenter1, datacenter2"}},
		{"location is empty", add("location"), "location", 1, []string{"write `location DATACENTER`"}},

		{"probe with nothing", replace("probe off", "probe"), "probe", 1, []string{"write `probe [interval D]"}},
		{"probe word without value", replace("probe off", "probe interval"), "probe", 1, []string{"write `probe"}},
		{"probe unknown word", replace("probe off", "probe every 1s"), "probe", 1, []string{`unknown word "every"`, "write `probe"}},
		{"probe interval 0", replace("probe off", "probe interval 0s"), "probe", 1, []string{"interval", "from 100ms"}},
		{"probe interval without unit", replace("probe off", "probe interval 1"), "probe", 1, []string{"duration", "as in 1s"}},
		{"probe timeout too long", replace("probe off", "probe timeout 2h"), "probe", 1, []string{"timeout", "to 1m0s"}},
		{"probe fall 0", replace("probe off", "probe fall 0"), "probe", 1, []string{"fall", "from 1 to 100"}},
		{"probe rise 0", replace("probe off", "probe rise 0"), "probe", 1, []string{"rise", "from 1 to 100"}},
		{"probe port 0", replace("probe off", "probe port 0"), "probe", 1, []string{"port", "from 1 to 65535"}},
		{"probe path without slash", replace("probe off", "probe path status"), "probe", 1, []string{"path", "begin with /", "/status/v1/simple"}},
		{"probe word twice", replace("probe off", "probe fall 2 fall 3"), "probe", 1, []string{"fall", "twice"}},
		{"probe off and more", replace("probe off", "probe off interval 1s"), "probe", 1, []string{"write `probe", "probe off"}},
		{"neither tls nor probe off", replace("probe off\n", ""), "puppetsrv", 1, []string{"no `tls`", "probe off"}},
		{"probe without tls", replace("probe off", "probe interval 1s"), "puppetsrv", 1, []string{"no `tls`", "tls /etc"}},
		{"tls with two", add("tls a b"), "tls", 1, []string{"write `tls CERT KEY CA` or `tls CA`"}},
		{"tls file that is not there", add("tls nothing.pem"), "tls", 1, []string{"nothing.pem", "no such file"}},
		{"tls file that is no certificate", add("tls example.net.zone"), "tls", 1, []string{"tls", "write `tls CERT KEY CA"}},

		{"zone file that is not there", replace("example.net.zone", "nothing.zone"), "zonefile", 1, []string{"nothing.zone", "no such file"}},
		{"zone file of a zone that is not served", replace("zonefile example.net.zone", "zonefile example.net.zone example.org"), "zonefile", 1, []string{"example.org. is not served here", "example.net."}},
		{"two zone files for one zone", add("zonefile other.zone example.net"), "zonefile", 2, []string{"two zone files", "keep one"}},
		{"zonefile without name", add("zonefile"), "zonefile", 2, []string{"write `zonefile FILE [ZONE]`"}},
		{"neither zone file nor ns", replace("zonefile example.net.zone\n", ""), "puppetsrv", 1, []string{"no zone file and no name server", "ns NAME"}},
		{"ns without name", add("ns"), "ns", 1, []string{"write `ns NAME...`"}},
		{"ns that is an address", add("ns 192.0.2.53"), "ns", 1, []string{"192.0.2.53", "name"}},
		{"a name server that is the camaster's alias", replace("zonefile example.net.zone\n", "ns puppet-camaster\n"), "puppetsrv", 1, []string{"is an alias", "name the host itself"}},
		{"an empty argument", add(`state ""`), "state", 1, []string{"empty", "state DIRECTORY"}},
		{"state without directory", add("state"), "state", 1, []string{"write `state DIRECTORY`"}},
		{"state is a file", add("state example.net.zone"), "state", 1, []string{"no directory"}},

		{"a datacenter outside of the zones", add("datacenter datacenter3 datacenter3.example.org"), "datacenter datacenter3", 1, []string{"datacenter3.example.org.", "in no served zone", "example.net."}},
		{"service name outside of the zones", func(s string) string {
			return strings.Replace(s, "master m2 datacenter1", "master m2 datacenter1 service m2.example.org", 1) + "targets service\n"
		}, "master m2", 1, []string{"m2.example.org.", "in no served zone"}},
		{"service name is a host name", func(s string) string {
			return strings.Replace(s, "master m2 datacenter1", "master m2 datacenter1 service m1.example.net", 1) + "targets service\n"
		}, "master m2", 1, []string{"m1.example.net.", "host name", "service NAME"}},
		{"two with one service name", func(s string) string {
			return strings.Replace(s, "master m2 datacenter1", "master m2 datacenter1 service m1", 1) + "targets service\n"
		}, "master m2", 1, []string{"m1.datacenter1.example.net.", "same service name", "service NAME"}},
		{"no address with service names", add("targets service\nmaster m4 datacenter1"), "master m4", 1, []string{"m4.example.net.", "no address", "address IP"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			zoneDir(t, rightZone)
			corefile := block(tc.spoil(right))
			refused(t, check(corefile), lineOf(t, corefile, tc.line, max(tc.nth, 1)), tc.want)
		})
	}
}

// refused checks the place and the parts of an error.
func refused(t *testing.T, err error, line int, want []string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want a refusal of line %d with %q", line, want)
	}
	if place := fmt.Sprintf("Corefile:%d - ", line); !strings.Contains(err.Error(), place) {
		t.Errorf("want it to name %q: %v", place, err)
	}
	for _, part := range append(want, "puppetsrv") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("it lacks %q: %v", part, err)
		}
	}
}

// A mistake in the zone file is refused with the zone file's name, too.
func TestZoneFileMistakesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		mistake string
		zone    string
		line    string
		want    []string
	}{
		{"SOA missing", strings.Replace(rightZone, "@ SOA ns1 hostmaster 1 1800 600 1209600 5\n", "", 1), "zonefile", []string{"example.net.zone", "no SOA", "add one"}},
		{"NS missing", strings.Replace(rightZone, "@ NS ns1\n", "", 1), "zonefile", []string{"example.net.zone", "no NS", "add one"}},
		{"a syntax error", rightZone + "m4 A 192.0.2.256\n", "zonefile", []string{"example.net.zone", "line: 8"}},
		{"signed", rightZone + "m1 RRSIG A 13 3 60 20300101000000 20200101000000 1 example.net. AAAA\n", "zonefile", []string{"example.net.zone", "signed", "dnssec plugin"}},
		{"SRV target that is an alias", strings.Replace(rightZone, "m2 A 192.0.2.2", "m2 CNAME m1", 1), "master m2", []string{"m2.example.net.", "alias of m1.example.net.", "name the host itself"}},
		{"a written name in the zone file", rightZone + "_x-puppet._tcp.datacenter1 SRV 0 1 8140 m1\n", "datacenter datacenter1", []string{"_x-puppet._tcp.datacenter1.example.net.", "remove it from the zone file"}},
		{"the camaster in the zone file", rightZone + "puppet-camaster CNAME m1\n", "camaster", []string{"puppet-camaster.example.net.", "remove it from the zone file"}},
		{"a delegated datacenter", rightZone + "datacenter2 NS ns.elsewhere.example.\n", "datacenter datacenter2", []string{"datacenter2.example.net.", "NS record", "zone of its own"}},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			zoneDir(t, tc.zone)
			corefile := block(right)
			refused(t, check(corefile), lineOf(t, corefile, tc.line, 1), tc.want)
		})
	}
}

// The server block and the plugin's own line.
func TestBlockMistakesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		mistake  string
		corefile string
		line     int
		want     []string
	}{
		{"the plugin twice in a block", "example.net:0 {\npuppetsrv {\n" + right + "}\npuppetsrv {\n" + right + "}\n}\n", 12, []string{"once"}},
		{"a zone that is no name", "example.net:0 {\n\npuppetsrv bad..name {\n" + right + "}\n}\n", 3, []string{"bad..name"}},
		{"a zone with a letter that is none", "example.net:0 {\npuppetsrv exa*mple.net {\n" + right + "}\n}\n", 2, []string{"exa*mple.net", "no zone", "letters"}},
		{"no block", "example.net:0 {\npuppetsrv\n}\n", 2, []string{"tls"}},
		{"a second zone without file", "example.net:0 {\npuppetsrv example.net example.org {\n" + right + "}\n}\n", 2, []string{"example.org.", "zonefile FILE example.org.", "ns NAME"}},
		{"no closing brace", "example.net:0 {\npuppetsrv {\n" + right, 10, nil},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			zoneDir(t, rightZone)
			err := check(tc.corefile)
			if err == nil {
				t.Fatal("accepted")
			}
			if tc.want == nil { // Caddy's own
				if !strings.Contains(err.Error(), "Corefile:") {
					t.Errorf("no place: %v", err)
				}
				return
			}
			refused(t, err, tc.line, tc.want)
		})
	}
}

// What is right is accepted.
func TestRightConfigurations(t *testing.T) {
	for _, tc := range []struct {
		what       string
		properties string
	}{
		{"as it stands", right},
		{"in any order", reverse(right)},
		{"everything at once", right + `datacenter datacenter3 far.example.net
master m4.elsewhere.example datacenter3 port 8141 weight 65535 ca service x4 address 192.0.2.4 2001:db8::4
distance datacenter1 datacenter3 2
priority 0 50
ca_target camaster
unhealthy omit
ttl 3600
puppetdb_port 8085
location datacenter1
fallthrough example.net
targets service
state state
`},
		{"addresses, then words", strings.Replace(right, "master m2 datacenter1", "master m5 datacenter1 address 192.0.2.5 2001:db8::5 weight 5 ca", 1)},
		{"without a zone file", strings.Replace(right, "zonefile example.net.zone", "ns ns1 ns.example.org.", 1)},
		{"full names, in any case", strings.ReplaceAll(right, " m1", " M1.Example.NET.")},
		{"an absolute path", right},
		{"comments and blanks", "# a comment\n\n" + strings.ReplaceAll(right, "\n", " # why\n")},
	} {
		t.Run(tc.what, func(t *testing.T) {
			zoneDir(t, rightZone)
			if tc.what == "an absolute path" {
				dir, err := os.Getwd()
				if err != nil {
					t.Fatal(err)
				}
				tc.properties = strings.Replace(tc.properties, "example.net.zone", filepath.Join(dir, "example.net.zone"), 1)
				t.Chdir("/")
			}
			if err := check(block(tc.properties)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("zones as arguments", func(t *testing.T) {
		zoneDir(t, rightZone)
		if err := check(".:0 {\npuppetsrv example.net datacenter2.example.net {\n" + right + "ns ns1\n}\n}\n"); err != nil {
			t.Error(err)
		}
	})
}

func reverse(lines string) string {
	var out string
	for line := range strings.Lines(lines) {
		out = line + out
	}
	return out
}
