//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// datacenters are those of the stack.
var datacenters = []string{"datacenter1", "datacenter2"}

var linkCut = scenario{
	name: "link-cut", title: "the link between the datacenters is cut, and nobody is dead",
	run: func(t *T) {
		ctx := t.Context()
		// What is cached is of this environment.
		for _, r := range sideBySide(t.Hosts(stack.Agents...), func(h *stack.Host) stack.Result { return h.Agent(ctx) }) {
			if !r.Applied() {
				t.Fatalf("a run with everything well: %v", r)
			}
		}
		before := rolesSeen(t)
		watch := watchFlips(ctx, t)
		t.Cleanup(func() { watch.end() }) // before the scenario's hosts are another's

		t.Cut(append(t.In("datacenter1"), t.Host("ns3")), t.In("datacenter2"))
		t.Cleanup(t.Heal)
		cut := time.Now()
		for _, dc := range datacenters {
			t.Must(stack.UntilWithin(ctx, time.Minute, dc+" sees the link cut", func() error { return ownFirst(t, dc, true) }))
		}
		t.Check(time.Since(cut) < 15*time.Second, "the link is cut", "in each datacenter's answers the other one's masters are down, and its own come first as before",
			"%.1f s after the cut", time.Since(cut).Seconds())

		limited, cancel := context.WithTimeout(ctx, 3*time.Minute) // in which a run may hang
		defer cancel()
		// The agent of datacenter1 has all. That of datacenter2 has its masters, and neither CA nor PuppetDB.
		one := later(func() stack.Result { return t.Host("a1").Agent(limited, "--debug") })
		cached := t.Host("a2").ScheduledRun(limited, "--debug")
		fresh := t.Host("a2").Agent(limited, "--debug", "--environment", "long")
		r := <-one
		t.Check(r.Applied() && localOnly(t, r), "a run of a1, which has the camaster on its side", "a new catalog from its own datacenter's masters", "%s", told(r))
		t.Check(cached.Applied() && localOnly(t, cached) && strings.Contains(cached.Out+cached.Err, "Using cached catalog"),
			"a run of a2, cut off from PuppetDB; its catalog collects exported resources", "no catalog can be compiled; it applies its cached one", "%s", told(cached))
		t.Check(fresh.Applied() && localOnly(t, fresh), "... with a catalog that collects nothing", "a new one from its own datacenter's masters", "%s", told(fresh))
		for _, r := range []stack.Result{r, cached, fresh} {
			if !r.Applied() {
				t.Logf("%s: %s", r.Host, sayErrors(r))
			}
		}

		during := rolesSeen(t)
		t.Check(slices.Equal(before, during) && len(opened(during)) == 1, "the roles while it is cut", "as before, m1's the only open one", "%s", strings.Join(during, ", "))

		t.Heal()
		healed := time.Now()
		t.Must(t.Well(ctx))
		took := time.Since(healed)
		for _, dc := range datacenters {
			t.Must(ownFirst(t, dc, false))
		}
		flips, looks := watch.end()
		t.Check(took < time.Minute, "the link is healed", "all is well without a hand, within a minute", "%.1f s later", took.Seconds())
		t.Check(len(flips) == 0 && looks > 20, "camaster, version and CNAME at both nodes, all the time", "the same from before the cut until all is well",
			"%d looks, %s", looks, map[bool]string{true: "the same in all: " + watch.first, false: strings.Join(flips, "; ")}[len(flips) == 0])
		r = t.Host("a2").Agent(ctx, "--debug")
		t.Check(r.Applied() && localOnly(t, r) && !strings.Contains(r.Out+r.Err, "Using cached catalog"), "a run of a2 with exported resources", "a new catalog again", "%s", told(r))
	},
}

// ownFirst reports whether the answers of a datacenter have its own masters first, and the
// others last if they are down.
func ownFirst(t *T, dc string, othersDown bool) error {
	node := t.NodeOf(dc)
	st, err := t.Status(t.Context(), node.Short)
	if err != nil {
		return err
	}
	for _, m := range st.Masters {
		for _, v := range m.Verdicts {
			if v.Datacenter == dc && v.Down != (othersDown && m.Datacenter != dc) {
				return fmt.Errorf("%s has %s down: %v", node.Short, m.Host, v.Down)
			}
		}
	}
	all, err := t.Targets(t.Context(), node.Short, "_x-puppet._tcp."+stack.DomainOf(dc))
	if err != nil {
		return err
	}
	if len(all) != len(stack.Masters) {
		return fmt.Errorf("%s answers %v", node.Short, all)
	}
	for i, target := range all {
		short, _, _ := strings.Cut(target.Target, ".")
		if (i < 2) != (t.Host(short).Datacenter == dc) {
			return fmt.Errorf("%s answers %v", node.Short, all)
		}
	}
	return nil
}

// rolesSeen are the roles of the masters, each as the node beside it sees it.
func rolesSeen(t *T) (all []string) {
	for _, dc := range datacenters {
		st, err := t.Status(t.Context(), t.NodeOf(dc).Short)
		t.Must(err)
		for _, m := range st.Masters {
			if role := m.Role(); m.Datacenter == dc && role != nil {
				short, _, _ := strings.Cut(m.Host, ".")
				all = append(all, short+" "+role.State)
			}
		}
	}
	return all
}

func opened(roles []string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return !strings.HasSuffix(r, " "+evidence.Open) })
}

// localOnly reports whether a run with --debug had a catalog, files and a report of its own
// datacenter's masters alone.
func localOnly(t *T, r stack.Result) bool {
	names := r.Masters()
	for _, name := range names {
		short, _, _ := strings.Cut(name, ".")
		if !slices.Contains(stack.Masters, short) || t.Host(short).Datacenter != t.Host(r.Host).Datacenter {
			return false
		}
	}
	return len(names) > 0
}

// told is a run for the table.
func told(r stack.Result) string {
	text := fmt.Sprintf("exit code %d after %.1f s", r.Code, r.Took.Seconds())
	if strings.Contains(r.Out+r.Err, "Using cached catalog") {
		text += ", cached catalog"
	}
	var masters []string
	for _, name := range r.Masters() {
		short, _, _ := strings.Cut(name, ".")
		masters = append(masters, short)
	}
	return text + ", masters " + orNone(strings.Join(masters, ", "))
}

// flipWatch looks all the time at what must not change.
type flipWatch struct {
	stop  context.CancelFunc
	done  chan struct{}
	first string // what both nodes said first
	flips []string
	looks int
}

// watchFlips starts to look, several times a second.
func watchFlips(ctx context.Context, t *T) *flipWatch {
	ctx, stop := context.WithCancel(ctx)
	w := &flipWatch{stop: stop, done: make(chan struct{})}
	look := func(node string) (string, error) {
		st, err := t.Status(ctx, node)
		cname := t.CNAME(ctx, node, stack.Camaster)
		if err == nil && cname == "" {
			err = fmt.Errorf("%s does not answer", node)
		}
		return fmt.Sprintf("%s %s, CNAME to %s", st.Camaster.Host, st.Camaster.Version, cname), err
	}
	first, err := look(stack.Nodes[0])
	if err != nil {
		stop()
		t.Must(err)
	}
	w.first = first
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			for _, node := range stack.Nodes {
				seen, err := look(node)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					continue // it is slow now; too few looks are seen
				}
				w.looks++
				if seen != w.first && len(w.flips) < 5 {
					w.flips = append(w.flips, node+": "+seen)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return w
}

// end ends it and returns what was seen.
func (w *flipWatch) end() (flips []string, looks int) {
	w.stop()
	<-w.done
	return w.flips, w.looks
}

// sayErrors are the lines of a run that are errors or warnings.
func sayErrors(r stack.Result) string {
	var all []string
	for line := range strings.Lines(r.Out + r.Err) {
		if strings.HasPrefix(line, "Error: ") || strings.HasPrefix(line, "Warning: ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return strings.Join(all, "\n")
}
