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

// near is a path as somebody types it in the directory where they ran make.
func near(path string) string {
	wd, err := os.Getwd()
	if err != nil || os.Getenv("MAKELEVEL") == "" {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// guide is what to try. pids are those of the processes by name.
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
	ctl := shellQuote(near(filepath.Join(filepath.Dir(o.self), "puppetsrvctl")))
	command := func(format string, args ...any) { say("    "+ctl+" "+format, args...) }
	say("  The two nodes are one cluster. Each tells what both believe, and takes commands for both:")
	say("    export PUPPETSRV_SERVER=%s", shellQuote("unix://"+l.socketPath(here.name)))
	command("status")
	command("masters")
	if l.members {
		say("  Move the camaster: its CA is closed here and opened there, and both nodes answer the new one.")
		command("switchover --to m3.%s --reason drill", zoneName)
	} else {
		say("  Move the camaster: both nodes answer the new one at once.")
		command("camaster set m3.%s --reason drill", zoneName)
	}
	say("  Give a master no new work for half a minute: every answer has it last. Or end that before:")
	command("drain m2 --reason drill --for 30s")
	dig(there.dns, srvName("_x-puppet", here.datacenter), "SRV")
	command("undrain m2")
	say("  What happens, as it happens, until Ctrl-C:")
	command("watch")
	say("  From another host it is https, with a certificate of the Puppet CA that may write:")
	remote := fmt.Sprintf("--server https://%v --ssldir %s", there.admin, shellQuote(near(l.sslDir())))
	command("%s status", remote)
	if l.members {
		command("%s switchover --to %s --reason 'the drill is over'", remote, l.camaster)
	} else {
		command("%s camaster set %s --reason 'the drill is over'", remote, l.camaster)
	}
	victim := l.masters[1]
	say("  Kill a master and ask again: within a second every answer has it last. Then start it again:")
	say("    kill -9 %d    # %s", pids[victim.name], victim.name)
	if l.targets == "service" {
		say("    dig @%v -p %d +noall +answer %s A    # a stand-in's address", here.dns.Addr(), here.dns.Port(), victim.service)
	}
	say("    %s", o.again("-start", victim.name))
	say("  Kill a node: the other answers for both datacenters, and says that it is dead. Then start it again:")
	say("    kill -9 %d    # %s", pids[here.name], here.name)
	command("--server %s cluster", shellQuote("unix://"+l.socketPath(there.name)))
	say("    %s", o.again("-start", here.name))
	if l.members {
		l.guideFailover(o, pids, say, command)
	}
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

// guideFailover is the story that members are for. By now the camaster is the first one
// again.
func (l layout) guideFailover(o options, pids map[string]int, say, command func(string, ...any)) {
	lost, next := l.first(), l.masters[2]
	say("  Lose the camaster: its master and its member die. m3 takes over when you say so, and signs.")
	say("    kill -9 %d %d    # %s %s", pids[lost.name], pids[lost.memberName()], lost.name, lost.memberName())
	command("failover --to %s --reason drill", next.host)
	say("  Start it again: it is closed, and signs nothing, until it is told to follow.")
	say("    %s", o.again("-start", lost.name))
	command("masters")
	command("rejoin %s", lost.host)
	say("  Revoke a certificate: within three seconds every master refuses it by its own CRL.")
	say("    %s", o.again("-revoke", operator))
}
