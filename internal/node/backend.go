package node

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// api is what the API shows of a node, made of the newest picture, and changes by
// it; see write.go.
type api struct{ *Node }

var _ admin.Backend = api{}

// Camaster implements admin.Backend.
func (n api) Camaster() admin.Camaster { return n.current().camasterView() }

func (p *picture) camasterView() admin.Camaster {
	c := admin.Camaster{Name: host(p.plan.Topology.CamasterName), Host: host(p.camaster()), Version: "0"}
	e, ok := p.registers.Get(camasterKey)
	if !ok {
		return c
	}
	c.Version, c.Since, c.Actor, c.Reason, c.Forced = e.Version.String(), e.Time.UTC(), e.Actor, e.Reason, e.Forced
	if w, ok := parseCamaster(e.Value); ok {
		c.Kind, c.Handover, c.Forced = w.Kind, host(w.Handover), e.Forced && !w.Raised
	}
	history := p.registers.History(camasterKey)
	for _, u := range register.Unknown(history, &e) {
		c.Conflicts = append(c.Conflicts, writeOf(history, &u))
	}
	return c
}

// History implements admin.Backend.
func (n api) History(key string) []admin.Write {
	p := n.current()
	var writes []admin.Write
	for _, k := range p.registers.Keys() {
		if key != "" && key != keyView(k) {
			continue
		}
		history := p.registers.History(k)
		for i := range history {
			writes = append(writes, writeOf(history, &history[i]))
		}
	}
	// By time, but never against the order of versions: clocks differ.
	at := make([]time.Time, len(writes))
	for i, w := range writes {
		if at[i] = w.Time; i > 0 && writes[i-1].Key == w.Key && at[i-1].Before(at[i]) {
			at[i] = at[i-1]
		}
	}
	order := make([]int, len(writes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return at[b].Compare(at[a]) })
	sorted := make([]admin.Write, 0, len(writes))
	for _, i := range order {
		sorted = append(sorted, writes[i])
	}
	return sorted
}

// writeOf is an entry of a history, for people.
func writeOf(history []register.Entry, e *register.Entry) admin.Write {
	w := admin.Write{
		Key: keyView(e.Key), Version: e.Version.String(), Parent: e.Parent.String(), Time: e.Time.UTC(), Until: e.Expires,
		Node: e.Version.Node, Actor: e.Actor, Reason: e.Reason, Forced: e.Forced,
		Current: len(history) > 0 && history[0].Compare(e) == 0,
	}
	w.To = valueView(e)
	if strings.HasPrefix(e.Key, register.DrainPrefix) {
		i := slices.IndexFunc(history, func(o register.Entry) bool { return o.Version == e.Parent })
		switch {
		case e.Parent.IsZero(), i >= 0 && !drains(&history[i], e.Time):
			w.From = "undrained"
		case i >= 0:
			w.From = "drained"
		}
	} else {
		v, _ := parseCamaster(e.Value)
		w.From, w.Kind, w.Handover, w.Accepted, w.Forced = host(v.From), v.Kind, host(v.Handover), v.Accepted, e.Forced && !v.Raised
	}
	for _, u := range register.Unknown(history, e) {
		w.Conflict = append(w.Conflict, u.Version.String())
	}
	return w
}

func valueView(e *register.Entry) string {
	if strings.HasPrefix(e.Key, register.DrainPrefix) {
		var v drainValue
		if json.Unmarshal(e.Value, &v) == nil && v.Drained {
			return "drained"
		}
		return "undrained"
	}
	if v, ok := parseCamaster(e.Value); ok {
		return host(v.Host)
	}
	return string(e.Value)
}

// Masters implements admin.Backend.
func (n api) Masters() []admin.Master { return n.masters(n.current()) }

func (n api) masters(p *picture) []admin.Master {
	priorities := n.priorities(p)
	masters := make([]admin.Master, 0, len(p.plan.Topology.Masters))
	for i := range p.plan.Topology.Masters {
		masters = append(masters, n.masterView(p, i, priorities))
	}
	return masters
}

// priorities are those that masters are listed with, by datacenter and master.
func (n api) priorities(p *picture) []map[int]uint16 {
	priorities := make([]map[int]uint16, len(p.plan.Topology.Datacenters))
	for dc := range priorities {
		priorities[dc] = maps.Collect(p.content.Listed(dc))
	}
	return priorities
}

// masterView is master i.
func (n api) masterView(p *picture, i int, priorities []map[int]uint16) admin.Master {
	t := p.plan.Topology
	m := &t.Masters[i]
	v := admin.Master{
		Host: host(m.Host), Datacenter: m.Datacenter, Port: m.Port, Weight: m.Weight, CA: m.CA,
		Camaster: m.Host == p.camaster(), Joined: p.plan.joined[m.Host], Evidence: n.evidenceOf(p, i),
		Member: p.memberView(m.Host, p.time),
	}
	if e, ok := p.drain(m.Host); ok {
		v.Drain = &admin.Drain{Actor: e.Actor, Reason: e.Reason, Since: e.Time.UTC(), Until: e.Expires}
	} else if why := p.unfit(m.Host); why != "" { // it says so itself
		v.Drain = &admin.Drain{Actor: "its member", Reason: why, Since: p.member(m.Host).Reported.UTC()}
		if d := p.member(m.Host).Report.Member.Drain; d != nil {
			v.Drain.Reason, v.Drain.Since, v.Drain.Until = d.Reason, d.Since, d.Until
		}
	}
	if c := p.states[i].Certificate; c != nil {
		v.Certificate = &admin.Certificate{Names: c.Names, NotAfter: c.NotAfter.UTC(), Trusted: c.Trusted}
	}
	for dc, d := range t.Datacenters {
		verdict := p.view.Masters[i].In(dc)
		priority, listed := priorities[dc][i]
		w := admin.Verdict{Datacenter: d.Name, Down: verdict.Down, Reason: string(verdict.Reason), Detail: verdict.Detail, Since: utc(verdict.Since), Priority: priority, Listed: listed}
		if !listed {
			w.Omitted = omitted(verdict)
		}
		v.Verdicts = append(v.Verdicts, w)
	}
	return v
}

func omitted(v health.Verdict) string {
	if v.CertificateFails() {
		return "agents would abort their run there, because of its certificate"
	}
	return "`unhealthy omit` leaves out what is down or drained"
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// evidenceOf is what each observer says of master i.
func (n api) evidenceOf(p *picture, i int) []admin.Evidence {
	evidence := []admin.Evidence{}
	name, dc := "", ""
	if c := n.cfg.Cluster; c != nil {
		name, dc = c.Name, c.Datacenter
	}
	if n.cfg.Probe != nil {
		s := &p.states[i]
		e := admin.Evidence{Observer: name, Datacenter: dc, Down: s.Verdict.Down, Reason: string(s.Verdict.Reason), Detail: s.Verdict.Detail, Since: utc(s.Verdict.Since)}
		switch {
		case !s.Observed():
			e.Ignored = "unobserved"
		default:
			e.Age = p.time.Sub(s.Last.Time).Seconds()
			if !p.own[i].Known {
				e.Ignored = "stale"
			} else if p.isolated(name) {
				e.Ignored = "isolated"
			}
		}
		evidence = append(evidence, e)
	}
	for j := range p.peers {
		peer := &p.peers[j]
		if peer.Self || peer.Report == nil || peer.Role != cluster.RoleNode {
			continue
		}
		k := slices.IndexFunc(peer.Report.Masters, func(o cluster.Observed) bool { return o.Host == p.plan.Topology.Masters[i].Host })
		if k < 0 {
			continue
		}
		o := &peer.Report.Masters[k]
		e := admin.Evidence{Observer: peer.Name, Datacenter: peer.Report.Datacenter, Down: o.Down, Reason: string(o.Reason), Detail: o.Detail, Since: utc(o.Since), Age: p.time.Sub(peer.Heard).Seconds()}
		switch {
		case peer.Status != gossip.Alive:
			e.Ignored = peer.Status.String()
		case !peer.Fresh:
			e.Ignored = "stale"
		case p.isolated(peer.Name):
			e.Ignored = "isolated"
		}
		evidence = append(evidence, e)
	}
	slices.SortStableFunc(evidence, func(a, b admin.Evidence) int { return strings.Compare(a.Observer, b.Observer) })
	return evidence
}

// isolated reports whether an observer reaches nothing, while another does.
func (p *picture) isolated(name string) bool {
	others, is := false, false
	for i := range p.observers {
		if o := &p.observers[i]; o.Name == name {
			is = o.Isolated()
		} else {
			others = others || !o.Isolated()
		}
	}
	return is && others
}

// Zones implements admin.Backend.
func (n api) Zones() []admin.Zone {
	var zones []admin.Zone
	for _, z := range n.snapshot.Load().Views() {
		v := admin.Zone{Datacenter: z.Datacenter, Domain: host(z.Domain), Origin: host(z.Origin), Serial: z.Serial}
		for _, set := range z.RRsets {
			v.RRsets = append(v.RRsets, admin.RRset(set))
		}
		zones = append(zones, v)
	}
	return zones
}

// Cluster implements admin.Backend.
func (n api) Cluster() admin.Cluster {
	p := n.current()
	c := n.m.cluster.Load()
	stats, refused := c.Stats()
	v := admin.Cluster{Node: n.cfg.Cluster.Name, Members: []admin.Member{}, Encrypted: c.Encrypted(), Refused: make(map[string]uint64)}
	for reason, k := range stats.Refused {
		v.Refused["member "+reason] = k
	}
	for kind, k := range refused {
		v.Refused[kind] = k
	}
	for i := range p.peers {
		peer := &p.peers[i]
		m := admin.Member{Name: peer.Name, Role: roleOf(peer), State: peer.Status.String(), Since: peer.Since.UTC(), Self: peer.Self}
		if peer.Address.IsValid() {
			m.Address = peer.Address.String()
		}
		if peer.Report != nil {
			m.Datacenter = peer.Report.Datacenter
		}
		v.Members = append(v.Members, m)
	}
	return v
}

// Events implements admin.Backend.
func (n api) Events(after uint64, f func(admin.Event)) (cancel func()) {
	return n.m.events.listen(after, f)
}

// Status implements admin.Backend.
func (n api) Status() admin.Status {
	p := n.current()
	c := n.cfg.Cluster
	now := time.Now()
	s := admin.Status{
		Node: c.Name, Release: c.Release, Datacenter: c.Datacenter, Time: now.UTC(), Started: n.started.UTC(),
		Camaster: p.camasterView(), Masters: n.masters(p), Nodes: n.nodes(p, now), Expiring: n.expiring(p, now), Agree: true,
	}
	for _, node := range s.Nodes {
		if node.State == gossip.Alive.String() && !node.Agrees {
			s.Agree = false
		}
	}
	s.Problems = n.problems(p, &s, now)
	return s
}

// settle is how long nodes may differ after a change before they disagree: a report
// is a moment behind what it reports.
const settle = 2 * time.Second

func (n api) nodes(p *picture, now time.Time) []admin.Node {
	var own map[string]cluster.ZoneState
	if self := p.peer(n.cfg.Cluster.Name); self != nil {
		own = self.Report.Zones
	}
	nodes := []admin.Node{}
	for i := range p.peers {
		peer := &p.peers[i]
		if peer.Role != cluster.RoleNode {
			continue
		}
		v := admin.Node{Name: peer.Name, State: peer.Status.String(), Since: peer.Since.UTC(), Self: peer.Self, Isolated: p.isolated(peer.Name)}
		if peer.Address.IsValid() {
			v.Address = peer.Address.String()
		}
		if r := peer.Report; r != nil {
			v.Datacenter, v.Release, v.DNS, v.Camaster, v.Version = r.Datacenter, r.Release, r.DNS, host(r.Camaster), r.Version
			v.Age = max(now.Sub(peer.Heard).Seconds(), 0)
			for _, origin := range slices.Sorted(maps.Keys(r.Zones)) {
				v.Zones = append(v.Zones, admin.ZoneState{Origin: host(origin), Serial: r.Zones[origin].Serial, Hash: r.Zones[origin].Hash})
			}
			same := r.Camaster == p.camaster() && maps.EqualFunc(r.Zones, own, func(a, b cluster.ZoneState) bool { return a.Hash == b.Hash })
			moving := now.Sub(peer.Reported) < settle || now.Sub(time.Unix(0, n.changed.Load())) < settle
			v.Agrees = peer.Fresh && (same || moving)
		}
		nodes = append(nodes, v)
	}
	return nodes
}

// datacenter is the index of a datacenter.
func (n api) datacenter(p *picture, name string) int {
	for i, d := range p.plan.Topology.Datacenters {
		if d.Name == name {
			return i
		}
	}
	return 0
}
