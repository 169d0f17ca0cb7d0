package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/flip"
	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

type camasterCommand struct {
	Show camasterShow `cmd:"" default:"1" help:"Show who is camaster, since when and why (default)."`
	Set  camasterSet  `cmd:"" help:"Make a master the camaster, and time every node's DNS."`
}

type camasterShow struct{}

func (c *camasterShow) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	camaster, err := client.Camaster(s.ctx)
	if err != nil {
		return err
	}
	return s.show(camaster, func(p report.Page) string { return p.Camaster(camaster) })
}

type camasterSet struct {
	Host    string   `arg:"" help:"The new camaster; its first label will do where that is unique."`
	Reason  string   `required:"" help:"Why, for the history."`
	Expect  string   `placeholder:"VERSION" help:"Refuse unless this is the version in place. Default: the one read just before."`
	Force   bool     `help:"Pass over the safety rules, and win over a side that cannot be seen."`
	Wait    string   `enum:"all,majority,none" default:"all" help:"Whose acknowledgement to wait for: ${enum}."`
	DNSWait duration `name:"dns-wait" default:"5s" help:"How long to ask every node's DNS for the new name, from the write's return; 0s does not ask."`
	Yes     bool     `short:"y" help:"Do not ask before forcing."`
}

// setResult is a Result, with what every node's DNS answered.
type setResult struct {
	admin.Result
	Answers []setAnswer `json:"answers"`
}

type setAnswer struct {
	Node         string  `json:"node"`
	Address      string  `json:"address,omitempty"`
	Milliseconds float64 `json:"milliseconds,omitempty"` // since the write was sent
	Error        string  `json:"error,omitempty"`
}

func (c *camasterSet) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	status, err := client.Status(s.ctx)
	if err != nil {
		return err
	}
	target, err := host(c.Host, status.Masters)
	if err != nil {
		return err
	}
	current := status.Camaster
	if strings.EqualFold(strings.TrimSuffix(current.Host, "."), target) && !c.Force {
		// Also with another --expect: a script that tries again after a time-out must
		// not fail because its first try was done.
		return s.show(current, func(p report.Page) string { return p.Already(current) })
	}
	page := s.page()
	if !s.json() {
		if err := write(page.Replacing(current)); err != nil {
			return err
		}
	}
	if c.Force {
		question := fmt.Sprintf("Make %s the camaster against the safety rules? Nothing then checks that it can be, or that no other one is.", target)
		if err := s.confirm(c.Yes, question); err != nil {
			return err
		}
	}
	set := admin.SetCamaster{Host: target, Reason: c.Reason, Expect: c.Expect, Force: c.Force, Wait: admin.Wait(c.Wait)}
	if set.Expect == "" {
		set.Expect = current.Version
	}
	return c.set(s, client, status, set)
}

// set writes, and asks the nodes' DNS from the moment that the write is sent: what
// is measured is then the way through the cluster, not that of the acknowledgement.
func (c *camasterSet) set(s *session, client *admin.Client, status admin.Status, set admin.SetCamaster) error {
	name, wait := status.Camaster.Name, time.Duration(c.DNSWait)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var servers, gone []flip.Server
	if wait > 0 {
		servers = dnsServers(status.Nodes, "alive")
		gone = dnsServers(status.Nodes, "dead")
	}
	began := time.Now()
	watch := func(ctx context.Context, servers []flip.Server) <-chan flip.Answer {
		answers := make(chan flip.Answer, len(servers))
		go func() {
			defer close(answers)
			flip.Watch(ctx, name, set.Host, servers, func(a flip.Answer) { answers <- a })
		}()
		return answers
	}
	answers := watch(ctx, servers)
	// Dead nodes may well still answer, at the other side of a cut. They are asked,
	// and not waited for.
	goneCtx, give := context.WithCancel(ctx)
	defer give()
	goneAnswers := watch(goneCtx, gone)
	result, err := client.SetCamaster(s.ctx, set)
	if err != nil {
		cancel()
		for range answers { // until all have ended
		}
		for range goneAnswers {
		}
		return s.written(refused(err))
	}
	defer time.AfterFunc(wait, cancel).Stop()

	// Nodes that were not known before the write are asked too.
	more := newcomers(result.Nodes, slices.Concat(servers, gone), wait)
	late := watch(ctx, more)

	out := setResult{Result: result, Answers: []setAnswer{}}
	all := slices.Concat(servers, more, gone)
	page := s.page()
	line := page.Answers(columns(all))
	if !s.json() {
		head := page.Set(name, result)
		if len(all) > 0 {
			head += "DNS answers the new name, from when the write was sent:\n"
		}
		if err := write(head); err != nil {
			return err
		}
	}
	missing := 0
	for i, source := range []<-chan flip.Answer{answers, late, goneAnswers} {
		dead := i == 2
		if dead {
			defer time.AfterFunc(grace, give).Stop()
		}
		for a := range source {
			one := setAnswer{Node: a.Node, Address: a.Address, Error: a.Err}
			after := a.At.Sub(began)
			if a.Err == "" {
				one.Milliseconds = float64(after.Microseconds()) / 1000
			} else if !dead {
				missing++
			}
			out.Answers = append(out.Answers, one)
			if !s.json() {
				if err := write(line(report.Answer{Node: a.Node, Address: a.Address, After: after, Err: a.Err})); err != nil {
					return err
				}
			}
		}
	}
	if s.json() {
		if err := object(out); err != nil {
			return err
		}
	}
	if s.ctx.Err() != nil {
		return fail(exitFailed, "interrupted while asking the nodes' DNS; the write stands")
	}
	if err := stands(result.Met); err != nil {
		return err
	}
	if missing > 0 {
		return fail(exitIncomplete, "the write stands, but %d of %d DNS servers did not answer the new name within %s",
			missing, len(servers)+len(more), wait)
	}
	return nil
}

// grace is how long dead nodes are waited for once the living have answered.
const grace = 300 * time.Millisecond

// refused adds to the rules that refused a write what passes over them.
func refused(err error) error {
	var fault *admin.Fault
	if !errors.As(err, &fault) || len(fault.Rules) == 0 {
		return err
	}
	more := *fault
	more.Detail = strings.TrimSuffix(more.Detail, ".") + " (--force passes over these rules)"
	return &more
}

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
