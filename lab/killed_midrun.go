//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var killedMidRun = scenario{
	name: "killed-mid-run", title: "a master is killed or restarted while an agent's run is under way",
	run: func(t *T) {
		ctx := t.Context()
		a1, a2 := t.Host("a1"), t.Host("a2")
		t.Cleanup(func() {
			t.Must(startMasters(t, datacenters...))
			t.Must(t.SetNodes(ctx, stack.Default.Targets, stack.Default.CATarget))
		})
		t.Must(t.SetNodes(ctx, "service", stack.Default.CATarget))

		o1, o2 := both(t, func() (outcome, error) { return undisturbed(t, a1) }, func() (outcome, error) { return undisturbed(t, a2) })
		t.Check(o1.whole() && o2.whole(), fmt.Sprintf("`targets service`: an undisturbed run that fetches %d files", stack.LongFiles), "exit code 2, the report stored", "a1: %v; a2: %v", o1, o2)

		o1, o2 = both(t,
			func() (outcome, error) { return killedBetween(t, a1, "--http_keepalive_timeout", "0") },
			func() (outcome, error) { return killedBetween(t, a2) })
		t.Check(o1.whole(), "killed between two files, with `http_keepalive_timeout = 0`", "as undisturbed: exit code 2, every file, the report stored", "%v", o1)
		t.Check(o2.whole() || o2.costs(1), "... with Puppet's own keep-alive", "recorded; at most one file lost", "%v", o2)

		randomKills(t, func() (planned, error) { return plannedRestart(t, a1, "m2", "m1") })

		t.Must(t.SetNodes(ctx, "host", stack.Default.CATarget))
		var p planned
		restarted := later(func() (err error) {
			p, err = plannedRestart(t, a2, "m4", "m3")
			return err
		})
		r, err := fetch(t, a1, "long")
		t.Must(err)
		t.Must(r.has(ctx, fetchedFile(stack.LongFiles/3)))
		x, err := r.fileserver(ctx)
		t.Must(err)
		t.Must(x.Kill(stack.Puppetserver))
		o1, err = r.end(ctx)
		t.Must(err)
		t.Check(o1.Code != 0, fmt.Sprintf("`targets host`: killed after %d files", stack.LongFiles/3), "recorded: the rest of that run is lost", "%v", o1)
		o1, err = undisturbed(t, a1)
		t.Must(err)
		t.Check(o1.whole(), "... its next run, while that master is down", "as undisturbed", "%v", o1)
		t.Must(<-restarted)
		checkPlanned(t, "host", p)
	},
}

// undisturbed is a run that fetches all files.
func undisturbed(t *T, agent *stack.Host) (outcome, error) {
	r, err := fetch(t, agent, "long")
	if err != nil {
		return outcome{}, err
	}
	return r.end(t.Context())
}

// killedBetween is a run whose master is killed while it fetches nothing. It goes on once
// DNS has another address behind that master's name.
func killedBetween(t *T, agent *stack.Host, more ...string) (outcome, error) {
	ctx := t.Context()
	r, err := fetch(t, agent, "pause", more...)
	if err != nil {
		return outcome{}, err
	}
	if err := r.has(ctx, waits); err != nil {
		return outcome{}, err
	}
	x, err := r.fileserver(ctx)
	if err != nil {
		return outcome{}, err
	}
	if err := x.Kill(stack.Puppetserver); err != nil {
		return outcome{}, err
	}
	if err := stack.Until(ctx, x.ServiceName()+" is a stand-in's", func() error { return standIn(t, agent, x) }); err != nil {
		return outcome{}, err
	}
	if err := agent.Write(goOn, "", 0o644, "root"); err != nil {
		return outcome{}, err
	}
	return r.end(ctx)
}

// standIn reports whether an agent's resolver gives another master's address for one.
func standIn(t *T, agent, master *stack.Host) error {
	node := t.NodeOf(agent.Datacenter).Short
	m, err := t.Ask(t.Context(), node, master.ServiceName(), dns.TypeA)
	if err != nil {
		return err
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.String() != master.Addr.String() {
			return nil
		}
	}
	return fmt.Errorf("%s answers %v", node, m.Answer)
}

// planned is what a planned restart did to runs.
type planned struct {
	master string
	took   time.Duration // of the restart, with its drain
	runs   []outcome     // the first one was under way on that master when it began
}

// plannedRestart restarts a master as systemd does, with a drain, while an agent of its
// datacenter runs all the time. other is the other master there.
func plannedRestart(t *T, agent *stack.Host, master, other string) (p planned, err error) {
	ctx := t.Context()
	p.master = master
	node := t.NodeOf(agent.Datacenter).Short
	if err := startMasters(t, agent.Datacenter); err != nil {
		return p, err
	}
	// So that the run under way is the master's.
	if err := t.Ctl(ctx, node, "drain", other, "--reason", "agents are to go to "+master).Error(); err != nil {
		return p, err
	}
	r, err := fetch(t, agent, "long")
	if err == nil {
		err = r.has(ctx, fetchedFile(3))
	}
	if err := errors.Join(err, t.Ctl(ctx, node, "undrain", other).Error()); err != nil {
		return p, err
	}
	if x, err := r.fileserver(ctx); err != nil || x.Short != master {
		return p, fmt.Errorf("the run is not with %s, but with %v: %w", master, x, err)
	}
	began := time.Now()
	restarted := later(func() error {
		err := t.Host(master).Service(ctx, "restart", stack.Puppetserver)
		p.took = time.Since(began)
		return err
	})
	for last := false; ; {
		o, err := r.end(ctx)
		if err != nil {
			return p, errors.Join(err, <-restarted)
		}
		p.runs = append(p.runs, o)
		if last {
			return p, nil
		}
		select {
		case err := <-restarted:
			if err != nil {
				return p, err
			}
			last = true // one more, when it is back
		default:
		}
		if r, err = fetch(t, agent, "long"); err != nil {
			return p, err
		}
	}
}

func checkPlanned(t *T, setting string, p planned) {
	failed := slices.DeleteFunc(slices.Clone(p.runs), outcome.whole)
	seen := fmt.Sprintf("%d runs, %d failed; it took %.1f s", len(p.runs), len(failed), p.took.Seconds())
	for _, o := range failed {
		seen += "; " + o.String()
	}
	t.Check(len(p.runs) > 1 && len(failed) == 0, fmt.Sprintf("`targets %s`: a planned restart of %s with drain, a run under way there", setting, p.master), "no run fails", "%s", seen)
}

// both calls two functions side by side. An error ends the scenario.
func both(t *T, f, g func() (outcome, error)) (a, b outcome) {
	one := later(func() (err error) {
		a, err = f()
		return err
	})
	b, err := g()
	t.Must(errors.Join(<-one, err))
	return a, b
}

// upIn waits until agents of a datacenter have both of its masters.
func upIn(t *T, dc string) error {
	return stack.Until(t.Context(), dc+" has its masters", func() error {
		node := t.NodeOf(dc).Short
		st, err := t.Status(t.Context(), node)
		if err != nil {
			return err
		}
		for _, m := range st.Masters {
			for _, v := range m.Verdicts {
				if m.Datacenter == dc && v.Datacenter == dc && (v.Down || m.Drain != nil) {
					return fmt.Errorf("%s has %s down or drained: %s %s", node, m.Host, v.Reason, v.Detail)
				}
			}
		}
		return nil
	})
}

// startMasters starts every puppetserver of some datacenters that does not run, side by
// side, and waits until agents there have them.
func startMasters(t *T, dcs ...string) error {
	var starts []<-chan error
	for _, m := range stack.Masters {
		if h := t.Host(m); slices.Contains(dcs, h.Datacenter) && !h.Runs(stack.Puppetserver) {
			starts = append(starts, later(func() error { return h.Service(t.Context(), "start", stack.Puppetserver) }))
		}
	}
	var all []error
	for _, s := range starts {
		all = append(all, <-s)
	}
	for _, dc := range dcs {
		all = append(all, upIn(t, dc))
	}
	return errors.Join(all...)
}

// fetchedFile is the path of a file that a run has fetched.
func fetchedFile(i int) string { return fmt.Sprintf("%s/%02d", fetched, i) }
