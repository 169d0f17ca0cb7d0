package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// soon is how long before its end something is told of.
const soon = 30 * 24 * time.Hour

func (n api) expiring(p *picture, now time.Time) []admin.Expiry {
	expiring := []admin.Expiry{}
	add := func(kind, subject string, at time.Time, within time.Duration) {
		if !at.IsZero() && at.Sub(now) < within {
			expiring = append(expiring, admin.Expiry{Kind: kind, Subject: subject, Time: at.UTC()})
		}
	}
	for i, m := range p.plan.Topology.Masters {
		if c := p.states[i].Certificate; c != nil {
			add("certificate", host(m.Host), c.NotAfter, soon)
		}
		if e, ok := p.drain(m.Host); ok {
			add("drain", host(m.Host), e.Expires, 24*time.Hour)
		}
	}
	t := n.cfg.Cluster.Trust
	if t.Identity != nil {
		add("certificate", t.Identity.Name, t.Identity.Leaf.NotAfter, soon)
	}
	if t.Authority != nil {
		next, _ := t.Authority.Revocation()
		add("crl", "CRL", next, soon)
	}
	slices.SortStableFunc(expiring, func(a, b admin.Expiry) int { return a.Time.Compare(b.Time) })
	return expiring
}

// ownProblems are what a person should look at on this node, for the others to
// show.
func (n *Node) ownProblems() []string {
	var problems []string
	if err := n.serials.Err(); err != nil {
		problems = append(problems, short(err.Error()))
	}
	if err := n.m.problem(); err != nil {
		problems = append(problems, short("the cluster's configuration does not work, restart the server: "+err.Error()))
	}
	if _, err := n.m.cluster.Load().Problem(); err != nil {
		problems = append(problems, short(err.Error()))
	}
	if err := n.m.cluster.Load().Standing(); err != nil {
		problems = append(problems, short("no other node accepts what this one says: "+err.Error()))
	}
	if a := n.cfg.Cluster.Trust.Authority; a != nil {
		if _, err := a.Revocation(); err != nil {
			problems = append(problems, short("the CRL known last is used: "+err.Error()))
		}
	}
	return problems
}

// problems are what a person should look at, the worst first.
func (n api) problems(p *picture, s *admin.Status, now time.Time) []admin.Problem {
	problems := []admin.Problem{}
	add := func(severity, subject, format string, args ...any) {
		problems = append(problems, admin.Problem{Severity: severity, Subject: subject, Text: fmt.Sprintf(format, args...)})
	}
	t := p.plan.Topology
	for i := range p.peers {
		peer := &p.peers[i]
		role := roleOf(peer)
		switch {
		case peer.Report == nil:
			if peer.Status == gossip.Alive {
				add("warning", peer.Name, "member %s has the gossip key and nothing that it says counts: see the log of both, it may be a stranger", peer.Name)
			}
		case peer.Status == gossip.Dead:
			add("error", peer.Name, "%s %s is dead since %s: its state is as it was then", role, peer.Name, peer.Since.UTC().Format(time.RFC3339))
		case peer.Status == gossip.Alive && !peer.Fresh:
			add("error", peer.Name, "%s %s has not been heard of for %s", role, peer.Name, now.Sub(peer.Heard).Round(time.Second))
		}
		if peer.Report != nil && peer.Status == gossip.Alive {
			for _, text := range peer.Report.Problems[:min(len(peer.Report.Problems), 8)] {
				add("error", peer.Name, "%s %s: %s", role, peer.Name, short(text))
			}
		}
	}
	for i := range s.Nodes {
		if node := &s.Nodes[i]; node.Isolated {
			add("error", node.Name, "node %s reaches no master at all, and its verdicts do not count", node.Name)
		}
	}
	if m := t.Master(p.camaster()); m == nil {
		add("error", "camaster", "%s is camaster and not known to this node: add `master %s DATACENTER ca`", host(p.camaster()), host(p.camaster()))
	} else if v := p.view.Masters[p.plan.index[m.Host]].In(n.datacenter(p, m.Datacenter)); v.Down {
		add("error", "camaster", "the camaster %s is down: %s", host(m.Host), v.Detail)
	}
	for _, c := range s.Camaster.Conflicts {
		add("warning", "camaster", "two nodes set the camaster without knowing of each other: %s by %s (%s) was overridden, %s holds", c.To, c.Actor, c.Reason, s.Camaster.Host)
	}
	for _, key := range p.registers.Keys() {
		if e, _ := p.registers.Get(key); key != camasterKey {
			for _, u := range register.Unknown(p.registers.History(key), &e) {
				add("warning", keyView(key), "two nodes wrote %s without knowing of each other: %s by %s was overridden, %s holds", keyView(key), valueView(&u), u.Actor, valueView(&e))
			}
		}
	}
	for i := range t.Masters {
		if v := p.view.Masters[i]; slices.ContainsFunc(s.Masters[i].Verdicts, func(w admin.Verdict) bool { return !w.Listed && w.Reason == string(health.ReasonCertificate) }) {
			add("error", host(t.Masters[i].Host), "agents would abort their run at %s, which is left out: %s", host(t.Masters[i].Host), cmp.Or(v.Verdict.Detail, "its certificate fails"))
		}
	}
	for _, x := range s.Expiring {
		if x.Kind != "drain" && x.Time.Before(now) {
			add("error", x.Subject, "the %s of %s has expired", x.Kind, x.Subject)
		}
	}
	n.roleProblems(p, now, add)
	slices.SortStableFunc(problems, func(a, b admin.Problem) int { return strings.Compare(a.Severity, b.Severity) })
	return problems
}
