package main

import (
	"fmt"
	"net/netip"
	"strconv"
)

const zoneName = "example.net"

// operator is the certname that may write, whose certificate is in the ssldir.
const operator = "operator." + zoneName

// ports are the same on every node and on every master; the addresses differ.
type ports struct{ dns, master, metrics, ready, gossip, admin, member uint16 }

// layout says what stands where. It is made once and never changes.
type layout struct {
	dir         string
	sockets     string // the directory of the nodes' and members' sockets; see openSockets
	targets     string // host or service, as in the Corefile
	members     bool   // each master has one
	datacenters []string
	camaster    string // host name
	nodes       []node
	masters     []master
}

type node struct {
	name, host, datacenter string
	dns, gossip, admin     netip.AddrPort
	metrics, ready         netip.AddrPort // port 0: not served
}

type master struct {
	name, host, service, datacenter string
	address                         netip.AddrPort
	ca                              bool
	gossip, member, metrics         netip.AddrPort // of its member; metrics port 0: not served
}

// newLayout places the nodes at .1 and .2 and the masters at .11 to .14 of the
// base address, so that -base alone moves a playground out of another's way.
func newLayout(o options) (layout, error) {
	if !o.base.Is4() {
		return layout{}, fmt.Errorf("-base %v: must be an IPv4 address such as 127.0.1.0", o.base)
	}
	base := o.base.As4()
	if base[3] > 240 {
		return layout{}, fmt.Errorf("-base %v: the last number must be at most 240, because addresses up to 14 above it are used", o.base)
	}
	at := func(n byte, port uint16) netip.AddrPort {
		a := base
		a[3] += n
		return netip.AddrPortFrom(netip.AddrFrom4(a), port)
	}
	l := layout{
		dir:         o.dir,
		sockets:     o.dir,
		targets:     o.targets,
		members:     o.members,
		datacenters: []string{"datacenter1", "datacenter2"},
		camaster:    "m1." + zoneName,
	}
	for i, datacenter := range l.datacenters {
		n := byte(i + 1)
		name := fmt.Sprintf("ns%d", n)
		l.nodes = append(l.nodes, node{
			name: name, host: name + "." + zoneName, datacenter: datacenter,
			dns: at(n, o.ports.dns), gossip: at(n, o.ports.gossip), admin: at(n, o.ports.admin),
			metrics: at(n, o.ports.metrics), ready: at(n, o.ports.ready),
		})
		for j := range byte(2) {
			n := byte(i)*2 + j + 1
			name := fmt.Sprintf("m%d", n)
			l.masters = append(l.masters, master{
				name: name, host: name + "." + zoneName, service: name + "." + datacenter + "." + zoneName,
				datacenter: datacenter, address: at(10+n, o.ports.master),
				ca:     j == 0, // m1 and m3
				gossip: at(10+n, o.ports.gossip), member: at(10+n, o.ports.member), metrics: at(10+n, o.ports.metrics),
			})
		}
	}
	return l, nil
}

// first is the master that is camaster at the start.
func (l layout) first() master {
	m, _ := l.masterOf(l.camaster)
	return m
}

// target is a master as an SRV record lists it.
type target struct {
	name     string
	port     uint16
	priority uint16
}

// targetsOf is the answer that a node gives to an agent of the datacenter while
// every master is up.
func (l layout) targetsOf(datacenter string) []target {
	var targets []target
	for _, m := range l.masters {
		t := target{name: m.host, port: m.address.Port(), priority: 20}
		if l.targets == "service" {
			t.name = m.service
		}
		if m.datacenter == datacenter {
			t.priority = 10
		}
		targets = append(targets, t)
	}
	return targets
}

// portFlag is a flag.Value for a port.
type portFlag struct {
	preset uint16
	port   *uint16
}

func (f portFlag) init() portFlag {
	*f.port = f.preset
	return f
}

func (f portFlag) String() string {
	if f.port == nil { // flag.PrintDefaults asks a zero value
		return ""
	}
	return strconv.Itoa(int(*f.port))
}

func (f portFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return fmt.Errorf("not a port: %q", s)
	}
	*f.port = uint16(n)
	return nil
}
