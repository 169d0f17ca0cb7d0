package main

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/flip"
	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// asking is every node's DNS asked for a new camaster, from the moment that a write is
// sent: what is measured is then the way through the cluster, not that of the
// acknowledgement.
type asking struct {
	name, host string
	wait       time.Duration // from the write's return
	began      time.Time

	ctx, gone     context.Context
	cancel, give  context.CancelFunc
	living, dead  []flip.Server
	answers, past <-chan flip.Answer // of the living, and of the dead
}

// dnsAnswer is what became of asking one server. The dead are not waited for.
type dnsAnswer struct {
	flip.Answer
	dead bool
}

// askDNS begins to ask. Its end is stop, or the end of what written returns.
func askDNS(ctx context.Context, name, host string, nodes []admin.Node, wait time.Duration) *asking {
	a := &asking{name: name, host: host, wait: wait, began: time.Now()}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.gone, a.give = context.WithCancel(a.ctx)
	if wait > 0 {
		a.living = dnsServers(nodes, "alive")
		// Dead nodes may well still answer, at the other side of a cut. They are asked,
		// and not waited for.
		a.dead = dnsServers(nodes, "dead")
	}
	a.answers = a.watch(a.ctx, a.living)
	a.past = a.watch(a.gone, a.dead)
	return a
}

func (a *asking) watch(ctx context.Context, servers []flip.Server) <-chan flip.Answer {
	answers := make(chan flip.Answer, len(servers))
	go func() {
		defer close(answers)
		flip.Watch(ctx, a.name, a.host, servers, func(x flip.Answer) { answers <- x })
	}()
	return answers
}

// stop gives up, for a write that was not done.
func (a *asking) stop() {
	a.cancel()
	for range a.answers { // until all have ended
	}
	for range a.past {
	}
}

// written is called when the write has returned. Nodes that were not known before are
// asked too. The channel is closed after the last answer; nobody need read it.
func (a *asking) written(acks []admin.Ack) <-chan dnsAnswer {
	more := newcomers(acks, slices.Concat(a.living, a.dead), a.wait)
	late := a.watch(a.ctx, more)
	a.living = append(a.living, more...)
	all := make(chan dnsAnswer, len(a.living)+len(a.dead))
	timer := time.AfterFunc(a.wait, a.cancel)
	go func() {
		defer close(all)
		defer a.cancel()
		defer timer.Stop()
		for _, source := range []<-chan flip.Answer{a.answers, late} {
			for x := range source {
				all <- dnsAnswer{x, false}
			}
		}
		defer time.AfterFunc(grace, a.give).Stop()
		for x := range a.past {
			all <- dnsAnswer{x, true}
		}
	}()
	return all
}

// servers are all that are asked.
func (a *asking) servers() []flip.Server { return slices.Concat(a.living, a.dead) }

// outcome is an answer for programs and for people.
func (a *asking) outcome(x dnsAnswer) (setAnswer, report.Answer) {
	after := x.At.Sub(a.began)
	one := setAnswer{Node: x.Node, Address: x.Address, Error: x.Err}
	if x.Err == "" {
		one.Milliseconds = milliseconds(after)
	}
	return one, report.Answer{Node: x.Node, Address: x.Address, After: after, Err: x.Err}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// grace is how long dead nodes are waited for once the living have answered.
const grace = 300 * time.Millisecond

// dnsServers are the addresses of all nodes in a state.
func dnsServers(nodes []admin.Node, state string) []flip.Server {
	var all []flip.Server
	for _, n := range nodes {
		if n.State == state {
			all = append(all, addresses(n.Name, n.DNS, n.Address)...)
		}
	}
	return all
}

// newcomers are the servers of acknowledging nodes that are not asked yet.
func newcomers(acks []admin.Ack, asked []flip.Server, wait time.Duration) []flip.Server {
	if wait <= 0 {
		return nil
	}
	known := make(map[string]bool)
	for _, s := range asked {
		known[s.Node] = true
	}
	var all []flip.Server
	for _, a := range acks {
		if !known[a.Node] {
			all = append(all, addresses(a.Node, a.DNS, "")...)
		}
	}
	return all
}

// addresses are a node's DNS servers. One that listens on every address is asked at
// that of its gossip, which others reach.
func addresses(node string, listens []string, gossip string) []flip.Server {
	if len(listens) == 0 {
		return []flip.Server{{Node: node}}
	}
	var all []flip.Server
	for _, address := range listens {
		if h, port, err := net.SplitHostPort(address); err == nil {
			ip := net.ParseIP(h)
			if other, _, err := net.SplitHostPort(gossip); err == nil && (h == "" || ip != nil && ip.IsUnspecified()) {
				address = net.JoinHostPort(other, port)
			}
		}
		all = append(all, flip.Server{Node: node, Address: address})
	}
	return all
}

// columns are the names and addresses of servers.
func columns(servers []flip.Server) (nodes, addresses []string) {
	for _, s := range servers {
		nodes = append(nodes, s.Node)
		addresses = append(addresses, s.Address)
	}
	return nodes, addresses
}
