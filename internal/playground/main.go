// Command playground runs two datacenters on the loopback of one machine, for
// somebody who wants to see puppetsrv work before they read about it: two
// nodes, which are the real puppetsrv binary and one cluster, and four masters, which are stub
// Puppet servers, each with its member, the real puppetsrv-member binary; each a process
// of its own so that it can be killed.
//
// `make run` builds and starts it. It owns its run directory and its
// processes: when it ends, in whatever way, neither is left. It is no way to
// run anything for real: its CA is thrown away and its masters compile nothing.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "playground: %v\n", err)
		}
		os.Exit(1)
	}
}

// options are the command line of a playground that starts.
type options struct {
	dir       string // absolute
	puppetsrv string // path of the binary that a node runs
	member    string // path of the binary that a member runs
	members   bool
	self      string // path of this binary, which a master runs
	targets   string
	base      netip.Addr
	ports     ports
	timeout   time.Duration
}

func run(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "master" {
		return runMaster(args[1:], stdout, stderr)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's own path: %w", err)
	}
	var (
		o     = options{self: self}
		stop  bool
		start string
		gone  string
		dns   = portFlag{1053, &o.ports.dns}
		https = portFlag{8140, &o.ports.master}
		prom  = portFlag{9153, &o.ports.metrics}
		ready = portFlag{8181, &o.ports.ready}
		pool  = portFlag{7946, &o.ports.gossip}
		api   = portFlag{8153, &o.ports.admin}
		peer  = portFlag{8154, &o.ports.member}
	)
	flags := flag.NewFlagSet("playground", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dir, "dir", "run", "the run `directory`: made at the start, removed at the end")
	flags.BoolVar(&stop, "stop", false, "stop the playground of -dir, from another terminal")
	flags.StringVar(&start, "start", "", "start a killed node, or master with its member, again: its `name`, from another terminal")
	flags.StringVar(&gone, "revoke", "", "revoke a certificate, from another terminal: its `certname`, as operator.example.net")
	flags.StringVar(&o.puppetsrv, "puppetsrv", filepath.Join(filepath.Dir(self), "puppetsrv"), "the puppetsrv `binary` that the nodes run")
	flags.StringVar(&o.member, "member", filepath.Join(filepath.Dir(self), "puppetsrv-member"), "the puppetsrv-member `binary` that runs beside each master")
	flags.BoolVar(&o.members, "members", true, "run a member beside each master; without, the camaster is a name in DNS and no more")
	flags.StringVar(&o.targets, "targets", "host", "`host or service`: which names the SRV answers list")
	flags.TextVar(&o.base, "base", netip.AddrFrom4([4]byte{127, 0, 0, 0}), "the nodes take .1 and .2, the masters .11 to .14 of this `address`")
	flags.Var(dns.init(), "dns-port", "the nodes' DNS `port`")
	flags.Var(https.init(), "master-port", "the masters' `port`")
	flags.Var(prom.init(), "metrics-port", "the nodes' and members' Prometheus `port`, 0 for none")
	flags.Var(ready.init(), "ready-port", "the nodes' readiness `port`, 0 for none")
	flags.Var(pool.init(), "gossip-port", "the `port` on which nodes and members gossip")
	flags.Var(api.init(), "admin-port", "the `port` of the nodes' API over https")
	flags.Var(peer.init(), "member-port", "the `port` on which members ask each other")
	flags.DurationVar(&o.timeout, "timeout", 20*time.Second, "how long each process may take until it answers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag, see -help", flags.Arg(0))
	}
	if o.targets != "host" && o.targets != "service" {
		return fmt.Errorf("-targets %q: must be host or service", o.targets)
	}
	if slices.Contains([]uint16{o.ports.dns, o.ports.master, o.ports.gossip, o.ports.admin, o.ports.member}, 0) {
		return errors.New("-dns-port, -master-port, -gossip-port, -admin-port and -member-port must not be 0")
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if o.puppetsrv, err = filepath.Abs(o.puppetsrv); err != nil {
		return fmt.Errorf("puppetsrv binary: %w", err)
	}
	if o.member, err = filepath.Abs(o.member); err != nil {
		return fmt.Errorf("puppetsrv-member binary: %w", err)
	}
	switch {
	case stop && start != "" || stop && gone != "" || start != "" && gone != "":
		return errors.New("-stop, -start and -revoke exclude each other")
	case stop:
		return askStop(o.dir, stdout)
	case start != "":
		return askFor(o.dir, request{Command: "start", Name: start}, stdout)
	case gone != "":
		return askFor(o.dir, request{Command: "revoke", Name: gone}, stdout)
	}
	return supervise(o, stdout)
}
