//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// glance is the pause between two looks at something that is timed.
const glance = 10 * time.Millisecond

// newHosts is how many may come too early in one failover: one each 100 ms at first, and
// then one each twentieth of the time that has gone. They last for hours.
const newHosts = 200

// drill is a failover that is timed from outside, by clients that do nothing but ask all
// the time, from the moment that the command is given.
type drill struct {
	t    *T
	to   *stack.Host
	as   stack.Requester // an agent in the datacenter that is left
	node string          // that is left

	began    time.Time
	command  moved
	took     time.Duration // of the command
	answered time.Duration // until the node's DNS had the new camaster
	signed   time.Duration // until a new host had its certificate
	stored   time.Duration // until a report was in the database
	newcomer string        // the certname that was signed
	refused  int           // new hosts that came too early
	sent     []string      // transactions of all reports that were sent
}

// moved is what puppetsrvctl says with -o json of failover and switchover.
type moved struct {
	Plan struct {
		Loss struct {
			Since  time.Time `json:"since"` // what was committed before is safe
			Detail string    `json:"detail"`
		} `json:"loss"`
	} `json:"plan"`
	Phases []struct {
		Name         string  `json:"name"`
		Milliseconds float64 `json:"milliseconds"`
		Done         float64 `json:"done"`
	} `json:"phases"`
	Steps []struct {
		Service      string  `json:"service"`
		Name         string  `json:"name"`
		Milliseconds float64 `json:"milliseconds"`
	} `json:"steps"`
	Open  bool   `json:"open"`
	Error string `json:"error"`
}

// done is when a phase was done, from the command's first write on; false where the
// command has no such phase.
func (m moved) done(name string) (time.Duration, bool) {
	for _, p := range m.Phases {
		if p.Name == name {
			return time.Duration(p.Done * float64(time.Millisecond)), true
		}
	}
	return 0, false
}

// table is the command's table in one line.
func (m moved) table() string {
	var all []string
	for _, p := range m.Phases {
		all = append(all, fmt.Sprintf("%s %.2f s", p.Name, p.Done/1000))
	}
	return strings.Join(all, ", ")
}

// move gives a failover or switchover at a node, and returns what it says.
func move(t *T, node, verb, to, reason string, more ...string) (moved, stack.Result) {
	r := t.Ctl(t.Context(), node, append([]string{verb, "--to", to + "." + stack.Domain, "--reason", reason, "--yes", "-o", "json"}, more...)...)
	var m moved
	if err := json.Unmarshal([]byte(r.Out), &m); err != nil && r.OK() {
		t.Errorf("%s says no JSON: %v: %v", verb, err, r)
	}
	return m, r
}

// agentOf asks with an agent's certificate, from its host.
func agentOf(t *T, name string) stack.Requester {
	h := t.Host(name)
	const ssl = "/var/lib/puppet/ssl/"
	c, err := tls.X509KeyPair([]byte(h.Read(ssl+"certs/"+h.FQDN()+".pem")), []byte(h.Read(ssl+"private_keys/"+h.FQDN()+".pem")))
	t.Must(err)
	return stack.Requester{From: h, Certificate: &c}
}

// undisturbedRequests is how long it takes to have a new host signed and a report stored at
// m1, as a drill does it, with nobody lost.
func undisturbedRequests(t *T) time.Duration {
	d := &drill{t: t, to: t.Host("m1"), as: agentOf(t, "a1"), node: "ns1"}
	requests, err := stack.NewRequests(fmt.Sprintf("u%d.%s", time.Now().Unix(), stack.Domain))
	t.Must(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	d.began = time.Now()
	all.Go(func() { d.joins(ctx, requests) })
	all.Go(func() { d.reports(ctx) })
	all.Wait()
	if d.signed == 0 || d.stored == 0 {
		t.Fatalf("with nobody lost: a new host signed after %s, a report stored after %s", seconds(d.signed), seconds(d.stored))
	}
	return max(d.signed, d.stored)
}

// failover makes a host in datacenter2 the camaster, and times all that follows.
func failover(t *T, to string, wait time.Duration, more ...string) *drill {
	d := &drill{t: t, to: t.Host(to), as: agentOf(t, "a2"), node: "ns2"}
	var names []string
	for i := range newHosts {
		names = append(names, fmt.Sprintf("f%d-%d.%s", time.Now().Unix(), i, stack.Domain))
	}
	requests, err := stack.NewRequests(names...)
	t.Must(err)

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	var all sync.WaitGroup
	d.began = time.Now()
	all.Go(func() { d.answers(ctx) })
	all.Go(func() { d.joins(ctx, requests) })
	all.Go(func() { d.reports(ctx) })
	var r stack.Result
	d.command, r = move(t, d.node, "failover", to, "drill", more...)
	d.took = time.Since(d.began)
	if r.Code == 3 {
		// It is timed all the same.
		t.Check(false, "... the failover is not refused", "it is not", "%s", lastLine(stack.Result{Out: r.Err}))
		d.command, r = move(t, d.node, "failover", to, "drill", append(more, "--force")...)
		d.took = time.Since(d.began)
	}
	if !r.OK() {
		cancel()
		all.Wait()
		t.Fatalf("%v", r)
	}
	all.Wait()
	return d
}

// answers waits until the node answers the new camaster.
func (d *drill) answers(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, glance) {
		if d.t.CNAME(ctx, d.node, stack.Camaster) == d.to.FQDN() {
			d.answered = time.Since(d.began)
			return
		}
	}
}

// joins has one new host after the other ask for its certificate, where the SRV record says
// that the CA is, until one has it.
func (d *drill) joins(ctx context.Context, requests []stack.Request) {
	r := stack.Requester{From: d.as.From}
	for ; ctx.Err() == nil && len(requests) > 0; pause(ctx, glance) {
		records, err := d.t.Targets(ctx, d.node, "_x-puppet-ca._tcp."+stack.DomainOf(d.to.Datacenter))
		if err != nil || len(records) == 0 {
			continue
		}
		name := records[0].Target
		if d.resolve(ctx, name) != d.to {
			continue // the one who is lost
		}
		_, err = r.SignRequest(ctx, d.to, name, requests[0])
		if err == nil {
			d.signed, d.newcomer = time.Since(d.began), requests[0].Certname
			return
		}
		d.refused++
		// Who was refused has left its request there; the next one is another host.
		requests = requests[1:]
		pause(ctx, max(10*glance, time.Since(d.began)/20))
	}
}

// reports sends reports to the PuppetDB that the camaster's name stands for, until one is
// in the database. It sends them no sooner than a master could.
func (d *drill) reports(ctx context.Context) {
	certname := d.as.From.FQDN()
	last := time.Time{}
	for ; ctx.Err() == nil; pause(ctx, glance) {
		if len(d.sent) > 0 {
			if has, err := d.as.Reports(ctx, d.to, stack.Camaster, certname); err == nil {
				for _, uuid := range d.sent {
					if has[uuid] {
						d.stored = time.Since(d.began)
						return
					}
				}
			}
		}
		if time.Since(last) < 10*glance || d.resolve(ctx, stack.Camaster) != d.to {
			continue
		}
		last = time.Now()
		uuid := newUUID()
		if err := d.as.SendReport(ctx, d.to, stack.Camaster, certname, uuid); err == nil {
			d.sent = append(d.sent, uuid)
		}
	}
}

// resolve is the host that a name stands for, as the node answers; nil if none.
func (d *drill) resolve(ctx context.Context, name string) *stack.Host {
	r, err := d.t.Ask(ctx, d.node, name, dns.TypeA)
	if err != nil {
		return nil
	}
	for _, rr := range r.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		for _, m := range stack.Masters {
			if h := d.t.Host(m); h.Addr.String() == a.A.String() {
				return h
			}
		}
	}
	return nil
}

// missing are the reports that were sent and are not in the database after a time.
func (d *drill) missing(wait time.Duration) (n int) {
	err := stack.UntilWithin(d.t.Context(), wait, "all reports are stored", func() error {
		has, err := d.as.Reports(d.t.Context(), d.to, stack.Camaster, d.as.From.FQDN())
		if err != nil {
			return err
		}
		n = 0
		for _, uuid := range d.sent {
			if !has[uuid] {
				n++
			}
		}
		if n > 0 {
			return fmt.Errorf("%d of %d are not", n, len(d.sent))
		}
		return nil
	})
	if err != nil {
		d.t.Logf("%v", err)
	}
	return n
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // it does not fail
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// pause waits a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// seconds is a time for the table; "never" where it was not reached.
func seconds(d time.Duration) string {
	if d == 0 {
		return "never"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
