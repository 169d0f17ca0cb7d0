package puppetsrv

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/release"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// clusterBuilder gathers what the properties say of the cluster.
type clusterBuilder struct {
	name      string
	gossip    *gossip.Config
	key       string
	join      []string
	patterns  []string
	crl       string
	crlOff    bool
	addresses []string // of the API
	allow     map[string][]string
	identity  []string // what a membership cannot change while it runs
}

// readCluster understands `node`, `gossip`, `members`, `crl`, `admin` and
// `admin_allow`.
func (b *builder) readCluster(p property) (err error) {
	c := &b.cluster
	b.written[[2]string{p.name, ""}] = p
	switch p.name {
	case "node":
		if len(p.args) != 1 {
			return p.usage()
		}
		c.name, err = memberName(p.args[0])
		if err != nil {
			return p.errf("node: %s", err)
		}
	case "gossip":
		return b.readGossip(p)
	case "members":
		if len(p.args) < 2 || p.args[0] != "accept" {
			return p.usage()
		}
		for _, pattern := range p.args[1:] {
			if _, err := path.Match(pattern, ""); err != nil || strings.Contains(pattern, "/") {
				return p.errf("members: %q is no pattern: write names, with * for any letters, ? for one and [abc] for one of some", pattern)
			}
			c.patterns = append(c.patterns, strings.ToLower(strings.TrimSuffix(pattern, ".")))
		}
	case "crl":
		switch {
		case len(p.args) != 1:
			return p.usage()
		case p.args[0] == "off":
			c.crlOff = true
		default:
			c.crl = b.path(p.args[0])
		}
	case "admin":
		if len(p.args) == 0 {
			return p.usage()
		}
		for _, a := range p.args {
			if slices.Contains(c.addresses, a) {
				return p.errf("admin: %s is given twice", a)
			}
			if err := checkAdmin(a); err != nil {
				return p.errf("admin: %s", err)
			}
			c.addresses = append(c.addresses, a)
		}
	case "admin_allow":
		if len(p.args) < 2 || !slices.Contains([]string{"read", "write", "sign"}, p.args[0]) {
			return p.usage()
		}
		for _, name := range p.args[1:] {
			if name == "*" && p.args[0] != "read" {
				return p.errf("admin_allow: * is for `read` alone: every agent has a certificate of the Puppet CA; name who may %s", p.args[0])
			}
			if name != "*" {
				if name, err = memberName(name); err != nil {
					return p.errf("admin_allow: %s", err)
				}
			}
			c.allow[p.args[0]] = append(c.allow[p.args[0]], name)
		}
	}
	return nil
}

// memberName is a node's name or a certname: a host name in lower case.
func memberName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if err := checkDomain(name + "."); err != nil || name == "" {
		return "", fmt.Errorf("%q is no host name: %w", s, err)
	}
	return name, nil
}

func checkAdmin(address string) error {
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case ok && scheme == "unix" && filepath.IsAbs(rest):
		return nil
	case ok && scheme == "https":
		if _, err := netip.ParseAddrPort(rest); err == nil {
			return nil
		}
	case ok && scheme == "http":
		return fmt.Errorf("%s: there is no API without TLS: write https://ADDR:8153, or unix:///PATH on this machine", address)
	}
	return fmt.Errorf("%q is no address: write unix:///run/puppetsrv/admin.sock, or https://ADDR:8153 with an IP address", address)
}

// readGossip understands `gossip`.
func (b *builder) readGossip(p property) error {
	c := &b.cluster
	if len(p.args) == 0 {
		return p.usage()
	}
	bind, err := addrPort(p.args[0])
	if err != nil {
		return p.errf("gossip: %s", err)
	}
	c.gossip = &gossip.Config{Bind: bind}
	seen := make(map[string]bool)
	words := []string{"advertise", "join", "key", "profile"}
	for rest := p.args[1:]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if !slices.Contains(words, word) {
			return p.errf("gossip: unknown word %q: write `%s`", word, usages["gossip"])
		}
		if seen[word] {
			return p.errf("gossip: %q is given twice", word)
		}
		seen[word] = true
		n := 0
		for n < len(rest) && !slices.Contains(words, rest[n]) {
			n++
		}
		args := rest[:n]
		rest = rest[n:]
		if len(args) == 0 || len(args) > 1 && word != "join" {
			return p.errf("gossip: wrong arguments %q behind %q: write `%s`", args, word, usages["gossip"])
		}
		switch word {
		case "advertise":
			c.gossip.Advertise, err = addrPort(args[0])
			if err == nil && c.gossip.Advertise.Addr().IsUnspecified() {
				err = fmt.Errorf("%s: nobody can reach that: give the address that the other nodes see", args[0])
			}
		case "profile":
			c.gossip.Profile, err = gossip.ParseProfile(args[0])
		case "key":
			c.key = b.path(args[0])
			_, err = gossip.OpenKeyRing(c.key)
		case "join":
			for _, a := range args {
				host, port := a, ""
				if h, p, e := net.SplitHostPort(a); e == nil {
					host, port = h, p
				}
				if _, e := netip.ParseAddr(host); e != nil {
					if _, e = memberName(host); e != nil {
						err = fmt.Errorf("join: %w", e)
					}
				}
				if n, e := strconv.Atoi(port); port != "" && (e != nil || n < 1 || n > 65535) {
					err = fmt.Errorf("join: port %q: must be a whole number from 1 to 65535", port)
				}
				c.join = append(c.join, strings.ToLower(a))
			}
		}
		if err != nil {
			return p.errf("gossip: %s", err)
		}
	}
	if !bind.Addr().IsLoopback() && c.key == "" {
		return p.errf("gossip: %s is no loopback address and there is no key: anybody who reaches it could join. Make one on one node with `(umask 077; head -c 32 /dev/urandom | base64 >FILE)`, copy it to the others, and write `key FILE`", bind)
	}
	c.identity = append(c.identity, bind.String(), c.gossip.Advertise.String(), c.gossip.Profile.String(), c.key)
	return nil
}

// addrPort reads IP or IP:PORT; the port defaults to gossip's.
func addrPort(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, gossip.DefaultPort), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("%q is no address: write IP:PORT, as in 192.0.2.1:%d", s, gossip.DefaultPort)
	}
	return a, nil
}

// clusterConfig joins what was read of the cluster; nil without one.
func (b *builder) clusterConfig(site *dnsserver.Config) (*node.Cluster, error) {
	c := &b.cluster
	first := func(names ...string) property {
		for _, n := range names {
			if p, ok := b.written[[2]string{n, ""}]; ok {
				return p
			}
		}
		return property{}
	}
	if c.gossip == nil && len(c.addresses) == 0 {
		if p := first("members", "admin_allow", "crl", "node"); p.name != "" {
			b.warnings = append(b.warnings, fmt.Sprintf("`%s` is not used without `gossip` or `admin`", p.name))
		}
		return nil, nil
	}
	needs := first("gossip", "admin")
	if b.state == "" {
		return nil, needs.errf("%s needs `state DIRECTORY`: the camaster has to survive a restart", needs.name)
	}
	if len(b.tlsFiles) != 3 {
		return nil, needs.errf("%s needs `tls CERT KEY CA`: nodes sign what they write with their Puppet certificate", needs.name)
	}
	https := slices.ContainsFunc(c.addresses, func(a string) bool { return strings.HasPrefix(a, "https://") })
	if c.crl == "" && !c.crlOff && (https || c.gossip != nil) {
		return nil, needs.errf("%s needs `crl FILE`, with Puppet's layout `crl %s`: a revoked certificate must not move anything; `crl off` does without", needs.name, filepath.Join(filepath.Dir(filepath.Dir(b.tlsFiles[2])), "crl.pem"))
	}
	identity, err := trust.LoadIdentity(b.tlsFiles[0], b.tlsFiles[1])
	if err != nil {
		return nil, b.written[[2]string{"tls", ""}].errf("tls: %s", err)
	}
	authority, err := trust.Open(b.tlsFiles[2], c.crl)
	if err != nil {
		return nil, first("crl", "tls").errf("%s", err)
	}
	if c.name == "" {
		if c.name, err = memberName(observer()); err != nil {
			return nil, needs.errf("the host name is no name for a node: %s; write `node NAME`", err)
		}
	}
	if https && len(c.allow["read"])+len(c.allow["write"]) == 0 {
		b.warnings = append(b.warnings, "nobody may use the API over https: write `admin_allow write CERTNAME...` and `admin_allow read CERTNAME...|*`")
	}
	if c.gossip != nil && b.location == "" {
		b.warnings = append(b.warnings, "no `location`: this node's observations are no datacenter's own, and a cut link looks to it like dead masters")
	}
	if c.gossip != nil && len(c.join) == 0 {
		b.warnings = append(b.warnings, "gossip without `join`: this node waits for others to come")
	}
	dns := listening(site)
	fmt.Fprintf(b.key, "%v\n", dns)
	return &node.Cluster{
		Pool: fmt.Sprintf("%q %q", c.name, c.identity), Trusts: fmt.Sprintf("%x %q", b.tlsSum, c.crl), Name: c.name, Release: release.Version, Datacenter: b.location,
		Gossip: c.gossip, KeyFile: c.key, Trust: node.Trust{Identity: identity, Authority: authority},
		Policy: b.policy(identity.Name), DNS: dns,
		Admin: node.Admin{Addresses: c.addresses, Allow: admin.Allow{Read: c.allow["read"], Write: c.allow["write"]}},
	}, nil
}

// policy is who may join and who may write registers. Nodes are this one, those that
// `join` names and those that `admin_allow sign` does; they and the masters may join,
// and who matches `members accept`.
func (b *builder) policy(own string) cluster.Policy {
	c := &b.cluster
	nodes := []string{own, c.name}
	for _, a := range c.join {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			host = a
		}
		if _, err := netip.ParseAddr(host); err != nil {
			nodes = append(nodes, strings.TrimSuffix(host, "."))
		}
	}
	nodes = append(nodes, c.allow["sign"]...)
	known := slices.Clone(nodes)
	for _, m := range b.topology.Masters {
		known = append(known, strings.TrimSuffix(m.Host, "."))
	}
	patterns := c.patterns
	return cluster.Policy{
		Join:    c.join,
		Signers: func(certname string) bool { return slices.Contains(nodes, certname) },
		Admit: func(name string) bool {
			return slices.Contains(known, name) || slices.ContainsFunc(patterns, func(p string) bool {
				ok, err := path.Match(p, name)
				return ok && err == nil
			})
		},
	}
}

// listening is where the server answers DNS over UDP; unspecified where it takes
// every address.
func listening(site *dnsserver.Config) []netip.AddrPort {
	port, err := strconv.ParseUint(site.Port, 10, 16)
	if err != nil || site.Transport != transport.DNS {
		return nil
	}
	var addrs []netip.AddrPort
	for _, h := range site.ListenHosts {
		a := netip.IPv4Unspecified()
		if h != "" {
			if a, err = netip.ParseAddr(h); err != nil {
				continue
			}
		}
		addrs = append(addrs, netip.AddrPortFrom(a, uint16(port)))
	}
	return addrs
}

// observer is this node's name where `node` gives none: the host's.
func observer() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
