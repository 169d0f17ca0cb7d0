package node

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// remembered is how many events a newcomer to the stream is told at most.
const remembered = 256

// events are what happened last, and who wants to know what happens next.
type events struct {
	mu        sync.Mutex
	last      uint64
	ring      []admin.Event // the oldest first
	listeners map[int]func(admin.Event)
	nextID    int
}

// newEvents numbers events from the time on, so that numbers grow over restarts.
func newEvents() *events {
	return &events{last: uint64(time.Now().UnixMilli()), listeners: make(map[int]func(admin.Event))}
}

func (es *events) add(e admin.Event) {
	es.mu.Lock()
	defer es.mu.Unlock()
	es.last++
	e.ID = es.last
	if len(es.ring) == remembered {
		es.ring = es.ring[1:]
	}
	es.ring = append(es.ring, e)
	for _, f := range es.listeners {
		f(e)
	}
}

// listen calls f with what happened after an event, and what happens.
func (es *events) listen(after uint64, f func(admin.Event)) (cancel func()) {
	es.mu.Lock()
	defer es.mu.Unlock()
	for _, e := range es.ring {
		if e.ID > after {
			f(e)
		}
	}
	id := es.nextID
	es.nextID++
	es.listeners[id] = f
	return func() {
		es.mu.Lock()
		defer es.mu.Unlock()
		delete(es.listeners, id)
	}
}

// tell makes events of the difference of two pictures.
func (n *Node) tell(before, after *picture) {
	if n.m == nil || n.m.newest() != n { // during a reload one speaks
		return
	}
	n.tellVerdicts(before, after)
	n.tellMembers(before, after)
}

func (n *Node) event(p *picture, kind, subject, format string, args ...any) admin.Event {
	return admin.Event{Kind: kind, Time: p.time.UTC(), Node: n.cfg.Cluster.Name, Subject: strings.TrimSuffix(subject, "."), Text: fmt.Sprintf(format, args...)}
}

func (n *Node) tellVerdicts(before, after *picture) {
	t := after.plan.Topology
	for i := range t.Masters {
		m := &t.Masters[i]
		was, ok := before.plan.index[m.Host]
		if !ok {
			n.m.events.add(n.event(after, "member", m.Host, "%s has joined as a master of %s", host(m.Host), m.Datacenter))
			continue
		}
		// One line for the datacenters that say the same.
		groups := make(map[string][]string)
		var order []string
		for dc, d := range t.Datacenters {
			old, v := before.view.Masters[was].In(min(dc, len(before.plan.Topology.Datacenters)-1)), after.view.Masters[i].In(dc)
			if sameVerdict(old, v) {
				continue
			}
			text := verdictText(v)
			if groups[text] == nil {
				order = append(order, text)
			}
			groups[text] = append(groups[text], d.Name)
		}
		for _, text := range order {
			n.m.events.add(n.event(after, "verdict", m.Host, "%s is %s for %s", host(m.Host), text, strings.Join(groups[text], ", ")))
		}
		n.tellOverdue(before, after, m)
	}
}

// tellOverdue says when a drain is over by itself.
func (n *Node) tellOverdue(before, after *picture, m *topology.Master) {
	e, was := before.drain(m.Host)
	if _, is := after.drain(m.Host); was && !is && after.registers.Version(drainKey(m.Host)) == e.Version {
		n.m.events.add(n.event(after, "drain", m.Host, "%s gets work again: its drain is over", host(m.Host)))
	}
}

func verdictText(v health.Verdict) string {
	switch {
	case !v.Down:
		return "up"
	case v.CertificateFails():
		return "down and left out (" + v.Detail + ")"
	}
	return "down (" + v.Detail + ")"
}

// tellWrites tells of what was written since that was last done. The membership knows
// when, and not the runtime: a write must not fall between two of them at a reload.
func (n *Node) tellWrites(after *picture) {
	if n.m == nil || n.m.newest() != n {
		return
	}
	for _, key := range n.m.untold(after.registers) {
		e, _ := after.registers.Get(key)
		w := writeOf(after.registers.History(key), &e)
		kind := "camaster"
		text := camasterText(&w)
		switch {
		case strings.HasPrefix(key, register.DrainPrefix):
			kind = "drain"
			text = fmt.Sprintf("%s is %s: %s (%s)", strings.TrimPrefix(w.Key, register.DrainPrefix), w.To, w.Reason, w.Actor)
		case key != camasterKey:
			continue // of a newer release
		}
		ev := n.event(after, kind, w.Key, "%s", text)
		ev.Write = &w
		n.m.events.add(ev)
	}
}

func (n *Node) tellMembers(before, after *picture) {
	for i := range after.peers {
		p := &after.peers[i]
		if p.Self {
			continue
		}
		old := before.peer(p.Name)
		switch {
		case old == nil || old.Status != p.Status:
			n.m.events.add(n.event(after, "member", p.Name, "%s %s is %s", roleOf(p), p.Name, p.Status))
		case old.Fresh && !p.Fresh:
			n.m.events.add(n.event(after, "problem", p.Name, "%s %s has not been heard of for %s", roleOf(p), p.Name, after.time.Sub(p.Heard).Round(time.Second)))
		}
	}
}

func roleOf(p *cluster.Peer) string {
	if p.Role == "" {
		return "member"
	}
	return string(p.Role)
}
