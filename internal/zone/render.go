package zone

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"io"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// View is what is believed of the masters at one time. The slices are indexed
// as Topology.Masters.
type View struct {
	Masters  []MasterView
	Camaster string // host name; the configured one if empty
	Now      time.Time
}

// MasterView is what is believed of one master. The zero value is an up master
// of which nothing else is known.
type MasterView struct {
	Verdict health.Verdict
	// Verdicts are by datacenter, as Topology.Datacenters; nil where Verdict holds
	// for all.
	Verdicts    []health.Verdict
	Drained     bool
	Certificate *health.Certificate // as probed, nil if not seen
}

// In returns the verdict that holds for the agents of datacenter dc, an index of
// Topology.Datacenters.
func (m *MasterView) In(dc int) health.Verdict {
	if m.Verdicts != nil {
		return m.Verdicts[dc]
	}
	return m.Verdict
}

// NewView returns the view in which everything is up, as before any probe.
func (p *Plan) NewView(now time.Time) View {
	return View{Masters: make([]MasterView, len(p.Topology.Masters)), Camaster: p.Topology.Camaster, Now: now}
}

// Content is what a view makes of a plan: the records that are written, before
// they are laid out as a snapshot. It is cheap, and says by its hashes whether a
// snapshot is worth making.
type Content struct {
	plan     *Plan
	camaster *topology.Master
	tiers    [][]entry      // by datacenter: the list of its tiers, in order
	cas      []entry        // by datacenter: the camaster
	services [][]netip.Addr // by master: the addresses of its service name
	hashes   map[string]string
}

// entry is one target of an SRV RRset.
type entry struct {
	master   int
	priority uint16
}

// Render decides what every answer says. It is a pure function of the plan and
// the view.
func (p *Plan) Render(v View) *Content {
	t := p.Topology
	c := &Content{plan: p, camaster: p.camaster(cmp.Or(v.Camaster, t.Camaster))}
	ca, known := p.masters[c.camaster.Host]
	for dc := range t.Datacenters {
		listed := listing(t, v, dc)
		list := make([]entry, 0, len(t.Masters))
		for _, i := range p.order {
			if listed[i] {
				list = append(list, entry{i, priority(t, v, dc, i)})
			}
		}
		slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.priority, b.priority) })
		c.tiers = append(c.tiers, list)
		e := entry{priority: t.Local}
		if known {
			e = entry{ca, priority(t, v, dc, ca)}
		}
		c.cas = append(c.cas, e)
	}
	if t.Targets == topology.TargetsService {
		c.services = make([][]netip.Addr, len(t.Masters))
		for i := range t.Masters {
			c.services[i] = p.Addresses(&t.Masters[standIn(t, v, i)])
		}
	}
	c.hash()
	return c
}

// camaster is the master that holds the role. The register may name one that this
// configuration does not know, or not yet: what an operator decided is served all
// the same, for two nodes with two camasters would be worse than a port that was
// guessed.
func (p *Plan) camaster(host string) *topology.Master {
	if m := p.Topology.Master(host); m != nil {
		return m
	}
	configured := p.Topology.Master(p.Topology.Camaster)
	return &topology.Master{Host: host, Port: configured.Port, Weight: configured.Weight, CA: true}
}

// priority is the tier of master i for agents in datacenter dc.
func priority(t *topology.Topology, v View, dc, i int) uint16 {
	n := t.Priority(t.Datacenters[dc].Name, &t.Masters[i])
	if v.Masters[i].In(dc).Down || v.Masters[i].Drained {
		n += topology.DownPenalty
	}
	return n
}

// listing says which masters are listed at all in datacenter dc. Left out are those whose
// certificate fails, because one such target aborts an agent's run, and with
// `unhealthy omit` also those that are down or drained; but never everything:
// then the certificate's failures alone stay out, and if that too leaves
// nothing, everything is listed.
func listing(t *topology.Topology, v View, dc int) []bool {
	listed := make([]bool, len(t.Masters))
	strict := func(m *MasterView) bool {
		return !m.In(dc).CertificateFails() && (t.Unhealthy == topology.Demote || !m.In(dc).Down && !m.Drained)
	}
	lenient := func(m *MasterView) bool { return !m.In(dc).CertificateFails() }
	all := func(*MasterView) bool { return true }
	for _, rule := range []func(*MasterView) bool{strict, lenient, all} {
		some := false
		for i := range v.Masters {
			listed[i] = rule(&v.Masters[i])
			some = some || listed[i]
		}
		if some {
			break
		}
	}
	return listed
}

// standIn returns the master whose addresses the service name of master i has:
// i itself while it is up, else the best up and undrained master on the same port
// whose certificate is valid for that name, else again i. Among equals the choice is
// spread by name, so that two dead masters do not both fall on the first one. The
// name is in the domain of i's datacenter, whose verdicts count here.
func standIn(t *topology.Topology, v View, i int) int {
	m := &t.Masters[i]
	dc := slices.IndexFunc(t.Datacenters, func(d topology.Datacenter) bool { return d.Name == m.Datacenter })
	if !v.Masters[i].In(dc).Down {
		return i
	}
	best := i
	var bestPriority uint16
	var bestScore uint64
	for j := range t.Masters {
		o := &v.Masters[j]
		// The SRV record keeps the port, whoever is behind the name.
		if j == i || o.In(dc).Down || o.Drained || t.Masters[j].Port != m.Port || !o.Certificate.ValidFor(m.Service, v.Now) {
			continue
		}
		p, score := t.Priority(m.Datacenter, &t.Masters[j]), score(m.Service, t.Masters[j].Host)
		if best == i || p < bestPriority || p == bestPriority && score > bestScore {
			best, bestPriority, bestScore = j, p, score
		}
	}
	return best
}

// score is the weight of a host for a name in rendezvous hashing.
func score(name, host string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, name)
	h.Write([]byte{0})
	io.WriteString(h, host)
	return h.Sum64()
}

// Hash identifies the content of one zone, without its serial: equal hashes are
// equal content, on any node, in whatever order its Corefile is written.
func (c *Content) Hash(origin string) string { return c.hashes[origin] }

// hash covers, for each zone, the static records and every decision that is
// written into that zone.
func (c *Content) hash() {
	p, t := c.plan, c.plan.Topology
	sums := make(map[string][]byte, len(p.zones))
	for _, z := range p.zones {
		sums[z.origin] = z.hash[:]
	}
	mix := func(name string, fill func(w io.Writer)) {
		origin := p.zoneOf(name).origin
		h := sha256.New()
		h.Write(sums[origin])
		io.WriteString(h, name)
		h.Write([]byte{0})
		fill(h)
		sums[origin] = h.Sum(nil)
	}
	number := func(w io.Writer, ns ...uint16) {
		for _, n := range ns {
			w.Write(binary.BigEndian.AppendUint16(nil, n))
		}
	}
	for _, i := range p.datacenters {
		d := t.Datacenters[i]
		mix(d.Domain, func(w io.Writer) {
			binary.Write(w, binary.BigEndian, p.TTL)
			var line []byte
			for _, e := range c.tiers[i] {
				m := &t.Masters[e.master]
				line = binary.BigEndian.AppendUint16(line[:0], e.priority)
				line = binary.BigEndian.AppendUint16(line, m.Weight)
				line = binary.BigEndian.AppendUint16(line, m.Port)
				line = append(line, t.Target(m)...)
				w.Write(append(line, 0))
			}
			e := c.cas[i]
			number(w, e.priority, c.camaster.Weight, c.camaster.Port, t.PuppetDBPort)
			io.WriteString(w, c.caTarget())
		})
	}
	mix(t.CamasterName, func(w io.Writer) {
		binary.Write(w, binary.BigEndian, p.TTL)
		io.WriteString(w, c.camaster.Host)
	})
	for _, i := range p.order {
		if c.services == nil {
			break
		}
		addrs := c.services[i]
		mix(t.Masters[i].Service, func(w io.Writer) {
			binary.Write(w, binary.BigEndian, p.TTL)
			for _, a := range addrs {
				io.WriteString(w, a.String())
				w.Write([]byte{0})
			}
		})
	}
	c.hashes = make(map[string]string, len(sums))
	for origin, sum := range sums {
		c.hashes[origin] = hex.EncodeToString(sum)
	}
}

// caTarget is the target of the camaster's services. It is never a service
// name: a stand-in is not chosen for the CA.
func (c *Content) caTarget() string {
	if c.plan.Topology.CATarget == topology.CATargetCamaster {
		return c.plan.Topology.CamasterName
	}
	return c.camaster.Host
}

// Listed yields the masters that are listed for the agents of datacenter dc, an
// index of Topology.Datacenters, in order: their index and priority.
func (c *Content) Listed(dc int) iter.Seq2[int, uint16] {
	return func(yield func(int, uint16) bool) {
		for _, e := range c.tiers[dc] {
			if !yield(e.master, e.priority) {
				return
			}
		}
	}
}
