//go:build linux

package puppet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dual are the networks of most cases. 10.1.7.0/24 lies in 10.1.0.0/16 and is elsewhere.
const dual = `
datacenter1: [10.1.0.0/16, "2001:db8:1::/48"]
datacenter2:
  - 10.2.0.0/16
  - 10.1.7.0/24
  - 2001:db8::/32
`

// factCase is a host, its files, and what Facter says there.
type factCase struct {
	name       string
	ip4, ip6   string // addresses of its interface; "" is none
	datacenter string // the files, "" for none
	networks   string
	want       string // "" is no such fact
	warning    string // a part of the only warning; "" is none
}

var factCases = []factCase{
	{name: "nothing set", ip4: "10.1.0.5"},
	{name: "file", ip4: "10.1.0.5", datacenter: "datacenter9\n", want: "datacenter9"},
	{name: "file before networks", ip4: "10.1.0.5", datacenter: " datacenter9\r\n", networks: dual, want: "datacenter9"},
	{name: "file and bad networks", ip4: "10.1.0.5", datacenter: "datacenter9", networks: "[", want: "datacenter9"},
	{name: "network", ip4: "10.1.0.5", networks: dual, want: "datacenter1"},
	{name: "smallest network", ip4: "10.1.7.5", networks: dual, want: "datacenter2"},
	{name: "smallest network given first", ip4: "10.1.7.5", networks: "a: [10.1.7.0/24]\nb: [10.1.0.0/16, 0.0.0.0/0]", want: "a"},
	{name: "no network", ip4: "10.3.0.5", networks: dual},
	{name: "everything else", ip4: "10.3.0.5", networks: dual + "datacenter3: [0.0.0.0/0]", want: "datacenter3"},
	{name: "IPv6 only", ip6: "2001:db8:1::5", networks: dual, want: "datacenter1"},
	{name: "IPv6 in a larger network", ip6: "2001:db8:9::5", networks: dual, want: "datacenter2"},
	{name: "IPv6 where IPv4 says nothing", ip4: "192.0.2.5", ip6: "2001:db8:1::5", networks: dual, want: "datacenter1"},
	{name: "link-local is nowhere", ip4: "192.0.2.5", networks: "a: ['::/0']"},
	{name: "IPv4 against IPv6", ip4: "10.2.0.5", ip6: "2001:db8:1::5", networks: dual, want: "datacenter2",
		warning: "10.2.0.5 is in datacenter2 and 2001:db8:1::5 in datacenter1: taking datacenter2"},
	{name: "words that YAML takes for others", ip4: "10.1.0.5", networks: "no: [10.1.0.0/16]\n1: [10.0.0.0/8]", want: "no"},
	{name: "only comments", ip4: "10.1.0.5", networks: "# none yet\n"},
	{name: "a byte order mark in the file", ip4: "10.1.0.5", datacenter: "\uFEFFdatacenter9\r\n", want: "datacenter9"},
	{name: "a byte order mark", ip4: "10.1.0.5", networks: "\uFEFFa: [10.0.0.0/8]\r\n", want: "a"},

	{name: "two words", ip4: "10.1.0.5", datacenter: "data center", networks: dual, warning: `/datacenter: "data center" is no datacenter's name: want one word`},
	{name: "capitals", ip4: "10.1.0.5", datacenter: "DC1", warning: `"DC1" is no datacenter's name`},
	{name: "empty", ip4: "10.1.0.5", datacenter: "\n", networks: dual, warning: `/datacenter: "" is no datacenter's name`},
	{name: "long file", ip4: "10.1.0.5", datacenter: strings.Repeat("a", 1025), warning: "/datacenter: more than 1024 bytes"},
	{name: "long name", ip4: "10.1.0.5", datacenter: strings.Repeat("a", 64), warning: `a"... is no datacenter's name`},
	{name: "control characters", ip4: "10.1.0.5", datacenter: "a\x1b[2J", warning: `"a\e[2J" is no datacenter's name`},
	{name: "not YAML", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16", warning: "/networks.yaml: this is not YAML"},
	{name: "no mapping", ip4: "10.1.0.5", networks: "- a", warning: "/networks.yaml: want lines such as `datacenter1: [10.1.0.0/16]`"},
	{name: "no list", ip4: "10.1.0.5", networks: "a: 10.1.0.0/16", warning: "a has no plain list of networks"},
	{name: "an alias", ip4: "10.1.0.5", networks: "a: &a [10.1.0.0/16]\nb: *a", warning: "b has no plain list of networks"},
	{name: "an alias in a list", ip4: "10.1.0.5", networks: "a: [&a 10.1.0.0/16]\nb: [*a]", warning: "b has no plain list of networks"},
	{name: "deep", ip4: "10.1.0.5", networks: "a: " + strings.Repeat("[", 50000) + strings.Repeat("]", 50000), warning: "/networks.yaml: lists in lists: want lines"},
	{name: "bad name", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16]\nb.c: []", warning: `"b.c" is no datacenter's name`},
	{name: "no length", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16, 10.2.0.0]", warning: `a: "10.2.0.0" is no network: want an address and a length`},
	{name: "length of IPv6", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16]\nb: [10.2.0.0/33]", warning: `b: "10.2.0.0/33" is no network`},
	{name: "bits past the length", ip4: "10.1.0.5", networks: "a: [10.1.0.5/16]", warning: `"10.1.0.5/16" is no network: want 10.1.0.0/16, or a longer length`},
	{name: "a datacenter twice", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16]\na: [10.2.0.0/16]", warning: "a is given twice"},
	{name: "a network twice", ip4: "10.1.0.5", networks: "a: ['2001:db8::/32', 10.1.0.0/16]\nb: ['2001:0db8::/32']", warning: "2001:db8::/32 is in a and in b: give it to one"},
	{name: "two documents", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16]\n---\nb: []", warning: "more than one YAML document"},
	{name: "not UTF-8", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16] # \xe4", warning: "/networks.yaml: this is not UTF-8"},
	{name: "too large", ip4: "10.1.0.5", networks: "a: [10.1.0.0/16]\n" + strings.Repeat("#", 256<<10), warning: "/networks.yaml: more than 262144 bytes"},
	{name: "a directory", ip4: "10.1.0.5", networks: "DIRECTORY", warning: "/networks.yaml: this is no regular file"},
	{name: "a pipe", ip4: "10.1.0.5", networks: "PIPE", warning: "/networks.yaml: this is no regular file"},
}

// What Facter itself says on hosts with real addresses, and with files where they really are.
func TestFact(t *testing.T) {
	n := puppet(t)
	for i, c := range factCases {
		address := c.ip4
		if address == "" {
			address = "192.0.2.99"
		}
		// A Net has each address once; hosts of cases have the same one, and never meet.
		h := newHost(t, n, fmt.Sprintf("h%d", i), fmt.Sprintf("198.18.0.%d", i+1))
		h.ip(t, "address", "flush", "dev", "eth0", "scope", "global")
		h.ip(t, "address", "add", address+"/32", "dev", "eth0")
		h.ip(t, "route", "replace", "default", "via", "169.254.1.1", "dev", "eth0", "onlink")
		if c.ip4 == "" {
			h.ip(t, "route", "delete", "default")
			h.ip(t, "address", "delete", address+"/32", "dev", "eth0")
		}
		if c.ip6 != "" {
			h.ip(t, "-6", "address", "add", c.ip6+"/64", "dev", "eth0", "nodad")
			h.ip(t, "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
		}
		c.prepare(t, h)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.check(t, h)
		})
	}
}

func (c *factCase) prepare(t *testing.T, h *host) {
	if c.datacenter != "" {
		h.write(t, "puppetsrv/datacenter", c.datacenter)
	}
	path := filepath.Join(h.etc, "puppetsrv/networks.yaml")
	var err error
	switch c.networks {
	case "":
	case "DIRECTORY":
		err = os.MkdirAll(path, 0o755)
	case "PIPE":
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = syscall.Mkfifo(path, 0o644)
		}
	default:
		h.write(t, "puppetsrv/networks.yaml", c.networks)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c *factCase) check(t *testing.T, h *host) {
	r := h.run(t, "facter", "--custom-dir", "lib/facter", "--no-color", "--json", "datacenter", "networking.ip", "networking.ip6")
	var got map[string]*string
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("facter: %v: %s%s", err, r.out, r.err)
	}
	is := func(name, want string) {
		t.Helper()
		if v := got[name]; v == nil && want != "" || v != nil && *v != want {
			t.Errorf("%s: %s, want %q", name, r.out, want)
		}
	}
	is("datacenter", c.want)
	is("networking.ip", c.ip4)
	if c.ip6 != "" {
		is("networking.ip6", c.ip6)
	}
	if r.code != 0 {
		t.Errorf("facter ended with %d", r.code)
	}
	var ours []string
	for line := range strings.Lines(r.err) {
		if strings.Contains(line, "datacenter") || strings.Contains(line, "puppetsrv") {
			ours = append(ours, line)
		}
	}
	switch {
	case c.warning == "" && len(ours) > 0:
		t.Errorf("warned: %s", ours)
	case c.warning != "" && (len(ours) != 1 || !strings.Contains(ours[0], "WARN") || !strings.Contains(ours[0], "datacenter: /etc/puppetsrv") || !strings.Contains(ours[0], c.warning)):
		t.Errorf("warned: %q, want one line with %s", ours, c.warning)
	}
}

// A host that has the module and a synced copy of it, as a master with an agent, has two of every file: it
// is warned once, and Ruby does not mind.
func TestFactTwice(t *testing.T) {
	n := puppet(t)
	h := newHost(t, n, "h", "10.1.0.5")
	h.write(t, "puppetsrv/networks.yaml", "[")
	if err := os.CopyFS(h.base+"/var/lib", os.DirFS("lib")); err != nil {
		t.Fatal(err)
	}
	r := h.run(t, "facter", "--custom-dir", "lib/facter", "--custom-dir", h.base+"/var/lib/facter", "--no-color", "datacenter")
	if n := strings.Count(r.err, "this is not YAML"); n != 1 || strings.Contains(r.err, "already initialized") {
		t.Errorf("warned %d times, want once:\n%s", n, r.err)
	}
}
