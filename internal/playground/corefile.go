package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// corefile is the configuration of one node. Somebody will read it to learn how
// theirs should look, so it says nothing twice and leaves out what is default.
func (l layout) corefile(n node) string {
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		b.WriteString(strings.Repeat("    ", indent))
		fmt.Fprintf(&b, format+"\n", args...)
	}
	line(0, "# node %s: written by the playground. An edit is reloaded within three seconds.", n.name)
	line(0, "%s:%d {", zoneName, n.dns.Port())
	line(1, "bind %s", n.dns.Addr())
	line(1, "puppetsrv {")
	line(2, "zonefile    %s", quote(l.zonePath()))
	for _, datacenter := range l.datacenters {
		line(2, "datacenter  %s", datacenter)
	}
	for _, m := range l.masters {
		words := []string{m.host, m.datacenter}
		if m.address.Port() != 8140 {
			words = append(words, fmt.Sprintf("port %d", m.address.Port()))
		}
		if m.ca {
			words = append(words, "ca")
		}
		line(2, "master      %s", strings.Join(words, " "))
	}
	line(2, "camaster    puppet-camaster %s", l.camaster)
	line(2, "node        %s", n.host)
	line(2, "location    %s", n.datacenter)
	if l.targets != "host" {
		line(2, "targets     %s", l.targets)
	}
	line(2, "tls         %s %s %s", quote(l.certPath(n.name)), quote(l.keyPath(n.name)), quote(l.caPath()))
	line(2, "crl         %s", quote(l.crlPath()))
	line(2, "state       %s", quote(filepath.Join(l.dir, n.name, "state")))
	var join, sign []string
	for _, other := range l.nodes {
		sign = append(sign, other.host)
		if other != n {
			join = append(join, other.gossip.String())
		}
	}
	line(2, "gossip      %v join %s key %s profile local", n.gossip, strings.Join(join, " "), quote(l.gossipKeyPath(n.name)))
	line(2, "admin       %s https://%v", quote("unix://"+l.socketPath(n.name)), n.admin)
	line(2, "admin_allow sign  %s", strings.Join(sign, " "))
	line(2, "admin_allow write %s", operator)
	line(2, "admin_allow read  *")
	line(1, "}")
	line(1, "transfer {")
	line(2, "to *")
	line(1, "}")
	if n.metrics.Port() != 0 {
		line(1, "prometheus %s", n.metrics)
	}
	if n.ready.Port() != 0 {
		line(1, "ready %s", n.ready)
	}
	line(1, "reload 2s 1s")
	line(1, "errors")
	line(0, "}")
	return b.String()
}

// zonefile holds what no probe decides: who serves the zone and where the
// hosts are.
func (l layout) zonefile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s.\n$TTL 60\n", zoneName)
	fmt.Fprintf(&b, "@ IN SOA %s. hostmaster.%s. 1 3600 600 604800 5\n", l.nodes[0].host, zoneName)
	for _, n := range l.nodes {
		fmt.Fprintf(&b, "@ IN NS %s.\n", n.host)
	}
	for _, n := range l.nodes {
		fmt.Fprintf(&b, "%s IN A %s\n", n.name, n.dns.Addr())
	}
	for _, m := range l.masters {
		fmt.Fprintf(&b, "%s IN A %s\n", m.name, m.address.Addr())
	}
	return b.String()
}

func (l layout) zonePath() string            { return filepath.Join(l.dir, zoneName+".zone") }
func (l layout) corefilePath(n node) string  { return filepath.Join(l.dir, n.name, "Corefile") }
func (l layout) certPath(unit string) string { return filepath.Join(l.dir, unit, "cert.pem") }
func (l layout) keyPath(unit string) string  { return filepath.Join(l.dir, unit, "key.pem") }

// gossipKeyPath is a node's or member's own file, as on two hosts: `puppetsrvctl keys`
// has each node change it.
func (l layout) gossipKeyPath(unit string) string { return filepath.Join(l.dir, unit, "gossip.key") }

// sslDir is laid out as Puppet's ssldir, for the operator.
func (l layout) sslDir() string  { return filepath.Join(l.dir, "ssl") }
func (l layout) caPath() string  { return filepath.Join(l.sslDir(), "certs", "ca.pem") }
func (l layout) crlPath() string { return filepath.Join(l.sslDir(), "crl.pem") }

// quote makes one word of a path for the Corefile's lexer, which ends a bare
// word at white space and takes \" inside quotes.
func quote(path string) string {
	if !strings.ContainsAny(path, " \t\"#{}\\") {
		return path
	}
	return `"` + strings.ReplaceAll(path, `"`, `\"`) + `"`
}
