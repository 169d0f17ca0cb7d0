//go:build linux

package netns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// T is what a Net needs of a *testing.T, so that a program can own one too. As there,
// Fatalf and Skipf do not return.
type T interface {
	Helper()
	Cleanup(func())
	TempDir() string
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// gateway is the router's address on each link. It is link-local: no packet between
// hosts has it.
const gateway = "169.254.1.1"

// Net is a network of hosts. It and its hosts belong to the goroutine of the test, but
// for what says otherwise.
type Net struct {
	t      T
	prefix string // of its namespaces' names
	router string // the router's namespace
	dir    string
	hosts  []*Host
	names  []hostName
	// dropped are the pairs, sender first, between which nothing goes through.
	dropped [][2]netip.Addr
}

// hostName is a line of /etc/hosts.
type hostName struct {
	name string
	addr netip.Addr
}

// New returns a network without hosts, and removes what owners that were killed
// have left. It skips the test where namespaces cannot be made.
func New(t T) *Net {
	t.Helper()
	if reason := missing(); reason != "" {
		unavailable(t, reason)
	}
	if err := sweep(); err != nil {
		t.Errorf("removing what a killed run has left: %v", err)
	}
	start, err := startOf(os.Getpid())
	if err != nil {
		t.Fatalf("netns: %v", err)
	}
	n := &Net{t: t, dir: t.TempDir()}
	n.prefix = fmt.Sprintf("%s%d-%s-%08x-", ours, os.Getpid(), start, rand.Uint32())
	n.router = n.prefix + "router"
	t.Cleanup(n.close)
	if err := ip("", "netns", "add", n.router); err != nil {
		unavailable(t, err.Error())
	}
	err = within(n.router, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err == nil {
		err = ip(n.router, "link", "set", "lo", "up")
	}
	if err != nil {
		unavailable(t, err.Error())
	}
	return n
}

// missing is what this machine lacks, as far as that can be known without trying.
func missing() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "network namespaces need iproute2: " + err.Error()
	}
	return ""
}

// unavailable skips the test, or fails it where skipping is not wanted.
func unavailable(t T, reason string) {
	t.Helper()
	if os.Getenv("PUPPETSRV_NETNS") == "required" {
		t.Fatalf("PUPPETSRV_NETNS is required, and this machine cannot: %s", reason)
	}
	t.Skipf("SKIPPED: %s", reason)
}

// Host adds a host with a name, in lower case, and an IPv4 address, which may be any
// but a link-local one. All hosts resolve the name and its first label to the
// address, from /etc/hosts; no other name resolves unless the host serves DNS itself.
func (n *Net) Host(name, address string) *Host {
	n.t.Helper()
	addr, err := netip.ParseAddr(address)
	if err != nil || !addr.Is4() || addr.IsLinkLocalUnicast() || addr.IsLoopback() {
		n.t.Fatalf("host %s: %q is not an IPv4 address that a host can have", name, address)
	}
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		n.t.Fatalf("host %q: want a host name in lower case", name)
	}
	for _, h := range n.hosts {
		if h.Name == name || h.Addr == addr {
			n.t.Fatalf("host %s at %s: there is %s at %s", name, addr, h.Name, h.Addr)
		}
	}
	h := &Host{Name: name, Addr: addr, net: n, namespace: n.prefix + name}
	link := fmt.Sprintf("to%d", len(n.hosts)+1) // an interface's name has 15 bytes
	for _, args := range [][]string{
		{"", "netns", "add", h.namespace},
		{h.namespace, "link", "set", "lo", "up"},
		{n.router, "link", "add", link, "type", "veth", "peer", "name", device, "netns", h.namespace},
		{n.router, "address", "add", gateway + "/32", "dev", link},
		{n.router, "link", "set", link, "up"},
		{n.router, "route", "add", addr.String() + "/32", "dev", link},
		{h.namespace, "address", "add", addr.String() + "/32", "dev", device},
		{h.namespace, "link", "set", device, "up"},
		{h.namespace, "route", "add", "default", "via", gateway, "dev", device, "onlink"},
	} {
		if err := ip(args[0], args[1:]...); err != nil {
			n.t.Fatalf("host %s: %v", name, err)
		}
	}
	n.hosts = append(n.hosts, h)
	n.Resolve(name, address)
	resolver := filepath.Join(n.dir, "resolv.conf")
	// Nobody listens there, unless the host itself does: an unknown name fails at once.
	if err := os.WriteFile(resolver, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		n.t.Fatalf("host %s: %v", name, err)
	}
	h.Bind(n.hostsFile(), "/etc/hosts")
	h.Bind(resolver, "/etc/resolv.conf")
	return h
}

// Resolve makes a name, and its first label, stand for an address on all hosts,
// also for programs that run; with an empty address, for none.
func (n *Net) Resolve(name, address string) {
	n.t.Helper()
	n.names = slices.DeleteFunc(n.names, func(e hostName) bool { return e.name == name })
	if address != "" {
		addr, err := netip.ParseAddr(address)
		if err != nil {
			n.t.Fatalf("resolving %s: %v", name, err)
		}
		n.names = append(n.names, hostName{name, addr})
	}
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n")
	for _, e := range n.names {
		fmt.Fprintf(&b, "%s %s", e.addr, e.name)
		if label, _, ok := strings.Cut(e.name, "."); ok {
			b.WriteString(" " + label)
		}
		b.WriteString("\n")
	}
	// In place, not by rename: what hosts have mounted is this very file.
	if err := os.WriteFile(n.hostsFile(), b.Bytes(), 0o644); err != nil {
		n.t.Fatalf("resolving %s: %v", name, err)
	}
}

func (n *Net) hostsFile() string { return filepath.Join(n.dir, "hosts") }

// close ends every process of the hosts and removes the namespaces, and with them
// all that is in them.
func (n *Net) close() {
	n.t.Helper()
	if err := remove(n.prefix); err != nil {
		n.t.Errorf("removing the network: %v", err)
	}
}
