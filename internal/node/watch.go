package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Watch is how a runtime comes to another plan while it runs: files have changed,
// or masters have joined.
type Watch struct {
	// Files are looked at every second.
	Files []string
	// Stamp is what [Stamp] said before they were first read.
	Stamp string
	// Load makes a new plan of them, with masters that joined beside the configured
	// ones, and where to probe its masters now. With an error nothing changes.
	Load func(joined []topology.Master) (*zone.Plan, []probe.Target, error)
	// Log is told of masters that cannot be served.
	Log Logger
}

// loaded is what Watch.Load returned.
type loaded struct {
	plan    *zone.Plan
	targets []probe.Target
	joined  []topology.Master // those that are in it
	files   bool              // files had changed
	err     error
}

// load makes a plan with as many of the joined as can be served: one that cannot
// must not keep the others out.
func (w *Watch) load(joined []topology.Master) loaded {
	l := loaded{joined: joined}
	if l.plan, l.targets, l.err = w.Load(joined); l.err == nil || len(joined) == 0 {
		return l
	}
	l.joined = nil
	for _, m := range joined {
		with := append(l.joined[:len(l.joined):len(l.joined)], m)
		if _, _, err := w.Load(with); err != nil {
			w.Log.Warningf("Master %s has joined and cannot be served: %s", m.Host, err)
			continue
		}
		l.joined = with
	}
	l.plan, l.targets, l.err = w.Load(l.joined)
	return l
}

// Stamp is what files look like from outside; it changes when they do.
func Stamp(files []string) string {
	var b strings.Builder
	for _, path := range files {
		if fi, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%s %d %v %v\n", path, fi.Size(), fi.Mode(), fi.ModTime().UnixNano())
		} else {
			fmt.Fprintf(&b, "%s absent\n", path)
		}
	}
	return b.String()
}

// watch reads changed files again once they have rested for a second: an editor
// or a copy may be half-way through. It has a goroutine of its own, which nobody
// waits for: a file system that hangs must hold up no verdict and no shutdown.
func (w *Watch) watch(ctx context.Context, joined []topology.Master, extend <-chan []topology.Master, out chan<- loaded) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	current, seen := w.Stamp, ""
	for {
		files := false
		select {
		case <-ctx.Done():
			return
		case joined = <-extend:
		case <-tick.C:
			stamp := Stamp(w.Files)
			rested := stamp == seen
			seen = stamp
			if !rested || stamp == current {
				continue
			}
			current, files = stamp, true
		}
		l := w.load(joined)
		l.files = files
		select {
		case out <- l:
		case <-ctx.Done():
			return
		}
	}
}

// take makes use of what was read.
func (n *Node) take(l loaded) {
	switch {
	case l.err != nil && l.files:
		n.cfg.Log.Errorf("Zone %s: the zone files have changed and cannot be used, nothing changes: %s", n.cfg.Name, l.err)
		return
	case l.err != nil:
		n.cfg.Log.Errorf("Zone %s: masters have joined or left and nothing changes: %s", n.cfg.Name, l.err)
		return
	case l.files:
		n.cfg.Log.Infof("Zone %s: the zone files have changed and were read again", n.cfg.Name)
	default:
		n.cfg.Log.Infof("Zone %s: masters have joined or left, %d are listed beside the configured ones", n.cfg.Name, len(l.joined))
	}
	before := n.plan.Swap(newPlan(l.plan, l.targets, l.joined))
	n.countUnobserved()
	n.build()
	if n.prober != nil && !slices.EqualFunc(l.targets, before.targets, probe.Target.Equal) {
		n.prober.Stop()
		n.startProber()
	}
}
