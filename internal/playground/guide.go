package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// again is the command that asks something of this playground from another
// terminal, in the form in which this one was started.
func (o options) again(args ...string) string {
	if wd, err := os.Getwd(); err != nil || o.dir != filepath.Join(wd, "run") {
		args = append([]string{"-dir", shellQuote(o.dir)}, args...)
	}
	words := strings.Join(args, " ")
	if os.Getenv("MAKELEVEL") == "" {
		return shellQuote(o.self) + " " + words
	}
	if len(args) > 1 {
		words = "'" + strings.ReplaceAll(words, "'", `'\''`) + "'"
	}
	return "make run ARGS=" + words
}

func shellQuote(s string) string {
	if strings.ContainsAny(s, " \t\n'\"\\$`!*?[](){}<>|&;#~") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// guide is what to try. pids are those of the masters by name.
func (l layout) guide(o options, pids map[string]int) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	dig := func(at netip.AddrPort, name, kind string) {
		say("    dig @%v -p %d +noall +answer %s %s", at.Addr(), at.Port(), name, kind)
	}
	here, there := l.nodes[0], l.nodes[1]
	say("")
	say("Try, in another terminal:")
	say("")
	say("  The masters, as an agent of %s asks for them, and one of %s:", here.datacenter, there.datacenter)
	dig(here.dns, srvName("_x-puppet", here.datacenter), "SRV")
	dig(there.dns, srvName("_x-puppet", there.datacenter), "SRV")
	say("  The camaster, and where agents find the CA:")
	dig(here.dns, "puppet-camaster."+zoneName, "CNAME")
	dig(here.dns, srvName("_x-puppet-ca", here.datacenter), "SRV")
	say("  The whole zone, as a secondary takes it:")
	dig(here.dns, zoneName, "AXFR")
	victim := l.masters[1]
	say("  Kill a master and ask again: within a second every answer has it last. Then start it again:")
	say("    kill -9 %d    # %s", pids[victim.name], victim.name)
	if l.targets == "service" {
		say("    dig @%v -p %d +noall +answer %s A    # a stand-in's address", here.dns.Addr(), here.dns.Port(), victim.service)
	}
	say("    %s", o.again("-start", victim.name))
	if here.metrics.Port() != 0 {
		say("  The metrics of a node:")
		say("    curl -s http://%v/metrics | grep coredns_puppetsrv", here.metrics)
	}
	if _, err := exec.LookPath("dig"); err != nil {
		say("")
		say("  This system has no dig: it is in the package bind9-dnsutils (Debian) or bind-utils (Red Hat).")
	}
	say("")
	say("Pids and addresses are in %s.", filepath.Join(l.dir, stateName))
	say("Stop with Ctrl-C here, or in another terminal: %s", o.again("-stop"))
	return b.String()
}
