//go:build linux

package netns

import "net/netip"

// Saved is a network that another process of the same namespaces may use, for as long as
// its owner lives. It can be written as JSON.
type Saved struct {
	Prefix string
	Dir    string
	Hosts  []SavedHost
}

// SavedHost is a host of a Saved.
type SavedHost struct {
	Name      string
	Addr      netip.Addr
	Namespace string
	Mounts    [][2]string
}

// Save is the network as it is. What is cut now only its owner can heal.
func (n *Net) Save() Saved {
	s := Saved{Prefix: n.prefix, Dir: n.dir}
	for _, h := range n.hosts {
		s.Hosts = append(s.Hosts, SavedHost{h.Name, h.Addr, h.namespace, h.mounts})
	}
	return s
}

// Resume uses a network that another process owns. Nothing ends with t.
func Resume(t T, s Saved) *Net {
	n := &Net{t: t, prefix: s.Prefix, router: s.Prefix + "router", dir: s.Dir}
	for _, h := range s.Hosts {
		n.hosts = append(n.hosts, &Host{Name: h.Name, Addr: h.Addr, net: n, namespace: h.Namespace, mounts: h.Mounts})
		n.names = append(n.names, hostName{h.Name, h.Addr})
	}
	return n
}

// Hosts are all hosts, in the order in which they were made.
func (n *Net) Hosts() []*Host { return n.hosts }
