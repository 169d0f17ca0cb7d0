//go:build linux

package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var deadMasters = scenario{
	name: "dead-masters", title: "a dead master costs an agent no time-out",
	run: func(t *T) {
		t.Must(t.Secondary(t.Context()))
		c := newComparison(t)
		c.silent()
		c.loud()
	},
}

// comparison is agents' runs by the nodes' SRV records, and by records that were written by
// hand, in which the dead master is always the first. m2 and m4 die.
type comparison struct {
	*T
	a1, a2      *stack.Host
	undisturbed stack.Result // a1's, with all well
}

// Time-outs of runs. By static records it is what agents of the lab are configured with.
// By the nodes' records none is to be met: it is Puppet's own default, so that one would be
// seen also where runs themselves take longer or shorter.
const (
	staticTimeout = 10 * time.Second
	srvTimeout    = 2 * time.Minute
	// mayCost is how much longer than an undisturbed run one may take.
	mayCost = srvTimeout / 2
)

func newComparison(t *T) *comparison {
	c := &comparison{T: t, a1: t.Host("a1"), a2: t.Host("a2")}
	run, static := c.startSRV(c.a1), c.startStatic(c.a2, "m2")
	c.undisturbed = run.Wait()
	r := static()
	m2 := t.Host("m2").FQDN()
	c.Check(c.undisturbed.Applied() && r.Applied() && slices.Equal(r.Masters(), []string{m2}), "all well", "both runs succeed, that by static records with m2 alone",
		"exit codes %d, %d after %.1f s, %.1f s; the latter with %s", c.undisturbed.Code, r.Code, c.undisturbed.Took.Seconds(), r.Took.Seconds(), labels(r.Masters()))
	return c
}

// startSRV starts a run as agents have it.
func (c *comparison) startSRV(h *stack.Host) *stack.Process {
	return h.StartAgent(c.Context(), "--debug", "--http_connect_timeout", puppetTime(srvTimeout))
}

// startStatic starts a run by static records, in which a master is the first.
func (c *comparison) startStatic(h *stack.Host, first string) (wait func() stack.Result) {
	back := resolveBySecondary(c.T, h)
	p := h.StartAgent(c.Context(), "--debug", "--http_connect_timeout", puppetTime(staticTimeout), "--srv_domain", stack.StaticDomain(first))
	return func() stack.Result {
		defer back()
		return p.Wait()
	}
}

// puppetTime is a duration as Puppet reads it.
func puppetTime(d time.Duration) string { return fmt.Sprintf("%.0fs", d.Seconds()) }

// fault is a way to die.
type fault struct {
	what   string
	master *stack.Host
	delay  time.Duration // from it to the agent's start
}

// await waits until the agent is to start, and says when the node of the datacenter had
// changed its answer.
func (c *comparison) await(f fault, since time.Time) (changed string) {
	start := since.Add(f.delay)
	domain := "_x-puppet._tcp." + stack.DomainOf(f.master.Datacenter)
	err := stack.UntilWithin(c.Context(), time.Until(start), "the answer changes", func() error {
		all, err := c.Targets(c.Context(), c.NodeOf(f.master.Datacenter).Short, domain)
		if err == nil && slices.ContainsFunc(all, func(s stack.SRV) bool { return s.Target == f.master.FQDN() && s.Priority < last }) {
			err = fmt.Errorf("it does not yet")
		}
		return err
	})
	changed = "DNS changed after " + seconds(time.Since(since))
	if err != nil {
		changed = fmt.Sprintf("DNS had not changed after %s", seconds(time.Since(since)))
	}
	pause(c.Context(), time.Until(start))
	return changed
}

// unwell are an agent's words where something could not be reached.
var unwell = regexp.MustCompile(`(?m)^(Error|Warning): .*$`)

// costsNothing: the run by the nodes' records.
func (c *comparison) costsNothing(f fault, r stack.Result, changed string) {
	masters, said := r.Masters(), unwell.FindString(r.Out+r.Err)
	// A run that has not met the fault says nothing of it.
	first, err := lists(c.Context(), c.T, c.NodeOf(f.master.Datacenter).Short, f.master.Datacenter, f.master.FQDN())
	c.Must(err)
	tried := slices.Contains(masters, f.master.FQDN())
	erred := said != ""
	if !erred {
		said = "no error"
	}
	c.Check(r.Code == c.undisturbed.Code && !first && !tried && !erred && r.Took < c.undisturbed.Took+mayCost,
		fmt.Sprintf("%s %s; %s's run %.0f s later", f.master.Short, f.what, r.Host, f.delay.Seconds()),
		fmt.Sprintf("exit code %d, %s not tried, no error, less than %.0f s more (a time-out would be %.0f s)", c.undisturbed.Code, f.master.Short, mayCost.Seconds(), srvTimeout.Seconds()),
		"exit code %d after %.1f s (undisturbed %.1f s) with %s, %s; %s", r.Code, r.Took.Seconds(), c.undisturbed.Took.Seconds(), labels(masters), said, changed)
}

// labels are names' first labels.
func labels(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, label(n))
	}
	return strings.Join(all, ", ")
}

// timedOut is an agent's error of a silent master.
const timedOut = "timed out connect operation"

// silent: what does not refuse, but says nothing. One agent's master hangs, the other's is
// in a black hole.
func (c *comparison) silent() {
	m2, m4 := c.Host("m2"), c.Host("m4")
	const delay = 3 * time.Second
	c.Must(m2.Pause(stack.Puppetserver))
	paused := true
	c.Cleanup(func() {
		if paused {
			c.Must(m2.Resume(stack.Puppetserver))
		}
	})
	c.Isolate(m4)
	c.Cleanup(c.Heal)
	since := time.Now()
	faults := []fault{{"paused", m2, delay}, {"in a black hole", m4, delay}}
	agents := []*stack.Host{c.a1, c.a2}
	changed := make([]string, len(faults))
	done := make(chan struct{})
	go func() {
		defer close(done)
		changed[1] = c.await(faults[1], since)
	}()
	changed[0] = c.await(faults[0], since)
	<-done
	var runs []*stack.Process
	for _, h := range agents {
		runs = append(runs, c.startSRV(h))
	}
	var results []stack.Result
	for i, f := range faults {
		results = append(results, runs[i].Wait())
		c.costsNothing(f, results[i], changed[i])
	}
	var waits []func() stack.Result
	for i, f := range faults {
		waits = append(waits, c.startStatic(agents[i], f.master.Short))
	}
	for i := range faults {
		r := waits[i]()
		n := strings.Count(r.Out+r.Err, timedOut)
		more := r.Took - results[i].Took
		c.Check(r.Applied() && n > 0 && more > staticTimeout, fmt.Sprintf("... %s by static records", r.Host),
			fmt.Sprintf("it waits: at least one time-out of %.0f s more", staticTimeout.Seconds()),
			"exit code %d after %.1f s, %.1f s more: %d time-outs, with %s", r.Code, r.Took.Seconds(), more.Seconds(), n, labels(r.Masters()))
	}
	c.Heal()
	c.Must(m2.Resume(stack.Puppetserver))
	paused = false
	c.listed(m2)
	c.listed(m4)
}

// listed waits until both nodes list a master among the first again.
func (c *comparison) listed(master *stack.Host) {
	for _, node := range stack.Nodes {
		c.Must(stack.Until(c.Context(), node+" lists "+master.Short, func() error {
			ok, err := lists(c.Context(), c.T, node, master.Datacenter, master.FQDN())
			if err == nil && !ok {
				err = fmt.Errorf("it does not yet")
			}
			return err
		}))
	}
}

// loud: what answers at once, and wrongly.
func (c *comparison) loud() {
	ctx, m2 := c.Context(), c.Host("m2")
	own, err := m2.Certificate()
	c.Must(err)
	another, err := c.Host("m4").Certificate()
	c.Must(err)
	foreign, err := m2.ForeignCertificate()
	c.Must(err)

	c.Must(m2.Kill(stack.Puppetserver))
	c.Cleanup(func() { c.Must(m2.Service(ctx, "start", stack.Puppetserver)) })
	c.atOnce("killed", time.Now(), "it succeeds, with an error: connection refused", func(r stack.Result) bool {
		return r.Applied()
	}, "Connection refused")

	impostor, err := m2.NewImpostor(ctx)
	c.Must(err)
	c.Cleanup(func() { c.Must(impostor.Close()) })
	c.listed(m2)
	impostor.Show(another)
	c.atOnce("shows m4's certificate", time.Now(), "no run: the certificate is another's", func(r stack.Result) bool {
		return !r.Applied()
	}, "did not match server certificate")
	impostor.Show(own)
	c.listed(m2)
	impostor.Show(foreign)
	c.atOnce("shows a certificate of another CA", time.Now(), "no run: the certificate does not verify", func(r stack.Result) bool {
		return !r.Applied()
	}, "certificate verify failed")
	impostor.Show(own)
	c.listed(m2)
	impostor.Answer(http.StatusServiceUnavailable)
	c.atOnce("answers 503", time.Now(), "no run: it stays with m2", func(r stack.Result) bool {
		return !r.Applied()
	}, "503", "Service Unavailable")
}

// atOnce has a1 run by the nodes' records, and a2 by static ones at the same time: it is
// to end as it should, and to say one of the phrases.
func (c *comparison) atOnce(what string, since time.Time, expected string, should func(stack.Result) bool, phrases ...string) {
	f := fault{what, c.Host("m2"), time.Second}
	changed := c.await(f, since)
	run, static := c.startSRV(c.a1), c.startStatic(c.a2, "m2")
	c.costsNothing(f, run.Wait(), changed)
	r := static()
	said := sayings(r, phrases...)
	c.Check(should(r) && said != "" && slices.Contains(r.Masters(), f.master.FQDN()), "... a2 by static records", expected,
		"exit code %d after %.1f s, with %s: %q", r.Code, r.Took.Seconds(), labels(r.Masters()), said)
}
