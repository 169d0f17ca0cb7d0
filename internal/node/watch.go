package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Watch is what a runtime reads again when files change while it runs.
type Watch struct {
	// Files are looked at every second.
	Files []string
	// Stamp is what [Stamp] said before they were first read.
	Stamp string
	// Load makes a new plan of them for the same topology, and where to probe its
	// masters now. With an error nothing changes.
	Load func() (*zone.Plan, []probe.Target, error)
}

// loaded is what Watch.Load returned.
type loaded struct {
	plan    *zone.Plan
	targets []probe.Target
	err     error
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
func (w *Watch) watch(ctx context.Context, out chan<- loaded) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	current, seen := w.Stamp, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stamp := Stamp(w.Files)
		rested := stamp == seen
		seen = stamp
		if !rested || stamp == current {
			continue
		}
		current = stamp
		var l loaded
		l.plan, l.targets, l.err = w.Load()
		select {
		case out <- l:
		case <-ctx.Done():
			return
		}
	}
}

// take makes use of what was read.
func (n *Node) take(l loaded) {
	if l.err != nil {
		n.cfg.Log.Errorf("Zone %s: the zone files have changed and cannot be used, nothing changes: %s", n.cfg.Name, l.err)
		return
	}
	n.cfg.Log.Infof("Zone %s: the zone files have changed and were read again", n.cfg.Name)
	n.plan.Store(l.plan)
	n.build()
	if n.prober != nil && !slices.EqualFunc(l.targets, n.targets, probe.Target.Equal) {
		n.prober.Stop()
		n.startProber(l.targets)
	}
}
