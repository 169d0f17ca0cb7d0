// Package topology holds what an operator configures: datacenters, the masters
// in them, how far apart they are, and where the camaster's role is by default.
// It owns the rules that need nothing else to be checked. It never resolves a
// name, reads a file or knows what is up.
//
// All domain names here are fully qualified, lower case and end in a dot.
package topology

import (
	"fmt"
	"net/netip"
	"strings"
)

// Limits on what a configuration may hold.
const (
	MaxMasters     = 10000
	MaxDatacenters = 1000
	// MaxEntries bounds masters times datacenters: every master stands in the lists
	// of every datacenter.
	MaxEntries = 500000
)

// DownPenalty is added to the priority of a master that is down or drained.
// Every tier of up masters therefore ends below the first tier of down ones;
// [Topology.Validate] refuses distances that would break that.
const DownPenalty = 100

// distanceStep separates two neighbouring remote tiers.
const distanceStep = 10

// CATarget says which name `_x-puppet-ca` and `_x-puppet-db` point at.
type CATarget int

const (
	// CATargetHost is the camaster's own host name: no alias (RFC 2782) and
	// no extra subjectAltName.
	CATargetHost CATarget = iota
	// CATargetCamaster is the camaster CNAME, the original layout: every
	// CA-capable master needs that name in its certificate.
	CATargetCamaster
)

// Unhealthy says what becomes of a master that is down or drained.
type Unhealthy int

const (
	// Demote lists it last.
	Demote Unhealthy = iota
	// Omit leaves it out, unless that would leave nothing.
	Omit
)

// Targets says which names the tiers list.
type Targets int

const (
	// TargetsHost lists masters by host name.
	TargetsHost Targets = iota
	// TargetsService lists masters by service name, whose addresses move to a
	// stand-in while the master is down.
	TargetsService
)

// Datacenter is a named place. Agents put Domain in `srv_domain`.
type Datacenter struct {
	Name   string
	Domain string
}

// Master is a Puppet server.
type Master struct {
	Host       string // certname
	Datacenter string // Datacenter.Name
	Port       uint16 // 1-65535
	Weight     uint16 // 1-65535, within its tier (RFC 2782)
	CA         bool   // may become the camaster
	Addresses  []netip.Addr
	Service    string // service name, set with TargetsService
}

// Topology is one configuration. It is not changed after Validate.
type Topology struct {
	Datacenters []Datacenter
	Masters     []Master

	Local, Remote uint16       // priorities of the two nearest tiers
	Distances     map[Pair]int // 1 where absent
	CamasterName  string       // owner of the camaster CNAME
	Camaster      string       // Host of the configured camaster
	CATarget      CATarget
	Unhealthy     Unhealthy
	Targets       Targets
	PuppetDBPort  uint16
}

// Pair is two datacenter names in either order; make it with [PairOf].
type Pair struct{ a, b string }

// PairOf returns the pair of two datacenters; the order does not matter.
func PairOf(a, b string) Pair {
	if a > b {
		a, b = b, a
	}
	return Pair{a, b}
}

// Target returns the name that the tiers list for m: the name an agent connects
// to and therefore the name its certificate has to be valid for.
func (t *Topology) Target(m *Master) string {
	if t.Targets == TargetsService {
		return m.Service
	}
	return m.Host
}

// Priority returns the SRV priority of m for agents in datacenter dc while m is
// up and not drained: Local at home, Remote at distance 1, ten more for each
// further step.
func (t *Topology) Priority(dc string, m *Master) uint16 {
	if m.Datacenter == dc {
		return t.Local
	}
	d := 1
	if n, ok := t.Distances[PairOf(dc, m.Datacenter)]; ok {
		d = n
	}
	return t.Remote + uint16(distanceStep*(d-1))
}

// MaxDistance is the largest distance that keeps every up tier ahead of the
// first down tier.
func (t *Topology) MaxDistance() int {
	room := int(t.Local) + DownPenalty - 1 - int(t.Remote)
	return 1 + max(room, 0)/distanceStep
}

// Master returns the master with the given host name, or nil.
func (t *Topology) Master(host string) *Master {
	for i := range t.Masters {
		if t.Masters[i].Host == host {
			return &t.Masters[i]
		}
	}
	return nil
}

// Datacenter returns the datacenter with the given name, or nil.
func (t *Topology) Datacenter(name string) *Datacenter {
	for i := range t.Datacenters {
		if t.Datacenters[i].Name == name {
			return &t.Datacenters[i]
		}
	}
	return nil
}

// Validate checks the rules that span several parts. Its errors say what would
// be right.
func (t *Topology) Validate() error {
	if len(t.Datacenters) == 0 {
		return fmt.Errorf("no datacenter: add `datacenter NAME`")
	}
	if len(t.Masters) == 0 {
		return fmt.Errorf("no master: add `master HOST DATACENTER`")
	}
	if len(t.Masters) > MaxMasters {
		return fmt.Errorf("%d masters: at most %d are supported", len(t.Masters), MaxMasters)
	}
	if len(t.Datacenters) > MaxDatacenters {
		return fmt.Errorf("%d datacenters: at most %d are supported", len(t.Datacenters), MaxDatacenters)
	}
	if n := len(t.Masters) * len(t.Datacenters); n > MaxEntries {
		return fmt.Errorf("%d masters in the lists of %d datacenters make %d entries: at most %d are supported", len(t.Masters), len(t.Datacenters), n, MaxEntries)
	}
	if err := t.ValidatePriorities(); err != nil {
		return err
	}
	if err := t.validateNames(); err != nil {
		return err
	}
	for p, d := range t.Distances {
		if d < 1 || d > t.MaxDistance() {
			return fmt.Errorf("distance %s %s %d: must be from 1 to %d, or far masters that are up would be listed behind near ones that are down", p.a, p.b, d, t.MaxDistance())
		}
	}
	return t.ValidateCamaster()
}

// ValidatePriorities checks the two nearest tiers.
func (t *Topology) ValidatePriorities() error {
	if t.Local >= t.Remote {
		return fmt.Errorf("priority %d %d: the local priority must be lower than the remote one, as in `priority 10 20`", t.Local, t.Remote)
	}
	if int(t.Remote) >= int(t.Local)+DownPenalty {
		return fmt.Errorf("priority %d %d: the remote priority must be less than %d above the local one, because down masters are listed %d higher", t.Local, t.Remote, DownPenalty, DownPenalty)
	}
	if int(t.Remote)+2*DownPenalty > 65535 {
		return fmt.Errorf("priority %d %d: the remote priority can be at most %d", t.Local, t.Remote, 65535-2*DownPenalty)
	}
	return nil
}

func (t *Topology) validateNames() error {
	dcs := make(map[string]bool, len(t.Datacenters))
	domains := make(map[string]string, len(t.Datacenters))
	for _, d := range t.Datacenters {
		if dcs[d.Name] {
			return Errorf("datacenter", d.Name, "datacenter %s is given twice", d.Name)
		}
		dcs[d.Name] = true
		if other, ok := domains[d.Domain]; ok {
			return Errorf("datacenter", d.Name, "datacenters %s and %s have the same domain %s", other, d.Name, d.Domain)
		}
		domains[d.Domain] = d.Name
	}
	for p := range t.Distances {
		for _, name := range []string{p.a, p.b} {
			if !dcs[name] {
				return fmt.Errorf("distance names an unknown datacenter %q: the datacenters are %s", name, t.datacenterNames())
			}
		}
		if p.a == p.b {
			return fmt.Errorf("distance %s %s: a datacenter has no distance to itself", p.a, p.b)
		}
	}
	hosts := make(map[string]bool, len(t.Masters))
	for _, m := range t.Masters {
		if hosts[m.Host] {
			return Errorf("master", m.Host, "master %s is given twice", m.Host)
		}
		hosts[m.Host] = true
		if !dcs[m.Datacenter] {
			return Errorf("master", m.Host, "master %s is in an unknown datacenter %q: the datacenters are %s", m.Host, m.Datacenter, t.datacenterNames())
		}
		if m.Port == 0 {
			return Errorf("master", m.Host, "master %s: port 0 is no port; Puppet's is 8140", m.Host)
		}
		if m.Weight == 0 {
			return Errorf("master", m.Host, "master %s: weight 0 does not mean \"never\" to an agent; use 1 to 65535, or leave the master out", m.Host)
		}
	}
	if t.Targets != TargetsService {
		return nil
	}
	services := make(map[string]string, len(t.Masters))
	for _, m := range t.Masters {
		if hosts[m.Service] {
			return Errorf("master", m.Host, "master %s: service name %s is a master's host name; give another with `service NAME`", m.Host, m.Service)
		}
		if other, ok := services[m.Service]; ok {
			return Errorf("master", m.Host, "masters %s and %s have the same service name %s; give one another with `service NAME`", other, m.Host, m.Service)
		}
		services[m.Service] = m.Host
	}
	return nil
}

// ValidateCamaster checks the configured camaster against the masters.
func (t *Topology) ValidateCamaster() error {
	if t.Camaster == "" {
		return Errorf("camaster", "", "no camaster: add `camaster NAME HOST`, as in `camaster puppet-camaster %s`", t.Masters[0].Host)
	}
	m := t.Master(t.Camaster)
	if m == nil {
		return Errorf("camaster", "", "camaster %s is no master: it must be one of the `master` lines marked `ca` (%s)", t.Camaster, t.caHosts())
	}
	if !m.CA {
		return Errorf("camaster", "", "camaster %s is not CA-capable: add `ca` to its `master` line, or choose one of: %s", t.Camaster, t.caHosts())
	}
	if t.Master(t.CamasterName) != nil {
		return Errorf("camaster", "", "camaster: the CNAME %s cannot be a master's own host name", t.CamasterName)
	}
	return nil
}

func (t *Topology) datacenterNames() string {
	names := make([]string, len(t.Datacenters))
	for i, d := range t.Datacenters {
		names[i] = d.Name
	}
	return strings.Join(names, ", ")
}

func (t *Topology) caHosts() string {
	var hosts []string
	for _, m := range t.Masters {
		if m.CA {
			hosts = append(hosts, m.Host)
		}
	}
	if len(hosts) == 0 {
		return "none is marked `ca`"
	}
	return strings.Join(hosts, ", ")
}
