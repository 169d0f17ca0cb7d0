package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// endpoint is an address that a node or master will listen on.
type endpoint struct {
	network string // tcp or udp
	addr    netip.AddrPort
	unit    string // the node's, master's or member's name
	flag    string // what moves it to another port
}

func (l layout) endpoints() []endpoint {
	var all []endpoint
	add := func(network string, addr netip.AddrPort, unit, flag string) {
		if addr.Port() != 0 {
			all = append(all, endpoint{network, addr, unit, flag})
		}
	}
	for _, n := range l.nodes {
		add("udp", n.dns, n.name, "-dns-port")
		add("tcp", n.dns, n.name, "-dns-port")
		add("udp", n.gossip, n.name, "-gossip-port")
		add("tcp", n.gossip, n.name, "-gossip-port")
		add("tcp", n.admin, n.name, "-admin-port")
		add("tcp", n.metrics, n.name, "-metrics-port")
		add("tcp", n.ready, n.name, "-ready-port")
	}
	for _, m := range l.masters {
		add("tcp", m.address, m.name, "-master-port")
		if l.members {
			add("udp", m.gossip, m.memberName(), "-gossip-port")
			add("tcp", m.gossip, m.memberName(), "-gossip-port")
			add("tcp", m.member, m.memberName(), "-member-port")
			add("tcp", m.metrics, m.memberName(), "-metrics-port")
		}
	}
	return all
}

// checkEndpoints finds what would keep a process from listening, because
// CoreDNS would not tell: it listens with SO_REUSEPORT, so that a second one on
// the same port starts well and gets half of the queries.
func (o options) checkEndpoints(endpoints []endpoint) error {
	var absent, problems []string
	named := make(map[string]bool) // other playgrounds; each needs one line, not ten
	for _, e := range endpoints {
		err := e.try()
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			if a := e.addr.Addr().String(); !slices.Contains(absent, a) {
				absent = append(absent, a)
			}
		case errors.Is(err, syscall.EADDRINUSE):
			pid, program, mark := portHolder(e.network, e.addr)
			if mark == "" || !named[mark] {
				problems = append(problems, e.String()+" is in use"+o.advice(e, pid, program, mark))
			}
			named[mark] = true
		case errors.Is(err, syscall.EACCES):
			problems = append(problems, fmt.Sprintf("%v: not allowed to listen there: choose a port from 1024 upward with %s", e, e.flag))
		default:
			problems = append(problems, fmt.Sprintf("%v: %v", e, err))
		}
	}
	if len(absent) > 0 {
		return errors.New(absentAddresses(absent, runtime.GOOS))
	}
	const shown = 4
	if n := len(problems); n > shown {
		problems = append(problems[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "\n  "))
	}
	return nil
}

func (e endpoint) String() string {
	return fmt.Sprintf("%v (%s, for %s)", e.addr, e.network, e.unit)
}

// try listens for a moment.
func (e endpoint) try() error {
	if e.network == "udp" {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(e.addr))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(e.addr))
	if err != nil {
		return err
	}
	return listener.Close()
}

// advice says who has the address, as far as that could be found out, and what
// to do about it.
func (o options) advice(e endpoint, pid int, program, mark string) string {
	if playground, dir, ok := strings.Cut(mark, " "); ok {
		other := o
		other.dir = dir
		return fmt.Sprintf(" by the playground in %s (pid %s): stop it with `%s`, or run this one beside it with -base %v",
			dir, playground, other.again("-stop"), o.nextBase())
	}
	by := ""
	if pid != 0 {
		by = fmt.Sprintf(" by %s (pid %d)", program, pid)
	}
	return fmt.Sprintf("%s: stop that, or choose another port with %s", by, e.flag)
}

// nextBase is a -base that this playground does not use.
func (o options) nextBase() netip.Addr {
	a := o.base.As4()
	a[2]++
	return netip.AddrFrom4(a)
}

// absentAddresses tells how to give the loopback interface more addresses.
// Linux has all of 127.0.0.0/8 from the start; macOS and the BSDs have
// 127.0.0.1 alone.
func absentAddresses(absent []string, goos string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "this system does not have the address %s. Give them to its loopback interface, until the next boot, and try again:\n", strings.Join(absent, ", "))
	for _, a := range absent {
		if goos == "linux" {
			fmt.Fprintf(&b, "\n    sudo ip address add %s/32 dev lo", a)
		} else {
			fmt.Fprintf(&b, "\n    sudo ifconfig lo0 alias %s up", a)
		}
	}
	return b.String()
}
