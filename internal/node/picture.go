package node

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Keys of registers, and their values.
const camasterKey = camaster.Key

func drainKey(host string) string { return register.DrainPrefix + host }

// drainValue is the value of a drain's register. It is never removed: an undrain
// is a write too.
type drainValue struct {
	Drained bool `json:"drained"`
}

// picture is everything that is believed at one time. It is immutable.
type picture struct {
	time      time.Time
	plan      *plan
	states    []health.State // the own, as Topology.Masters
	own       []health.Opinion
	observers []health.Observer // those that count, the own first
	peers     []cluster.Peer    // nil for a node that stands alone
	registers register.State
	view      zone.View
	content   *zone.Content // of view; set by build
}

// look gathers what is believed now.
func (n *Node) look() *picture {
	p := &picture{time: time.Now(), plan: n.plan.Load()}
	t := p.plan.Topology
	p.states = make([]health.State, len(t.Masters))
	n.mu.Lock()
	for i, target := range p.plan.targets {
		p.states[i] = n.states[identityOf(target)]
	}
	n.mu.Unlock()
	p.own = make([]health.Opinion, len(t.Masters))
	for i := range p.states {
		p.own[i] = n.opinion(&p.states[i], p.time)
	}
	p.view = p.plan.NewView(p.time)
	for i := range p.view.Masters {
		p.view.Masters[i] = zone.MasterView{Verdict: p.own[i].Verdict, Certificate: p.states[i].Certificate}
	}
	if n.m == nil {
		return p
	}
	c := n.m.cluster.Load()
	p.registers, p.peers = c.Registers(), c.Peers()
	p.observers = append(p.observers, health.Observer{Name: n.cfg.Cluster.Name, Datacenter: n.cfg.Cluster.Datacenter, Own: true, Opinions: p.own})
	p.observers = append(p.observers, n.opinions.of(p.plan, p.peers)...)
	p.vote()
	p.view.Camaster = camasterOf(p.registers)
	for i := range t.Masters {
		_, drained := p.drain(t.Masters[i].Host)
		p.view.Masters[i].Drained = drained || p.unfit(t.Masters[i].Host) != ""
	}
	return p
}

// current is what is believed now, with the priorities that are served.
func (n *Node) current() *picture {
	last := n.picture.Load()
	p := n.look()
	if p.plan != last.plan { // about to be built
		return last
	}
	p.content = last.content
	return p
}

// opinion is the own one of a master: none without evidence, or with evidence that
// is too old.
func (n *Node) opinion(s *health.State, now time.Time) health.Opinion {
	if n.cfg.Probe == nil || !s.Observed() || now.Sub(s.Last.Time) > n.cfg.Probe.maxAge() {
		return health.Opinion{}
	}
	return health.Opinion{Known: true, Verdict: s.Verdict}
}

// opinions are those of the others' newest reports, by the masters of a plan. They
// are kept because a report holds for many looks.
type opinions struct {
	mu      sync.Mutex
	plan    *plan
	reports map[*cluster.Report][]health.Opinion
}

// of returns the observers among peers whose opinions count.
func (os *opinions) of(plan *plan, peers []cluster.Peer) []health.Observer {
	os.mu.Lock()
	defer os.mu.Unlock()
	if os.plan != plan {
		os.plan, os.reports = plan, nil
	}
	kept := make(map[*cluster.Report][]health.Opinion)
	var observers []health.Observer
	for i := range peers {
		peer := &peers[i]
		if peer.Self || !peer.Fresh || peer.Role != cluster.RoleNode {
			continue
		}
		list, ok := os.reports[peer.Report]
		if !ok {
			list = plan.opinions(peer.Report)
		}
		kept[peer.Report] = list
		observers = append(observers, health.Observer{Name: peer.Name, Datacenter: peer.Report.Datacenter, Opinions: list})
	}
	os.reports = kept
	return observers
}

// opinions are those of a report, as Topology.Masters.
func (p *plan) opinions(r *cluster.Report) []health.Opinion {
	list := make([]health.Opinion, len(p.Topology.Masters))
	for _, m := range r.Masters {
		if i, ok := p.index[m.Host]; ok {
			list[i] = health.Opinion{Known: true, Verdict: health.Verdict{Down: m.Down, Reason: m.Reason, Detail: m.Detail, Since: m.Since}}
		}
	}
	return list
}

// vote makes the verdicts of each datacenter.
func (p *picture) vote() {
	if len(p.observers) == 1 {
		return // the own verdicts are everybody's
	}
	t := p.plan.Topology
	panels := make([]*health.Panel, len(t.Datacenters))
	for dc, d := range t.Datacenters {
		panels[dc] = health.NewPanel(d.Name, p.observers)
	}
	for i := range t.Masters {
		if !slices.ContainsFunc(p.observers, func(o health.Observer) bool { return o.Opinions[i].Verdict.Down }) {
			continue // nobody has anything against it
		}
		m := &p.view.Masters[i]
		m.Verdicts = make([]health.Verdict, len(panels))
		for dc, panel := range panels {
			m.Verdicts[dc] = panel.Verdict(i)
		}
	}
}

// camasterOf is who the register says is camaster, "" if nothing was written.
func camasterOf(s register.State) string {
	v, _, _ := camaster.Of(s)
	return v.Host
}

// camaster is who is served as camaster.
func (p *picture) camaster() string { return cmp.Or(p.view.Camaster, p.plan.Topology.Camaster) }

// drain returns the entry that drains a host now.
func (p *picture) drain(host string) (register.Entry, bool) {
	e, ok := p.registers.Get(drainKey(host))
	if !ok || !drains(&e, p.time) {
		return register.Entry{}, false
	}
	return e, true
}

// drains reports whether an entry says that its master is drained at a time.
func drains(e *register.Entry, at time.Time) bool {
	var v drainValue
	return json.Unmarshal(e.Value, &v) == nil && v.Drained && !e.Expired(at)
}

// member is the peer on a master's host, nil if there is none or it has said nothing.
func (p *picture) member(host string) *cluster.Peer {
	peer := p.peer(strings.TrimSuffix(host, "."))
	if peer == nil || peer.Role != cluster.RoleMaster || peer.Report == nil || peer.Report.Member == nil {
		return nil
	}
	return peer
}

// unfit says why a master's own member wants it to get no new work; "" if it does not,
// or is not heard any more: a dead member changes no answer.
func (p *picture) unfit(host string) string {
	if m := p.member(host); m != nil && m.Fresh {
		return m.Report.Member.Unfit(p.time)
	}
	return ""
}

// serials are those that the other nodes have published for a zone.
func (p *picture) serials(origin string) []store.Serial {
	var serials []store.Serial
	for i := range p.peers {
		if peer := &p.peers[i]; !peer.Self && peer.Report != nil && peer.Role == cluster.RoleNode {
			if z, ok := peer.Report.Zones[origin]; ok {
				serials = append(serials, store.Serial{Serial: z.Serial, Hash: z.Hash})
			}
		}
	}
	return serials
}

// peer returns a member, or nil.
func (p *picture) peer(name string) *cluster.Peer {
	i := slices.IndexFunc(p.peers, func(o cluster.Peer) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	return &p.peers[i]
}

// report tells the others what this node sees and serves.
func (n *Node) report(p *picture) {
	if n.m == nil || n.m.newest() != n { // during a reload one speaks
		return
	}
	c := n.cfg.Cluster
	r := cluster.Report{
		Datacenter: c.Datacenter, Release: c.Release, DNS: n.dns(p), Zones: make(map[string]cluster.ZoneState),
		Camaster: p.camaster(), Version: p.registers.Version(camasterKey).String(), Problems: n.ownProblems(),
	}
	for origin, z := range n.snapshot.Load().Zones {
		r.Zones[origin] = cluster.ZoneState{Serial: z.Serial, Hash: z.Hash}
	}
	for i, o := range p.own {
		if o.Known {
			v := o.Verdict
			r.Masters = append(r.Masters, cluster.Observed{Host: p.plan.Topology.Masters[i].Host, Down: v.Down, Reason: v.Reason, Detail: short(v.Detail), Since: v.Since.UTC()})
		}
	}
	for _, text := range r.Problems {
		if !slices.Contains(n.problemsSaid, text) {
			n.cfg.Log.Errorf("Zone %s: %s", n.cfg.Name, text)
		}
	}
	n.problemsSaid = r.Problems
	n.m.cluster.Load().Publish(r)
}

// short is a detail for others to show.
func short(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// dns is where this node answers, as others reach it.
func (n *Node) dns(p *picture) []string {
	var addrs []string
	for _, a := range n.cfg.Cluster.DNS {
		if a.Addr().IsUnspecified() {
			self := p.peer(n.cfg.Cluster.Name)
			if self == nil || !self.Address.IsValid() {
				continue
			}
			a = netip.AddrPortFrom(self.Address.Addr(), a.Port())
		}
		if s := a.String(); !slices.Contains(addrs, s) {
			addrs = append(addrs, s)
		}
	}
	return addrs
}
